"""The active set and the evaluation with pyace, on potentials with random coefficients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine, Resources
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.evaluation import evaluate
from containers.tensorpot.frames.frame_file import Labelled, fit_ready, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.student import potential as loading
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import Student, padded

pytestmark = pytest.mark.e2e
E0 = {"Si": -3.25}
PARAMS = evaluate.Params(elements=("Si",))
FUNCTIONS = 30


def cells(count: int) -> list[Atoms]:
    """Different silicon cells of 8 atoms, 2 Å and more between atoms."""
    made = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.set_cell(atoms.cell.array * (0.95 + 0.01 * (seed % 11)), scale_atoms=True)
        atoms.rattle(0.06, seed=seed)
        made.append(atoms)
    return made


def write_potential(path: Path, core: bool = False) -> Path:
    """A B-basis potential with random coefficients, with ZBL inside 1.5 Å when asked."""
    from pyace.basisextension import construct_bbasisconfiguration
    from pyace.generalfit import setup_zbl_inner_core_repulsion

    shape = Potential(elements=("Si",), cutoff=5.0, functions_per_element=FUNCTIONS, b_basis="small")
    config = construct_bbasisconfiguration(shape.section())
    coefficients = np.array(config.get_all_coeffs())
    count = FUNCTIONS * 2  # the last ones: the functions' coefficients for two densities
    coefficients[-count:] = 0.05 * np.random.default_rng(0).normal(size=count)
    config.set_all_coeffs(coefficients)
    if core:
        setup_zbl_inner_core_repulsion(config, {(0, 0): 1.5})
    config.save(str(path))
    return path


def write_train(path: Path, structures: list[Atoms]) -> Path:
    """A training frame with labels of zero."""
    rows = [Labelled(structure_id(a), a, 0.0, 0.0, np.zeros((len(a), 3)), None) for a in structures]
    write_frame(path, frame(rows))
    return path


def make_asi(
    folder: Path, potential: Path, structures: list[Atoms], projections: str = "linear"
) -> tuple[Path, dict[str, Any]]:
    """The active set that the step makes, and its metrics."""
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    train = write_train(folder / "train.pckl.gzip", structures)
    files = Inputs({"potential": (potential,), "train": (train,)})
    params = pace_activeset.Params.model_validate({"projections": projections})
    metrics = pace_activeset.run(files, outputs, params, Machine(Resources(threads=2)))
    assert [path.name for path in outputs.iterdir()] == ["potential.asi"]
    return outputs / "potential.asi", metrics


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A potential with core repulsion and its active set of 30 cells."""
    folder = tmp_path_factory.mktemp("made")
    potential = write_potential(folder / "trained.yaml", core=True)
    return potential, make_asi(folder, potential, cells(30))[0]


def load_student(potential: Path, asi: Path) -> Student:
    """The student that the evaluation judges, without pair terms."""
    baseline = asi.with_name("baseline.json")
    Baseline(e0s_eV=E0).write(baseline)
    return loading.load_student(potential, asi, baseline)


def grade(potential: Path, asi: Path, atoms: Atoms) -> np.ndarray:
    """Extrapolation grade of each atom as pyace gives it."""
    student = load_student(potential, asi)
    student.calculate(atoms)
    return np.asarray(student.results["gamma"])


def test_the_active_set_is_that_of_the_program(tmp_path: Path, made: tuple[Path, Path]) -> None:
    potential, asi = made
    write_train(tmp_path / "train.pckl.gzip", cells(30))
    (tmp_path / "p.yaml").write_bytes(potential.read_bytes())
    program = str(Path(sys.executable).parent / "pace_activeset")
    command = [program, "-a", "-b", "none", "-d", "train.pckl.gzip", "p.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs, ours = np.load(tmp_path / "p.asi"), np.load(asi)
    assert list(ours) == list(theirs) == ["Si"]
    assert np.array_equal(ours["Si"], theirs["Si"])


def test_the_full_active_set_is_that_of_pyace_with_derivatives_that_are_not_zero(
    tmp_path: Path, made: tuple[Path, Path]
) -> None:
    from pyace.activelearning import compute_A_active_inverse, compute_active_set

    from containers.tensorpot.active_set.projections import project

    asi, metrics = make_asi(tmp_path, made[0], cells(30), "full")
    assert metrics["functions"] == metrics["spanned"] == {"Si": 2 * FUNCTIONS}
    rows, _ = project(loading.load_basis(made[0]), cells(30), "full")
    theirs = compute_A_active_inverse(compute_active_set({0: rows["Si"]}, tol=1.01))
    assert np.array_equal(np.load(asi)["Si"], theirs[0])
    inside = max(grade(made[0], asi, atoms).max() for atoms in cells(30))
    assert 0.99 < inside < 1.02
    squeezed = bulk("Si", cubic=True)
    squeezed.set_cell(squeezed.cell.array * 0.8, scale_atoms=True)
    assert grade(made[0], asi, squeezed).min() > 2


def test_the_programs_own_full_set_sees_zeros(tmp_path: Path, made: tuple[Path, Path]) -> None:
    """Why ours is not compared with it; when this fails, pacemaker was mended and ours can be."""
    write_train(tmp_path / "train.pckl.gzip", cells(30))
    (tmp_path / "p.yaml").write_bytes(made[0].read_bytes())
    program = str(Path(sys.executable).parent / "pace_activeset")
    command = [program, "-a", "-f", "-b", "none", "-d", "train.pckl.gzip", "p.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with np.load(tmp_path / "p.asi.nonlinear") as theirs:
        np.testing.assert_allclose(theirs["Si"], 1e16 * np.eye(2 * FUNCTIONS))


def test_training_atoms_interpolate_and_others_do_not(made: tuple[Path, Path]) -> None:
    assert max(grade(*made, atoms).max() for atoms in cells(30)) < 1.02
    squeezed = bulk("Si", cubic=True)
    squeezed.set_cell(squeezed.cell.array * 0.8, scale_atoms=True)
    assert grade(*made, squeezed).min() > 2


def test_core_repulsion_does_not_change_the_grade(tmp_path: Path, made: tuple[Path, Path]) -> None:
    bare = write_potential(tmp_path / "bare.yaml")
    asi, _ = make_asi(tmp_path, bare, cells(30))
    for atoms in cells(32)[28:]:
        np.testing.assert_allclose(grade(bare, asi, atoms), grade(*made, atoms), rtol=1e-9)


def test_two_runs_write_the_same_bytes(tmp_path: Path, made: tuple[Path, Path]) -> None:
    again, metrics = make_asi(tmp_path, made[0], cells(30))
    assert again.read_bytes() == made[1].read_bytes()
    assert metrics["spanned"] == metrics["functions"] == {"Si": FUNCTIONS}
    assert metrics["deficient_elements"] == []


@pytest.mark.parametrize("structures", [cells(1), [bulk("Si", cubic=True)] * 10], ids=["few atoms", "few kinds"])
def test_too_few_environments_are_reported_and_leaving_them_extrapolates(
    tmp_path: Path, made: tuple[Path, Path], structures: list[Atoms]
) -> None:
    asi, metrics = make_asi(tmp_path, made[0], structures)
    assert metrics["deficient_elements"] == ["Si"]
    assert metrics["spanned"]["Si"] < FUNCTIONS
    assert grade(made[0], asi, structures[0]).max() < 1.02
    assert grade(made[0], asi, cells(4)[3]).max() > 1e3


def test_a_file_that_is_no_potential_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("nothing: here\n")
    with pytest.raises(BadInput, match=r"x\.yaml is not a B-basis potential"):
        loading.load_basis(tmp_path / "x.yaml")


def test_forces_and_stress_are_derivatives_of_the_energy(made: tuple[Path, Path]) -> None:
    student = load_student(*made)
    atoms = cells(3)[2]
    atoms.set_cell(atoms.cell.array @ [[1, 0.05, 0], [0, 0.97, 0.1], [-0.1, 0, 1.02]], scale_atoms=True)
    student.calculate(atoms)
    stress, forces, step = student.results["stress"], student.results["forces"], 1e-4
    assert np.abs(forces).max() > 0.1
    for voigt, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            student.calculate(strained)
            energies.append(student.results["energy"])
        slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert stress[voigt] == pytest.approx(slope, rel=1e-4, abs=1e-6)
    moved = [atoms.copy(), atoms.copy()]
    moved[0].positions[3, 1] += step
    moved[1].positions[3, 1] -= step
    energies = []
    for one in moved:
        student.calculate(one)
        energies.append(student.results["energy"])
    assert forces[3, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 0), (1, 1, 0)])
def test_padding_does_not_change_what_the_student_says(made: tuple[Path, Path], pbc: tuple[int, ...]) -> None:
    student = load_student(*made)
    atoms = cells(1)[0]
    atoms.set_pbc(pbc)
    ready = fit_ready(atoms, 5.0)
    assert isinstance(ready, Atoms)
    wide = padded(atoms, 5.0 + 7.3)
    answers = []
    for one in (ready, wide) if any(pbc) else (ready, wide, atoms):
        student.calculate(one)
        answers.append((student.results["energy"], student.results["forces"]))
    for energy, forces in answers[1:]:
        assert energy == pytest.approx(answers[0][0], rel=1e-12)
        np.testing.assert_allclose(forces, answers[0][1], atol=1e-11)


def reference(atoms: Atoms, student: Any, error: float = 0.0) -> Atoms:
    """The structure labelled by the student itself, `error` eV an atom too high."""
    seen = padded(atoms, 5.0) if atoms.pbc.any() else atoms
    student.calculate(seen)
    energy = student.results["energy"] + error * len(atoms)
    atoms.info = {"id": structure_id(atoms), "source": "dft.xyz", "row": 0, "group": "", "family": "f"}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=student.results["forces"])
    if atoms.pbc.all():
        atoms.calc.results["stress"] = student.results["stress"]
    return atoms


def test_the_student_against_itself_has_no_error_and_against_others_the_right_one(
    tmp_path: Path, made: tuple[Path, Path]
) -> None:
    student = load_student(*made)
    slab, molecule = cells(2)
    slab.set_pbc((1, 1, 0))
    molecule.set_pbc(False)
    alone = Atoms("Si", positions=[[3.0, 2.0, 1.0]])
    rows = []
    for atoms in (cells(35)[34], slab, molecule, alone):
        labels = reference(atoms, student).calc.results
        corrected = labels["energy"] - len(atoms) * E0["Si"]
        rows.append(
            Labelled(structure_id(atoms), atoms, labels["energy"], corrected, labels["forces"], labels.get("stress"))
        )
    write_frame(tmp_path / "test.pckl.gzip", frame(rows))
    write_table(tmp_path / "dft.parquet", labels_table([reference(atoms, student, 0.01) for atoms in cells(3)]))
    files = {"potential": (made[0],), "asi": (made[1],), "test": (tmp_path / "test.pckl.gzip",)}
    files["baseline"] = (made[1].with_name("baseline.json"),)
    inputs = Inputs(files | {"dft_test": (tmp_path / "dft.parquet",)})
    digests = []
    for name in ("a", "b"):
        outputs = tmp_path / name
        outputs.mkdir()
        evaluate.run(inputs, outputs, PARAMS, Machine())
        digests.append([(outputs / file).read_bytes() for file in evaluate.OUTPUTS.values()])
    assert digests[0] == digests[1]
    found = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert (found["teacher"]["structures"], found["teacher"]["atoms"]) == (4, 25)
    for key in ("energy_max_meV_per_atom", "force_max_meV_per_A", "stress_max_meV_per_A3"):
        assert found["teacher"][key] == pytest.approx(0.0, abs=1e-6)
    assert found["dft"]["energy_mae_meV_per_atom"] == pytest.approx(10.0)
    assert found["dft"]["force_mae_meV_per_A"] == pytest.approx(0.0, abs=1e-6)
    parity: pd.DataFrame = pq.read_table(tmp_path / "a" / "parity.parquet").to_pandas()
    lone = parity[(parity["id"] == structure_id(alone)) & (parity["quantity"] == "energy_eV_per_atom")]
    assert lone["predicted"].tolist() == [E0["Si"]]
    assert parity["gamma"].notna().all()
