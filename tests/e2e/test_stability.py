"""The stability gate on really fitted copper (ASE's effective-medium theory), and on the same potential spoilt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.contract import Inputs, Machine
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation import evaluate, stability
from containers.tensorpot.frames.frame_file import frame, write_frame
from containers.tensorpot.student.baseline import Baseline
from tests.e2e.copper import E0, Fit, wide

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Student:
    """A fitted student with its core: the files that the gate reads, and the core step's metrics."""

    folder: Path
    fit: Fit
    core: dict[str, Any]

    def inputs(self, potential: Path | None = None) -> Inputs:
        """Of the gate, with another potential where one is given."""
        names = {"asi": "potential.asi", "baseline": "baseline.json"}
        files = {name: (self.folder / file,) for name, file in names.items()} | {"train": self.fit.files["train"]}
        return Inputs(files | {"potential": (potential or self.folder / "potential.yaml",)})


@pytest.fixture(scope="module")
def student(copper_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> Student:
    folder = tmp_path_factory.mktemp("student")
    Baseline(e0s_eV=E0).write(folder / "baseline.json")
    interim, train = (copper_fit.path("interim"),), copper_fit.files["train"]
    pace_activeset.run(Inputs({"potential": interim, "train": train}), folder, pace_activeset.Params(), Machine())
    given = {"interim": interim, "asi": (folder / "potential.asi",), "train": train}
    given["baseline"] = (folder / "baseline.json",)
    return Student(folder, copper_fit, pace_corerep.run(Inputs(given), folder, pace_corerep.Params(), Machine()))


def gate(student: Student, outputs: Path, potential: Path | None = None, **params: Any) -> dict[str, Any]:
    """The metrics of the gate."""
    outputs.mkdir()
    return stability.run(student.inputs(potential), outputs, stability.Params(**params), Machine())


def spoilt(student: Student, path: Path, factor: float) -> Path:
    """The potential without a core, the coefficients of its functions times a factor."""
    from pyace import BBasisConfiguration

    configuration = BBasisConfiguration(str(student.fit.path("interim")))
    coefficients = np.array(configuration.get_all_coeffs())
    functions = sum(student.core["functions"].values()) * 2  # the last ones, for two densities
    coefficients[-functions:] *= factor
    configuration.set_all_coeffs(coefficients)
    configuration.save(str(path))
    return path


@pytest.fixture(scope="module")
def sound(student: Student, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Metrics and outputs of the gate with the defaults."""
    outputs = tmp_path_factory.mktemp("gate") / "outputs"
    return gate(student, outputs), outputs


def test_a_fitted_student_keeps_its_energy_for_two_picoseconds(sound: tuple[dict[str, Any], Path]) -> None:
    metrics, outputs = sound
    assert metrics["stable"] is True, metrics["unstable_because"]
    assert abs(metrics["drift_meV_per_atom_per_ps"]) < 0.2
    assert metrics["steps"] * metrics["timestep_fs"] == 2000
    assert metrics["atoms"] >= 64
    assert metrics["mean_temperature_K"] == pytest.approx(150, abs=40)  # a relaxed solid shares it with its bonds
    assert 2.0 < metrics["shortest_distance_A"] < 2.6
    series = json.loads((outputs / "stability.json").read_text())["series"]
    assert series["temperature_K"][0] == pytest.approx(300)
    assert max(series["gamma"]) <= metrics["gamma_max"]
    assert metrics["gamma_share_above_25"] == 0.0


def test_the_energies_of_the_series_are_the_students(student: Student, sound: tuple[dict[str, Any], Path]) -> None:
    """The start is relaxed copper: near the energy of EMT's crystal and below every training structure."""
    series = json.loads((sound[1] / "stability.json").read_text())["series"]
    lowest = min(row.energy / len(row.atoms) for row in wide(24, 1))
    assert series["potential_energy_eV_per_atom"][0] < lowest
    assert series["potential_energy_eV_per_atom"][0] == pytest.approx(E0["Cu"], abs=0.06)


def test_two_runs_write_the_same_bytes(student: Student, tmp_path: Path) -> None:
    for name in ("one", "two"):
        gate(student, tmp_path / name, picoseconds=0.2)
    assert (tmp_path / "one/stability.json").read_bytes() == (tmp_path / "two/stability.json").read_bytes()


@pytest.mark.parametrize(("factor", "reason"), [(-1.0, "atoms fused"), (-0.2, "atoms fused")])
def test_atoms_of_a_potential_turned_upside_down_fuse(
    student: Student, tmp_path: Path, factor: float, reason: str
) -> None:
    metrics = gate(student, tmp_path / "gate", spoilt(student, tmp_path / "bad.yaml", factor))
    assert metrics["stable"] is False
    assert reason in metrics["unstable_because"]


def test_steps_that_are_too_long_are_told(student: Student, tmp_path: Path) -> None:
    stiff = spoilt(student, tmp_path / "stiff.yaml", 30.0)
    metrics = gate(student, tmp_path / "gate", stiff, timestep_fs=10, picoseconds=1)
    assert metrics["stable"] is False
    assert metrics["unstable_because"]


def test_the_core_step_tells_size_and_how_far_yaml_and_yace_differ(student: Student) -> None:
    from containers.tensorpot.student import potential as fitted_potential

    shape = fitted_potential.shape_of(fitted_potential.load(student.folder / "potential.yaml"))
    assert student.core["functions"] == {"Cu": shape[0]} == {"Cu": 30}
    assert student.core["parameters"] == shape[1]
    assert student.core["yace_compared_structures"] == 20
    assert student.core["yace_difference_eV_per_atom"] <= 1e-5
    assert student.core["yace_force_difference_eV_per_A"] <= 1e-4
    for name in ("yaml", "yace"):
        assert student.core[f"{name}_bytes"] == (student.folder / f"potential.{name}").stat().st_size


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_a_yace_that_differs_on_one_of_many_structures_is_refused(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantity: str
) -> None:
    from containers.tensorpot.student import yace

    asked = yace.predict

    def worse(potential: Any, structures: Any, recursive: bool = False) -> Any:
        energies, forces = asked(potential, structures, recursive)
        if recursive and quantity == "energy":
            energies[-1] += 2e-5 * len(structures[-1])
        elif recursive:
            forces[-1][2, 1] += 0.2
        return energies, forces

    monkeypatch.setattr(yace, "predict", worse)
    structures = [row.atoms for row in wide(30, 3)]
    said = {"energy": r"2.*e-05 eV/atom and .* eV/Å on", "forces": r".* eV/atom and 2.*e-01 eV/Å on"}[quantity]
    with pytest.raises(yace.ExportDiffers, match=f"by {said} a training structure of 4 atoms"):
        yace.write_yace(student.folder / "potential.yaml", tmp_path / "potential.yace", structures)


def test_the_speed_is_told_of_the_yace_and_in_no_file(student: Student, tmp_path: Path) -> None:
    write_frame(tmp_path / "test.pckl.gzip", frame(wide(3, 4)))
    files = dict(student.inputs().files) | {"test": (tmp_path / "test.pckl.gzip",)}
    params = evaluate.Params(elements=("Cu",))
    written = []
    for name, more in (("a", {"yace": (student.folder / "potential.yace",)}), ("b", {})):
        (tmp_path / name).mkdir()
        metrics = evaluate.run(Inputs(files | more), tmp_path / name, params, Machine())
        written.append([(tmp_path / name / file).read_bytes() for file in evaluate.OUTPUTS.values()])
        assert ("student_us_per_atom" in metrics) == bool(more)
        if more:
            assert 0.1 < metrics["student_us_per_atom"] < 1000  # a machine of any kind; a wrong unit is far outside
    assert written[0] == written[1]
