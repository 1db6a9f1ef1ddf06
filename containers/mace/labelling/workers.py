"""Forked processes that share windows of structures, and survive when one of them is killed.

The processes inherit all that the parent has loaded, structures and model; only places and answers travel. Each has
one window at a time, so it is known what a killed one was doing: on Linux that is how memory usually ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from containers.contract import StepError
from containers.mace.labelling.batches import kept
from containers.processes import die_with_parent

R = TypeVar("R")
MOST_DEATHS = 2  # of processes that had one structure alone
GRACE_S = 5.0  # from the end of a worker's stream to its own end
FIRST_TO_DIE = "800"  # of 1000: the kernel, when memory ends, shall take a worker and not the step


@dataclass(frozen=True)
class Window:
    """Structures that one process does at once. `bound` limits it further than the crew's own bound."""

    places: tuple[int, ...]
    bound: int | None = None
    deaths: int = 0  # of processes that had just this one structure


@dataclass(frozen=True)
class WorkerKilled:
    """Result of a window of one structure whose processes were killed, repeatedly."""

    signal: int

    def __str__(self) -> str:
        cause = " (out of memory?)" if self.signal == signal.SIGKILL else f" ({signal.Signals(self.signal).name})"
        return f"its process was killed twice{cause}"


class _Worker(Generic[R]):
    """One forked process and its window."""

    def __init__(self, work: Callable[[Sequence[int], int], R]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, work, os.getpid(), die_with_parent()), daemon=True
        )
        self.process.start()
        theirs.close()  # so that its death is seen as the end of the stream
        self.window: Window | None = None

    def give(self, window: Window, bound: int) -> None:
        self.window = window
        with contextlib.suppress(ConnectionError):  # it is dead: `take` finds that too
            self.connection.send((window.places, bound))

    def take(self) -> R | None:
        """Return the answer, or None when the process is dead; raise again what the work raised."""
        try:
            done, answer = self.connection.recv()
        except (EOFError, OSError):  # also in the middle of an answer
            return None
        if not done:
            raise answer
        return answer

    def end(self, grace_s: float = 0.0) -> int:
        """Kill it, unless it ends before; return the number of the signal that ended it."""
        self.process.join(grace_s)
        self.process.kill()
        self.process.join()
        self.connection.close()
        return -int(self.process.exitcode or 0)


class Crew(Generic[R]):
    """Context of `count` processes that call `work(places, bound)`; at its end they are gone.

    `bound` is halved when a process dies of a window that had not killed before, down to a lowest (see `kept`); the
    pieces of that window may have less.
    """

    def __init__(self, work: Callable[[Sequence[int], int], R], count: int, bound: int = 0) -> None:
        self.work, self.bound = work, bound
        self._workers: list[_Worker[R]] = []
        self._count = count

    def __enter__(self) -> Crew[R]:
        self._workers = [_Worker(self.work) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def results(self, windows: Iterable[Window]) -> Iterator[tuple[Window, R | WorkerKilled]]:
        """Return each window, or the pieces it was cut into, with the result of `work`, as they are done.

        Raises:
            StepError: a process ended by itself.
            Exception: what `work` raised.
        """
        waiting = deque(windows)
        while True:
            self._hand_out(waiting)
            busy = {worker.connection: worker for worker in self._workers if worker.window}
            if not busy:
                return
            done = [self._take(busy[connection], waiting) for connection in wait(list(busy)) if connection in busy]
            self._hand_out(waiting)  # before the caller looks at what came: the processes shall not wait for it
            yield from (pair for pair in done if pair)

    def _hand_out(self, waiting: deque[Window]) -> None:
        """Give each idle process a window. One structure that killed a process already gets the machine for itself."""
        running = [worker.window for worker in self._workers if worker.window]
        for worker in self._workers:
            if worker.window:
                continue
            if not waiting or any(window.deaths for window in running) or (running and waiting[0].deaths):
                return
            running.append(window := waiting.popleft())
            worker.give(window, min(self.bound, self.bound if window.bound is None else window.bound))

    def _take(self, worker: _Worker[R], waiting: deque[Window]) -> tuple[Window, R | WorkerKilled] | None:
        window = worker.window
        assert window is not None
        answer = worker.take()
        worker.window = None
        if answer is not None:
            return window, answer
        by = worker.end(GRACE_S)
        if by <= 0:
            raise StepError(f"a process of the step ended by itself with exit code {-by}; see the log")
        self._workers[self._workers.index(worker)] = _Worker(self.work)
        count = len(window.places)
        print(f"a process with {count} structures was killed by {signal.Signals(by).name}", file=sys.stderr)
        bound = max(min(self.bound, window.bound or self.bound) // 2, 1)
        if window.bound is None:
            self.bound = kept(bound, self.bound)
        if count > 1:
            halves = window.places[: count // 2], window.places[count // 2 :]
            waiting.extend(Window(places, bound) for places in halves)
        elif window.deaths + 1 < MOST_DEATHS:
            waiting.append(Window(window.places, bound, window.deaths + 1))
        else:
            return window, WorkerKilled(by)
        return None


def in_a_process(work: Callable[[], R]) -> R | WorkerKilled:
    """Do `work` in a forked process, so that its threads and memory are gone; return its result or what killed it."""
    with Crew(lambda places, bound: work(), 1) as crew:
        _, answer = next(crew.results([Window((0,))]))
    return answer


def _serve(
    connection: Connection, work: Callable[[Any, int], Any], parent: int, die: Callable[[], None] | None
) -> None:
    """Work on windows until killed."""
    if die:
        die()
    if os.getppid() != parent:  # it ended before `die` could see it
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # no /proc, or not ours to change: then the kernel chooses
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_DIE)
    while True:
        places, bound = connection.recv()
        try:
            connection.send((True, work(places, bound)))
        except MemoryError:  # where nobody could make it less: the same as if the kernel had ended us
            os.kill(os.getpid(), signal.SIGKILL)
        except Exception as error:  # noqa: BLE001  raised again by the parent
            traceback.print_exc()
            connection.send((False, error))
