"""What to do after a fit: the verdict on an attempt, the plan of the next one, the best of all. Pure decisions.

====================  ==========================================================================================
verdict               next plan
====================  ==========================================================================================
converged             none: both errors are within the limits
iterations_used_up    continue from the interim potential, at once (no ladder)
stalled               the same: a new start of the optimizer forgets its curvature
not_accurate          none: the optimizer is at a minimum that is not good enough; more functions or data would help
early_stop            none: the loss fell as slowly as the user said is enough
out_of_memory         half the batch; continues where there is an interim potential; none at a batch of 1
diverged              regularisation 100 times stronger and a ladder, fresh; none beyond STRONGEST
crashed, no_iteration one change: continue from what there is, else no ladder, else fresh, else half the batch
killed                continue from what there is, else the same again
program_missing       none: no plan mends it
bad_data              none: no plan mends it
failed                none: an error that no plan is known to mend
====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from containers.contract import Closed
from containers.tensorpot.pace_train import auto_batch_size
from containers.tensorpot.stop_reason import BROKEN_OFF

Verdict = Literal[
    "converged",
    "iterations_used_up",
    "stalled",
    "not_accurate",
    "early_stop",
    "out_of_memory",
    "diverged",
    "crashed",
    "no_iteration",
    "killed",
    "program_missing",
    "bad_data",
    "failed",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

STRONGER = 100.0
STRONGEST = 1e-2  # regularisation beyond which a fit cannot follow its data
WEAKEST = 1e-8  # what 0 counts as when it is made stronger
LADDER_STEP = 50  # functions

OF_FAILURE: dict[str, Verdict] = {
    "OutOfMemory": "out_of_memory",
    "Diverged": "diverged",
    "Crashed": "crashed",
    "Killed": "killed",
    "NoIteration": "no_iteration",
    "ProgramMissing": "program_missing",
    "EnvironmentDiffers": "program_missing",
    "BadInput": "bad_data",
    "RowsDiffer": "bad_data",
    "NoCoreRepulsion": "bad_data",
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
}


class Convergence(Closed):
    """When a student is good enough."""

    force_mae_meV_per_A: float = Field(120, gt=0, description="meV/Å, mean absolute error of force components")
    energy_mae_meV_per_atom: float = Field(20, gt=0, description="meV/atom, mean absolute error of energies")


class FitPlan(Closed):
    """The part of a fit that changes from attempt to attempt."""

    maxiter: int = Field(ge=1, description="iterations at most")
    batch_size: int = Field(ge=1, description="structures evaluated at a time")
    l1: float = Field(1e-8, ge=0, description="L1 regularisation")
    l2: float = Field(1e-8, ge=0, description="L2 regularisation")
    ladder_step: int | None = Field(None, ge=1, description="functions added at a time; None: all at once")
    start: Literal["fresh", "continue"] = Field("fresh", description="continue: from the newest interim potential")
    reason: str = Field("the first attempt", description="why this plan")


class Outcome(Closed):
    """How an attempt ended: the metrics of `pace_train`, or the class name of its failure."""

    metrics: dict[str, Any] = {}
    failure: str | None = None

    @property
    def resumable(self) -> bool:
        """Whether it left an interim potential that a fit may go on from."""
        return self.failure is None and self.metrics["stop_reason"] != "diverged"


def first_plan(maxiter: int, batch_size: int | Literal["auto"], structures: int, atoms: int) -> FitPlan:
    """The plan of the first attempt; `structures` and `atoms` are those of the training frame."""
    batch = auto_batch_size(structures, atoms) if batch_size == "auto" else batch_size
    return FitPlan(maxiter=maxiter, batch_size=batch)


def verdict(outcome: Outcome, convergence: Convergence) -> Verdict:
    """One word on an attempt. One that was broken off has not converged, however small its errors."""
    if outcome.failure is not None:
        return OF_FAILURE.get(outcome.failure, "failed")
    reason = outcome.metrics["stop_reason"]
    if reason not in BROKEN_OFF and badness(outcome.metrics, convergence) <= 1:
        return "converged"
    return OF_STOP_REASON[reason]


def badness(metrics: Mapping[str, Any], convergence: Convergence) -> float:
    """The larger of the two validation errors, each in units of its limit; at most 1 is good enough."""
    return max(
        metrics["validation_force_mae_meV_per_A"] / convergence.force_mae_meV_per_A,
        metrics["validation_energy_mae_meV_per_atom"] / convergence.energy_mae_meV_per_atom,
    )


def next_plan(plan: FitPlan, judged: Verdict, resumable: bool = False) -> FitPlan | None:
    """The plan after `plan` was judged so; None when no other attempt would help. See the table above.

    `resumable`: the attempt left an interim potential (`Outcome.resumable`).
    """
    if judged in ("iterations_used_up", "stalled"):
        return _continued(plan, "its iterations were used up" if judged == "iterations_used_up" else "it stalled")
    if judged == "out_of_memory":
        return _smaller(plan, resumable, "out of memory")
    if judged == "diverged":
        return _stronger(plan)
    if judged in ("crashed", "no_iteration"):
        return _changed(plan, judged, resumable)
    if judged == "killed":
        return (
            _continued(plan, "it was killed") if resumable else _but(plan, "it was killed at its start: the same again")
        )
    return None


def _but(plan: FitPlan, reason: str, **changes: Any) -> FitPlan:
    return FitPlan.model_validate({**plan.model_dump(), **changes, "reason": reason})


def _continued(plan: FitPlan, why: str) -> FitPlan:
    return _but(plan, f"{why}: continued from its interim potential", start="continue", ladder_step=None)


def _smaller(plan: FitPlan, resumable: bool, why: str) -> FitPlan | None:
    if plan.batch_size == 1:
        return None
    half = plan.batch_size // 2
    start = {"start": "continue", "ladder_step": None} if resumable else {}
    return _but(plan, f"{why}: batch {plan.batch_size} -> {half}", batch_size=half, **start)


def _stronger(plan: FitPlan) -> FitPlan | None:
    l1, l2 = (max(value, WEAKEST) * STRONGER for value in (plan.l1, plan.l2))
    if max(l1, l2) > STRONGEST:
        return None
    reason = f"the loss was no number: L1 {plan.l1:g} -> {l1:g}, L2 {plan.l2:g} -> {l2:g}, a ladder, fresh"
    return _but(plan, reason, l1=l1, l2=l2, ladder_step=LADDER_STEP, start="fresh")


def _changed(plan: FitPlan, judged: Verdict, resumable: bool) -> FitPlan | None:
    why = "it crashed" if judged == "crashed" else "it ended without an iteration"
    if resumable:
        return _continued(plan, why)
    if plan.ladder_step is not None:
        return _but(plan, f"{why}: without the ladder", ladder_step=None)
    if plan.start == "continue":
        return _but(plan, f"{why}: fresh", start="fresh")
    return _smaller(plan, False, why)


def resume_from(outcomes: Sequence[Outcome]) -> int | None:
    """Which attempt a `continue` goes on from: the newest that left an interim potential; None when none did."""
    places = [place for place, outcome in enumerate(outcomes) if outcome.resumable]
    return places[-1] if places else None


def best(outcomes: Sequence[Outcome], convergence: Convergence) -> int | None:
    """Which attempt has the smallest validation errors; the earliest of equals; None when all failed."""
    places = [place for place, outcome in enumerate(outcomes) if outcome.failure is None]
    return min(places, key=lambda place: badness(outcomes[place].metrics, convergence), default=None)
