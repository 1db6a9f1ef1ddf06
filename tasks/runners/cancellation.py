"""What this process runs just now, by flow run: an ending flow ends its steps from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_run: ContextVar[str | None] = ContextVar("run", default=None)
_lock = threading.Lock()
_running: set[_Step] = set()
_ended: set[str] = set()


class RunEnded(BaseException):
    """The run that a step belongs to is ending; nothing may handle it as the step's own failure."""


class _Step:
    """A started step: whose it is, and how to end it."""

    def __init__(self, run_id: str | None, end: Callable[[], object]) -> None:
        self.run_id, self._end, self.ended = run_id, end, False

    def stop(self) -> None:
        self.ended = True
        self._end()


@contextmanager
def of_run(run_id: str) -> Iterator[None]:
    """Steps started in the block, in this thread, belong to the flow run `run_id`."""
    token = _run.set(run_id)
    try:
        yield
    finally:
        _run.reset(token)


def refuse_ended(run_id: str | None) -> None:
    """Raise `RunEnded` when the run has been ended."""
    if run_id in _ended:
        raise RunEnded("its flow run has ended")


@contextmanager
def endable(end: Callable[[], object]) -> Iterator[None]:
    """Let `end_running` call `end` from another thread during the block, which is then left with `RunEnded`.

    When the run has been ended before, the block is not entered: no step slips through between two others.
    """
    step = _Step(_run.get(), end)
    with _lock:
        refuse_ended(step.run_id)
        _running.add(step)
    try:
        yield
    finally:
        with _lock:
            _running.discard(step)
        if step.ended:
            raise RunEnded("ended with its flow run")


def end_running(run_id: str) -> int:
    """End every step of the run that this process has running, and refuse those that come later; how many ran."""
    with _lock:
        _ended.add(run_id)
        found = [step for step in _running if step.run_id == run_id]
    for step in found:
        step.stop()
    return len(found)
