"""A fit that was interrupted goes on in the next run of the same request, by way of the store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from containers.step import PROGRESS_MARK
from containers.tensorpot.fit.pace_train import Params
from containers.tensorpot.pacemaker.input import Potential
from tasks.artefact import Artefact, StepCall, external
from tasks.run_step import request_of, run_step
from tasks.settings import Settings
from tasks.store.results import read_report
from tasks.workspace import Workspace
from tests.e2e.copper import copper, write_frames

pytestmark = pytest.mark.e2e

ITERATIONS, INTERRUPTED_AT = 60, 20
PARAMS = Params(
    potential=Potential(elements=("Cu",), cutoff=4.0, functions_per_element=5, order=2, b_basis="small"),
    maxiter=ITERATIONS,
)


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> StepCall:
    folder = tmp_path_factory.mktemp("frames")
    inputs = {side: (external(path),) for side, (path,) in write_frames(folder, copper(16, 1), copper(4, 2)).items()}
    return StepCall(step="pace_train", params=PARAMS.model_dump(mode="json"), inputs=inputs)


def workspace(root: Path) -> Workspace:
    return Workspace(root=root, settings=Settings(runner="subprocess"))


def train_losses(place: Workspace, artefact: Artefact) -> pd.Series:
    history = pd.read_parquet(place.store.path(artefact.file("history")))
    return history[history["side"] == "train"].set_index("iteration")["loss"]


@pytest.fixture(scope="module")
def uninterrupted(call: StepCall, tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    place = workspace(tmp_path_factory.mktemp("whole"))
    return train_losses(place, run_step(call, place))


def interrupted(place: Workspace, call: StepCall, how: signal.Signals) -> Path:
    """The folder of a run whose processes got a signal in the middle: all of them, or the step alone by SIGTERM."""
    folder = place.store.stage(request_of(call, place))
    command = [sys.executable, "-m", "containers.step", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as step:
        assert step.stdout is not None
        for line in step.stdout:
            if line.startswith(PROGRESS_MARK) and json.loads(line[len(PROGRESS_MARK) :])[0] >= INTERRUPTED_AT:
                break
        if how == signal.SIGKILL:
            os.killpg(step.pid, how)
        else:
            step.send_signal(how)
    report = read_report(folder)
    assert (report.error.kind if report and report.error else None) == {signal.SIGTERM: "Cancelled"}.get(how)
    return folder


def test_it_goes_on_where_it_was(call: StepCall, uninterrupted: pd.Series, tmp_path: Path) -> None:
    place = workspace(tmp_path)
    folder = interrupted(place, call, signal.SIGKILL)
    artefact = run_step(call, place)
    metrics, losses = artefact.metrics, train_losses(place, artefact)
    assert metrics["iterations"] == ITERATIONS
    assert INTERRUPTED_AT - 1 <= metrics["resumed_at"] < ITERATIONS
    assert list(losses.index) == list(range(ITERATIONS + 1))
    at = metrics["resumed_at"]
    assert losses[at] == pytest.approx(uninterrupted[at], rel=1e-6)
    assert losses[ITERATIONS] / uninterrupted[ITERATIONS] < 1.05
    assert not folder.exists()
    assert list((place.store.root / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "how"),
    [({"ladder_step": 3}, signal.SIGTERM), ({"cycles": 2, "noise": 0.02}, signal.SIGKILL)],
    ids=["ladder", "cycles"],
)
def test_a_fit_of_several_parts_goes_on_with_what_remains_of_them(
    shape: dict[str, float], how: signal.Signals, call: StepCall, tmp_path: Path
) -> None:
    place, parts = workspace(tmp_path), call.model_copy(update={"params": {**call.params, **shape}})
    interrupted(place, parts, how)
    artefact = run_step(parts, place)
    metrics, losses = artefact.metrics, train_losses(place, artefact)
    at = metrics["resumed_at"]
    assert INTERRUPTED_AT - 1 <= at < ITERATIONS
    assert metrics["functions"] == metrics["functions_asked"] == 5
    assert metrics["iterations"] > ITERATIONS
    assert list(losses.index) == list(range(metrics["iterations"] + 1))
    assert losses.iloc[-1] < losses[at]
    if "cycles" in shape:
        after = losses.loc[at:].to_numpy()
        assert (after[1:] > after[:-1]).any(), "no noise: an optimiser never goes up"
