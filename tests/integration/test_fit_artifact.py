"""A running fit on a real Prefect server: one artifact a task run, updated under one id, told its end."""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from containers.contract import STEPS, BadInput, Closed, Inputs, Machine
from tasks import prefect_tasks
from tasks.artefact import StepCall
from tasks.errors import StepFailed
from tasks.progress import live_fit
from tasks.progress.live_fit import ARTIFACT_KEY, SHOW_EVERY_S, FitProgress
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = pytest.mark.integration

MAXITER = 30
ERRORS = {"energy_rmse_meV_per_atom": 20.0, "force_rmse_meV_per_A": 400.0, "force_mae_meV_per_A": 300.0}


class Params(Closed):
    """What the fit may be asked."""

    seed: int = 0
    fails: bool = False


class Clock:
    """Seconds that pass when the fit says so."""

    now = 0.0

    def __call__(self) -> float:
        return Clock.now


def fit(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """One iteration every two seconds, a validation every tenth."""
    for iteration in range(1, MAXITER + 1):
        Clock.now += 2
        sides = ("train", "validation") if iteration % 10 == 0 else ("train",)
        errors = {f"{side}_{name}": value / iteration for side in sides for name, value in ERRORS.items()}
        losses = {f"{side}_loss": 1 / iteration for side in sides}
        machine.progress(iteration, MAXITER, "words", {"iteration": float(iteration), **losses, **errors})
    if params.fails:
        raise BadInput("row 3 of it is wrong")
    (outputs / "text.txt").write_text("fitted")
    return {"stop_reason": "converged", "stop_criterion": "the gradient is small", "best_iteration": 20}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """`pace_train` is the fit above, run in this process."""
    module = ModuleType("fake_fit")
    contract = {"IMAGE": "tensorpot", "VERSION": 1, "INPUTS": {}, "OUTPUTS": {"text": "text.txt"}}
    vars(module).update(contract, Params=Params, run=fit, stub=fit)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(STEPS, "pace_train", module.__name__)
    monkeypatch.setattr(prefect_tasks, "FitProgress", lambda name, log: FitProgress(name, log, clock=Clock()))
    return Workspace(root=tmp_path / "root", settings=Settings(runner="in_process"))


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When something was shown, and each time waits until the server has it: the fit is faster than any."""
    times: list[float] = []
    publish, call = FitProgress._publish, FitProgress.__call__

    def published(self: FitProgress, text: str, curves: Any) -> None:
        times.append(Clock.now)
        publish(self, text, curves)

    def called(self: FitProgress, *told: Any) -> None:
        self._wait()
        call(self, *told)

    monkeypatch.setattr(FitProgress, "_publish", published)
    monkeypatch.setattr(FitProgress, "__call__", called)
    monkeypatch.setattr(live_fit, "END_WITHIN_S", 60.0)
    return times


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The ids of the artifacts that were updated, one for each time."""
    ids: list[UUID] = []
    update = SyncPrefectClient.update_artifact

    def updated(self: SyncPrefectClient, artifact_id: UUID, artifact: Any) -> None:
        update(self, artifact_id, artifact)
        ids.append(artifact_id)

    monkeypatch.setattr(SyncPrefectClient, "update_artifact", updated)
    return ids


@flow
def fits(workspace: Workspace, *calls: StepCall) -> str:
    """Every call as an attempt; the id of the flow run."""
    for number, call in enumerate(calls, start=1):
        with suppress(StepFailed):
            prefect_tasks.step(call, workspace, f"pace_train attempt {number}")
    return str(flow_run.id)


def artifacts(run: str) -> list[Artifact]:
    """The artifacts of running fits of a flow run, the oldest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[ARTIFACT_KEY])),
            flow_run_filter=FlowRunFilter(id={"any_": [run]}),
        )
    return sorted(found, key=lambda artifact: str(artifact.created))


def call(**params: Any) -> StepCall:
    return StepCall(step="pace_train", params=params, inputs={})


def test_one_artifact_is_updated_now_and_then_and_has_the_last_figures(
    workspace: Workspace, updates: list[float], patched: list[UUID]
) -> None:
    (artifact,) = artifacts(fits(workspace, call()))
    *running, _ = updates
    assert len(running) == 1 + (2 * MAXITER - 2) // 6, "every third iteration: the first after 5 s"
    assert all(later - earlier >= SHOW_EVERY_S for earlier, later in pairwise(running))
    assert patched == [artifact.id] * (len(updates) - 1)
    assert artifact.updated is not None
    assert artifact.created is not None
    assert artifact.updated > artifact.created
    assert artifact.task_run_id is not None
    assert artifact.type == "markdown"
    assert artifact.description == "pace_train attempt 1: the fit as it runs"
    text = str(artifact.data)
    assert "Iteration 30 of at most 30" in text
    assert "| force RMSE (meV/Å) | 13.33 | 13.33 |" in text
    assert "**Ended: converged: the gradient is small; best at iteration 20**" in text
    assert "![learning-curve](data:image/png;base64," in text
    assert len(text) < 100_000


def test_each_attempt_has_its_own_and_a_failed_one_says_so(workspace: Workspace, updates: list[float]) -> None:
    first, second = artifacts(fits(workspace, call(fails=True), call(seed=1)))
    assert first.task_run_id != second.task_run_id
    assert "**Ended: failed (BadInput): row 3 of it is wrong**" in str(first.data)
    assert "**Ended: converged" in str(second.data)


def test_a_fit_from_the_store_has_none(workspace: Workspace, updates: list[float]) -> None:
    fits(workspace, call())
    assert artifacts(fits(workspace, call())) == []


def test_a_server_without_artifacts_ends_no_fit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(live_fit, "create_markdown_artifact", refuse)
    run = fits(workspace, call())
    assert artifacts(run) == []
    assert run
