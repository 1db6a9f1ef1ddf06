"""Every format people have, the good way and broken in its own way: one sentence with file and frame."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

from containers.contract import BadInput, Inputs, Machine
from containers.formats import ase_formats
from containers.formats import parquet as parquet_rows
from containers.formats.mlip_cfg import write_configurations
from containers.formats.reading import Frame, read_frames
from containers.ingest import ingest
from containers.ingest.checks import check_lengths, check_structure, checked_labels
from containers.structures.distances import shortest_distance
from containers.structures.table import atoms_from_table, labels_table, structure_id
from tests.unit.containers.formats.vasp import outcar, structure_xml, varray, vasprun

REPOSITORY = Path(__file__).parents[4]
AUTO = {"energy_key": "auto", "forces_key": "auto", "stress_key": "auto"}


def frames(count: int = 3) -> list[Atoms]:
    """Labelled silicon-germanium cells, exact in few decimals."""
    made = []
    for number in range(count):
        atoms = Atoms("SiGe", positions=[[0.125, 0.25, 0.5], [2.0, 2.5, 3.0 + number / 8]], cell=[4, 5, 6], pbc=True)
        forces = np.array([[0.5, -0.25, 0.125], [-0.5, 0.25, -0.125]]) * (number + 1)
        atoms.calc = SinglePointCalculator(atoms, energy=-7.25 - number, forces=forces, stress=np.arange(6) / 64)
        made.append(atoms)
    return made


def table_of(structures: Sequence[Atoms]) -> pa.Table:
    for row, atoms in enumerate(structures):
        atoms.info |= {"id": structure_id(atoms), "source": "s", "row": row, "group": "", "family": ""}
    return labels_table(structures)


def mlip(structures: Sequence[Atoms]) -> bytes:
    file = io.BytesIO()
    write_configurations(file, table_of(structures), (32, 14))
    return file.getvalue()


def pacemaker(structures: Sequence[Atoms]) -> bytes:
    rows = [(atoms, atoms.calc.results["energy"], atoms.calc.results["forces"]) for atoms in structures]
    return packed(pd.DataFrame(rows, columns=["ase_atoms", "energy", "forces"]))


def parquet(structures: Sequence[Atoms]) -> bytes:
    file = io.BytesIO()
    pq.write_table(table_of(structures), file)
    return file.getvalue()


def by_ase(name: str, kind: str | None = None) -> Callable[[Sequence[Atoms]], bytes]:
    """ASE's own writer; formats of one structure get the first."""

    def content(structures: Sequence[Atoms]) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            write(path, structures[0] if kind in ("vasp", "cfg") else list(structures), format=kind)
            return path.read_bytes()

    return content


LABELLED: dict[str, Callable[[Sequence[Atoms]], bytes]] = {
    "dft.extxyz": by_ase("dft.extxyz"),
    "dft.xyz.gz": lambda structures: gzip.compress(by_ase("dft.xyz")(structures)),
    "dft.traj": by_ase("dft.traj"),
    "dft.db": by_ase("dft.db", "db"),
    "dft.json": by_ase("dft.json", "json"),
    "OUTCAR": lambda structures: outcar(structures).encode(),
    "run3.OUTCAR": lambda structures: outcar(structures).encode(),
    "OUTCAR_2.gz": lambda structures: gzip.compress(outcar(structures).encode()),
    "outcar.bz2": lambda structures: bz2.compress(outcar(structures).encode()),
    "vasprun.xml": lambda structures: vasprun(structures).encode(),
    "vasprun_2.xml": lambda structures: vasprun(structures).encode(),
    "vasprun.xml.xz": lambda structures: lzma.compress(vasprun(structures).encode()),
    "dft.cfg": mlip,
    "dft.cfg.gz": lambda structures: gzip.compress(mlip(structures)),
    "dft.parquet": parquet,
    "dft.pckl.gzip": pacemaker,
}
BARE: dict[str, Callable[[Sequence[Atoms]], bytes]] = {
    "POSCAR": by_ase("POSCAR", "vasp"),
    "CONTCAR.gz": lambda structures: gzip.compress(by_ase("POSCAR", "vasp")(structures)),
    "Si.poscar": by_ase("POSCAR", "vasp"),
    "atomeye.cfg": by_ase("atomeye.cfg", "cfg"),
    "XDATCAR": by_ase("XDATCAR", "vasp-xdatcar"),
}
EVERY = LABELLED | BARE


def ingested(folder: Path, name: str, content: bytes, **params: object) -> list[Atoms]:
    """The structures of one file, in its order."""
    (folder / "staged").write_bytes(content)
    outputs = folder / "run" / "outputs"
    outputs.mkdir(parents=True)
    asked = ingest.Params(file_names=(name,), **params)
    ingest.run(Inputs({"files": (folder / "staged",)}), outputs, asked, Machine())
    return sorted(atoms_from_table(pq.read_table(outputs / "structures.parquet")), key=lambda atoms: atoms.info["row"])


def message(folder: Path, name: str, content: bytes, **params: object) -> str:
    """What is said of a broken file; nothing is left of the run."""
    with pytest.raises(BadInput) as caught:
        ingested(folder, name, content, **params)
    assert list((folder / "run" / "outputs").iterdir()) == []
    assert not (folder / "run" / "work").exists()
    said = str(caught.value)
    assert said.startswith(f"{name}: ")
    assert "\n" not in said
    assert len(said) < 700
    return said


def read_all(path: Path, name: str, work: Path) -> list[Frame]:
    work.mkdir(exist_ok=True)
    return list(read_frames(path, name, work))


# ---- the good way


@pytest.mark.parametrize("name", LABELLED)
def test_energy_forces_and_stress_of_every_labelled_format(tmp_path: Path, name: str) -> None:
    found = ingested(tmp_path, name, LABELLED[name](frames()), **AUTO)
    assert len(found) == 3
    for atoms, expected in zip(found, frames(), strict=True):
        assert atoms.get_chemical_symbols() == ["Si", "Ge"]
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-7)
        np.testing.assert_allclose(atoms.cell.array, expected.cell.array, atol=1e-7)
        assert atoms.pbc.all()
        assert atoms.get_potential_energy() == expected.get_potential_energy()
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-7)
        if name != "dft.pckl.gzip":  # its calculators are columns, which have no stress
            np.testing.assert_allclose(atoms.get_stress(), expected.get_stress(), atol=1e-5)


@pytest.mark.parametrize("name", BARE)
def test_formats_without_labels(tmp_path: Path, name: str) -> None:
    (found, *_) = ingested(tmp_path, name, BARE[name](frames()))
    assert sorted(found.get_chemical_symbols()) == ["Ge", "Si"]
    expected = frames()[0].get_distance(0, 1, mic=True)
    assert found.get_distance(0, 1, mic=True) == pytest.approx(expected, abs=1e-6)


def test_forces_of_held_atoms_are_the_raw_ones(tmp_path: Path) -> None:
    (atoms,) = frames(1)
    text = vasprun([atoms]).replace(
        "</structure>\n<calc", "<varray name='selective'><v>F F F</v><v>T T T</v></varray></structure>\n<calc"
    )
    assert "selective" in text
    (found,) = ingested(tmp_path, "vasprun.xml", text.encode(), **AUTO)
    np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-7)
    # ASE looks for a CONTCAR beside an OUTCAR; here it would be another file of the user's.
    held = frames(1)[0]
    held.set_constraint(FixAtoms([0]))
    write(tmp_path / "CONTCAR", held, format="vasp")
    (tmp_path / "OUTCAR").write_text(outcar(frames(1)))
    read_all(tmp_path / "CONTCAR", "CONTCAR", tmp_path / "work")
    (frame,) = read_all(tmp_path / "OUTCAR", "OUTCAR", tmp_path / "work")
    assert frame.atoms.constraints == []


@pytest.mark.parametrize("form", ["traj", "extxyz"])
def test_forces_need_not_vanish_in_sum_where_atoms_are_held(tmp_path: Path, form: str) -> None:
    (atoms,) = frames(1)
    atoms.calc.results["forces"][0] = 0.0
    said = message(tmp_path, f"dft.{form}", by_ase(f"dft.{form}")([atoms]), **AUTO)
    assert "frame 0 (from 0)" in said
    assert "do not sum to zero: 0.286 eV/Å per atom" in said
    atoms.set_constraint(FixAtoms([0]))
    if form == "extxyz":
        write(tmp_path / "held.extxyz", atoms, columns=["symbols", "positions", "move_mask", "forces"])
    else:
        write(tmp_path / "held.traj", atoms)
    (tmp_path / "second").mkdir()
    assert len(ingested(tmp_path / "second", f"dft.{form}", (tmp_path / f"held.{form}").read_bytes(), **AUTO)) == 1


# ---- every format, broken


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_that_was_cut_off(tmp_path: Path, name: str, share: float) -> None:
    content = EVERY[name](frames())
    message(tmp_path, name, content[: int(share * len(content))], **(AUTO if name in LABELLED else {}))


@pytest.mark.parametrize(
    "cut", ["Iteration      3(   1)", "Iteration      3(   2)", "in kB", "POSITION", "FREE ENERGIE"]
)
def test_an_outcar_that_was_cut_off_anywhere_in_its_last_step(tmp_path: Path, cut: str) -> None:
    """Cut off behind the words; also where neither forces nor stress of that step are there yet."""
    content = outcar(frames())
    content = content[: content.rindex(cut) + len(cut)]
    said = message(tmp_path, "OUTCAR", content.encode(), **AUTO)
    assert "frame 2 (from 0) is not complete: the file was cut off in its ionic step 3;" in said
    (tmp_path / "mended").mkdir()
    mended = content[: content.index(f"{'-' * 39} Iteration      3(   1)")]
    assert len(ingested(tmp_path / "mended", "OUTCAR", mended.encode(), **AUTO)) == 2


def test_a_finished_outcar_is_whole_whatever_its_headers_are(tmp_path: Path) -> None:
    """Of fewer steps than NSW; electronic steps after the last forces, as of linear response; two runs in one file."""
    content = outcar(frames()).replace("   ions per", "   NSW    =    100    number of steps\n   ions per")
    header = f"{'-' * 39} Iteration      1(   1)  {'-' * 39}\n"
    response = content.replace(" General timing", f"{header} General timing")
    second = outcar(frames(4)[3:])
    twice = content + second[second.index("-" * 39) :]
    for number, (text, count) in enumerate([(content, 3), (response, 3), (twice, 4)]):
        (tmp_path / str(number)).mkdir()
        assert len(ingested(tmp_path / str(number), "OUTCAR", text.encode(), **AUTO)) == count
    (tmp_path / "cut").mkdir()
    cut = response[: response.index(" General timing")]
    assert "is not complete" in message(tmp_path / "cut", "OUTCAR", cut.encode(), **AUTO)


def test_an_xdatcar_whose_third_configuration_lacks_an_atom(tmp_path: Path) -> None:
    lines = BARE["XDATCAR"](frames(4)).decode().splitlines(keepends=True)
    third = [place for place, line in enumerate(lines) if "configuration" in line][2]
    said = message(tmp_path, "XDATCAR", "".join(lines[: third + 1] + lines[third + 2 :]).encode())
    assert said.startswith(
        "XDATCAR: frame 2 (from 0), line 30: the position of an atom, three numbers, should be here, not"
    )
    (tmp_path / "scale").mkdir()
    said = message(tmp_path / "scale", "XDATCAR", "".join([lines[0], "about one\n", *lines[2:]]).encode())
    assert said.startswith(
        "XDATCAR: frame 0 (from 0), line 2: the scale of the cell, one number, should be here, not 'about"
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "content", [b"", b"what is it", b"\x00" * 5_000, b"\n\n\n"], ids=["empty", "text", "0", "lines"]
)
def test_an_empty_file_and_a_file_of_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    said = message(tmp_path, name, content)
    assert content or "the file is empty" in said


def spoilt(change: Callable[[Atoms], object]) -> list[Atoms]:
    """Three frames; the middle one is changed and keeps its labels."""
    made = frames()
    results = made[1].calc.results
    change(made[1])
    made[1].calc = SinglePointCalculator(made[1], **results)
    return made


SPOILT: dict[str, tuple[Callable[[Atoms], object], str]] = {
    "NaN position": (lambda atoms: atoms.positions.put(5, np.nan), "not finite"),
    "NaN force": (lambda atoms: atoms.calc.results["forces"].put(5, np.nan), "forces is not finite"),
    "NaN energy": (lambda atoms: atoms.calc.results.update(energy=np.nan), "energy is not finite"),
    "nanometres": (lambda atoms: atoms.set_cell(atoms.cell.array / 15, scale_atoms=True), "nm"),
    "fractional": (
        lambda atoms: atoms.set_positions(atoms.get_scaled_positions()),
        "these look like fractional coordinates",
    ),
    "meV/Å": (
        lambda atoms: atoms.calc.results.update(forces=1e4 * atoms.calc.results["forces"]),
        "meV/Å would explain it",
    ),
    "J/mol": (lambda atoms: atoms.calc.results.update(energy=-8.25e6), "meV or J/mol would explain it"),
    "lopsided": (
        lambda atoms: atoms.calc.results.update(forces=atoms.calc.results["forces"] + [[1.0], [0.0]]),
        "do not sum to zero",
    ),
}


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("case", SPOILT)
def test_numbers_that_cannot_be(tmp_path: Path, name: str, case: str) -> None:
    change, words = SPOILT[case]
    said = message(tmp_path, name, LABELLED[name](spoilt(change)), **AUTO)
    assert "frame 1 (from 0)" in said
    lost = case == "NaN energy" and name == "dft.db"  # SQLite has no NaN
    assert ("no 'energy'" if lost else words) in said


@pytest.mark.parametrize("name", [*BARE, "dft.xyz.gz"])
def test_labels_that_are_missing(tmp_path: Path, name: str) -> None:
    structures = frames()
    for atoms in structures:
        atoms.calc = None
    said = message(tmp_path, name, EVERY[name](structures), **AUTO)
    assert "frame 0 (from 0)" in said
    assert "no 'energy'" in said
    assert "where the energy has another name, set energy_key to that name (" in said


def packed(table: pd.DataFrame) -> bytes:
    """The table as pacemaker packs it."""
    file = io.BytesIO()
    table.to_pickle(file, compression="gzip")
    return file.getvalue()


def test_a_table_without_total_energies_and_forces_of_another_shape(tmp_path: Path) -> None:
    rows = [(atoms, -1.0, atoms.calc.results["forces"]) for atoms in frames()]
    for atoms, *_ in rows:
        atoms.calc = None
    content = packed(pd.DataFrame(rows, columns=["ase_atoms", "energy_corrected", "forces"]))
    said = message(tmp_path, "dft.pckl.gzip", content, **AUTO)
    assert "energy_corrected lacks the reference energies" in said
    rows = table_of(frames()).to_pylist()
    rows[1]["forces"] = rows[1]["forces"][:3]
    short = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table_of(frames()).schema), short)
    forces = [atoms.calc.results["forces"] for atoms in frames()]
    columns = {"ase_atoms": frames(), "energy": [-1.0] * 3, "forces": [forces[0], forces[1][:1], forces[2]]}
    for name, content in {"a.parquet": short.getvalue(), "a.pckl.gzip": packed(pd.DataFrame(columns))}.items():
        (tmp_path / name).mkdir()
        said = message(tmp_path / name, name, content, **AUTO)
        assert "frame 1 (from 0)" in said
        assert "forces must be 2 x 3 numbers" in said


@pytest.mark.parametrize(
    ("column", "kind", "value"),
    [
        ("pbc", pa.list_(pa.bool_()), None),
        ("pbc", pa.list_(pa.bool_()), [True, None, True]),
        ("pbc", pa.list_(pa.string()), ["F", "F", "F"]),
        ("numbers", pa.list_(pa.float64()), [14.5, 32.0]),
        ("numbers", pa.list_(pa.int32()), [14, None]),
    ],
)
def test_columns_that_would_pass_for_something_else(tmp_path: Path, column: str, kind: pa.DataType, value: Any) -> None:
    table = table_of(frames(1))
    place = table.schema.get_field_index(column)
    file = io.BytesIO()
    pq.write_table(table.set_column(place, column, pa.array([value], kind)), file)
    assert f"pool.parquet: frame 0 (from 0): {column} is" in message(tmp_path, "pool.parquet", file.getvalue())


# ---- enormous by mistake

HUGE = "123456789012"
CLAIMS = {
    "pool.xyz": f"{HUGE}\n\nSi 0 0 0\n",
    "pool.cfg": f"BEGIN_CFG\n Size\n {HUGE}\n",
    "atomeye.cfg": f"Number of particles = {HUGE}\nA = 1.0 Angstrom\n",
    "POSCAR": f"Si\n1.0\n4 0 0\n0 5 0\n0 0 6\nSi\n{HUGE}\nDirect\n0 0 0\n",
    "XDATCAR": f"Si\n1.0\n4 0 0\n0 5 0\n0 0 6\nSi\n{HUGE}\nDirect configuration=     1\n0 0 0\n",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_frame_that_claims_too_many_atoms(tmp_path: Path, name: str) -> None:
    said = message(tmp_path, name, CLAIMS[name].encode())
    assert "frame 0 (from 0)" in said
    assert "123,456,789,012 atoms, at most 1,000,000 are read" in said


SCRIPT = """
import resource, sys
from pathlib import Path
from containers.contract import BadInput
from containers.formats.reading import read_frames
resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000, -1))
work = Path(sys.argv[1]).parent / "work"
work.mkdir()
for name in sys.argv[2:]:
    with Path(sys.argv[1]).open("wb") as file:
        file.write(b"8\\n" if name == "pool.xyz" else b" ")
        file.truncate(10_000_000_000)
    try:
        list(read_frames(Path(sys.argv[1]), name, work))
    except BadInput as error:
        print(error)
"""


def test_ten_gigabytes_are_refused_in_little_memory(tmp_path: Path) -> None:
    """A sparse file: no line ends in it, nothing that the format begins with."""
    names = ["pool.xyz", "pool.cfg", "OUTCAR", "POSCAR", "pool.cif", "pool.json", "pool.parquet", "pool.db"]
    names += ["pool.traj", "vasprun.xml"]
    run = [sys.executable, "-c", SCRIPT, str(tmp_path / "staged"), *names]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.splitlines()
    assert [line.partition(": ")[0] for line in said] == names


@pytest.mark.parametrize(
    "name", ["pool.xyz.gz", "POSCAR.gz", "pool.cfg.gz", "pool.pckl.gzip", "vasprun.xml.gz", "pool.json.gz"]
)
def test_a_compression_bomb_is_refused_early(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ase_formats, "LARGEST_WHOLE", 10_000_000)
    said = message(tmp_path, name, gzip.compress(b" " * 60_000_000, 1))
    assert "holds more than 10 MB" in said or "longer than 4,000,000 characters" in said


def test_a_bound_names_itself_and_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ase_formats, "LARGEST_WHOLE", 1_000_000)
    monkeypatch.setattr(parquet_rows, "LARGEST_GROUP", 10)
    for name, content, words in (
        (
            "pool.cif",
            b" " * 2_000_000,
            ["2 MB; of this format at most 1 MB are read", "write the structures as extended XYZ"],
        ),
        ("pool.parquet", parquet(frames()), ["smaller row groups"]),
        ("pool.xyz", b"1\n\nSi 0 0 0\n" + b"\n" * 20_000, ["empty lines after frame 0 (from 0)"]),
    ):
        (tmp_path / name).mkdir()
        said = message(tmp_path / name, name, content)
        assert all(word in said for word in words)


# ---- names that say one thing, contents that say another


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("my_poscar_pool.xyz", "dft.extxyz"),
        ("poscar_runs.extxyz.gz", "dft.xyz.gz"),
        ("outcar.traj", "dft.traj"),
        ("OUTCAR.log", "OUTCAR"),
        ("my_poscar_2", "POSCAR"),
        ("POSCAR.vasp", "POSCAR"),
        ("xdatcar_poscar.vasp", "XDATCAR"),
        ("POSCAR_md", "XDATCAR"),
        ("CONTCARs.db", "dft.db"),
        ("poscar.json", "dft.json"),
        ("old_OUTCAR.xyz", "dft.extxyz"),
    ],
)
def test_an_ending_goes_before_a_name_of_vasp_and_that_before_the_content(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "staged").write_bytes(EVERY[kind](frames()))
    found = read_all(tmp_path / "staged", name, tmp_path / "work")
    assert len(found) == (1 if kind == "POSCAR" else 3)
    assert {tuple(sorted(frame.atoms.symbols)) for frame in found} == {("Ge", "Si")}


@pytest.mark.parametrize(
    "name", ["like_outcar.cif", "POSCAR_notes.txt", "poscar.xyz", "poscar.pdb", "OUTCAR", "POSCAR"]
)
def test_content_that_contradicts_the_name_is_refused(tmp_path: Path, name: str) -> None:
    kind = "OUTCAR" if name == "POSCAR" else "POSCAR"
    content = b"what to do with\nthe POSCAR files\n" if name.endswith(".txt") else EVERY[kind](frames())
    message(tmp_path, name, content)


# ---- VASP with van der Waals columns, and with its machine-learned force field


def test_an_outcar_with_van_der_waals_columns(tmp_path: Path) -> None:
    title = "TOTAL-FORCE (eV/Angst)"
    wide, left = [], 0
    for line in outcar(frames()).splitlines():
        if left and not line.strip().startswith("-"):
            line, left = f"{line}  {' '.join(line.split()[3:])}", left - 1
        left = 2 if title in line else left
        wide.append(line.replace(title, f"{title},                                   FORCE-w/o vdW (eV/Angst)"))
    for atoms, expected in zip(ingested(tmp_path, "OUTCAR", "\n".join(wide).encode(), **AUTO), frames(), strict=True):
        assert atoms.get_potential_energy() == expected.get_potential_energy()
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-7)


def test_a_run_of_a_machine_learned_force_field_says_what_to_give(tmp_path: Path) -> None:
    learned = outcar(frames()).replace("free  energy   TOTEN", "free  energy ML TOTEN")
    said = message(tmp_path, "OUTCAR", learned.encode(), **AUTO)
    assert "machine-learned force field (ML_LMLFF)" in said
    assert "give the run's vasprun.xml" in said
    assert "for a pool give its XDATCAR" in said
    (tmp_path / "both").mkdir()
    start, *steps = vasprun(frames()).replace("<modeling>", "<modeling><incar><i>ML_LMLFF</i></incar>").split("<calc")
    of_the_force_field = structure_xml(frames()[1]) + varray("forces", frames()[1].get_forces())
    mixed = start + "<calc" + steps[0] + of_the_force_field + "<calc" + steps[2]
    found = ingested(tmp_path / "both", "vasprun.xml", mixed.encode(), **AUTO)
    assert [atoms.get_potential_energy() for atoms in found] == [-7.25, -9.25]  # what DFT computed
    (tmp_path / "none").mkdir()
    alone = message(tmp_path / "none", "vasprun.xml", (start + of_the_force_field + "</modeling>").encode())
    assert "none of DFT; for a pool give the run's XDATCAR" in alone


# ---- anything at all

DUMP = b"""ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS xy xz yz pp pp ff
0.0 4.5 0.5
0.0 5.0 0.0
0.0 6.0 0.0
ITEM: ATOMS id element xs ys zs
2 Si 0.1 0.2 0.3
1 Ge 0.6 0.7 0.8
"""
DATA = b"""cells

2 atoms
0.0 4.0 xlo xhi
0.0 5.0 ylo yhi
0.0 6.0 zlo zhi

Masses

1 28.085
2 72.63

Atoms # atomic

1 1 0.1 0.2 0.3
2 2 2.0 2.5 3.0 0 0 1
"""
NEP = b"""2
energy=-1.5 lattice="4 0 0 0 5 0 0 0 6" pbc="T T F" properties=species:S:1:pos:R:3:force:R:3
Si 0.1 0.2 0.3 0.5 0 0
Ge 2.0 2.5 3.0 -0.5 0 0
"""


@functools.cache
def small_files() -> dict[str, bytes]:
    """A small sound file of every format; `.pckl.gzip` as it is unpacked."""
    packed = (".gz", ".bz2", ".xz")
    made = {name: content(frames()) for name, content in EVERY.items() if not name.endswith(packed)}
    made["dft.pckl.gzip"] = gzip.decompress(made["dft.pckl.gzip"])
    cif = by_ase("pool.cif", "cif")(frames(1))
    return made | {"pool.lammpstrj": 2 * DUMP, "pool.data": DATA, "nep.xyz": 2 * NEP, "pool.cif": cif}


WORDS = [
    *[b"0", b"-1", b"99999999", b"123456789012345678901234567890", b"1e400", b"1e308", b"1e-320", b"nan", b"inf", b"T"],
    *[b"", b"*****", b"1.5.2", b"#", b'"', b"=", b"{{{", b"_JSON [", b"</", b"Si", b"Xx", b"species:I:1", b"\x00"],
    *[b"\xff\xfe", "٣".encode(), b"1_0", b"1" * 5000],
]
SHARE = st.floats(0, 1, exclude_max=True)
EDIT = st.one_of(
    st.tuples(st.just("byte"), SHARE, st.integers(0, 255)),
    st.tuples(st.just("cut"), SHARE, st.integers(1, 60)),
    st.tuples(st.just("drop"), SHARE, st.just(0)),
    st.tuples(st.just("again"), SHARE, SHARE),
    st.tuples(st.just("word"), SHARE, st.tuples(SHARE, st.sampled_from(WORDS))),
)


def edited(content: bytes, kind: str, where: float, what: Any) -> bytes:
    """The content with a byte, some bytes, a line or a word changed."""
    place = int(where * len(content))
    if kind == "byte":
        return content[:place] + bytes([what]) + content[place + 1 :]
    if kind == "cut":
        return content[:place] + content[place + what :]
    lines = content.split(b"\n")
    line = int(where * len(lines))
    if kind == "drop":
        del lines[line]
    elif kind == "again":
        lines.insert(line, lines[int(what * len(lines))])
    else:
        words = lines[line].split(b" ")
        words[int(what[0] * len(words))] = what[1]
        lines[line] = b" ".join(words)
    return b"\n".join(lines)


@settings(max_examples=250, derandomize=True, deadline=None, database=None)
@given(name=st.sampled_from(list(small_files())), edits=st.lists(EDIT, min_size=1, max_size=3))
def test_whatever_a_file_holds_gives_structures_or_a_sentence_that_names_it(name: str, edits: list[Any]) -> None:
    content = small_files()[name]
    for edit in edits:
        content = edited(content, *edit)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "staged"
        file.write_bytes(gzip.compress(content, 1) if name.endswith(".gzip") else content)
        said = ""
        try:
            for frame in read_all(file, name, Path(folder) / "work"):
                place = frame.place(name)
                check_structure(frame.atoms, place)
                check_lengths(frame.atoms, shortest_distance(frame.atoms, 4.0), place)
                checked_labels(frame.atoms, "auto", "auto", "auto", place)
        except BadInput as error:
            said = str(error)
        assert not said or said.startswith(f"{name}: ")
        assert "\n" not in said
