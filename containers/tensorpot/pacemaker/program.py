"""The program `pacemaker` as a child process: found, started in its folder, followed line by line, ended for sure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from containers.contract import ProgramMissing, Resources, StepError
from containers.processes import Child, child_process

PROGRAM = "pacemaker"
INPUT_FILE = "input.yaml"
ROOT = str(Path(__file__).parents[3])  # of these packages, whatever is installed
STOPPED_BY_US = -signal.SIGKILL
SEES_A_GPU = "import sys, tensorflow; sys.exit(not tensorflow.config.list_physical_devices('GPU'))"

OnLine = Callable[[str], bool]
"""Takes a line of the program's output; False ends the program."""


class Cancelled(StepError):
    """The step was ended from outside (SIGTERM). What it had done is taken up by the next run of the same request."""


class End:
    """Lets another thread end the program."""

    def __init__(self) -> None:
        self.requested = False
        self._lock = threading.Lock()
        self._process: Child | None = None

    def now(self) -> None:
        """End the program; one that has not started yet ends as soon as it does."""
        with self._lock:
            self.requested = True
            if self._process is not None:
                self._process.end()

    @contextlib.contextmanager
    def of(self, process: Child) -> Iterator[None]:
        """While the block lasts, `now` ends this program."""
        with self._lock:
            self._process = process
            if self.requested:
                process.end()
        try:
            yield
        finally:
            with self._lock:
                self._process = None


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """Turn SIGTERM into `Cancelled`, so that children end and a report is written.

    Nothing changes outside the main thread, or where somebody else already handles the signal.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _cancel(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end what cleans up
    raise Cancelled("the step was ended (SIGTERM). Run the same again: it continues where it was.")


def find_program(name: str = PROGRAM) -> Path:
    """Return the program beside this interpreter, else on the PATH; raises `ProgramMissing`."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ProgramMissing(
            f"there is no program {name!r} beside {sys.executable} nor on the PATH. It comes with python-ace:"
            " run `make setup`, or let the step run with the interpreter of the image tensorpot."
        )
    return Path(found)


def fit_program() -> tuple[str, ...]:
    """Return the command that runs pacemaker by `launcher`; raises `ProgramMissing` where there is no pacemaker."""
    find_program()
    return sys.executable, "-P", "-m", "containers.tensorpot.pacemaker.launcher"


def check_device(resources: Resources) -> None:
    """Raise `StepError` when a GPU is required and TensorFlow sees none: it would take the CPU without a word."""
    if resources.device == "cpu":
        return
    with child_process([sys.executable, "-c", SEES_A_GPU], child_environment(resources)) as process:
        assert process.stdout is not None
        print(process.stdout.read(), end="", flush=True)
        if process.wait() != 0:
            raise StepError("TensorFlow sees no GPU; set the device to cpu, or install a CUDA build of TensorFlow")


def run_pacemaker(
    program: Sequence[str], folder: Path, resources: Resources, on_line: OnLine, end: End | None = None
) -> int:
    """Run `program input.yaml` in `folder`, hand every line of its output to `on_line`, return its exit code.

    A negative code is the signal that ended it (STOPPED_BY_US when `on_line` or `end` required it). The child and
    its children are dead when this returns or raises, and when this process dies.
    """
    # its predictions and pictures are left out: errors are computed on the exported potential
    command = [*program, "--no-predict", INPUT_FILE]
    with child_process(command, child_environment(resources), folder) as process, (end or End()).of(process):
        assert process.stdout is not None
        for line in process.stdout:
            if not on_line(line):
                return STOPPED_BY_US
        return process.wait()


def child_environment(resources: Resources) -> dict[str, str]:
    """Return this process's environment with what pacemaker, TensorFlow and the launcher must see."""
    inherited = {name: value for name, value in os.environ.items() if name != "PACEMAKERDATAPATH"}
    threads, between = str(resources.threads), str(resources.inter_op_threads or resources.threads)
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if resources.device == "cpu" else {}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH")))),
        "USER": "distill",  # pacemaker asks for a name at import; an unknown uid has none
        "TF_USE_LEGACY_KERAS": "1",
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": between,
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "Agg",
        **hidden,
    }
