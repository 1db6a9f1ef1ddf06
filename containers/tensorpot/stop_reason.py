"""Why a fit ended, decided from its numbers, its closing line and its exit code together. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from containers.tensorpot.fit_history import Row, last_step
from containers.tensorpot.fit_log import FitLog

StopReason = Literal[
    "converged",  # the optimizer reached its gradient tolerance
    "early_stop",  # the loss fell too slowly, as the user asked
    "max_iterations",
    "stalled",  # the optimizer finds no way down, or claims success without a lower loss
    "diverged",  # the loss is no number
    "crashed",
    "killed",
    "out_of_memory",
]
BROKEN_OFF: tuple[StopReason, ...] = ("diverged", "crashed", "killed", "out_of_memory")
"""Ends that the program did not choose: only an interim potential may be left."""

KILLED = (-9, -15, -2, -1, 137, 143, 130, 129)  # by SIGKILL, SIGTERM, SIGINT, SIGHUP; as a child and as a shell says it
SIGKILLED = (-9, 137)


@dataclass(frozen=True)
class Ending:
    """What is known when pacemaker has ended."""

    exit_code: int
    rows: tuple[Row, ...]  # of the train side
    log: FitLog
    maxiter: int
    kernel_killed: bool | None = None  # whether the kernel ended a process for memory meanwhile; None: unknown


def stop_reason(ending: Ending) -> StopReason:
    """The reason; closing words alone never decide it."""
    if any(not row.finite for row in ending.rows):
        return "diverged"
    if ending.exit_code != 0:
        return _broken_off(ending)
    if ending.log.closing is None or not ending.rows:
        return "crashed"
    return _ended_itself(ending)


def _broken_off(ending: Ending) -> StopReason:
    """A plain SIGKILL is most often the kernel's; it is told from somebody's where the kernel counts its own."""
    killed = ending.exit_code in KILLED
    by_kernel = ending.exit_code in SIGKILLED and ending.kernel_killed is not False
    if ending.log.memory_refused or by_kernel:
        return "out_of_memory"
    return "killed" if killed else "crashed"


def _ended_itself(ending: Ending) -> StopReason:
    rows = last_step(list(ending.rows))
    closing = ending.log.closing
    assert closing is not None
    if closing.success and closing.status == 0:
        return "converged" if rows[-1].loss < rows[0].loss else "stalled"
    if rows[-1].step_iteration >= ending.maxiter:
        return "max_iterations"
    return "early_stop" if ending.log.early_stop else "stalled"
