"""Children that never outlive who started them: a program that is followed line by line, and forked workers."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from containers.contract import OutOfMemory

T = TypeVar("T")
R = TypeVar("R")

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


def processes_for(threads: int) -> int:
    """Return how many processes to fork for so many threads; 0 where that is not safe: the caller then works itself.

    A process with threads must not be forked (locks stay locked in the child), and only Linux is known to bear a fork
    with torch loaded.
    """
    return threads if sys.platform == "linux" and threading.active_count() == 1 else 0


def forked_map(work: Callable[[T], R], tasks: Iterable[T], processes: int, name: str) -> Iterator[R]:
    """Yield `work` of each task in their order, shared by forked processes, which inherit `work` and what it loaded.

    Few tasks are taken ahead, so that they do not pile up.

    Args:
        name: completes "a process that ..." in the message.

    Raises:
        OutOfMemory: a process was killed.
    """
    if processes_for(processes) < 2:
        yield from map(work, tasks)
        return
    waiting: deque[Future[Any]] = deque()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin, (work, die_with_parent())) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(_do, task))
                if len(waiting) > processes + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise OutOfMemory(
                f"a process that {name} was killed, most likely for want of memory: give the step more memory or fewer"
                " threads"
            ) from error


_work: Callable[[Any], Any]


def _begin(work: Callable[[Any], Any], bind: Callable[[], None] | None) -> None:
    global _work  # a forked process is given its work once, not with every task
    if bind:
        bind()
    _work = work


def _do(task: Any) -> Any:
    return _work(task)
