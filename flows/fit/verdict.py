"""How an attempt at a fit ended, in one word, and which attempt is the best. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from containers.contract import Closed
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.stop_reason import BROKEN_OFF
from flows.config.training import Convergence

Verdict = Literal[
    "converged",  # both validation errors are within their limits
    "iterations_used_up",
    "stalled",
    "not_accurate",  # the optimizer is at a minimum that is not good enough
    "early_stop",
    "out_of_memory",
    "diverged",
    "crashed",
    "no_iteration",
    "killed",
    "time_limit",
    "program_missing",
    "bad_data",
    "failed",  # an error that no plan is known to mend
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

SOUND: tuple[Verdict, ...] = ("converged", "iterations_used_up", "stalled", "not_accurate", "early_stop")
"""Ends that the fit came to by itself: a stage that is not the last one may end so."""

ACCIDENTS: tuple[Verdict, ...] = ("killed", "crashed", "out_of_memory", "time_limit")
"""Ends from outside: a later run goes on from what one left."""

OF_FAILURE: dict[str, Verdict] = {
    "OutOfMemory": "out_of_memory",
    "Diverged": "diverged",
    "Crashed": "crashed",
    "Killed": "killed",
    "NoIteration": "no_iteration",
    "TimeLimit": "time_limit",
    "ProgramMissing": "program_missing",
    "EnvironmentDiffers": "program_missing",
    "BadInput": "bad_data",
    "RowsDiffer": "bad_data",
}
OF_STOP_REASON: dict[str, Verdict] = {
    "max_iterations": "iterations_used_up",
    "stalled": "stalled",
    "early_stop": "early_stop",
    "converged": "not_accurate",
    "out_of_memory": "out_of_memory",
    "diverged": "diverged",
    "crashed": "crashed",
    "killed": "killed",
    "time_limit": "time_limit",
}
MENDS: dict[Verdict, str] = {
    "iterations_used_up": "Raise train.maxiter (a stage has its own) or train.max_attempts.",
    "stalled": "More structures or pacemaker.functions_per_element would help, not more iterations.",
    "not_accurate": "The fit is at a minimum of its loss: only more structures, pacemaker.functions_per_element or"
    " pacemaker.order would help.",
    "early_stop": "Lower train.early_stop's limit, or leave it out.",
    "out_of_memory": "Give the step more memory (DISTILL_STEP_MEMORY_GB), or lower pacemaker.functions_per_element or"
    " pacemaker.cutoff.",
    "diverged": "Look for structures with huge forces: labels.max_force_eV_per_A and labels.min_distance_A set them"
    " aside. Else raise train.l2, or lower pacemaker.functions_per_element.",
    "crashed": "The last lines of pacemaker's log tell why. Run again: it goes on with what is kept.",
    "no_iteration": "The last lines of pacemaker's log tell why; check pacemaker.b_basis and pacemaker.fit.",
    "killed": "Somebody or the batch system ended it: run again, it goes on with what is kept.",
    "time_limit": "Raise DISTILL_STEP_TIMEOUT_S, or run again: it goes on with what is kept.",
}
"""What the user can do where no other plan helps. The messages of the other ends have their mend."""
MENDS_OF_NOTHING: dict[Verdict, str] = {
    "killed": "Somebody or the batch system ended it before its first potential: run again.",
    "time_limit": "Its time was over before its first potential: raise DISTILL_STEP_TIMEOUT_S.",
    "crashed": "The last lines of pacemaker's log tell why; the folder of the step can be run again alone.",
}
"""The same for an attempt that left nothing to go on from, where that makes another mend of it."""


class Outcome(Closed):
    """How an attempt ended: the metrics of `pace_train`, or the class name of its failure."""

    metrics: dict[str, Any] = {}
    failure: str | None = None

    @property
    def resumable(self) -> bool:
        """Whether it left an interim potential that a fit may go on from."""
        return self.failure is None and self.fit.stop_reason != "diverged"

    @property
    def fit(self) -> pace_train.Metrics:
        """The metrics as the step declares them."""
        return pace_train.Metrics.of(self.metrics)


def judge(outcome: Outcome, convergence: Convergence) -> Verdict:
    """One word on an attempt. One that was broken off has not converged, however small its errors."""
    if outcome.failure is not None:
        return OF_FAILURE.get(outcome.failure, "failed")
    reason = outcome.fit.stop_reason
    if reason not in (*BROKEN_OFF, "time_limit") and badness(outcome.fit, convergence) <= 1:
        return "converged"
    return OF_STOP_REASON[reason]


def in_limits(fit: pace_train.Metrics, convergence: Convergence) -> dict[str, float]:
    """The validation errors `force` and `energy` of the best potential, each in units of its limit.

    An error that is no number is infinitely large.
    """
    return {
        "force": _finite(fit.validation_force_mae_meV_per_A) / convergence.force_mae_meV_per_A,
        "energy": _finite(fit.validation_energy_mae_meV_per_atom) / convergence.energy_mae_meV_per_atom,
    }


def badness(fit: pace_train.Metrics, convergence: Convergence) -> float:
    """The larger of the two validation errors, each in units of its limit; at most 1 is good enough."""
    return max(in_limits(fit, convergence).values())


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.inf


def resume_from(outcomes: Sequence[Outcome]) -> int | None:
    """Which attempt a `continue` goes on from: the newest that left an interim potential; None when none did."""
    places = [place for place, outcome in enumerate(outcomes) if outcome.resumable]
    return places[-1] if places else None


def mend_of(verdict: Verdict, failed: bool) -> str:
    """What the user can do; empty where the failure's own message says it, or nothing is to be mended.

    Args:
        failed: the attempt left no potential.
    """
    return (MENDS_OF_NOTHING if failed else MENDS).get(verdict) or MENDS.get(verdict, "")


def best_of(outcomes: Sequence[Outcome], convergence: Convergence) -> int | None:
    """Which attempt has the smallest validation errors, a converged one before all that were not; the earliest of
    equals; None when all failed."""
    places = [place for place, outcome in enumerate(outcomes) if outcome.failure is None]
    return min(places, key=lambda place: _rank(outcomes[place], convergence), default=None)


def _rank(outcome: Outcome, convergence: Convergence) -> tuple[bool, float]:
    return judge(outcome, convergence) != "converged", badness(outcome.fit, convergence)
