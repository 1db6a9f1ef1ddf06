"""Steps that this process runs just now, by flow run, and the one way to end them early.

A started child has one `end`. Its time limit calls it, and so does the end of its flow run, from another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_run: ContextVar[str | None] = ContextVar("run", default=None)
_lock = threading.Lock()
_running: dict[Callable[[BaseException], None], str | None] = {}
"""Function that ends a started step, with the reason -> its run."""
_ended: set[str] = set()


class RunEnded(BaseException):
    """The run that a step belongs to is ending; nothing may handle it as the step's own failure."""


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
def endable(end: Callable[[], object], seconds: float | None = None) -> Iterator[None]:
    """Call `end` from another thread when the run ends during the block, or when the block lasts longer than `seconds`.

    The block is then left with `RunEnded` or `TimeoutError` instead of the failure that its end caused. When the run
    has been ended before, the block is not entered: no step slips through between two others.
    """
    why: BaseException | None = None

    def stop(reason: BaseException) -> None:
        nonlocal why
        if not isinstance(why, RunEnded):
            why = reason
        end()

    run_id = _run.get()
    with _lock:
        refuse_ended(run_id)
        _running[stop] = run_id
    late = TimeoutError(f"ended after {seconds or 0:g} s (DISTILL_STEP_TIMEOUT_S)")
    timer = threading.Timer(seconds or 0, stop, [late])
    if seconds:
        timer.start()
    try:
        yield
    except Exception:
        if why is None:
            raise
    finally:
        timer.cancel()
        with _lock:
            del _running[stop]
    if why:
        raise why


def end_running(run_id: str) -> int:
    """End every step of the run that this process has running, and refuse those that come later; how many ran."""
    with _lock:
        _ended.add(run_id)
        found = [stop for stop, run in _running.items() if run == run_id]
    for stop in found:
        stop(RunEnded("ended with its flow run"))
    return len(found)
