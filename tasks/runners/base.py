"""The ways a step runs. A runner takes a staged folder and returns when the step has ended.

Here are the contract and the two runners without containers; `docker_runner` and `apptainer_runner` have the others.

What is seen to before a container starts, whatever engine starts it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from containers.contract import Device, Image, Progress, Request
from containers.environment import sources_digest
from containers.processes import child_process, kernel_kills, kill_group
from containers.step import PROGRESS_MARK, execute
from tasks.errors import printable
from tasks.runners.cancellation import endable
from tasks.runners.container_owner import PREFIX
from tasks.settings import Settings, step_environment

LARGEST_LOG = 100_000_000  # characters
Said = tuple[FiniteFloat, FiniteFloat, str]
TOLD: TypeAdapter[tuple[Any, ...]] = TypeAdapter(Said | tuple[FiniteFloat, FiniteFloat, str, dict[str, FiniteFloat]])
"""What a line of progress says: done, total, text, and figures where there are some."""


class CannotStart(Exception):
    """A step cannot be started; `kind` is what a step's report would call it."""

    def __init__(self, message: str, kind: str = "ProgramMissing") -> None:
        self.kind = kind
        super().__init__(message)


class Ended(NamedTuple):
    """How the process of a step ended."""

    words: str
    exit_code: int = 0
    kind: str = "Died"  # of the failure, if it left no report


class Runner(Protocol):
    """Runs the step staged in `folder`; what it prints goes to `folder/log.txt`, progress to `progress`."""

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        """Return how the step's process ended; raise `TimeoutError` or `CannotStart`."""


class SubprocessRunner:
    """One process of the image's interpreter a step, in a process group of its own that ends with the task."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        command = [str(self.settings.python(image)), "-m", "containers.step", str(folder)]
        mend = f"Set DISTILL_{image.upper()}_PYTHON to an interpreter that runs."
        environment = step_environment(request.resources.threads)
        return run_process(command, environment, folder, progress, self.settings.step_timeout_s, mend)


class InProcessRunner:
    """The step in this process: for debugging and for tests; its prints stay on the terminal."""

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        execute(folder, progress)
        return Ended("in this process")


def run_process(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    progress: Progress,
    timeout_s: float | None,
    mend: str,
) -> Ended:
    """Run `command` as a child that cannot outlive us; `mend` is what to do when it cannot be started."""
    kills = kernel_kills()
    with (
        open_log(folder) as write,
        _started(command, environment, mend) as process,
        deadline(timeout_s, lambda: kill_group(process)),
        endable(lambda: kill_group(process)),
    ):
        assert process.stdout is not None
        for line in process.stdout:
            follow(line, write, progress)
        process.wait()
    if process.returncode >= 0:
        return Ended(f"exit code {process.returncode}", process.returncode)
    kind = "OutOfMemory" if kernel_kills() != kills else "Killed"
    return Ended(f"killed by {signal.Signals(-process.returncode).name}", process.returncode, kind)


@contextlib.contextmanager
def open_log(folder: Path) -> Iterator[Callable[[str], None]]:
    """What writes a line to the log of a run, new and empty; beyond LARGEST_LOG it writes no more."""
    path = folder / "log.txt"
    path.unlink(missing_ok=True)  # a link that an earlier run left must not be written through
    left = LARGEST_LOG
    with path.open("x", buffering=1) as file:

        def write(line: str) -> None:
            nonlocal left
            if 0 < left <= len(line):
                file.write(f"... the rest of the log is left out: it is longer than {LARGEST_LOG} characters\n")
            elif left > 0:
                file.write(line)
            left -= len(line)

        yield write


def follow(line: str, write: Callable[[str], object], progress: Progress) -> None:
    """A line that a step printed goes to its log, or is its progress."""
    if not line.startswith(PROGRESS_MARK):
        write(line)
        return
    try:
        done, total, text, *figures = TOLD.validate_json(line.removeprefix(PROGRESS_MARK))
    except ValidationError:  # torn apart by a child that shares the pipe, or not ours
        write(line)
    else:
        progress(
            done, total, printable(text), *({printable(name): value for name, value in one.items()} for one in figures)
        )


@contextlib.contextmanager
def deadline(seconds: float | None, end: Callable[[], object]) -> Iterator[None]:
    """Call `end` from another thread when the block lasts longer, and raise `TimeoutError` when it is left."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        end()

    timer = threading.Timer(seconds, expire) if seconds else None
    if timer:
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()
    if expired.is_set():
        raise TimeoutError(f"ended after {seconds:g} s (DISTILL_STEP_TIMEOUT_S)")


@contextlib.contextmanager
def _started(command: list[str], environment: Mapping[str, str], mend: str) -> Iterator[subprocess.Popen[str]]:
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(child_process(command, environment))
        except OSError as error:
            raise CannotStart(f"cannot start {command[0]}: {error.strerror}. {mend}") from None
        yield process


class Wanted(NamedTuple):
    """What an image must be for."""

    image: Image
    lock: str  # sha256 of its packages
    device: Device


def check_labels(labels: Mapping[str, str], name: str, wanted: Wanted) -> None:
    """Refuse an image that was built from other packages or other steps than these, or for another device."""
    for what, label, value in (("packages", "lock", wanted.lock), ("step sources", "sources", sources_digest())):
        if labels.get(f"{PREFIX}{label}") != value:
            revision = labels.get("org.opencontainers.image.revision", "unknown")
            told = f"the image {name} was built from other {what} than these (revision {revision})"
            raise CannotStart(f"{told}. Build it again: make images.", kind="EnvironmentDiffers")
    if wanted.device == "cuda" and labels.get(f"{PREFIX}variant") != "cuda":
        mend = f"Build the other: make images VARIANT=cuda, and unset or change DISTILL_{wanted.image.upper()}_IMAGE."
        raise CannotStart(f"the image {name} is the CPU variant, the device is cuda. {mend}")


def check_inputs(request: Request) -> None:
    """Refuse a request with an input that is not there: an engine would tell it less plainly."""
    for name, files in request.inputs.items():
        if missing := [file.path for file in files if not file.path.is_file()]:
            raise CannotStart(f"input {name} of {request.step} does not exist: {missing[0]}", kind="BadInput")
