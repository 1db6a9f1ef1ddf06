"""The ingest step: formats, ids, duplicates, labels, and one clear sentence for each kind of broken file."""

from __future__ import annotations

import gzip
import importlib.util
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ase.db
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine, file_digest
from containers.ingest import collection, ingest
from containers.structures.state import States, quantity
from containers.structures.table import LABELS, STRUCTURES, atoms_from_table, read_atoms, structure_id, structures_table

REPOSITORY = Path(__file__).parents[4]
FORCES = np.array([[1.0, 2.0, -3.0], [-1.0, -2.0, 3.0]]) / 7
DFT_KEYS = {"energy_key": "REF_energy", "forces_key": "REF_forces"}
FRAME = """2
Lattice="4 0 0 0 5 0 0 0 6" Properties=species:S:1:pos:R:3 group=bulk family=parent{number} pbc="T T T"
Si 0.1 0.2 {number}.3
Ge 2.0 2.5 3.0
"""


class Result(NamedTuple):
    metrics: dict[str, Any]
    table: pa.Table
    duplicates: list[dict[str, Any]]
    outputs: Path

    @property
    def structures(self) -> list[Atoms]:
        """In the order of the files."""
        return sorted(atoms_from_table(self.table), key=lambda atoms: (atoms.info["source"], atoms.info["row"]))


Ingest = Callable[..., Result]


@pytest.fixture
def ingested(tmp_path: Path) -> Ingest:
    """Runs the step on files; `names` are the user's names of them (default: their own)."""
    runs = iter(range(100))

    def run(
        *files: Path,
        names: tuple[str, ...] = (),
        machine: Machine | None = None,
        known: tuple[Path, ...] = (),
        **keys: Any,
    ) -> Result:
        outputs = tmp_path / f"run{next(runs)}" / "outputs"
        outputs.mkdir(parents=True)
        params = ingest.Params(file_names=names or tuple(file.name for file in files), **keys)
        metrics = ingest.run(Inputs({"files": files, "known": known}), outputs, params, machine or Machine())
        assert {path.name for path in outputs.iterdir()} == set(ingest.OUTPUTS.values())
        assert [path.name for path in outputs.parent.iterdir()] == ["outputs"]
        duplicates = pq.read_table(outputs / "duplicates.parquet").to_pylist()
        return Result(metrics, pq.read_table(outputs / "structures.parquet"), duplicates, outputs)

    return run


def frames(*numbers: int) -> str:
    return "".join(FRAME.format(number=number) for number in numbers)


def text_file(folder: Path, text: str, name: str = "pool.extxyz") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def crystal(shift: float = 0.0) -> Atoms:
    return Atoms("SiGe", positions=[[0.1, 0.2, 0.3 + shift], [2.0, 2.5, 3.0]], cell=[4, 5, 6], pbc=True)


def labelled(key_energy: str = "REF_energy", key_forces: str = "REF_forces", **more: Any) -> Atoms:
    atoms = crystal()
    atoms.info[key_energy] = -7.25
    atoms.arrays[key_forces] = FORCES.copy()
    atoms.info.update(more)
    return atoms


# ---- charge and spin

OH = """2
Properties=species:S:1:pos:R:3 charge={charge} spin={spin} pbc="F F F"
O 0 0 0
H 0 0 {length}
"""
OMOL = {"total_charge": quantity("total_charge", whole=True), "total_spin": quantity("total_spin", whole=True)}


def molecules(folder: Path, name: str, *states: tuple[int, int, float]) -> Path:
    """Charge, spin and length (Å) of each."""
    text = (OH.format(charge=charge, spin=spin, length=length) for charge, spin, length in states)
    return text_file(folder, "".join(text), name)


def test_ids_and_rows_have_the_state_that_the_teacher_reads(tmp_path: Path, ingested: Ingest) -> None:
    pool = molecules(tmp_path, "pool.xyz", (1, 2, 1.0), (0, 1, 1.1), (1, 2, 1.0))
    read, plain = ingested(pool, reads=OMOL), ingested(pool)
    assert (read.metrics["structures"], read.metrics["duplicates"]) == (2, 1)
    again = ingested(read.outputs / "structures.parquet", names=("again.parquet",), reads=OMOL)
    for column in ("id", "state"):
        assert again.table[column].to_pylist() == read.table[column].to_pylist()
    charged, neutral = read.structures
    assert charged.info["state"] == "total_charge=1 total_spin=2"
    assert "state" not in neutral.info
    ids = [atoms.info["id"] for atoms in plain.structures]
    assert neutral.info["id"] == ids[1] == structure_id(neutral)
    assert charged.info["id"] == structure_id(charged, "total_charge=1 total_spin=2") != ids[0]
    assert set(plain.table["state"].to_pylist()) == {""}
    assert plain.metrics["states"]["noted"] == {"not_read": 2}
    assert read.metrics["states"]["frames"] == {"total_charge=1 total_spin=2": 2, "total_charge=0 total_spin=1": 1}


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "known table"])
def test_a_geometry_in_two_states_is_refused(tmp_path: Path, ingested: Ingest, apart: bool) -> None:
    message = r"pool.xyz: frame \d \(from 0\) \(total_charge=0 total_spin=1\) has the geometry of .*student"
    states = [(1, 2, 1.0), (0, 1, 1.0)]
    known = (ingested(molecules(tmp_path, "base.xyz", *states[:1]), reads=OMOL).outputs / "structures.parquet",)
    pool = molecules(tmp_path, "pool.xyz", *states[1 if apart else 0 :])
    with pytest.raises(BadInput, match=message):
        ingested(pool, known=known if apart else (), reads=OMOL)
    other = ingested(molecules(tmp_path, "other.xyz", (0, 1, 1.2)), known=known, reads=OMOL)
    assert other.metrics["states"]["distinct"] == 2  # with the known one
    both = ingested(molecules(tmp_path, "pool.xyz", *states))
    assert (both.metrics["structures"], both.metrics["duplicates"]) == (1, 1)


def test_a_known_table_without_states_is_read(tmp_path: Path, ingested: Ingest) -> None:
    """As earlier versions wrote it."""
    pool = molecules(tmp_path, "pool.xyz", (0, 1, 1.0))
    old = tmp_path / "old.parquet"
    pq.write_table(ingested(pool).table.drop_columns("state"), old)
    found = ingested(pool, known=(old,), reads=OMOL)
    assert found.metrics["structures"] == 1
    with pytest.raises(BadInput, match=r"has the geometry of pool.xyz: frame 0"):
        ingested(molecules(tmp_path, "new.xyz", (1, 2, 1.0)), known=(old,), reads=OMOL)


# ---- the good way


def test_extended_xyz_keeps_content_group_and_family(tmp_path: Path, ingested: Ingest) -> None:
    result = ingested(text_file(tmp_path, frames(0, 1)), names=("data/mine.extxyz",))
    assert result.table.schema == STRUCTURES
    assert pq.read_schema(result.outputs / "duplicates.parquet") == collection.DUPLICATES
    assert result.duplicates == []
    assert result.metrics == {
        "structures": 2,
        "atoms": 4,
        "duplicates": 0,
        "files": 1,
        "elements": ["Ge", "Si"],
        "files_without_cell": {},
        "some_without_cell": {},
        "shortest_distance_A": pytest.approx(np.linalg.norm([1.9, 2.3, 1.7])),
        "unconverged": 0,
        "unconverged_first": None,
        "frames_with_given_family": 2,
        "states": States({}).metrics(),
    }
    second = result.structures[1]
    assert second.info["source"] == "data/mine.extxyz"
    assert (second.info["row"], second.info["group"], second.info["family"]) == (1, "bulk", "parent1")
    assert second.info["id"] == structure_id(crystal(1.0))
    assert second.get_chemical_symbols() == ["Si", "Ge"]
    np.testing.assert_array_equal(second.positions, crystal(1.0).positions)


def test_group_and_family_are_text_and_default_to_the_structure_s_own(tmp_path: Path, ingested: Ingest) -> None:
    (atoms,) = ingested(text_file(tmp_path, "1\n\nSi 0 0 0\n", "plain.xyz")).structures
    assert atoms.info["group"] == ""
    assert atoms.info["family"] == atoms.info["id"]
    assert not atoms.pbc.any()
    text = frames(0).replace("group=bulk", "group=300").replace("family=parent0", "family=7")
    (atoms,) = ingested(text_file(tmp_path, text)).structures
    assert (atoms.info["group"], atoms.info["family"]) == ("300", "7")


def test_the_order_and_names_of_files_and_a_second_run_change_nothing(tmp_path: Path, ingested: Ingest) -> None:
    first = text_file(tmp_path, frames(0, 1, 1, 0), "a.extxyz")
    second = text_file(tmp_path, frames(2, 3), "b.extxyz")
    one, again, other = ingested(first, second), ingested(first, second), ingested(second, first)
    ids = one.table["id"].to_pylist()
    assert ids == sorted(ids)
    for name in ingest.OUTPUTS.values():
        assert file_digest(one.outputs / name) == file_digest(again.outputs / name)
    assert file_digest(one.outputs / "structures.parquet") == file_digest(other.outputs / "structures.parquet")
    renamed = ingested(first, second, names=("other.xyz", "another.xyz"))
    assert one.table["id"].equals(renamed.table["id"])


def test_duplicates_are_removed_counted_and_listed(tmp_path: Path, ingested: Ingest) -> None:
    first = text_file(tmp_path, frames(0, 1, 0), "a.extxyz")
    second = text_file(tmp_path, frames(1), "b.extxyz").rename(tmp_path / "c.extxyz")
    result = ingested(first, second, names=("a.extxyz", "b.extxyz"))
    assert (result.metrics["structures"], result.metrics["duplicates"], result.metrics["files"]) == (2, 2, 2)
    found = [(entry["source"], entry["row"], entry["kept_source"], entry["kept_row"]) for entry in result.duplicates]
    assert found == [("a.extxyz", 2, "a.extxyz", 0), ("b.extxyz", 0, "a.extxyz", 1)]
    assert result.duplicates[0]["id"] == structure_id(crystal(0.0))


@pytest.mark.parametrize(("bound", "value"), [("CHUNK", 3), ("CHUNK_ATOMS", 5)])
def test_more_structures_than_one_chunk(
    tmp_path: Path, ingested: Ingest, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    path = text_file(tmp_path, frames(*range(7)))
    whole = ingested(path)
    turns: list[int] = []
    monkeypatch.setattr(collection, "structures_table", lambda some: turns.append(len(some)) or structures_table(some))
    monkeypatch.setattr(collection, bound, value)
    chunked = ingested(path)
    assert turns == [3, 3, 1]
    assert file_digest(whole.outputs / "structures.parquet") == file_digest(chunked.outputs / "structures.parquet")


def test_database_rows_give_group_family_and_labels(tmp_path: Path, ingested: Ingest) -> None:
    atoms = crystal()
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=FORCES)
    with ase.db.connect(tmp_path / "dft.db") as database:
        database.write(atoms, group="surface", family="slab3")
    before = file_digest(tmp_path / "dft.db")
    (found,) = ingested(tmp_path / "dft.db", energy_key="energy", forces_key="forces").structures
    assert (found.info["group"], found.info["family"]) == ("surface", "slab3")
    assert found.calc.results["energy"] == -3.5
    assert file_digest(tmp_path / "dft.db") == before


def test_our_own_parquet_comes_back_bit_exact(tmp_path: Path, ingested: Ingest) -> None:
    write(tmp_path / "dft.extxyz", labelled())
    structures, labels = (
        ("id", "numbers", "positions", "cell", "pbc", "group", "family"),
        ("energy", "forces", "stress"),
    )
    for file, keys, columns in (
        (text_file(tmp_path, frames(0, 1, 2)), {}, structures),
        (tmp_path / "dft.extxyz", DFT_KEYS, (*structures, *labels)),
    ):
        first = ingested(file, **keys)
        path = (first.outputs / "structures.parquet").rename(tmp_path / "again.parquet")
        again = ingested(path, **{f"{name}_key": name for name in labels if keys})
        for column in columns:
            assert again.table[column].equals(first.table[column])
        assert set(again.table["source"].to_pylist()) == {"again.parquet"}


def test_empty_lines_windows_line_ends_and_a_byte_order_mark_lose_nothing(tmp_path: Path, ingested: Ingest) -> None:
    path = text_file(tmp_path, frames(0) + "\n\n" + frames(1) + "\n")
    assert len(read(path, ":")) == 1, "ASE stops at the empty line; if it no longer does, the reader can be simpler"
    assert ingested(path).metrics["structures"] == 2
    path = tmp_path / "windows.extxyz"
    path.write_bytes(b"\xef\xbb\xbf" + frames(0).replace("\n", "\r\n").encode())
    (atoms,) = ingested(path).structures
    assert atoms.info["id"] == structure_id(crystal())


@pytest.mark.parametrize("pbc", ["T T F", "F F F", "T F F"])
def test_partly_periodic_is_fine(tmp_path: Path, ingested: Ingest, pbc: str) -> None:
    (atoms,) = ingested(text_file(tmp_path, frames(0).replace("T T T", pbc))).structures
    assert ["FT"[flag] for flag in atoms.pbc.astype(int)] == pbc.split()
    # an open direction needs no cell vector
    flat = frames(0).replace("T T T", "T T F").replace("0 0 6", "0 0 0")
    assert ingested(text_file(tmp_path, flat)).metrics["structures"] == 1


def test_progress_ends_at_the_whole_size(tmp_path: Path, ingested: Ingest) -> None:
    files = [text_file(tmp_path, frames(0, 1), "a.extxyz"), text_file(tmp_path, frames(2), "b.extxyz")]
    told: list[tuple[float, float]] = []
    ingested(*files, machine=Machine(progress=lambda done, total, text="": told.append((done, total))))
    size = sum(path.stat().st_size for path in files)
    assert told[-1] == (size, size)
    assert told == sorted(told)


@pytest.mark.parametrize("pbc", [True, (True, False, True), False])
def test_shortest_distance_counts_images(tmp_path: Path, ingested: Ingest, pbc: Any) -> None:
    random = np.random.default_rng(3)
    cell = random.normal(0, 0.4, (3, 3)) + 3 * np.eye(3)
    atoms = Atoms("Si3", positions=random.uniform(-9, 9, (3, 3)), cell=cell, pbc=pbc)
    shifts = [n for n in np.ndindex(21, 21, 21) if all(p or m == 10 for p, m in zip(atoms.pbc, n, strict=True))]
    images = (np.array(shifts) - 10) @ cell
    between = atoms.positions[:, None] - atoms.positions
    lengths = np.linalg.norm(between[:, :, None] + images, axis=-1)
    expected = lengths[lengths > 1e-9].min()
    write(tmp_path / "one.traj", atoms)
    found = ingested(tmp_path / "one.traj").metrics["shortest_distance_A"]
    assert found == (pytest.approx(expected, abs=1e-6) if expected < collection.FARTHEST else None)
    assert ingested(text_file(tmp_path, "1\n\nSi 0 0 0\n")).metrics["shortest_distance_A"] is None


# ---- DFT data


@pytest.mark.parametrize("keys", [("REF_energy", "REF_forces"), ("energy", "forces")])
def test_labels_wherever_ase_puts_them(tmp_path: Path, ingested: Ingest, keys: tuple[str, str]) -> None:
    expected = labelled()
    text = f"""2
Lattice="4 0 0 0 5 0 0 0 6" Properties=species:S:1:pos:R:3:{keys[1]}:R:3 {keys[0]}=-7.25
Si 0.1 0.2 0.3 1 2 3
Ge 2.0 2.5 3.0 -1 -2 -3
"""
    result = ingested(text_file(tmp_path, text), energy_key=keys[0], forces_key=keys[1])
    assert result.table.schema == LABELS
    (atoms,) = result.structures
    assert atoms.info["id"] == structure_id(expected)
    assert atoms.calc.results["energy"] == -7.25
    np.testing.assert_array_equal(atoms.calc.results["forces"], [[1, 2, 3], [-1, -2, -3]])
    assert result.table["stress"].to_pylist() == [None]


def test_stress_in_voigt_order_when_periodic_in_three_ways(tmp_path: Path, ingested: Ingest) -> None:
    bulk = labelled(REF_stress=np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]))
    slab = labelled(REF_stress=np.arange(6.0))
    slab.pbc = (True, True, False)
    voigt = labelled(REF_stress=np.arange(6.0))
    voigt.positions[0] += 0.5
    without = labelled()
    without.positions[0] += 0.7
    without.info["REF_energy"] = -7.0  # equal energies of three structures would be none
    write(tmp_path / "dft.extxyz", [bulk, slab, voigt, without])
    result = ingested(tmp_path / "dft.extxyz", **DFT_KEYS, stress_key="REF_stress")
    found = [atoms.calc.results.get("stress") for atoms in result.structures]
    assert [None if stress is None else stress.tolist() for stress in found] == [
        [1, 2, 3, 4, 5, 6],
        None,
        [0, 1, 2, 3, 4, 5],
        None,
    ]


def test_labels_of_a_pool_are_ignored_bad_and_doubled_ones_too(tmp_path: Path, ingested: Ingest) -> None:
    write(tmp_path / "dft.extxyz", labelled())
    assert ingested(tmp_path / "dft.extxyz").table.schema == STRUCTURES
    write(tmp_path / "pool.extxyz", labelled(REF_energy=np.nan))
    assert ingested(tmp_path / "pool.extxyz").metrics["structures"] == 1
    assert ingested(*twice(tmp_path, 1.0, 1.0)).metrics["duplicates"] == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda atoms: atoms.info.pop("REF_energy"), ["no 'REF_energy'", "energy_key", "REF_forces"]),
        (lambda atoms: atoms.arrays.pop("REF_forces"), ["no 'REF_forces'", "forces_key"]),
        (lambda atoms: atoms.info.update(REF_energy=np.nan), ["REF_energy is not finite"]),
        (lambda atoms: atoms.info.update(REF_energy="low"), ["REF_energy", "'low' is not a number"]),
        (lambda atoms: atoms.info.update(REF_energy=True), ["REF_energy", "not a number"]),
        (lambda atoms: atoms.info.update(REF_energy=np.ones(2)), ["must be one number"]),
        (lambda atoms: atoms.arrays["REF_forces"].put(5, np.inf), ["REF_forces is not finite at atom 1 (from 0)"]),
        (lambda atoms: atoms.arrays.update(REF_forces=np.ones(2)), ["REF_forces must be 2 x 3 numbers", "(2,)"]),
        (lambda atoms: atoms.info.update(REF_stress=np.ones(5)), ["REF_stress must be 6"]),
        (lambda atoms: atoms.info.update(REF_stress=np.full(6, np.nan)), ["REF_stress is not finite"]),
    ],
)
def test_bad_labels(tmp_path: Path, ingested: Ingest, spoil: Callable[[Atoms], object], words: list[str]) -> None:
    bad = labelled()
    spoil(bad)
    write(tmp_path / "dft.extxyz", [labelled(), bad])
    with pytest.raises(BadInput) as caught:
        ingested(tmp_path / "dft.extxyz", **DFT_KEYS, stress_key="REF_stress")
    for word in ["dft.extxyz", "frame 1 (from 0)", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "keys", [{"energy_key": "E"}, {"forces_key": "F"}, {"stress_key": "S"}, {"energy_key": "E", "stress_key": "S"}]
)
def test_keys_go_together(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="energy_key and forces_key together"):
        ingest.Params(file_names=("a",), **keys)


def twice(folder: Path, energy: float, force: float) -> list[Path]:
    """Files a and b; the second structure of b is the first of a with its label moved so far."""
    again = labelled(REF_energy=-7.25 + energy)
    again.arrays["REF_forces"] += [[force, 0, 0], [-force, 0, 0]]
    other = labelled()
    other.positions[0] += 0.5
    write(folder / "a.extxyz", labelled())
    write(folder / "b.extxyz", [other, again])
    return [folder / "a.extxyz", folder / "b.extxyz"]


def test_two_labels_of_a_structure_are_an_error_and_the_same_one_a_duplicate(tmp_path: Path, ingested: Ingest) -> None:
    for number, (energy, force) in enumerate([(2e-3, 0.0), (0.0, 0.002)]):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(
            BadInput, match=r"^b\.extxyz: frame 1 .* of a\.extxyz: frame 0 .*another label: .*0\.00"
        ) as caught:
            ingested(*twice(tmp_path / str(number), energy, force), **DFT_KEYS)
        assert f"{energy / 2:.3g} eV/atom, forces by up to {force:.3g} eV/Å" in str(caught.value)
    assert list((tmp_path / "run0" / "outputs").iterdir()) == []
    result = ingested(*twice(tmp_path, 1e-6, 1e-5), **DFT_KEYS)
    assert [(one["source"], one["row"], one["kept_source"]) for one in result.duplicates] == [
        ("b.extxyz", 1, "a.extxyz")
    ]
    assert len(result.structures) == 2
    assert result.structures[0].calc.results["energy"] == -7.25
    assert result.metrics["atoms"] == 4


def test_auto_may_take_another_key_in_each_frame(tmp_path: Path, ingested: Ingest) -> None:
    own = crystal(0.5)
    own.calc = SinglePointCalculator(own, energy=-3.0, forces=-FORCES)
    write(tmp_path / "dft.extxyz", labelled())
    write(tmp_path / "dft.extxyz", own, append=True)
    found = ingested(tmp_path / "dft.extxyz", energy_key="auto", forces_key="auto").structures
    assert [atoms.get_potential_energy() for atoms in found] == [-7.25, -3.0]


def test_types_of_mlip_get_the_elements_that_are_given(tmp_path: Path, ingested: Ingest) -> None:
    text = "BEGIN_CFG\n Size\n 1\n AtomData: id type cartes_x cartes_y cartes_z\n 1 1 0.5 0 0\nEND_CFG\n"
    path = text_file(tmp_path, text, "pool.cfg")
    assert ingested(path, type_elements=("Si", "Ge")).metrics["elements"] == ["Ge"]
    with pytest.raises(BadInput, match=r"pool\.cfg: frame 0 .* set dataset.type_elements"):
        ingested(path)
    with pytest.raises(ValidationError, match="'Qq' is no element"):
        ingest.Params(file_names=("a",), type_elements=("Qq",))


# ---- families


def rattled(seed: int, stdev: float = 0.03) -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(stdev, seed=seed)
    return atoms


def test_likeness_finds_the_families_that_no_file_names(tmp_path: Path, ingested: Ingest) -> None:
    other = bulk("Ge", cubic=True)
    write(tmp_path / "pool.extxyz", [rattled(0), rattled(1), other])
    first, second, third = ingested(tmp_path / "pool.extxyz").structures
    assert first.info["family"] == second.info["family"] == first.info["id"]
    assert third.info["family"] == third.info["id"]
    apart = ingested(tmp_path / "pool.extxyz", likeness_A=0.0).structures
    assert [atoms.info["family"] for atoms in apart] == [atoms.info["id"] for atoms in apart]
    # known structures keep and found families
    known = rattled(0)
    known.info["family"] = "mine"
    write(tmp_path / "known.extxyz", known)
    table = ingested(tmp_path / "known.extxyz").outputs / "structures.parquet"
    write(tmp_path / "again.extxyz", [rattled(1), rattled(0)])
    found = ingested(tmp_path / "again.extxyz", known=(table,)).structures
    assert [atoms.info["family"] for atoms in found] == ["mine", "mine"]


def test_frames_without_a_family_join_the_ones_that_a_pool_names(tmp_path: Path, ingested: Ingest) -> None:
    """As DFT frames do beside a pool of their rattled copies."""
    copies = [rattled(seed) for seed in range(3)] + [bulk("Ge", cubic=True)]
    for atoms, name in zip(copies, ["frame7", "frame7", "frame7", "other"], strict=True):
        atoms.info["family"] = name
    write(tmp_path / "pool.extxyz", copies)
    pool = ingested(tmp_path / "pool.extxyz")
    assert pool.metrics["frames_with_given_family"] == 4
    write(tmp_path / "dft.extxyz", [bulk("Si", cubic=True), bulk("C", cubic=True)])
    known = (pool.outputs / "structures.parquet",)
    found = ingested(tmp_path / "dft.extxyz", known=known, compare="every")
    assert found.metrics["frames_with_given_family"] == 0
    parent, alone = found.structures
    assert parent.info["family"] == "frame7"
    assert alone.info["family"] == alone.info["id"]


def test_a_pool_that_grows_at_its_end_changes_no_family(tmp_path: Path, ingested: Ingest) -> None:
    write(tmp_path / "a.extxyz", [rattled(seed, 0.02 * seed) for seed in range(8)])
    write(tmp_path / "b.extxyz", [rattled(seed, 0.04 * seed) for seed in range(8, 12)])
    before = {atoms.info["id"]: atoms.info["family"] for atoms in ingested(tmp_path / "a.extxyz").structures}
    grown = ingested(tmp_path / "a.extxyz", tmp_path / "b.extxyz").structures
    after = {atoms.info["id"]: atoms.info["family"] for atoms in grown}
    assert before.items() <= after.items()


# ---- bad files


GOOD = frames(0, 1)
BAD_FILES = {
    "cut off": (GOOD + frames(2)[:-6], ["frame 2 (from 0)", "lines 9 to 12", "3 columns"]),
    "cut off at a line": (GOOD + frames(2).rsplit("\n", 2)[0] + "\n", ["frame 2 (from 0)", "ends after 1 of 2 atoms"]),
    "cut off after the count": (GOOD + "2\n", ["frame 2 (from 0)", "ends after 0 of 2 atoms"]),
    "count too high": (GOOD + frames(2).replace("2\n", "3\n", 1) + GOOD, ["frame 2 (from 0)", "instead of 4: '2'"]),
    "count too high at the end": (GOOD + frames(2).replace("2\n", "3\n", 1), ["frame 2 (from 0)", "2 of 3 atoms"]),
    "count too low": (frames(0, 1).replace("2\n", "1\n", 1), ["frame 0 (from 0)", "more lines", "line 4", "Ge"]),
    "no count": (GOOD + "many\n" + frames(2), ["frame 2 (from 0)", "line 9", "'many'"]),
    "negative count": (GOOD + "-2\n" + frames(2), ["frame 2 (from 0)", "'-2'"]),
    "no number": (GOOD + frames(2).replace("2.5", "2,5"), ["frame 2 (from 0)", "atom 1 (from 0)", "2,5"]),
    "a column too many": (GOOD + frames(2).replace("2.5", "2.5 1.0"), ["frame 2 (from 0)", "5 columns", "of 4"]),
    "a column missing": (GOOD + frames(2).replace("2.5", ""), ["frame 2 (from 0)", "atom 1 (from 0)", "3 columns"]),
    "bad lattice": (GOOD + frames(2).replace("0 5 0", "0 5"), ["frame 2 (from 0)", "Lattice"]),
    "bad properties": (GOOD + frames(2).replace("pos:R:3", "pos:R:x"), ["frame 2 (from 0)", "triplets"]),
    "unknown type": (GOOD + frames(2).replace("pos:R:3", "pos:Q:3"), ["frame 2 (from 0)", "property type"]),
    "unknown element": (GOOD + frames(2).replace("Ge", "Qq"), ["frame 2 (from 0)", "unknown element 'Qq'"]),
    "number 0": (GOOD + frames(2).replace("Ge", "X"), ["frame 2 (from 0)", "atom 1 (from 0)", "no known element"]),
    "no positions": (frames(0).replace("pos:R:3", "place:R:3"), ["frame 0 (from 0)", "no positions (pos:R:3)"]),
    "zero atoms": (GOOD + "0\n\n" + frames(2), ["frame 2 (from 0)", "zero atoms"]),
    "NaN position": (GOOD + frames(2).replace("2.5", "nan"), ["frame 2 (from 0)", "atom 1 (from 0)", "2.0 nan 3.0"]),
    "infinite position": (GOOD + frames(2).replace("2.5", "inf"), ["frame 2 (from 0)", "atom 1 (from 0)", "inf"]),
    "NaN cell": (GOOD + frames(2).replace("0 5 0", "0 nan 0"), ["frame 2 (from 0)", "cell is not finite"]),
    "no volume": (GOOD + frames(2).replace("0 5 0", "8 0 0"), ["frame 2 (from 0)", "zero volume", "pbc T T T"]),
    "no cell": (frames(0).replace('Lattice="4 0 0 0 5 0 0 0 6"', ""), ["frame 0 (from 0)", "zero volume"]),
    "empty lines only": ("\n\n", ["no structure in the file"]),
    "nothing": ("", ["the file is empty"]),
    "binary": ("\x00\x01\x02\x03", ["frame 0 (from 0)", "number of atoms"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_broken_file_is_named_with_its_frame(tmp_path: Path, ingested: Ingest, case: str) -> None:
    text, words = BAD_FILES[case]
    staged = text_file(tmp_path, text, "0001")
    good = text_file(tmp_path, frames(7), "good.xyz")
    with pytest.raises(BadInput) as caught:
        ingested(good, staged, names=("good.xyz", "my/pool.extxyz"))
    message = str(caught.value)
    assert message.startswith("my/pool.extxyz: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pool.parquet", b"PAR1 nonsense", ["not a readable Parquet"]),
        ("pool.db", b"no database here, only text", ["not a readable SQLite"]),
        ("pool.traj", b"- of UlmASE-Trajectory but cut", ["frame 0 (from 0)", "cannot be read"]),
        ("pool.json", b'{"1": 3}', [": cannot be read"]),
        ("POSCAR", b"Si\n1.0\n4 0 0\n", [": cannot be read"]),
        ("pool.unheard", b"what is it", ["cannot be read"]),
        ("pool", b"what is it", ["cannot tell the format"]),
        ("pool.xyz.gz", gzip.compress(frames(0, 1).encode())[:-30], ["cannot be read"]),
        ("pool.xyz.gz", b"not compressed", ["cannot be read"]),
    ],
)
def test_unreadable_files(tmp_path: Path, ingested: Ingest, name: str, content: bytes, words: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        ingested(path)
    for word in [name, *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "a pickle is not read") for name in ("pool.pckl", "pool.pkl.gz", "pool.PICKLE", "x.model")),
        *((name, name) for name in ("pool.traj", "pool.json", "pool.dat", "pool")),
    ],
)
def test_a_pickle_is_refused_unopened_whatever_its_name(
    tmp_path: Path, ingested: Ingest, name: str, message: str
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match=message):
        ingested(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_database_that_is_not_ases_stays_as_it_is(tmp_path: Path, ingested: Ingest) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bills (amount REAL)")
    connection.close()
    before = file_digest(path)
    with pytest.raises(BadInput, match="not one of ASE's"):
        ingested(path)
    assert file_digest(path) == before


@pytest.mark.parametrize("positions", [[0.0, 0.0], None, [0.0, 0.0, None]])
def test_parquet_with_a_broken_row_or_without_a_column(tmp_path: Path, ingested: Ingest, positions: Any) -> None:
    row = {"numbers": [14], "positions": [0.0] * 3, "cell": [0.0] * 9, "pbc": [False] * 3}
    pq.write_table(pa.Table.from_pylist([row, row | {"positions": positions}]), tmp_path / "pool.parquet")
    with pytest.raises(BadInput, match=r"frame 1 \(from 0\)"):
        ingested(tmp_path / "pool.parquet")
    pq.write_table(pa.table({"numbers": [[14]], "cell": [[0.0] * 9]}), tmp_path / "pool.parquet")
    with pytest.raises(BadInput, match="lacks the columns positions, pbc"):
        ingested(tmp_path / "pool.parquet")


def test_a_missing_file_and_a_missing_name(tmp_path: Path, ingested: Ingest) -> None:
    with pytest.raises(BadInput, match=r"gone\.xyz: no such file"):
        ingested(tmp_path / "gone.xyz")
    with pytest.raises(BadInput, match="1 files were given but 2 file_names"):
        ingested(text_file(tmp_path, GOOD), names=("a.xyz", "b.xyz"))


# ---- the stub and the bundled pool


@pytest.mark.parametrize("keys", [{}, DFT_KEYS])
def test_the_stub_writes_what_run_would(tmp_path: Path, keys: dict[str, str]) -> None:
    params = ingest.Params(file_names=("nowhere.xyz",), **keys)
    metrics = ingest.stub(Inputs({"files": ()}), tmp_path, params, Machine())
    assert {path.name for path in tmp_path.iterdir()} == set(ingest.OUTPUTS.values())
    assert pq.read_schema(tmp_path / "structures.parquet") == (LABELS if keys else STRUCTURES)
    structures = read_atoms(tmp_path / "structures.parquet")
    assert [atoms.info["id"] for atoms in structures] == sorted(map(structure_id, structures))
    assert metrics["structures"] == len(structures) == 40


@pytest.mark.parametrize("example", ["silicon", "nial"])
def test_the_bundled_pool_is_what_its_script_makes(tmp_path: Path, example: str) -> None:
    spec = importlib.util.spec_from_file_location("make_pool", REPOSITORY / "examples/make_pool.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write(tmp_path / "pool.extxyz", module.make_pool(module.EXAMPLES[example], seed=0))
    assert (tmp_path / "pool.extxyz").read_bytes() == (REPOSITORY / f"examples/{example}/pool.extxyz").read_bytes()


def test_the_bundled_pool_is_sane(ingested: Ingest) -> None:
    result = ingested(REPOSITORY / "examples/silicon/pool.extxyz")
    assert result.metrics["structures"] == 300
    assert result.metrics["duplicates"] == 0
    assert 1500 <= result.metrics["atoms"] <= 2500
    assert result.metrics["shortest_distance_A"] >= 1.8
    assert len(set(result.table["family"].to_pylist())) >= 40


def test_reference_data_equal_what_ase_reads(ingested: Ingest) -> None:
    path = REPOSITORY / "tests/data/nial/dft_test.extxyz"
    expected = {structure_id(atoms): atoms for atoms in read(path, ":")}
    found = ingested(path, **DFT_KEYS).structures
    assert {atoms.info["id"] for atoms in found} == set(expected)
    for atoms in found:
        other = expected[atoms.info["id"]]
        assert atoms.calc.results["energy"] == other.info["REF_energy"]
        np.testing.assert_array_equal(atoms.calc.results["forces"], other.arrays["REF_forces"])
