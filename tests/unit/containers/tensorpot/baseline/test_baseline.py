"""Reference energies, DFT beside the teacher, and the pair terms of a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.labels.pool_labels import REJECTED
from containers.structures.split import Split, side
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.baseline import baseline, pair_potentials
from containers.tensorpot.dataset import dataset
from containers.tensorpot.frames.frame_file import ENERGY_RANGE
from containers.tensorpot.student import calculator
from containers.tensorpot.student.baseline import Baseline, PairTerm

TEACHER = {"C": -7.0, "Si": -3.0}
E0 = {"C": -6.5, "Si": -3.4}
LABELLED_BY = {
    "Si-Si": {"form": "lj", "epsilon_eV": 0.3, "sigma_A": 2.0, "inner_A": 4.0, "outer_A": 5.0},
    "C-Si": {"form": "lj", "epsilon_eV": 0.2, "sigma_A": 1.7, "inner_A": 4.0, "outer_A": 5.0},
    "C-C": {"form": "lj", "epsilon_eV": 0.4, "sigma_A": 1.4, "inner_A": 4.0, "outer_A": 5.0},
}


def params(**changed: Any) -> baseline.Params:
    return baseline.Params(**{"elements": ("C", "Si"), "cutoff": 5.0, "teacher_e0s_eV": TEACHER} | changed)


def label(atoms: Atoms, row: int, shift: float = 0.0, scale: float = 1.0, source: str = "pool.xyz") -> Atoms:
    """E0 and a Lennard-Jones crystal: `shift` eV an atom higher, forces and the rest of the energy `scale` times."""
    energy, forces, _ = calculator.pair_terms(atoms, LABELLED_BY)
    total = sum(E0[symbol] + shift for symbol in atoms.symbols) + energy * scale
    atoms.info = {"id": structure_id(atoms), "source": source, "row": row, "group": "", "family": f"f{row}"}
    atoms.calc = SinglePointCalculator(atoms, energy=total, forces=forces * scale)
    return atoms


def pool(count: int = 40, first: int = 0, **how: Any) -> list[Atoms]:
    made = []
    for row in range(first, first + count):
        kind = ("Si", "SiC", "C")[row % 3]
        atoms = bulk("SiC", "zincblende", a=4.36) if kind == "SiC" else bulk(kind)
        atoms = atoms * (2, 1, 1)
        atoms.set_cell(atoms.cell.array * (0.9 + 0.01 * (row % 20)), scale_atoms=True)
        atoms.rattle(0.1, seed=row)
        made.append(label(atoms, row, **how))
    return made


def written(folder: Path, tables: dict[str, list[Atoms]]) -> dict[str, tuple[Path, ...]]:
    folder.mkdir(exist_ok=True)
    for name, structures in tables.items():
        write_table(folder / f"{name}.parquet", labels_table(structures))
    return {name: (folder / f"{name}.parquet",) for name in tables}


def run(
    folder: Path,
    asked: baseline.Params,
    base: Path | None = None,
    base_set: Path | None = None,
    **tables: list[Atoms],
) -> tuple[Baseline, dict[str, Any]]:
    earlier = {"base": base, "base_set": base_set}
    files = {name: (path,) for name, path in earlier.items() if path} | written(folder, tables)
    metrics = baseline.run(Inputs(files), folder, asked, Machine())
    return Baseline.read(folder / "baseline.json"), metrics


def test_the_teachers_own_and_given_energies(tmp_path: Path) -> None:
    found, _ = run(tmp_path, params(), labels=pool(3))
    assert (found.e0s_eV, found.e0s_from, found.pairs, found.dft_offsets_eV) == (TEACHER, "teacher", {}, {})
    found, _ = run(tmp_path, params(e0s={"C": -1.0, "Si": -2.0, "H": 0.0}), labels=pool(3))
    assert (found.e0s_eV, found.e0s_from) == ({"C": -1.0, "Si": -2.0}, "given")
    with pytest.raises(BadInput, match="reference_energies has no reference energy of Si: give one"):
        run(tmp_path, params(e0s={"C": -1.0}), labels=pool(3))


def gas(kinds: str, energies: dict[str, float]) -> list[Atoms]:
    """Chains far from one another with energies that E0s explain wholly."""
    made = []
    for row, symbols in enumerate(kinds.split() * 6):
        atoms = label(Atoms(symbols, positions=[[3.0 * n, 0, 0.01 * row] for n in range(len(Atoms(symbols)))]), row)
        atoms.calc.results["energy"] = sum(energies[symbol] for symbol in atoms.symbols)
        made.append(atoms)
    return made


def test_least_squares_finds_the_energies_of_the_atoms_from_the_training_side_alone(tmp_path: Path) -> None:
    found, _ = run(tmp_path, params(e0s="least_squares"), labels=gas("SiC Si2C SiC2", E0))
    assert found.e0s_from == "least_squares"
    assert found.e0s_eV == pytest.approx(E0, abs=1e-9)
    # Of Si + C = -9.9 eV alone nothing tells the two apart: both move equally.
    found, _ = run(tmp_path, params(e0s="least_squares"), labels=gas("SiC Si2C2", E0))
    assert found.e0s_eV == pytest.approx({"C": -7.0 + 0.05, "Si": -3.0 + 0.05}, abs=1e-9)
    structures = gas("SiC Si2C SiC2", E0)
    asked = params(e0s="least_squares")
    kept = [atoms for atoms in structures if side(atoms.info["family"], asked.split) != "train"]
    assert kept
    for atoms in kept:
        atoms.calc.results["energy"] += 50
    assert run(tmp_path, asked, labels=structures)[0].e0s_eV == pytest.approx(E0, abs=1e-9)


def alone(symbol: str, energy: float, row: int = 0) -> Atoms:
    atoms = label(Atoms(symbol, positions=[[0.1 * row, 0, 0]], cell=[12] * 3, pbc=True), row)
    atoms.calc.results["energy"] = energy
    return atoms


def test_isolated_atoms_of_dft_come_before_the_teachers(tmp_path: Path) -> None:
    labels = [*pool(6), alone("Si", -0.8), alone("C", -1.2)]
    found, _ = run(tmp_path, params(e0s="isolated_atoms"), labels=labels, dft=[alone("C", -1.3, row=1)])
    assert found.e0s_eV == {"C": -1.3, "Si": -0.8}
    near = label(Atoms("C", cell=[2.5] * 3, pbc=True), 7)  # its own images are within the cutoff
    with pytest.raises(BadInput, match="no isolated atom of C is in the data"):
        run(tmp_path, params(e0s="isolated_atoms"), labels=[*pool(6), alone("Si", -0.8), near])


def dft_data(**how: Any) -> dict[str, list[Atoms]]:
    """DFT labels of 12 structures, and the teacher's of 11 of them."""
    return {
        "labels": pool(6),
        "dft": pool(12, first=50, source="dft.xyz", **how),
        "dft_teacher": pool(11, first=50),
    }


def test_dft_structures_without_a_label_of_the_teacher_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    """Their units are not checked, and they are trained on all the same."""
    data = {"labels": pool(6), "dft": pool(12, first=50, source="dft.xyz"), "dft_teacher": pool(9, first=50)}
    rows = [
        {key: atoms.info[key] for key in ("id", "source", "row")} | {"reason": "force of 120 eV/Å"}
        for atoms in data["dft"][9:]
    ]
    write_table(tmp_path / "rejected.parquet", pa.Table.from_pylist(rows, schema=REJECTED))
    files = written(tmp_path, data) | {"dft_rejected": (tmp_path / "rejected.parquet",)}
    metrics = baseline.run(Inputs(files), tmp_path, params(), Machine())
    assert (metrics["dft_compared"], metrics["dft_not_compared"]) == (9, 3)
    assert metrics["dft_not_compared_first"] == "dft.xyz, frame 59 (from 0): force of 120 eV/Å"
    told = run(tmp_path, params(), **data)[1]["dft_not_compared_first"]
    assert told == "dft.xyz, frame 59 (from 0): the teacher has no label of it"
    data["dft_teacher"] = pool(12, first=50)
    metrics = run(tmp_path, params(), **data)[1]
    assert (metrics["dft_not_compared"], metrics["dft_not_compared_first"]) == (0, None)
    # Isolated atoms are compared with nothing, whatever the teacher says.
    test = [*pool(12, first=70, source="test.xyz"), alone("Si", -0.8)]
    metrics = run(tmp_path, params(), labels=pool(6), dft_test=test, dft_teacher=pool(11, first=70))[1]
    assert metrics["dft_not_compared"] == 1
    assert metrics["dft_not_compared_first"].startswith("test.xyz, frame 81 (from 0): ")


def test_another_zero_is_refused_or_aligned(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"another zero.* 0\.150 eV/atom, and by up to 0\.000 .*dft\.energies: align"):
        run(tmp_path, params(), **dft_data(shift=0.15))
    found, metrics = run(tmp_path, params(dft_energies="align"), **dft_data(shift=0.15))
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=1e-6)
    assert metrics["teacher_energy_max_meV_per_atom"] == pytest.approx(0.0, abs=1e-3)
    assert found.on_teachers_scale(1.0, {"C": 2, "Si": 1}, "dft") == pytest.approx(1.0 - 0.45, abs=1e-6)
    assert found.on_teachers_scale(1.0, {"C": 2, "Si": 1}, "teacher") == 1.0
    # one wild structure does not move the constants
    data = dft_data(shift=0.15)
    data["dft"][3].calc.results["energy"] += 0.5 * len(data["dft"][3])
    found, _ = run(tmp_path, params(dft_energies="align"), **data)
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=0.01)
    # a teacher that is merely bad has no other zero
    data = dft_data()
    rng = np.random.default_rng(0)
    for atoms in data["dft"]:
        atoms.calc.results["energy"] += rng.choice([-0.2, 0.2]) * len(atoms)
    assert run(tmp_path, params(), **data)[0].dft_offsets_eV == {}
    # DFT on the teacher's scale is left alone
    found, metrics = run(tmp_path, params(), **dft_data(shift=0.004))
    assert found.dft_offsets_eV == {}
    assert metrics["dft_compared"] == 11
    assert metrics["teacher_energy_mae_meV_per_atom"] == pytest.approx(4.0)
    assert metrics["teacher_force_max_meV_per_A"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["teacher_test_force_max_meV_per_A"] is None


@pytest.mark.parametrize(
    ("of_training", "of_test", "same"), [(0.15, 0.15, True), (0.15, 0.0, False), (0.0, 0.3, False)]
)
def test_test_files_have_the_zero_of_the_training_files(
    tmp_path: Path, of_training: float, of_test: float, same: bool
) -> None:
    data = dft_data(shift=of_training)
    data["dft_test"] = pool(8, first=80, source="test.xyz", shift=of_test)
    data["dft_teacher"] += pool(8, first=80)
    if same:
        run(tmp_path, params(dft_energies="align"), **data)
        return
    with pytest.raises(BadInput, match=rf"test files have another zero.*C \{of_test - of_training:+.4f}"):
        run(tmp_path, params(dft_energies="align"), **data)


def test_the_constants_of_an_earlier_run_stay(tmp_path: Path) -> None:
    """Its DFT data are in the set: what is new has their zero, and a test file alone moves nothing."""
    first, _ = run(tmp_path, params(dft_energies="align"), **dft_data(shift=0.15))
    first.write(tmp_path / "earlier.json")
    tables = {"labels": pool(6), "dft_test": pool(8, first=80, shift=0.152), "dft_teacher": pool(8, first=80)}
    again, _ = run(tmp_path, params(), base=tmp_path / "earlier.json", **tables)
    assert again.dft_offsets_eV == first.dft_offsets_eV
    assert again.dft_compared == first.dft_compared == 11
    with pytest.raises(BadInput, match="training files have another zero than those of the earlier run's DFT data"):
        run(tmp_path, params(dft_energies="align"), base=tmp_path / "earlier.json", **dft_data(shift=0.4))
    # an earlier run without DFT data settles nothing
    Baseline(e0s_eV=TEACHER).write(tmp_path / "earlier.json")
    found, _ = run(tmp_path, params(dft_energies="align"), base=tmp_path / "earlier.json", **dft_data(shift=0.15))
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=1e-6)


@pytest.mark.parametrize(
    ("factor", "unit"), [(51.422067, "Hartree/Bohr"), (25.711034, "Rydberg/Bohr"), (0.0433641, "kcal/mol/Å")]
)
def test_forces_in_another_unit_are_named_with_frame_and_unit(tmp_path: Path, factor: float, unit: str) -> None:
    data = dft_data()
    data["dft"][4].calc.results["forces"] /= factor
    with pytest.raises(BadInput, match=rf"dft\.xyz, frame 54 \(from 0\).*looks like {unit}\. Give eV/Å"):
        run(tmp_path, params(), **data)


@pytest.mark.parametrize(("factor", "refused"), [(5.0, False), (1 / 51.422067, True)])
def test_forces_of_a_dimer_are_always_in_proportion(tmp_path: Path, factor: float, refused: bool) -> None:
    """A teacher that is wrong at a short distance is no other unit; a factor that is one's still is."""
    data = dft_data()
    dimer = label(Atoms("Si2", positions=[[0, 0, 0], [0, 0, 1.9]]), 90, source="dft.xyz")
    data["dft_teacher"] += [dimer]
    data["dft"] += [dimer.copy()]
    forces = dimer.calc.results["forces"] * factor
    data["dft"][-1].calc = SinglePointCalculator(dimer, energy=dimer.calc.results["energy"], forces=forces)
    if refused:
        with pytest.raises(BadInput, match=r"dft\.xyz, frame 90 \(from 0\).*Hartree/Bohr"):
            run(tmp_path, params(), **data)
    else:
        assert run(tmp_path, params(), **data)[1]["dft_compared"] == 12


def test_energies_in_another_unit_are_named(tmp_path: Path) -> None:
    data = dft_data()
    for atoms in data["dft"]:
        atoms.calc.results["energy"] /= 27.211386
    data["dft"] += [label(atoms.copy(), 90 + n) for n, atoms in enumerate(data["dft"])]
    with pytest.raises(BadInput, match=r"dft\.xyz.* Hartree"):
        run(tmp_path, params(), **data)
    data = dft_data()
    data["dft"][2].calc.results["energy"] /= 27.211386
    with pytest.raises(BadInput, match=r"dft\.xyz, frame 52 \(from 0\): its energy is given in Hartree"):
        run(tmp_path, params(), **data)


@pytest.mark.parametrize("name", ["dft", "dft_test"])
def test_stress_in_another_unit_is_refused_with_file_and_unit(tmp_path: Path, name: str) -> None:
    data = {"labels": pool(6), name: pool(6, first=50, source="dft.xyz"), "dft_teacher": pool(6, first=50)}
    for dft, teacher in zip(data[name], data["dft_teacher"], strict=True):
        stress = np.array([0.03, -0.02, 0.01, 0.0, 0.02, 0.0])
        dft.calc.results["stress"], teacher.calc.results["stress"] = stress * 1602.1766, stress
    with pytest.raises(BadInput, match=r"^dft\.xyz: its stress is 1602 times the teacher's .*looks like kBar"):
        run(tmp_path, params(), **data)


def test_zbl_is_taken_off_inside_the_bonds_alone_and_a_fitted_lennard_jones_loses_no_close_structure(
    tmp_path: Path,
) -> None:
    asked = params(reference_potential="zbl", difference=True)
    found, metrics = run(tmp_path, asked, labels=pool(6))
    assert set(found.pairs) == {"C-C", "C-Si", "Si-Si"}
    assert found.pairs["Si-Si"] == PairTerm(form="zbl", inner_A=1.11, outer_A=2.22)
    bond = bulk("Si").get_distance(0, 1, mic=True)
    assert found.pairs["Si-Si"].outer_A < bond
    assert metrics["structures_pushed_out_of_range"] == 0
    assert run(tmp_path, params(reference_potential="zbl"), labels=pool(6))[0].pairs == {}
    # Two atoms at a fifth of their bond: the depth shrinks until their energy less it is in range.
    close = label(Atoms("Si2", positions=[[0, 0, 0], [0.9, 0, 0]]), 99)
    close.calc.results["energy"] = 40.0
    _, metrics = run(tmp_path, params(reference_potential="lj"), labels=[*pool(30), close])
    assert metrics["structures_pushed_out_of_range"] == 0
    assert ENERGY_RANGE[0] <= metrics["lowest_corrected_eV_per_atom"] < -19


def test_a_fitted_lennard_jones_takes_off_some_of_what_one_made(tmp_path: Path) -> None:
    found, metrics = run(tmp_path, params(reference_potential="lj"), labels=pool(60))
    assert metrics["structures_pushed_out_of_range"] == 0
    for name, made in LABELLED_BY.items():
        term = found.pairs[name]
        assert term.sigma_A is not None
        assert term.sigma_A == pytest.approx(made["sigma_A"], rel=0.25)
        assert term.outer_A <= 5.0
    terms = {name: term.model_dump() for name, term in found.pairs.items()}
    wells = {name: 2 ** (1 / 6) * float(str(term["sigma_A"])) for name, term in terms.items()}
    before, after = [np.zeros(0)], [np.zeros(0)]
    for atoms in pool(60):
        crowded = pair_potentials.crowded_atoms(atoms, wells)
        forces = atoms.calc.results["forces"]
        before.append(np.ravel(forces[crowded]))
        after.append(np.ravel((forces - calculator.pair_terms(atoms, terms)[1])[crowded]))
    assert np.abs(np.concatenate(after)).mean() < 0.95 * np.abs(np.concatenate(before)).mean()


def test_given_parameters_must_name_every_pair_and_leave_the_energies_in_range(tmp_path: Path) -> None:
    one = {"epsilon_eV": 0.1, "sigma_A": 1.5}
    with pytest.raises(BadInput, match="lj has no C-Si: give"):
        run(tmp_path, params(reference_potential="lj", lj={"C-C": one, "Si-Si": one}), labels=pool(6))
    every = dict.fromkeys(("C-C", "Si-C", "Si-Si"), one)
    with pytest.raises(BadInput, match="lj has H-H, but the elements are C, Si"):
        run(tmp_path, params(reference_potential="lj", lj=every | {"H-H": one}), labels=pool(6))
    found, _ = run(tmp_path, params(reference_potential="lj", lj=every), labels=pool(6))
    assert found.pairs["C-Si"].epsilon_eV == 0.1
    wide = {pair: {"epsilon_eV": 5.0, "sigma_A": 3.0} for pair in ("C-C", "C-Si", "Si-Si")}
    with pytest.raises(BadInput, match=r"pushes \d+ of 6 structures out of pacemaker's range of -20 to 250 eV/atom"):
        run(tmp_path, params(reference_potential="lj", lj=wide), labels=pool(6))


@pytest.mark.parametrize("reference", ["none", "zbl", "lj"])
def test_the_stub_writes_a_readable_baseline_at_once(tmp_path: Path, reference: str) -> None:
    asked = params(reference_potential=reference, difference=True)
    metrics = baseline.stub(Inputs({}), tmp_path, asked, Machine())
    found = Baseline.read(tmp_path / "baseline.json")
    assert found.e0s_eV == TEACHER == metrics["e0s_eV"]
    assert set(found.pairs) == (set() if reference == "none" else {"C-C", "C-Si", "Si-Si"})


def set_of(folder: Path, labels: list[Atoms], **dft: list[Atoms]) -> Path:
    """The data set of an earlier run."""
    files = written(folder, {"labels": labels, **dft})
    (folder / "outputs").mkdir()
    asked = dataset.Params(elements=("C", "Si"), teachers=("a" * 64,))
    dataset.run(Inputs(files), folder / "outputs", asked, Machine())
    return folder / "outputs" / dataset.OUTPUTS["dataset"]


def row_on(wanted: str, first: int = 200) -> int:
    """The first row whose family is on that side."""
    return next(row for row in range(first, first + 200) if side(f"f{row}", Split()) == wanted)


def test_an_isolated_atom_of_the_earlier_set_counts(tmp_path: Path) -> None:
    asked = params(e0s="isolated_atoms")
    base = set_of(tmp_path / "first", [*pool(30), alone("Si", -0.8), alone("C", -1.2)])
    new = pool(10, first=60)
    with pytest.raises(BadInput, match="no isolated atom of C, Si is in the data"):
        run(tmp_path, asked, labels=new)
    assert run(tmp_path, asked, labels=new, base_set=base)[0].e0s_eV == {"C": -1.2, "Si": -0.8}
    other = [*new, alone("Si", -0.7, row=3)]
    assert run(tmp_path, asked, labels=other, base_set=base)[0].e0s_eV["Si"] == -0.8, "those of the set stay"
    by_dft = run(tmp_path, asked, labels=new, base_set=base, dft=[alone("C", -1.3, row=4)])[0]
    assert by_dft.e0s_eV == {"C": -1.3, "Si": -0.8}
    # those of DFT are brought to the teacher's scale
    row = row_on("train")
    of_teacher = [*pool(30), alone("Si", -0.8), alone("C", -1.2)]
    base = set_of(tmp_path / "second", of_teacher, dft=[alone("C", -1.3, row), alone("Si", -0.9, row)])
    settled = Baseline(e0s_eV=TEACHER, dft_offsets_eV={"C": 0.15, "Si": -0.05}, dft_compared=9)
    settled.write(tmp_path / "earlier.json")
    files = {"base": tmp_path / "earlier.json", "base_set": base}
    found, _ = run(tmp_path, asked, labels=pool(10, first=60), dft=[alone("C", -1.1, row=5)], **files)
    assert found.e0s_eV == pytest.approx({"C": -1.45, "Si": -0.85})


def noisy(count: int, first: int = 0) -> list[Atoms]:
    """Labels that E0s do not explain wholly, so that every one of them counts."""
    made = pool(count, first)
    for atoms in made:
        atoms.calc.results["energy"] += 0.1 * len(atoms) * np.sin(7.0 * atoms.info["row"])
    return made


def test_least_squares_is_over_the_earlier_set_and_what_is_new_each_structure_once(tmp_path: Path) -> None:
    asked, everything = params(e0s="least_squares"), noisy(60)
    base = set_of(tmp_path / "first", everything[:45], dft=noisy(3, first=row_on("train")))
    at_once, _ = run(tmp_path, asked, labels=everything)
    found, _ = run(tmp_path, asked, labels=everything[30:], base_set=base)
    assert found.e0s_eV == pytest.approx(at_once.e0s_eV, abs=1e-9)
    assert run(tmp_path, asked, labels=everything[30:])[0].e0s_eV != pytest.approx(at_once.e0s_eV, abs=1e-3)


def test_structures_stay_on_the_sides_of_the_earlier_set(tmp_path: Path) -> None:
    """Whatever the shares are now: its rows, and new ones of its families."""
    first, more, wider = noisy(60), noisy(60, first=300), Split(validation=0.01, test=0.01)
    for old, new in zip(first, more, strict=True):
        new.info["family"] = old.info["family"]
        new.calc.results["energy"] += 50.0 * (side(old.info["family"], Split()) != "train")
    moved = {atoms.info["family"] for atoms in first if side(atoms.info["family"], Split()) != "train"}
    assert any(side(family, wider) == "train" for family in moved)
    base = set_of(tmp_path / "first", first)
    found, _ = run(tmp_path, params(e0s="least_squares", split=wider), labels=more, base_set=base)
    train = [atoms for atoms in [*first, *more] if atoms.info["family"] not in moved]
    expected, _ = run(tmp_path, params(e0s="least_squares"), labels=train)
    assert found.e0s_eV == pytest.approx(expected.e0s_eV, abs=1e-9)


def test_lennard_jones_is_fitted_to_the_earlier_set_and_what_is_new(tmp_path: Path) -> None:
    asked, everything = params(reference_potential="lj", e0s=E0), pool(60, scale=0.05)
    base = set_of(tmp_path / "first", everything[:45])
    at_once, metrics = run(tmp_path, asked, labels=everything)
    found, with_base = run(tmp_path, asked, labels=everything[40:], base_set=base)
    without, _ = run(tmp_path, asked, labels=everything[40:])
    for name, term in at_once.pairs.items():
        assert term.epsilon_eV is not None
        assert term.epsilon_eV < pair_potentials.DEPTHS_eV[1]
        assert found.pairs[name].sigma_A == pytest.approx(term.sigma_A, rel=1e-9)
        assert found.pairs[name].epsilon_eV == pytest.approx(term.epsilon_eV, rel=1e-6)
        assert without.pairs[name].epsilon_eV != pytest.approx(term.epsilon_eV, rel=1e-2)
    for key in ("lowest_corrected_eV_per_atom", "highest_corrected_eV_per_atom"):
        assert with_base[key] == pytest.approx(metrics[key])


def test_the_check_of_the_range_sees_the_earlier_set(tmp_path: Path) -> None:
    close = label(Atoms("Si2", positions=[[0, 0, 0], [0.9, 0, 0]]), row_on("train"))
    close.calc.results["energy"] = 40.0
    base = set_of(tmp_path / "first", [*pool(30), close])
    one = {"epsilon_eV": 0.1, "sigma_A": 1.5}
    given = params(reference_potential="lj", lj=dict.fromkeys(("C-C", "C-Si", "Si-Si"), one))
    new = pool(10, first=60)
    assert run(tmp_path, given, labels=new)[1]["structures_pushed_out_of_range"] == 0
    with pytest.raises(BadInput, match="pushes 1 of 41 structures out of pacemaker's range"):
        run(tmp_path, given, labels=new, base_set=base)
    _, fitted = run(tmp_path, params(reference_potential="lj"), labels=new, base_set=base)
    assert fitted["structures_pushed_out_of_range"] == 0
    assert ENERGY_RANGE[0] <= fitted["lowest_corrected_eV_per_atom"] < -19, "shallower for the close pair of the set"


def dimers(count: int) -> list[Atoms]:
    """On the training side; in every seventh two atoms are in one place."""
    made = []
    for row in range(count):
        distance = 0.001 if row % 7 == 0 else 1.8 + 0.001 * (37 * row % 1000)
        made.append(Atoms("SiC" if row % 2 else "Si2", positions=[[0, 0, 0], [distance, 0, 0]]))
        label(made[-1], row)
        made[-1].info["family"] = f"f{row_on('train')}"
        made[-1].calc.results["forces"] = np.clip(made[-1].calc.results["forces"], -50, 50)
        made[-1].calc.results["energy"] = sum(E0[symbol] for symbol in made[-1].symbols) - 0.1
    return made


def test_lennard_jones_is_fitted_to_every_nth_usable_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_potentials, "FITTED_FROM", 50)
    structures = dimers(130)
    chosen = [atoms for atoms in structures if atoms.get_distance(0, 1) > 1][::3]
    assert len(chosen) <= pair_potentials.FITTED_FROM < len(structures) * 6 / 7 / 2
    asked = params(reference_potential="lj", e0s=E0)
    assert run(tmp_path, asked, labels=structures)[0] == run(tmp_path, asked, labels=chosen)[0]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, params(reference_potential="lj", e0s="least_squares"), labels=pool(30))
    assert (tmp_path / "a" / "baseline.json").read_bytes() == (tmp_path / "b" / "baseline.json").read_bytes()
    e0s = {"C": -1.0, "H": -1.0, "Si": -1.0}
    wanted = params(reference_potential="lj", e0s=e0s, teacher_e0s_eV=e0s, elements=("C", "H", "Si"))
    found, _ = run(tmp_path, wanted, labels=pool(12))
    forms = {name: term.form for name, term in found.pairs.items()}
    assert list(forms) == ["C-C", "C-H", "C-Si", "H-H", "H-Si", "Si-Si"]
    assert {name for name, form in forms.items() if form == "zbl"} == {"C-H", "H-H", "H-Si"}
    assert found.pairs["H-H"].outer_A == pytest.approx(0.62)
