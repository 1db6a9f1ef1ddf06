"""The stability step with a toy student: where it begins, what it writes, what it calls unstable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import Inputs, Machine
from containers.structures.table import read_atoms
from containers.tensorpot.evaluation import stability
from containers.tensorpot.evaluation.molecular_dynamics import DynamicsRun
from containers.tensorpot.frames.frame_file import Labelled
from containers.tensorpot.student import potential
from containers.tensorpot.student.baseline import Baseline
from tests.unit.containers.tensorpot.evaluation.toys import CUTOFF, copper, files, row

SHORT = stability.Params(picoseconds=0.2)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take a student of a Lennard-Jones potential of this depth (eV), or of a mere pull (eV Å) between neighbours."""

    def take(depth: float = 0.4, pull: float = 0.0) -> None:
        made = copper(depth, pull)
        monkeypatch.setattr(potential, "load_student", lambda *_: made)

    return take


def ran(folder: Path, params: stability.Params = SHORT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and file of a run that begins with rattled copper."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=2)
    inputs = files(folder, [row("a", atoms, -4.0)], {"Cu": -3.0})
    metrics = stability.run(inputs, folder, params, Machine())
    return metrics, json.loads((folder / "stability.json").read_text())


def test_a_smooth_bound_potential_is_stable_and_the_stub_has_the_figures_of_the_run(tmp_path: Path, toy: Any) -> None:
    toy()
    metrics, told = ran(tmp_path)
    assert metrics["stable"] is True
    assert metrics["unstable_because"] is None
    assert abs(metrics["drift_meV_per_atom_per_ps"]) < 0.5
    assert (metrics["lost_atoms"], metrics["fused_atoms"]) == (0, 0)
    assert (metrics["atoms"], metrics["steps"], metrics["timestep_fs"]) == (108, 200, 1.0)
    assert [metrics[f"gamma_share_above_{level}"] for level in (1, 5, 25)] == [1.0, 0.0, 0.0]
    assert metrics["gamma_max"] == 2.0
    assert 0 < metrics["relaxation_steps"] <= stability.RELAX_STEPS
    assert told["metrics"] | {"structure": "a"} == metrics
    assert told["structure"] == "a"
    assert len(told["series"]["time_ps"]) <= stability.POINTS
    frames = read_atoms(tmp_path / "nve_frames.parquet")
    assert [atoms.info["row"] for atoms in frames] == [40, 58, 76, 93, 111, 129, 147, 164, 182, 200]
    assert {(len(atoms), atoms.info["group"]) for atoms in frames} == {(108, "NVE")}
    stubbed = stability.stub(Inputs({}), tmp_path, SHORT, Machine())
    again = json.loads((tmp_path / "stability.json").read_text())
    assert set(stubbed) == set(metrics)
    assert set(again["series"]) == set(told["series"])
    assert {path.name for path in tmp_path.iterdir()} >= set(stability.OUTPUTS.values())
    assert stubbed["stable"] is True


def test_two_runs_write_the_same_bytes_and_another_seed_others(tmp_path: Path, toy: Any) -> None:
    toy()
    brief = stability.Params(picoseconds=0.05)
    for name, params in (("a", brief), ("b", brief), ("c", brief.model_copy(update={"seed": 1}))):
        ran(tmp_path / name, params)
    first, second, third = ((tmp_path / name / "stability.json").read_bytes() for name in "abc")
    assert first == second != third


def test_atoms_without_a_core_are_reported_before_anything_moves_by_heat(tmp_path: Path, toy: Any) -> None:
    toy(pull=50.0)
    metrics, _ = ran(tmp_path)
    assert metrics["stable"] is False
    assert str(metrics["unstable_because"]).startswith("while it was relaxed: atoms fused")
    assert metrics["fused_atoms"] > 0
    assert (metrics["steps"], metrics["gamma_max"], metrics["drift_meV_per_atom_per_ps"]) == (0, None, None)
    toy(depth=40.0)
    metrics, _ = ran(tmp_path, stability.Params(picoseconds=1, timestep_fs=10))
    assert "the temperature rose" in metrics["unstable_because"]
    assert metrics["timestep_fs"] == 10
    metrics, _ = ran(tmp_path, stability.Params(picoseconds=0.05, timestep_fs=0.25))
    assert metrics["unstable_because"] is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_drift_up_or_down_fails_the_gate(sign: int) -> None:
    run = DynamicsRun(bulk("Cu", cubic=True) * (2, 1, 1), CUTOFF, 1.0)
    run.potential_eV = [sign * 8 * 1.5e-6 * step for step in range(1001)]
    run.kinetic_eV = run.temperature_K = [0.0] * 1001
    run.gamma = [0.0] * 500 + [6.0] * 501
    found = stability.figures(run, stability.Params())
    assert found["drift_meV_per_atom_per_ps"] == pytest.approx(sign * 1.5)
    assert "drifts by" in found["unstable_because"]
    assert found["gamma_share_above_5"] == pytest.approx(501 / 1001)
    loose = stability.figures(run, stability.Params(max_drift_meV_per_atom_per_ps=1.6))
    assert loose["stable"] is True


def first(folder: Path, rows: list[Labelled], e0s_eV: dict[str, float]) -> str:
    """Name of the structure with which the run begins."""
    from containers.tensorpot.frames.frame_file import read_frame

    inputs = files(folder, rows, e0s_eV)
    return stability.first_structure(read_frame(inputs.one("train")), Baseline(e0s_eV=e0s_eV), CUTOFF)[1]


def test_the_lowest_solid_is_taken_and_a_cluster_only_for_lack_of_one(tmp_path: Path) -> None:
    cluster = row("cluster", Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]]), -9.0)
    solids = [row("high", bulk("Si"), -4.0), row("low", bulk("Si", a=5.5), -4.2)]
    assert first(tmp_path, [cluster, *solids], {"Si": 0.0}) == "low"
    assert first(tmp_path, [cluster], {"Si": 0.0}) == "cluster"
    e0s = {"Al": -3.0, "Ni": -50.0}
    compound, loose = bulk("AlNi", "cesiumchloride", a=2.9), bulk("AlNi", "cesiumchloride", a=3.2)
    # energies are compared over the reference energies of most elements
    rows = [
        row("nickel", bulk("Ni"), -60.0),
        row("loose", loose, -26.5 - 1.0),
        row("compound", compound, -26.5 - 2.0),
    ]
    assert first(tmp_path, rows, e0s) == "compound"
