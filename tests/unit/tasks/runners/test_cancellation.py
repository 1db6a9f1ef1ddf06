from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from containers.contract import no_progress
from tasks.runners.base import run_process
from tasks.runners.cancellation import RunEnded, end_running, endable, of_run, refuse_ended


@pytest.fixture
def run_id() -> str:
    """A run that no other test has ended."""
    return uuid4().hex


class Step(threading.Thread):
    """A step of a run in a thread of its own, and whether it was ended."""

    def __init__(self, run_id: str, body: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.run_id, self.body = run_id, body
        self.raised: RunEnded | None = None
        self.start()

    def run(self) -> None:
        try:
            with of_run(self.run_id):
                self.body()
        except RunEnded as error:
            self.raised = error


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_that_ends_ends_its_child_and_grandchild(tmp_path: Path, run_id: str) -> None:
    command = [
        "bash",
        "-c",
        f"sleep 60 & echo $$ $! > {tmp_path}/pids.part; mv {tmp_path}/pids.part {tmp_path}/pids; wait",
    ]
    step = Step(run_id, lambda: run_process(command, os.environ, tmp_path, no_progress, None, "no mend"))
    while not (tmp_path / "pids").exists():
        time.sleep(0.02)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert end_running(run_id) == 1
    step.join(10)
    assert not step.is_alive()
    assert isinstance(step.raised, RunEnded)
    assert not alive(pids[0])
    deadline = time.monotonic() + 5  # the grandchild is reaped by init
    while alive(pids[1]) and Path(f"/proc/{pids[1]}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline


def test_steps_of_other_runs_go_on(run_id: str) -> None:
    ended: list[str] = []
    begun, leave = threading.Barrier(3), threading.Event()

    def body(name: str) -> None:
        with endable(lambda: ended.append(name)):
            begun.wait(10)
            leave.wait(10)

    ours, other = Step(run_id, lambda: body("ours")), Step("another", lambda: body("other"))
    begun.wait(10)
    assert end_running(run_id) == 1
    leave.set()
    ours.join(10)
    other.join(10)
    assert ended == ["ours"]
    assert isinstance(ours.raised, RunEnded)
    assert other.raised is None


def test_a_step_that_comes_too_late_does_not_start(run_id: str) -> None:
    end_running(run_id)
    entered: list[bool] = []
    with pytest.raises(RunEnded), of_run(run_id), endable(lambda: None):
        entered.append(True)
    assert entered == []
    with pytest.raises(RunEnded):
        refuse_ended(run_id)
    with endable(lambda: pytest.fail("ended")):
        end_running(run_id)
    refuse_ended(None)


def test_a_step_that_has_ended_by_itself_is_not_ended_again(run_id: str) -> None:
    ended: list[bool] = []
    with of_run(run_id), endable(lambda: ended.append(True)):
        pass
    assert end_running(run_id) == 0
    assert ended == []


def test_the_failure_of_a_step_that_is_ended_is_not_told_as_its_own(run_id: str) -> None:
    def followed() -> None:
        with of_run(run_id), endable(lambda: None):
            end_running(run_id)
            raise ValueError("its container is gone")

    with pytest.raises(RunEnded):
        followed()


def test_a_step_that_takes_too_long_is_ended_and_its_failure_is_the_time() -> None:
    def followed() -> None:
        ended = threading.Event()
        with endable(ended.set, 0.05):
            assert ended.wait(10)
            raise ValueError("its container is gone")

    with pytest.raises(TimeoutError, match=r"ended after 0\.05 s \(DISTILL_STEP_TIMEOUT_S\)"):
        followed()


def test_a_run_that_ends_counts_more_than_the_time(run_id: str) -> None:
    def followed() -> None:
        ended = threading.Event()
        with of_run(run_id), endable(ended.set, 0.05):
            assert ended.wait(10)
            end_running(run_id)

    with pytest.raises(RunEnded):
        followed()
