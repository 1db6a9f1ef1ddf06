"""The ways a step runs. A runner takes a staged folder and returns when the step has ended.

`docker` gets its place here: another class with the same `run`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from containers.child import child_process, kill_group
from containers.contract import Image, Progress, Request
from containers.step import PROGRESS_MARK, execute
from tasks.settings import Settings, step_environment

KILLED = "killed by"


class CannotStart(Exception):
    """The program that should run a step cannot be started."""


class Runner(Protocol):
    """Runs the step staged in `folder`; what it prints goes to `folder/log.txt`, progress to `progress`."""

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> str:
        """Return how the step's process ended, in words; raise `TimeoutError` or `CannotStart`."""


class SubprocessRunner:
    """One process of the image's interpreter a step, in a process group of its own that ends with the task."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> str:
        command = [str(self.settings.python(image)), "-m", "containers.step", str(folder)]
        environment = step_environment(request.resources.threads)
        with (folder / "log.txt").open("w") as log, _step_process(command, environment) as process:
            expired = threading.Event()
            with _deadline(process, self.settings.step_timeout_s, expired):
                assert process.stdout is not None
                for line in process.stdout:
                    _follow(line, log.write, progress)
                process.wait()
            if expired.is_set():
                raise TimeoutError(f"ended after {self.settings.step_timeout_s:g} s (DISTILL_STEP_TIMEOUT_S)")
            return f"exit code {process.returncode}" if process.returncode >= 0 else _signal(-process.returncode)


class InProcessRunner:
    """The step in this process: for debugging and for tests; its prints stay on the terminal."""

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> str:
        execute(folder, progress)
        return "in this process"


def runner_of(settings: Settings) -> Runner:
    """The runner that the settings ask for; stub runs are in-process runs of a stub request."""
    return SubprocessRunner(settings) if settings.runner == "subprocess" else InProcessRunner()


def _follow(line: str, write: Callable[[str], object], progress: Progress) -> None:
    if not line.startswith(PROGRESS_MARK):
        write(line)
        return
    try:
        done, total, text = json.loads(line.removeprefix(PROGRESS_MARK))
    except (ValueError, TypeError):  # torn apart by a child that shares the pipe
        write(line)
    else:
        progress(done, total, text)


@contextlib.contextmanager
def _step_process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(child_process(command, environment))
        except OSError as error:
            raise CannotStart(f"cannot start {command[0]}: {error.strerror}") from None
        yield process


def _signal(number: int) -> str:
    return f"{KILLED} {signal.Signals(number).name}"


@contextlib.contextmanager
def _deadline(process: subprocess.Popen[str], seconds: float | None, expired: threading.Event) -> Iterator[None]:
    def end() -> None:
        expired.set()
        kill_group(process)

    timer = threading.Timer(seconds, end) if seconds else None
    if timer:
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()
