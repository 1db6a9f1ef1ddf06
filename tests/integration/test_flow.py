"""The whole flow on stub steps under a real Prefect server: order, caching, artifacts, verdicts and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun

from containers.contract import STEPS
from flows.config.loading import load_config
from flows.distill.flow import distill
from flows.distill.summary import Outcome
from flows.value_curve.flow import value_curve
from tasks.errors import UserError
from tasks.studies.value_curve import ValueCurve

pytestmark = pytest.mark.integration
RESULTS = {
    "potential.yaml", "potential.yace", "potential.asi", "structure.data", "in.lammps", "ml_peg.yml",
    "report.html", "report.json", "manifest.json", "labels.extxyz", "labels.cfg", "rejected.parquet",
    "set_aside.parquet", "dataset.parquet", "selection.parquet", "frames.extxyz", "dataset.json", "frames.json",
    "baseline.json", "calculator.py",
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


def artifacts(run_name: str) -> dict[str, Artifact]:
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run(run_name).id]))
    with get_client(sync_client=True) as client:
        return {str(artifact.key): artifact for artifact in client.read_artifacts(artifact_filter=only)}


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
    once = set(STEPS) - {
        *("teacher_fetch", "mace_label", "strain", "pace_train", "weak_spots", "committee"),
        *(
            "property_structures",
            "teacher_motion",
            "seed_pool",
            "explore",
            "choose_frames",
            "frame_errors",
            "composition_seeds",
        ),
    }
    others = {"label shard 1 of 1", "pool_labels trajectory", "pace_train attempt 1", "report"}
    assert set(states) == once | others
    assert set(states.values()) == {"Completed"}


def test_a_second_run_computes_nothing_and_shows_cached(first: tuple[Path, Outcome], example: Path) -> None:
    root, _ = first
    run(example, root, "second")
    runs = task_runs("second")
    states = {name: run.state_name for name, run in runs.items() if name in STEPS or name.startswith("pace_train")}
    assert set(states.values()) == {"Cached"}
    assert set(runs) - set(states) == {"report", "pool_labels trajectory"}, "nothing was labelled"
    assert all(runs[name].state.state_details.cache_key for name in states)
    report = json.loads((root / "runs/silicon/report.json").read_text())
    assert report["labels"]["computed"] == 0
    assert report["labels"]["reused"] > 0


def test_a_training_option_changes_the_fit_and_reuses_the_labels(first: tuple[Path, Outcome], example: Path) -> None:
    root, _ = first
    run(example, root, "other fit", "train.maxiter=77", "name=other")
    states = {name: run.state_name for name, run in task_runs("other fit").items()}
    assert not [name for name in states if name.startswith("label shard")]
    assert states["pool_labels"] == states["pace_select"] == states["dataset"] == "Cached"
    assert states["pace_train attempt 1"] == "Completed"


def test_convergence_is_shown_as_artifacts_under_a_megabyte(first: tuple[Path, Outcome]) -> None:
    found = artifacts("first")
    assert set(found) >= {"attempts", "learning-curve", "parity", "labelling"}
    assert (found["labelling"].type, found["labelling"].data) == ("progress", 100)
    assert "data:image/png;base64," in found["learning-curve"].data
    assert all(len(str(artifact.data)) < 1_000_000 for artifact in found.values())


def test_a_potential_that_misses_the_target_is_tried_again_and_told(example: Path, tmp_path: Path) -> None:
    outcome = run(example, tmp_path, "missed", "convergence.force_mae_meV_per_A=0.000001", "train.max_attempts=2")
    assert not outcome.converged
    assert (outcome.not_converged_because or "").startswith("pace_train attempt 1 ended as iterations_used_up. Raise ")
    assert {"pace_train attempt 1", "pace_train attempt 2"} <= set(task_runs("missed"))


def test_a_missing_file_fails_before_any_step(example: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.xyz"):
        run(example, tmp_path, "no pool", "pool.files=[nowhere.xyz]")
    assert task_runs("no pool") == {}
    assert flow_run("no pool").state_name == "Failed"
    assert not (tmp_path / "store").exists()


def test_a_value_curve_has_a_point_for_every_set(example: Path, tmp_path: Path) -> None:
    curve = value_curve.with_options(flow_run_name="values")
    folder = curve(load_config(example), [8, 4], ["combined", "random"], 2, True, tmp_path)
    assert folder == tmp_path / "runs" / "silicon" / "value_curve"
    found = ValueCurve.model_validate_json((folder / "value_curve.json").read_bytes())
    assert [(one.method, one.structures) for one in found.points[:-1]] == [
        (method, size) for size in (4, 8) for method in ("combined", "random", "random")
    ]
    assert (found.points[-1].method, found.stub) == ("all", True)
    names = set(task_runs("values"))
    assert {
        "pace_train combined 4 attempt 1",
        "pace_train random 8 seed 43 attempt 1",
        "evaluate combined 8",
        "value curve",
    } <= names
    assert "STUB RUN" in str(artifacts("values")["value-curve"].data)


def test_strained_structures_are_labelled_in_a_pass_of_their_own(example: Path, tmp_path: Path) -> None:
    run(example, tmp_path, "stress", "pacemaker.loss_stress=0.7", "selection.max_structures=20")
    names = task_runs("stress")
    assert {"strain", "pool_labels strains"} <= set(names)
    report = json.loads((tmp_path / "runs/silicon/report.json").read_text())
    assert report["selection"]["selected"] == 14
    assert report["metrics"]["frames"]["strained_structures"] == 6


def test_a_run_goes_on_from_another(first: tuple[Path, Outcome], example: Path) -> None:
    root, outcome = first
    before = pq.read_table(outcome.folder / "selection.parquet")["id"].to_pylist()
    changes = (f"dataset.base={outcome.folder}", "name=more", "selection.max_structures=25")
    again = run(example, root, "goes on", *changes)
    selection = pq.read_table(again.folder / "selection.parquet")
    given = [row["id"] for row in selection.to_pylist() if row["how"] == "given"]
    assert given == before
    grown = pq.ParquetFile(again.folder / "dataset.parquet")
    assert grown.metadata.num_rows == pq.ParquetFile(outcome.folder / "dataset.parquet").metadata.num_rows


def test_dft_structures_are_labelled_by_the_teacher_too(example: Path, tmp_path: Path) -> None:
    dft = tmp_path / "dft.xyz"
    dft.write_text("the stub reads nothing\n")
    run(example, tmp_path, "with dft", f"dft.files=[{dft}]")
    assert {"ingest DFT data", "pool_labels DFT data"} <= set(task_runs("with dft"))
    report = json.loads((tmp_path / "runs/silicon/report.json").read_text())
    assert report["metrics"]["frames"]["dft_structures"] > 0
