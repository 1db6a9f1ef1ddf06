"""Frames of a toy student's own dynamics, and errors of known students on them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import Inputs, Machine
from containers.labels.pool_labels import REJECTED
from containers.mace.properties import teacher_motion
from containers.structures.table import labels_table, read_atoms, write_table
from containers.tensorpot.evaluation import stability, trajectory, trajectory_errors
from containers.tensorpot.student import potential
from tests.unit.containers.tensorpot.evaluation.toys import copper, files, row

PARAMS = trajectory.Params(picoseconds=0.1, temperatures_K=(300.0, 600.0), frames=3, atoms=32)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Rattled copper: two training structures of one composition."""
    cold, hot = bulk("Cu", cubic=True), bulk("Cu", cubic=True)
    cold.rattle(0.02, seed=2)
    hot.rattle(0.2, seed=3)
    return files(tmp_path / "inputs", [row("cold", cold, -4.0), row("hot", hot, -3.9)], {"Cu": -3.0})


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take this calculator, or copper of Lennard-Jones, for the student."""

    def take(made: Calculator | None = None) -> Calculator:
        made = made or copper()
        monkeypatch.setattr(potential, "load_student", lambda *_: made)
        return made

    take()
    return take


def labelled(folder: Path, teacher: Calculator, places: slice = slice(None), shift: float = 0.0) -> Inputs:
    """Inputs of `trajectory_errors`: labels of a teacher, whose energies lie higher by `shift` (eV/atom)."""
    found = []
    for atoms in read_atoms(folder / "structures.parquet")[places]:
        teacher.calculate(atoms)
        energy, forces = teacher.results["energy"] + shift * len(atoms), teacher.results["forces"]
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        found.append(atoms)
    names = {"trajectory": "trajectory.json", "structures": "structures.parquet"}
    given = {name: (folder / file,) for name, file in names.items()}
    if found:
        write_table(folder / "labels.parquet", labels_table(found))
        given["labels"] = (folder / "labels.parquet",)
    return Inputs(given | {name: (folder / name,) for name in ("potential", "asi", "baseline")})


def test_each_run_gives_frames_evenly_in_time_near_its_temperature(
    tmp_path: Path, inputs: Inputs, student: Any
) -> None:
    params = stability.Params(picoseconds=0.1, frames=2, atoms=32)
    stability.run(inputs, tmp_path, params, Machine())
    nve = {"stability": (tmp_path / "stability.json",), "nve_frames": (tmp_path / "nve_frames.parquet",)}
    metrics = trajectory.run(Inputs(dict(inputs.files) | nve), tmp_path, PARAMS, Machine())
    frames = read_atoms(tmp_path / "structures.parquet")
    assert metrics["frames"] == len(frames) == 8
    visited = [(atoms.info["group"], atoms.info["row"]) for atoms in frames]
    assert visited == [("NVE", 20), ("NVE", 100), *(("NVT 300 K", step) for step in (20, 60, 100)),
                       *(("NVT 600 K", step) for step in (20, 60, 100))]  # fmt: skip
    assert len({atoms.info["id"] for atoms in frames}) == 8
    runs = json.loads((tmp_path / "trajectory.json").read_text())["runs"]
    assert [one["temperature_K"] for one in runs] == [None, 300.0, 600.0]
    assert {one["unstable_because"] for one in runs} == {None}
    assert runs[1]["mean_temperature_K"] == pytest.approx(300, rel=0.35)
    assert runs[2]["mean_temperature_K"] == pytest.approx(600, rel=0.35)
    assert metrics["motion_atom_steps"] == 32 * 100
    first = (tmp_path / "structures.parquet").read_bytes()
    trajectory.run(Inputs(dict(inputs.files) | nve), tmp_path, PARAMS, Machine())
    assert first == (tmp_path / "structures.parquet").read_bytes()


def test_temperatures_are_found_in_the_data_and_the_run_says_how(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    brief = PARAMS.model_copy(update={"temperatures_K": "auto", "picoseconds": 0.02})
    metrics = trajectory.run(inputs, tmp_path, brief, Machine())
    said = re.search(r"90 % of the training structures are below (\d+) K", metrics["temperatures_from"])
    assert said
    warmer = 0.9 * 0.1 / (1.5 * 8.617333e-5)  # of the two by their energies, at the 90th percentile
    assert warmer < int(said[1]) < 2 * warmer, "the colder one is not at rest"
    assert [one["temperature_K"] for one in metrics["runs"]] == [300.0, round(0.8 * int(said[1]), -1)]


def test_an_unstable_run_says_so_and_keeps_the_frames_until_then(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    student(copper(pull=50.0))
    metrics = trajectory.run(inputs, tmp_path, PARAMS, Machine())
    assert (metrics["frames"], metrics["motion_atom_steps"]) == (0, None)
    assert all(one["unstable_because"].startswith("while it was relaxed") for one in metrics["runs"])
    found = trajectory_errors.run(labelled(tmp_path, copper()), tmp_path, trajectory_errors.Params(), Machine())
    assert [(one["labelled"], one["force_mae_meV_per_A"], one["set_aside"]) for one in found["runs"]] == [
        (0, None, 0)
    ] * 2
    assert found["by_gamma"] == found["frames"] == []


def test_a_student_that_is_the_teacher_has_no_errors(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    trajectory.run(inputs, tmp_path, PARAMS, Machine())
    found = trajectory_errors.run(labelled(tmp_path, copper()), tmp_path, trajectory_errors.Params(), Machine())
    for one in found["runs"]:
        assert (one["labelled"], one["frames"], one["set_aside"]) == (3, 3, 0)
        assert one["energy_max_meV_per_atom"] == pytest.approx(0, abs=1e-9)
        assert one["force_max_meV_per_A"] == pytest.approx(0, abs=1e-9)
        assert one["teacher_force_size_meV_per_A"] > 50
        assert one["gamma_max"] == 2.0
    (grades,) = found["by_gamma"]
    assert (grades["gamma_above"], grades["gamma_up_to"], grades["frames"]) == (1, 5, 6)
    assert grades["atoms"] == sum(one["atoms"] * 3 for one in found["runs"])
    (tmp_path / "trajectory_errors.json").unlink()
    stubbed = trajectory_errors.stub(labelled(tmp_path, copper()), tmp_path, trajectory_errors.Params(), Machine())
    assert set(stubbed) == set(found)
    assert set(stubbed["runs"][0]) == set(found["runs"][0])
    assert (tmp_path / "trajectory_errors.json").is_file()


def test_errors_are_those_of_student_and_teacher_by_run_and_time(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    """A teacher 5 meV/atom higher whose potential is 1.1 times as deep: forces differ by a tenth of the student's."""
    trajectory.run(inputs, tmp_path, PARAMS, Machine())
    given = labelled(tmp_path, copper(depth=0.44), shift=0.005)
    found = trajectory_errors.run(given, tmp_path, trajectory_errors.Params(), Machine())
    first = read_atoms(tmp_path / "structures.parquet")[0]
    mine, theirs = copper(), copper(depth=0.44)
    for one in (mine, theirs):
        one.calculate(first)
    expected = 1000 * ((mine.results["energy"] - theirs.results["energy"]) / len(first) - 0.005)
    assert found["frames"][0]["energy_error_meV_per_atom"] == pytest.approx(expected)
    assert [one["time_ps"] for one in found["frames"]] == pytest.approx([0.02, 0.06, 0.1] * 2)
    cold, hot = found["runs"]
    assert cold["force_mae_meV_per_A"] == pytest.approx(cold["teacher_force_size_meV_per_A"] / 11)
    assert hot["force_mae_meV_per_A"] > cold["force_mae_meV_per_A"]


def test_frames_without_a_good_label_are_counted_with_the_reason(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    trajectory.run(inputs, tmp_path, PARAMS, Machine())
    given = labelled(tmp_path, copper(), slice(0, 4))
    left = read_atoms(tmp_path / "structures.parquet")[4:]
    rows = [{**{name: atoms.info[name] for name in ("id", "source", "row")}, "reason": "a force"} for atoms in left]
    write_table(tmp_path / "rejected.parquet", pa.Table.from_pylist(rows, schema=REJECTED))
    found = trajectory_errors.run(
        Inputs(dict(given.files) | {"rejected": (tmp_path / "rejected.parquet",)}),
        tmp_path, trajectory_errors.Params(), Machine(),
    )  # fmt: skip
    counts = [(one["labelled"], one["set_aside"], one["set_aside_because"]) for one in found["runs"]]
    assert counts == [(3, 0, None), (1, 2, "a force")]


def test_atoms_count_in_the_range_of_their_own_grade_and_frames_in_that_of_their_largest() -> None:
    from containers.tensorpot.evaluation.error_tables import Compared

    force = np.array([0.0, 0, 0, 0.003, 0, 0, 0.3, 0.3, 0.3])
    values = {"energy_eV_per_atom": (np.zeros(1), np.array([0.002])), "force_eV_per_A": (np.zeros(9), force)}
    one = Compared("a", values, np.array([0.0, 1.0, 30.0]), "NVE", {"Cu": 3})
    low, high = trajectory_errors.by_gamma([one])
    assert (low["gamma_above"], low["gamma_up_to"], low["atoms"], low["frames"]) == (None, 1, 2, 0)
    assert low["force_mae_meV_per_A"] == pytest.approx(0.5)
    assert low["energy_mae_meV_per_atom"] is None
    assert (high["gamma_above"], high["gamma_up_to"], high["atoms"], high["frames"]) == (25, None, 1, 1)
    assert (high["force_mae_meV_per_A"], high["energy_mae_meV_per_atom"]) == pytest.approx((300, 2))


def test_the_stub_has_the_figures_of_a_run(tmp_path: Path, inputs: Inputs, student: Any) -> None:
    metrics = trajectory.run(inputs, tmp_path, PARAMS.model_copy(update={"picoseconds": 0.01}), Machine())
    stubbed = trajectory.stub(inputs, tmp_path, PARAMS, Machine())
    assert set(stubbed) == set(metrics)
    assert set(stubbed["runs"][0]) == set(metrics["runs"][0])
    (frame,) = read_atoms(tmp_path / "structures.parquet")
    assert isinstance(frame, Atoms)
    assert frame.info["group"] == stubbed["runs"][0]["run"]
    given = Inputs({"trajectory": (tmp_path / "trajectory.json",)})
    beside = teacher_motion.stub(given, tmp_path, teacher_motion.Params(head="Default", dtype="float64"), Machine())
    assert beside["g_difference_percent"] == 0
    assert beside["teacher_msd_A2"] == beside["student_msd_A2"]
