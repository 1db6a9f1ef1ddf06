"""A child process that is followed line by line and never outlives who started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Child(subprocess.Popen[str]):
    """A child process that leads a process group of its own."""

    def end(self) -> None:
        """SIGKILL to the child and all its children; nothing when they are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def child_process(command: list[str], environment: Mapping[str, str], folder: Path | None = None) -> Iterator[Child]:
    """Run `command` with its output and errors as one stream of text lines on `stdout`.

    Its process group is killed when the block is left in any way. On Linux the child also dies when the thread that
    started it ends, be it by SIGKILL. Raises `OSError` when it cannot be started.
    """
    process = Child(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    try:
        yield process
    finally:
        process.end()
        process.wait()


def die_with_parent() -> Callable[[], None] | None:
    """What a child calls to be killed when the thread that forked it ends; None where the kernel cannot do it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where it is safe
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kernel_kills() -> int | None:
    """How many processes the kernel has ended for memory since boot; None where it does not count them."""
    vmstat = Path("/proc/vmstat")
    if not vmstat.is_file():
        return None
    counts = dict(line.split() for line in vmstat.read_text().splitlines())
    return int(counts["oom_kill"]) if "oom_kill" in counts else None
