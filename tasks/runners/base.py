"""The contract of a runner, the registry of all, and the two without containers.

At the end stand the checks before a container starts, whatever engine starts it.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from containers.contract import Device, Image, Progress, Request
from containers.environment import sources_digest
from containers.processes import child_process, kernel_kills
from containers.step import PROGRESS_MARK, execute
from containers.tensorpot.pacemaker.program import SEES_A_GPU as TENSORFLOW_SEES_A_GPU
from tasks.errors import printable
from tasks.runners.cancellation import endable
from tasks.runners.container_owner import PREFIX
from tasks.settings import RunnerName, Settings, step_environment
from tasks.workspace import Workspace

LARGEST_LOG = 100_000_000  # characters
Words = tuple[FiniteFloat, FiniteFloat, str]
PROGRESS: TypeAdapter[Any] = TypeAdapter(Words | tuple[FiniteFloat, FiniteFloat, str, dict[str, FiniteFloat]])
"""A line of progress: done, total, text, and figures where there are some."""


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


class Runner(ABC):
    """A way to start steps, with a life of one flow run: `prepare`, then `run` for each step, then `close`."""

    asks_for_gpu: ClassVar[bool] = True  # False: device auto is the CPU, and cuda is left to the step
    limits_memory: ClassVar[bool] = False  # whether a step gets no more than DISTILL_STEP_MEMORY_GB

    def __init__(self, settings: Settings, run_id: str = "") -> None:
        self.settings, self.run_id = settings, run_id

    def why_no_gpu(self) -> str | None:
        """Return why steps cannot compute on a GPU, or None; `CannotStart` when that cannot be found out."""
        return None if _succeeds("nvidia-smi", "-L") else "there is no GPU (nvidia-smi lists none)"

    def prepare(self, device: Device) -> None:  # noqa: B027  most runners need nothing
        """Remove what killed runs left; raise `CannotStart` when steps could not start on `device`."""

    @abstractmethod
    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        """Run the step staged in `folder`; what it prints goes to `folder/log.txt`, progress to `progress`.

        Returns how the step's process ended; raises `TimeoutError` or `CannotStart`.
        """

    def close(self) -> int:
        """Remove what is left of this run's steps and return how many there were; raises `CannotStart`."""
        return 0


RUNNERS: dict[RunnerName, str] = {
    "subprocess": "tasks.runners.base.SubprocessRunner",
    "docker": "tasks.runners.docker.DockerRunner",
    "apptainer": "tasks.runners.apptainer.ApptainerRunner",
    "in_process": "tasks.runners.base.InProcessRunner",
    "stub": "tasks.runners.base.InProcessRunner",  # of a stub request
}
"""Every runner by name, imported when it is needed. A new runner is a module, a line here and its `RunnerName`."""


def runner_class(name: RunnerName) -> type[Runner]:
    """Return the class of the runner called `name`."""
    module, _, kind = RUNNERS[name].rpartition(".")
    return cast(type[Runner], getattr(importlib.import_module(module), kind))


def runner_of(workspace: Workspace) -> Runner:
    """Return the runner that the settings name, for the workspace's run."""
    return runner_class(workspace.settings.runner)(workspace.settings, workspace.run_id)


SEES_A_GPU: dict[Image, str] = {
    "mace": "import sys, torch; sys.exit(not torch.cuda.is_available())",
    "tensorpot": TENSORFLOW_SEES_A_GPU,
}


class SubprocessRunner(Runner):
    """One process of the image's interpreter a step, in a process group of its own that ends with the task."""

    def why_no_gpu(self) -> str | None:
        if reason := super().why_no_gpu():
            return reason
        for image, code in SEES_A_GPU.items():
            if not _succeeds(str(self.settings.python(image)), "-c", code):
                return f"there is a GPU, but the libraries of {self.settings.python(image)} ({image}) do not see it"
        return None

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        command = [str(self.settings.python(image)), "-m", "containers.step", str(folder)]
        hint = f"Set DISTILL_{image.upper()}_PYTHON to an interpreter that runs."
        environment = step_environment(request.resources.threads)
        return run_process(command, environment, folder, progress, self.settings.step_timeout_s, hint)


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class InProcessRunner(Runner):
    """The step in this process: for debugging and for tests; its prints stay on the terminal."""

    asks_for_gpu = False

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        execute(folder, progress)
        return Ended("in this process")


def run_process(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    progress: Progress,
    timeout_s: float | None,
    hint: str,
) -> Ended:
    """Run `command` as a child that cannot outlive us; `hint` says what to do when it cannot be started."""
    kills = kernel_kills()
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(open_log(folder))
        try:
            process = stack.enter_context(child_process(command, environment))
        except OSError as error:
            raise CannotStart(f"cannot start {command[0]}: {error.strerror}. {hint}") from None
        stack.enter_context(endable(process.end, timeout_s))
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
    """A function that writes a line to the log of a run, new and empty; beyond LARGEST_LOG it writes no more."""
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
        done, total, text, *figures = PROGRESS.validate_json(line.removeprefix(PROGRESS_MARK))
    except ValidationError:  # torn apart by a child that shares the pipe, or not ours
        write(line)
    else:
        named = ({printable(name): value for name, value in one.items()} for one in figures)
        progress(done, total, printable(text), *named)


def check_labels(labels: Mapping[str, str], name: str, image: Image, lock: str, device: Device) -> None:
    """Refuse an image that was built from other packages or other steps than these, or for another device.

    Args:
        labels: of the image called `name`, which is to stand for `image`.
        lock: sha256 of the packages that it must have.
    """
    for what, label, value in (("packages", "lock", lock), ("step sources", "sources", sources_digest())):
        if labels.get(f"{PREFIX}{label}") != value:
            revision = labels.get("org.opencontainers.image.revision", "unknown")
            fault = f"the image {name} was built from other {what} than these (revision {revision})"
            raise CannotStart(f"{fault}. Build it again: make images.", kind="EnvironmentDiffers")
    if device == "cuda" and labels.get(f"{PREFIX}variant") != "cuda":
        hint = f"Build the other: make images VARIANT=cuda, and unset or change DISTILL_{image.upper()}_IMAGE."
        raise CannotStart(f"the image {name} is the CPU variant, the device is cuda. {hint}")


def check_inputs(request: Request) -> None:
    """Refuse a request with an input that is not there: an engine would report it less plainly."""
    for name, files in request.inputs.items():
        if missing := [file.path for file in files if not file.path.is_file()]:
            raise CannotStart(f"input {name} of {request.step} does not exist: {missing[0]}", kind="BadInput")
