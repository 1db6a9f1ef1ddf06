"""Reason why a fit ended, decided from its numbers, its closing line and its exit code together. Pure.

The first line that holds decides:

===============  ==============================================================  ================================
reason           criterion                                                       what decides
===============  ==============================================================  ================================
diverged         a loss that is no number; or the last RISING losses all above   the losses
                 RISE times the smallest before them; or the last loss above
                 the first of its step or cycle (the optimisers never go up)
time_limit       we ended it because its time was nearly over                    our own doing
out_of_memory    it failed and named memory, or SIGKILL came and the kernel      words and the kernel's count, only
                 counts a process ended for memory (or counts none at all)       with a failed exit
killed           another signal, or SIGKILL that was not the kernel's            the exit code
max_iterations,  early stopping by the validation frame met the end of a fit     the rows: all iterations done,
early_stop       of the whole basis, in the last cycle: a known fault makes      or fewer
                 pacemaker fail then
crashed          any other failed exit; or exit 0 without closing line or rows   the exit code, and the rows
converged        closing line of success, and the loss has fallen; or no way     words, if the loss has fallen or
                 down found while the loss was flat: over the last FLAT          is flat
                 iterations it fell by less than FLATNESS of itself
max_iterations   as many iterations in the last step as were requested           the rows
early_stop       pacemaker says so, and the last loss fell no faster than the    words, if the last fall agrees
                 limit (where the limit is on the train loss)
stalled          everything else: words of success without a lower loss, no way  the rows
                 down found while the loss still fell, iterations that are
                 announced and were not done
===============  ==============================================================  ================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from containers.tensorpot.fit.history import MetricsRow, last_step
from containers.tensorpot.fit.log import FitLog

StopReason = Literal[
    "converged",
    "early_stop",
    "max_iterations",
    "time_limit",
    "stalled",
    "diverged",
    "crashed",
    "killed",
    "out_of_memory",
]
BROKEN_OFF: tuple[StopReason, ...] = ("diverged", "crashed", "killed", "out_of_memory")
"""Ends that nobody requested: only an interim potential may be left."""

ALL_DONE = "all iterations that were requested"

KILLED = (-9, -15, -2, -1, 137, 143, 130, 129)  # by SIGKILL, SIGTERM, SIGINT, SIGHUP; as a child and as a shell says it
SIGKILLED = (-9, 137)

RISE, RISING = 1.5, 5  # times the smallest loss before, iterations in a row
ABOVE = 1e-6  # share by which the last loss may lie above the first: rounding of another order of sums
FLAT, FLATNESS = 5, 1e-6  # iterations, share of the loss


@dataclass(frozen=True)
class Ending:
    """State of a fit when pacemaker has ended.

    Attributes:
        rows: of the train side, of this run alone.
        maxiter: iterations requested in a step of the ladder or a cycle; those that remained, after an interruption.
        kernel_killed: whether the kernel ended a process for memory meanwhile; None: unknown.
        out_of_time: we ended it because its time was nearly over.
        min_fall: share of the loss by which every iteration was to lower it; None: no early stop.
        functions: of the whole basis, where a ladder leads; None: there is no ladder.
        cycles: requested in this run.
    """

    exit_code: int
    rows: tuple[MetricsRow, ...]
    log: FitLog
    maxiter: int
    kernel_killed: bool | None = None
    out_of_time: bool = False
    min_fall: float | None = None
    functions: int | None = None
    cycles: int = 1


class FitStop(NamedTuple):
    """Reason why a fit ended, and the criterion that decided it."""

    reason: StopReason
    criterion: str


def stop(ending: Ending) -> FitStop:
    """Return the reason and its criterion; see the table above."""
    rows, log = last_step(ending.rows), ending.log
    if lost_because := lost(ending.rows):
        return FitStop("diverged", lost_because)
    if rows and rows[-1].loss > (1 + ABOVE) * rows[0].loss:
        return FitStop("diverged", f"the last loss ({rows[-1].loss:.6g}) is above the first ({rows[0].loss:.6g})")
    if ending.out_of_time:
        return FitStop("time_limit", "the time for this step was nearly over")
    if ending.exit_code != 0:
        return _failed(ending)
    if log.closing is None or not rows:
        return FitStop("crashed", "exit code 0, but no closing line of the optimiser or no iteration in its metrics")
    done = rows[-1].step_iteration
    if log.closing.success and log.closing.status == 0:
        if rows[-1].loss < rows[0].loss:
            return FitStop("converged", f"the optimiser's own tolerance was reached ({log.closing.message})")
        return FitStop("stalled", "the optimiser speaks of success, but the loss has not fallen")
    if done >= ending.maxiter:
        return FitStop("max_iterations", ALL_DONE)
    if log.early_stop:
        least = ending.min_fall  # None where the limit is on the validation side
        if least is None or len(rows) < 2 or rows[-2].loss - rows[-1].loss <= least * rows[-2].loss * (1 + ABOVE):
            return FitStop("early_stop", "the loss fell more slowly than requested over the iterations of patience")
    elif len(rows) > FLAT and rows[-1].loss < rows[0].loss:
        fall = (rows[-1 - FLAT].loss - rows[-1].loss) / rows[-1 - FLAT].loss
        if fall < FLATNESS:
            flat = f"no way down, and over the last {FLAT} iterations the loss fell by {fall:.1e} of it"
            return FitStop("converged", flat)
    return FitStop("stalled", f"ended after {done} of {ending.maxiter} iterations ({log.closing.message})")


def lost(rows: Sequence[MetricsRow]) -> str:
    """Return why a running fit is lost, in words; empty when it is not."""
    if bad := next((row for row in rows if not math.isfinite(row.loss)), None):
        return f"the loss of iteration {bad.step_iteration} is no number ({bad.loss})"
    losses = [row.loss for row in last_step(rows)]
    before, last = losses[:-RISING], losses[-RISING:]
    if before and min(last) > RISE * min(before):
        return f"the last {RISING} losses are all above {RISE} times the smallest before them ({min(before):.4g})"
    return ""


def _failed(ending: Ending) -> FitStop:
    """Return the reason of a failed exit. A plain SIGKILL counts as the kernel's unless the kernel counted none."""
    code, rows = ending.exit_code, ending.rows
    if ending.log.memory_refused:
        return FitStop("out_of_memory", f"pacemaker said that it was refused memory, and ended with exit code {code}")
    if code in SIGKILLED and ending.kernel_killed is not False:
        return FitStop("out_of_memory", "SIGKILL, and the kernel ends processes that way for memory")
    if code in KILLED:
        return FitStop("killed", f"a signal from somebody else (exit code {code})")
    whole_basis = ending.functions is None or [shape[0] for shape in ending.log.shapes[-1:]] == [ending.functions]
    if ending.log.early_stop_too_late and rows and whole_basis and rows[-1].cycle + 1 >= ending.cycles:
        reached = rows[-1].step_iteration >= ending.maxiter
        fell = "the validation loss fell more slowly than requested; pacemaker crashes when it finds that at the end"
        return FitStop("max_iterations", f"{ALL_DONE}; {fell}") if reached else FitStop("early_stop", fell)
    return FitStop("crashed", f"pacemaker failed with exit code {code}")
