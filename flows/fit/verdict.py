"""The verdict on an attempt at a fit, in one word, and the choice of the best attempt. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from containers.contract import Closed
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.stop_reason import BROKEN_OFF
from flows.config.training import Limits

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
    "failed",  # an error that no plan is known to repair
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

SOUND: tuple[Verdict, ...] = ("converged", "iterations_used_up", "stalled", "not_accurate", "early_stop")
"""Ends of a fit that nothing broke off: a stage that is not the last one may end so."""

ACCIDENTS: tuple[Verdict, ...] = ("killed", "crashed", "out_of_memory", "time_limit")
"""Ends from outside: a later run continues from what is left."""

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
HINTS: dict[Verdict, str] = {
    "iterations_used_up": "Raise train.maxiter (a stage has its own) or train.max_attempts.",
    "stalled": "More structures or pacemaker.functions_per_element would help, not more iterations.",
    "not_accurate": "The fit is at a minimum of its loss: only more structures, pacemaker.functions_per_element or"
    " pacemaker.order would help.",
    "early_stop": "Lower train.early_stop's limit, or leave it out.",
    "out_of_memory": "Give the step more memory (DISTILL_STEP_MEMORY_GB), or lower pacemaker.functions_per_element or"
    " pacemaker.cutoff.",
    "diverged": "Look for structures with huge forces: labels.max_force_eV_per_A and labels.min_distance_A set them"
    " aside. Else raise train.l2, or lower pacemaker.functions_per_element.",
    "crashed": "The last lines of pacemaker's log say why. Run again: it continues with what is kept.",
    "no_iteration": "The last lines of pacemaker's log say why; check pacemaker.b_basis and pacemaker.fit.",
    "killed": "Somebody or the batch system ended it: run again, it continues with what is kept.",
    "time_limit": "Raise DISTILL_STEP_TIMEOUT_S, or run again: it continues with what is kept.",
}
"""Hints for the user where no other plan helps. The messages of the other ends have their own."""
HINTS_OF_NOTHING: dict[Verdict, str] = {
    "killed": "Somebody or the batch system ended it before its first potential: run again.",
    "time_limit": "Its time was over before its first potential: raise DISTILL_STEP_TIMEOUT_S.",
    "crashed": "The last lines of pacemaker's log say why; the folder of the step can be run again alone.",
}
"""The same for an attempt that left nothing to continue from, where the hint is then another one."""


class Errors(Closed):
    """Mean absolute errors of one split; infinite where there is no number."""

    force_mae_meV_per_A: float = Field(ge=0)
    energy_mae_meV_per_atom: float = Field(ge=0)

    model_config = Closed.model_config | {"allow_inf_nan": True}

    @classmethod
    def of(cls, force_mae_meV_per_A: float | None, energy_mae_meV_per_atom: float | None) -> Errors:
        """Return the errors of a split; what is no finite number counts as infinite."""
        given = (force_mae_meV_per_A, energy_mae_meV_per_atom)
        force, energy = (one if one is not None and math.isfinite(one) else math.inf for one in given)
        return cls(force_mae_meV_per_A=force, energy_mae_meV_per_atom=energy)

    def over(self, limits: Limits) -> dict[str, float]:
        """Return each in units of its limit."""
        return {name: getattr(self, name) / getattr(limits, name) for name in type(self).model_fields}

    def badness(self, limits: Limits) -> float:
        """Return the larger of both in units of its limit; at most 1 is good enough."""
        return max(self.over(limits).values())


class FitOutcome(Closed):
    """End of an attempt: the metrics of `pace_train`, or the class name of its failure."""

    metrics: dict[str, Any] = {}
    failure: str | None = None

    @property
    def resumable(self) -> bool:
        """True where it left an interim potential that a fit may continue from."""
        return self.failure is None and self.fit.stop_reason != "diverged"

    @property
    def fit(self) -> pace_train.Metrics:
        """The metrics as the step declares them."""
        return pace_train.Metrics.of(self.metrics)

    @property
    def errors(self) -> Errors:
        """Validation errors of the best potential."""
        return Errors.of(self.fit.validation_force_mae_meV_per_A, self.fit.validation_energy_mae_meV_per_atom)


def judge(outcome: FitOutcome, limits: Limits) -> Verdict:
    """Return one word on an attempt. One that was broken off has not converged, however small its errors."""
    if outcome.failure is not None:
        return OF_FAILURE.get(outcome.failure, "failed")
    reason = outcome.fit.stop_reason
    if reason not in (*BROKEN_OFF, "time_limit") and outcome.errors.badness(limits) <= 1:
        return "converged"
    return OF_STOP_REASON[reason]


def hint_for(verdict: Verdict, failed: bool) -> str:
    """Return what the user can do; empty where the failure's own message says it, or there is nothing to do.

    Args:
        failed: the attempt left no potential.
    """
    return (HINTS_OF_NOTHING if failed else HINTS).get(verdict) or HINTS.get(verdict, "")


def best_of(outcomes: Sequence[FitOutcome], limits: Limits) -> int | None:
    """Return the place of the attempt with the smallest validation errors, a converged one before all others.

    The earliest of equals; None when all failed.
    """

    def rank(place: int) -> tuple[bool, float]:
        outcome = outcomes[place]
        return judge(outcome, limits) != "converged", outcome.errors.badness(limits)

    return min((place for place, one in enumerate(outcomes) if one.failure is None), key=rank, default=None)
