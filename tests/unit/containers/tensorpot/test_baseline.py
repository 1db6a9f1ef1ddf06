"""Reference energies, DFT beside the teacher, and the pair terms of a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.split import side
from containers.structures import labels_table, structure_id, write_table
from containers.tensorpot import baseline, pair_difference, student
from containers.tensorpot.baseline_model import Baseline, PairTerm
from containers.tensorpot.frames import ENERGY_RANGE

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
    energy, forces, _ = student.pair_terms(atoms, LABELLED_BY)
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


def run(
    folder: Path, asked: baseline.Params, base: Path | None = None, **tables: list[Atoms]
) -> tuple[Baseline, dict[str, Any]]:
    files = {"base": (base,)} if base else {}
    for name, structures in tables.items():
        write_table(folder / f"{name}.parquet", labels_table(structures))
        files[name] = (folder / f"{name}.parquet",)
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


def test_least_squares_finds_the_energies_of_the_atoms(tmp_path: Path) -> None:
    found, _ = run(tmp_path, params(e0s="least_squares"), labels=gas("SiC Si2C SiC2", E0))
    assert found.e0s_from == "least_squares"
    assert found.e0s_eV == pytest.approx(E0, abs=1e-9)


def test_least_squares_of_one_composition_stays_nearest_to_the_teacher(tmp_path: Path) -> None:
    """Of Si + C = -9.9 eV alone nothing tells the two apart: both move equally."""
    found, _ = run(tmp_path, params(e0s="least_squares"), labels=gas("SiC Si2C2", E0))
    assert found.e0s_eV == pytest.approx({"C": -7.0 + 0.05, "Si": -3.0 + 0.05}, abs=1e-9)


def test_least_squares_sees_the_training_side_alone(tmp_path: Path) -> None:
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


def test_dft_on_the_teachers_scale_is_left_alone(tmp_path: Path) -> None:
    found, metrics = run(tmp_path, params(), **dft_data(shift=0.004))
    assert found.dft_offsets_eV == {}
    assert metrics["dft_compared"] == 11
    assert metrics["teacher_energy_mae_meV_per_atom"] == pytest.approx(4.0)
    assert metrics["teacher_force_max_meV_per_A"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["teacher_test_force_max_meV_per_A"] is None


def test_another_zero_is_refused_or_aligned(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"another zero.* 0\.150 eV/atom, and by up to 0\.000 .*dft\.energies: align"):
        run(tmp_path, params(), **dft_data(shift=0.15))
    found, metrics = run(tmp_path, params(dft_energies="align"), **dft_data(shift=0.15))
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=1e-6)
    assert metrics["teacher_energy_max_meV_per_atom"] == pytest.approx(0.0, abs=1e-3)
    assert found.on_teachers_scale(1.0, {"C": 2, "Si": 1}, "dft") == pytest.approx(1.0 - 0.45, abs=1e-6)
    assert found.on_teachers_scale(1.0, {"C": 2, "Si": 1}, "teacher") == 1.0


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


def test_an_earlier_run_without_dft_data_settles_nothing(tmp_path: Path) -> None:
    Baseline(e0s_eV=TEACHER).write(tmp_path / "earlier.json")
    found, _ = run(tmp_path, params(dft_energies="align"), base=tmp_path / "earlier.json", **dft_data(shift=0.15))
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=1e-6)


def test_a_teacher_that_is_merely_bad_has_no_other_zero(tmp_path: Path) -> None:
    data = dft_data()
    rng = np.random.default_rng(0)
    for atoms in data["dft"]:
        atoms.calc.results["energy"] += rng.choice([-0.2, 0.2]) * len(atoms)
    assert run(tmp_path, params(), **data)[0].dft_offsets_eV == {}


def test_one_wild_structure_does_not_move_the_constants(tmp_path: Path) -> None:
    data = dft_data(shift=0.15)
    data["dft"][3].calc.results["energy"] += 0.5 * len(data["dft"][3])
    found, _ = run(tmp_path, params(dft_energies="align"), **data)
    assert found.dft_offsets_eV == pytest.approx({"C": 0.15, "Si": 0.15}, abs=0.01)


@pytest.mark.parametrize(
    ("factor", "unit"), [(51.422067, "Hartree/Bohr"), (25.711034, "Rydberg/Bohr"), (0.0433641, "kcal/mol/Å")]
)
def test_forces_in_another_unit_are_told_with_frame_and_unit(tmp_path: Path, factor: float, unit: str) -> None:
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


def test_energies_in_another_unit_are_told(tmp_path: Path) -> None:
    data = dft_data()
    for atoms in data["dft"]:
        atoms.calc.results["energy"] /= 27.211386
    data["dft"] += [label(atoms.copy(), 90 + n) for n, atoms in enumerate(data["dft"])]
    with pytest.raises(BadInput, match=r"dft\.xyz.* Hartree"):
        run(tmp_path, params(), **data)


def test_one_energy_in_another_unit_is_told_with_its_frame(tmp_path: Path) -> None:
    data = dft_data()
    data["dft"][2].calc.results["energy"] /= 27.211386
    with pytest.raises(BadInput, match=r"dft\.xyz, frame 52 \(from 0\): its energy is given in Hartree"):
        run(tmp_path, params(), **data)


def test_zbl_is_taken_off_inside_the_bonds_alone(tmp_path: Path) -> None:
    asked = params(reference_potential="zbl", difference=True)
    found, metrics = run(tmp_path, asked, labels=pool(6))
    assert set(found.pairs) == {"C-C", "C-Si", "Si-Si"}
    assert found.pairs["Si-Si"] == PairTerm(form="zbl", inner_A=1.11, outer_A=2.22)
    bond = bulk("Si").get_distance(0, 1, mic=True)
    assert found.pairs["Si-Si"].outer_A < bond
    assert metrics["structures_pushed_out_of_range"] == 0
    assert run(tmp_path, params(reference_potential="zbl"), labels=pool(6))[0].pairs == {}


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
        crowded = pair_difference.crowded_atoms(atoms, wells)
        forces = atoms.calc.results["forces"]
        before.append(np.ravel(forces[crowded]))
        after.append(np.ravel((forces - student.pair_terms(atoms, terms)[1])[crowded]))
    assert np.abs(np.concatenate(after)).mean() < 0.95 * np.abs(np.concatenate(before)).mean()


def test_a_fitted_lennard_jones_loses_no_structure_that_is_very_close(tmp_path: Path) -> None:
    """Two atoms at a fifth of their bond: the depth shrinks until their energy less it is in range."""
    close = label(Atoms("Si2", positions=[[0, 0, 0], [0.9, 0, 0]]), 99)
    close.calc.results["energy"] = 40.0
    _, metrics = run(tmp_path, params(reference_potential="lj"), labels=[*pool(30), close])
    assert metrics["structures_pushed_out_of_range"] == 0
    assert ENERGY_RANGE[0] <= metrics["lowest_corrected_eV_per_atom"] < -19


def test_given_parameters_must_name_every_pair_and_leave_the_energies_in_range(tmp_path: Path) -> None:
    one = {"epsilon_eV": 0.1, "sigma_A": 1.5}
    with pytest.raises(BadInput, match="lj has no C-Si: give"):
        run(tmp_path, params(reference_potential="lj", lj={"C-C": one, "Si-Si": one}), labels=pool(6))
    with pytest.raises(BadInput, match="lj has H-H, but the elements are C, Si"):
        run(
            tmp_path,
            params(reference_potential="lj", lj=dict.fromkeys(("C-C", "Si-C", "Si-Si", "H-H"), one)),
            labels=pool(6),
        )
    found, _ = run(
        tmp_path, params(reference_potential="lj", lj=dict.fromkeys(("C-C", "Si-C", "Si-Si"), one)), labels=pool(6)
    )
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


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, params(reference_potential="lj", e0s="least_squares"), labels=pool(30))
    assert (tmp_path / "a" / "baseline.json").read_bytes() == (tmp_path / "b" / "baseline.json").read_bytes()


def test_pair_names_are_alphabetic() -> None:
    assert pair_difference.pair_names(("Ni", "Al")) == ["Al-Al", "Al-Ni", "Ni-Ni"]
