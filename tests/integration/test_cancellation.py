"""A cancelled run of a deployment leaves no container, however its process ended; other runs keep theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.engine]
START_S, CANCEL_S = 300, 60


def by_command(ui: Any, run: str) -> None:
    command = [sys.executable, "-m", "prefect", "flow-run", "cancel", run]
    subprocess.run(command, env=ui.environment, check=True, capture_output=True, timeout=CANCEL_S)


def by_api(ui: Any, run: str) -> None:
    """What the UI's button does."""
    ui.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One work root: what runs before the labelling is computed once."""
    return tmp_path_factory.mktemp("cancelled")


@pytest.fixture
def labelling(ui: Any, slow: Any, containers: Any, until: Callable[..., None], root: Path) -> Iterator[str]:
    """A run whose labelling has been started in a container."""
    run = ui.start(slow, root)
    try:
        until(lambda: _labels(containers, run) or ui.state(run)["type"] == "FAILED", START_S)
        assert ui.state(run)["type"] == "RUNNING", ui.log(run)
        yield run
    finally:
        for left in containers.of(run):
            left.remove(force=True)


def _labels(containers: Any, run: str) -> list[Any]:
    steps = [one for one in containers.of(run) if one.labels["mace-to-ace.step"] == "mace_label"]
    return [one for one in steps if one.status == "running"]


@pytest.mark.parametrize("cancel", [by_command, by_api])
def test_cancelling_removes_the_runs_containers_and_no_others(
    cancel: Callable[[Any, str], None], ui: Any, labelling: str, containers: Any, until: Callable[..., None]
) -> None:
    with containers.bystander({"mace-to-ace.run": "another"}) as other:
        asked = time.monotonic()
        cancel(ui, labelling)
        until(lambda: not containers.of(labelling), CANCEL_S)
        assert ui.end(labelling, CANCEL_S - (time.monotonic() - asked))["type"] == "CANCELLED"
        other.reload()
        assert other.status == "running"


def test_the_hook_removes_what_a_hanging_process_cannot(
    ui: Any, labelling: str, containers: Any, until: Callable[..., None]
) -> None:
    (container,) = containers.of(labelling)
    flow = int(container.labels["mace-to-ace.pid"])
    os.kill(flow, signal.SIGSTOP)  # SIGTERM does not reach it: the worker kills it after its 30 s of grace
    asked = time.monotonic()
    by_api(ui, labelling)
    until(lambda: not containers.of(labelling), CANCEL_S)
    assert ui.end(labelling, CANCEL_S - (time.monotonic() - asked))["type"] == "CANCELLED"
    assert not Path(f"/proc/{flow}").exists()
    name = ui.get(f"/flow_runs/{labelling}")["name"]
    assert f"Flow run '{name}' - removed 1 containers of this run" in ui.console.read_text(), "it was not the hook"
