"""A sweep and a committee on stub steps under a real Prefect server: task runs, cache, and the chosen config."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterName,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)

from flows.config.loading import load_config
from flows.distill.flow import distill
from flows.sweep.flow import sweep
from tasks.errors import UserError
from tasks.studies.sweep import SweepSummary

pytestmark = pytest.mark.integration
VARY = "sweep.vary={pacemaker.cutoff: [4.5, 5.0], train.maxiter: [10, 20]}"
EXAMPLE = Path(__file__).parents[2] / "examples" / "silicon" / "distill.yaml"


def of_flow_run(run_name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Task runs by name with their states, artifacts by key with their text."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run_name])))
        tasks = client.read_task_runs(task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id])))
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = client.read_artifacts(artifact_filter=only)
    return {one.name: str(one.state_name) for one in tasks}, {str(one.key): str(one.data) for one in artifacts}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work root of a sweep of four students, two at a time, and a committee of three."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CORES", "2")
        config = load_config(EXAMPLE, (VARY, "sweep.at_once=2", "sweep.committee=3"))
        assert sweep.with_options(flow_run_name="swept")(config, root) == root / "runs" / "silicon"
    return root


def test_every_student_is_a_task_run_with_its_steps(swept: Path) -> None:
    tasks, artifacts = of_flow_run("swept")
    until = time.monotonic() + 60  # Prefect records task runs a while after they ended
    while "evaluate of committee 3" not in tasks and time.monotonic() < until:
        time.sleep(1)
        tasks, artifacts = of_flow_run("swept")
    for name in ("cutoff=4.5 maxiter=10", "cutoff=5.0 maxiter=20", "of committee 3"):
        assert {f"student {name}", f"pace_train {name} attempt 1", f"evaluate {name}"} <= set(tasks)
    assert {"sweep", "committee of the committee", "committee folder"} <= set(tasks)
    assert sum(name.startswith("label shard") for name in tasks) == 1, "labels are made once"
    assert {"sweep", "committee"} <= set(artifacts)
    found = SweepSummary.model_validate_json((swept / "runs/silicon/sweep/sweep.json").read_bytes())
    assert len(found.students) == 4
    assert found.stub


def test_the_chosen_config_gives_the_run_folder_and_computes_its_trajectory_alone(swept: Path) -> None:
    folder = swept / "runs" / "silicon"
    outcome = distill.with_options(flow_run_name="chosen")(load_config(folder / "sweep" / "chosen.yaml"), swept)
    assert outcome.folder == folder
    tasks, _ = of_flow_run("chosen")
    fits = {name: state for name, state in tasks.items() if name.startswith("pace_train")}
    assert set(fits.values()) == {"Cached"}
    of_trajectory = {"trajectory", "trajectory_errors", "pool_labels trajectory", "label shard 1 of 1"}
    assert {name for name, state in tasks.items() if state != "Cached"} <= {"report", *of_trajectory}
    assert {"report.html", "potential.yace", "sweep", "committee"} <= {path.name for path in folder.iterdir()}


def test_a_second_sweep_computes_only_what_is_new(swept: Path) -> None:
    config = load_config(EXAMPLE, ("sweep.vary={pacemaker.cutoff: [5.0, 5.5], train.maxiter: [10]}",))
    with pytest.raises(UserError, match=r"(?s)sweep\.vary\.pacemaker\.cutoff.*--replace"):
        sweep.with_options(flow_run_name="refused")(config, swept)
    sweep.with_options(flow_run_name="again")(config, swept, replace=True)
    tasks, _ = of_flow_run("again")
    assert tasks["pace_train cutoff=5.0 maxiter=10 attempt 1"] == "Cached"
    assert tasks["pace_train cutoff=5.5 maxiter=10 attempt 1"] == "Completed"


def test_a_committee_alone_needs_no_sweep(tmp_path: Path) -> None:
    config = load_config(EXAMPLE, ("sweep.committee=2", "sweep.differ_by=coefficients"))
    folder = sweep.with_options(flow_run_name="committee")(config, tmp_path)
    assert not (folder / "sweep").exists()
    told = json.loads((folder / "committee" / "committee.json").read_text())
    assert (told["students"], told["differ_by"]) == (["1", "2"], "coefficients")


def test_a_wrong_value_fails_before_any_step(tmp_path: Path) -> None:
    config = load_config(EXAMPLE, ("sweep.vary={train.maxiter: [10, 0]}",))
    with pytest.raises(UserError, match="maxiter=0"):
        sweep.with_options(flow_run_name="wrong")(config, tmp_path)
    assert of_flow_run("wrong")[0] == {}


def test_what_a_student_cannot_have_fails_before_anything_is_labelled(tmp_path: Path) -> None:
    reach = "pacemaker.overrides={bonds: {Si-Si: {rcut: 4.5}}}"
    config = load_config(EXAMPLE, (reach, "sweep.vary={pacemaker.cutoff: [4.5, 4.0]}"))
    with pytest.raises(UserError, match=r"(?s)sweep\.vary: cutoff=4\.0: pacemaker\."):
        sweep.with_options(flow_run_name="impossible")(config, tmp_path)
    names = {name.split(" ")[0] for name in of_flow_run("impossible")[0]}
    assert names == {"ingest", "teacher_info"}


def test_students_are_fitted_on_a_dask_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_DASK_CLUSTER", "distributed.LocalCluster")
    config = load_config(EXAMPLE, ("sweep.vary={train.maxiter: [10, 20]}",))
    folder = sweep.with_options(flow_run_name="dask")(config, tmp_path)
    assert len(SweepSummary.model_validate_json((folder / "sweep/sweep.json").read_bytes()).students) == 2
    tasks, _ = of_flow_run("dask")
    assert tasks["pace_train maxiter=20 attempt 1"] == "Completed", "a worker's steps are task runs of the flow"
