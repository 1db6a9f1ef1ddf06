"""The subprocess runner with real processes, and ending the steps of a run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from containers.contract import no_progress
from tasks.artefact import StepCall
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.runners import base
from tasks.runners.base import follow, open_log, run_process
from tasks.runners.cancellation import RunEnded, end_running, endable, of_run, refuse_ended
from tasks.settings import Settings
from tasks.workspace import Workspace


def program(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "interpreter"
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def subprocess_workspace(tmp_path: Path, **settings: object) -> Workspace:
    return Workspace(root=tmp_path / "root", settings=Settings(runner="subprocess", **settings))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_exit_0_without_a_report_and_a_missing_interpreter_are_failures(tmp_path: Path, call: StepCall) -> None:
    workspace = subprocess_workspace(tmp_path, tensorpot_python=program(tmp_path, "echo all is well; exit 0"))
    with pytest.raises(StepFailed, match="without a report") as caught:
        run_step(call, workspace)
    assert "all is well" in caught.value.log_tail
    workspace = subprocess_workspace(tmp_path, tensorpot_python=tmp_path / "nowhere")
    with pytest.raises(StepFailed, match="DISTILL_TENSORPOT_PYTHON"):
        run_step(call, workspace)


def test_the_deadline_ends_the_step_and_its_children(tmp_path: Path, call: StepCall) -> None:
    pids = tmp_path / "pids"
    body = f"sleep 300 & echo $! > {pids}; echo $$ >> {pids}; wait"
    workspace = subprocess_workspace(tmp_path, tensorpot_python=program(tmp_path, body), step_timeout_s=1)
    with pytest.raises(StepFailed, match="DISTILL_STEP_TIMEOUT_S"):
        run_step(call, workspace)
    deadline = time.monotonic() + 10
    while any(alive(int(pid)) for pid in pids.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_threads_and_progress_go_through(tmp_path: Path, call: StepCall) -> None:
    body = """echo '@progress [3, 10, "three"]'; echo "threads=$OMP_NUM_THREADS,$TF_NUM_INTRAOP_THREADS"; exit 1"""
    workspace = subprocess_workspace(tmp_path, tensorpot_python=program(tmp_path, body))
    seen: list[tuple[float, float, str]] = []
    threaded = call.model_copy(update={"resources": call.resources.model_copy(update={"threads": 2})})
    with pytest.raises(StepFailed) as caught:
        run_step(threaded, workspace, lambda done, total, text="": seen.append((done, total, text)))
    assert seen == [(3, 10, "three")]
    assert "threads=2,2" in caught.value.log_tail


@pytest.mark.parametrize(
    ("said", "told"),
    [
        *(
            (said, None)
            for said in ("[[[[" * 5000, '["a", null, {}]', "[1, NaN, null]", "[1, 2]", '[1, 1e999, "x"]', "{")
        ),
        ('[1, 2, "half", {"loss": 0.5}]', (1, 2, "half", {"loss": 0.5})),
        ('[1, 2, "\\u001b[2J"]', (1, 2, "?[2J")),  # it commands no terminal
    ],
)
def test_progress_goes_through_and_what_is_none_is_a_line_of_the_log(
    said: str, told: tuple[object, ...] | None
) -> None:
    log: list[str] = []
    seen: list[object] = []
    follow(f"@progress {said}", log.append, lambda *given: seen.append(given))
    assert (log, seen) == (([], [told]) if told else ([f"@progress {said}"], []))


def test_a_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LARGEST_LOG", 10)
    with open_log(tmp_path) as write:
        for line in ("12345\n", "6789\n", "more\n", "and more\n"):
            write(line)
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("12345\n... the rest of the log is left out")
    assert "more" not in log


def test_only_the_settings_read_the_environment() -> None:
    repository = Path(__file__).parents[4]
    readers = {
        str(path.relative_to(repository))
        for folder in ("flows", "tasks")
        for path in (repository / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    assert readers == {"tasks/settings.py"}


def test_a_step_dies_with_a_killed_flow(tmp_path: Path, call: StepCall) -> None:
    pids = tmp_path / "pids"
    interpreter = program(tmp_path, f"echo $$ > {pids}; exec sleep 300")
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import sys\nfrom pathlib import Path\nfrom containers.contract import Request\n"
        "from tasks.runners.base import SubprocessRunner\nfrom tasks.settings import Settings\n"
        f"runner = SubprocessRunner(Settings(tensorpot_python=Path({str(interpreter)!r})))\n"
        "request = Request(step='x', version=1, lock='', params={}, inputs={})\n"
        f"runner.run(Path({str(tmp_path)!r}), 'tensorpot', request, print)\n"
    )
    flow = subprocess.Popen([sys.executable, str(parent)], cwd=Path(__file__).parents[4])
    try:
        until(pids.is_file)
        flow.kill()
        until(lambda: not alive(int(pids.read_text())))
    finally:
        flow.kill()
        flow.wait()


def until(done: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


# ---- ending the steps of a run


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


def test_steps_of_other_runs_continue(run_id: str) -> None:
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


def test_the_failure_of_a_step_that_is_ended_is_not_reported_as_its_own(run_id: str) -> None:
    def followed() -> None:
        with of_run(run_id), endable(lambda: None):
            end_running(run_id)
            raise ValueError("its container is gone")

    with pytest.raises(RunEnded):
        followed()


def test_a_step_that_takes_too_long_is_ended_and_its_failure_is_the_time(run_id: str) -> None:
    def followed() -> None:
        ended = threading.Event()
        with endable(ended.set, 0.05):
            assert ended.wait(10)
            raise ValueError("its container is gone")

    with pytest.raises(TimeoutError, match=r"ended after 0\.05 s \(DISTILL_STEP_TIMEOUT_S\)"):
        followed()

    def of_ended_run() -> None:
        ended = threading.Event()
        with of_run(run_id), endable(ended.set, 0.05):
            assert ended.wait(10)
            end_running(run_id)

    with pytest.raises(RunEnded):
        of_ended_run()
