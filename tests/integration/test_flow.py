"""The whole flow on stub steps under a real Prefect server: order, caching, artifacts, verdicts and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, TaskRun

from containers.contract import STEPS
from flows.config_file import load_config
from flows.distill import distill
from flows.outcome import Outcome
from tasks.errors import UserError

pytestmark = pytest.mark.integration
RESULTS = {
    "potential.yaml", "potential.yace", "potential.asi", "input.yaml", "in.lammps",
    "report.html", "report.json", "manifest.json", "labels.extxyz", "labels.cfg", "rejected.parquet",
    "set_aside.parquet", "dataset.parquet", "selection.parquet", "frames.extxyz", "baseline.json", "calculator.py",
    "reference.table",
}  # fmt: skip


def run(example: Path, root: Path, run_name: str, *overrides: str) -> Outcome:
    return distill.with_options(flow_run_name=run_name)(load_config(example, overrides), root)


def flow_run(run_name: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_name])))
        return found


def task_runs(run_name: str) -> dict[str, TaskRun]:
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId

    with get_client(sync_client=True) as client:
        only = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run(run_name).id]))
        return {run.name: run for run in client.read_task_runs(task_run_filter=only)}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    root = tmp_path_factory.mktemp("root")
    example = Path(__file__).parents[2] / "examples" / "silicon" / "distill.yaml"
    return root, run(example, root, "first")


def test_the_run_folder_is_whole(first: tuple[Path, Outcome]) -> None:
    root, outcome = first
    assert outcome.folder == root / "runs" / "silicon"
    assert {path.name for path in outcome.folder.iterdir()} >= RESULTS
    report = json.loads((outcome.folder / "report.json").read_text())
    assert set(report) >= {"labels", "selection", "train", "fidelity", "seconds", "converged"}
    assert report["labels"]["computed"] > 0
    assert {"plan", "verdict", "iterations", "seconds"} <= set(report["train"]["attempts"][0])


def test_every_step_is_a_task_run_of_its_own_name(first: tuple[Path, Outcome]) -> None:
    states = {name: run.state_name for name, run in task_runs("first").items()}
    once = set(STEPS) - {"teacher_fetch", "mace_label", "strain", "pace_train"}
    assert set(states) == once | {"label shard 1 of 1", "pace_train attempt 1", "report"}
    assert set(states.values()) == {"Completed"}


def test_a_second_run_computes_nothing_and_shows_cached(first: tuple[Path, Outcome], example: Path) -> None:
    root, _ = first
    run(example, root, "second")
    runs = task_runs("second")
    states = {name: run.state_name for name, run in runs.items() if name in STEPS or name.startswith("pace_train")}
    assert set(states.values()) == {"Cached"}
    assert set(runs) - set(states) == {"report"}, "nothing was labelled"
    assert all(runs[name].state.state_details.cache_key for name in states)
    report = json.loads((root / "runs/silicon/report.json").read_text())
    assert report["labels"]["computed"] == 0
    assert report["labels"]["reused"] > 0


def test_a_training_option_changes_the_fit_and_reuses_the_labels(first: tuple[Path, Outcome], example: Path) -> None:
    root, _ = first
    run(example, root, "other fit", "train.maxiter=77")
    states = {name: run.state_name for name, run in task_runs("other fit").items()}
    assert not [name for name in states if name.startswith("label shard")]
    assert states["pool_labels"] == states["pace_select"] == states["dataset"] == "Cached"
    assert states["pace_train attempt 1"] == "Completed"


def test_convergence_is_shown_as_artifacts_under_a_megabyte(first: tuple[Path, Outcome]) -> None:
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run("first").id]))
    with get_client(sync_client=True) as client:
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=only)}
    assert set(artifacts) >= {"attempts", "learning-curve", "parity", "labelling"}
    assert (artifacts["labelling"].type, artifacts["labelling"].data) == ("progress", 100)
    assert "data:image/png;base64," in artifacts["learning-curve"].data
    assert all(len(str(artifact.data)) < 1_000_000 for artifact in artifacts.values())


def test_a_potential_that_misses_the_target_is_tried_again_and_told(example: Path, tmp_path: Path) -> None:
    outcome = run(example, tmp_path, "missed", "convergence.force_mae_meV_per_A=0.000001", "train.max_attempts=2")
    assert not outcome.converged
    assert outcome.not_converged_because == "pace_train attempt 1 ended as iterations_used_up"
    assert {"pace_train attempt 1", "pace_train attempt 2"} <= set(task_runs("missed"))


def test_a_missing_file_fails_before_any_step(example: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.xyz"):
        run(example, tmp_path, "no pool", "pool.files=[nowhere.xyz]")
    assert task_runs("no pool") == {}
    assert flow_run("no pool").state_name == "Failed"
    assert not (tmp_path / "store").exists()
