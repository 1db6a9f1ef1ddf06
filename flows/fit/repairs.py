"""The plan of the next attempt at a fit, from the verdict on the last. Pure; the verdicts are in `verdict`.

Each verdict has a row of repairs. The next plan is the first of them that applies to the plan and is not used up, so
it changes one thing, and says which and why. `REPAIRS` is this table as code.

====================  ==========================================================================================
verdict               repairs, the first that applies
====================  ==========================================================================================
converged             none: both errors are within the limits
iterations_used_up    further iterations, from the interim potential
time_limit            the iterations that remain, from the interim potential
killed                the same; where it left nothing: the same fit again
stalled               1. from its interim potential, once: a new start forgets the optimizer's curvature
                      2. noise and a further cycle 3. L-BFGS-B
not_accurate          kappa lower when only the energies miss their limit, higher when only the forces do, once each;
                      none when both do: more functions or data would help, not another fit
early_stop            none: the loss fell as slowly as the user allows
out_of_memory         1. half the batch, with the iterations that remain 2. at a batch of 1: the iterations that
                      remain, from the interim potential, with the memory that there is then
diverged              1. stronger regularisation 2. a ladder 3. L-BFGS-B; each from the beginning of the stage
crashed               1. a ladder or cycles with early stopping: without any early stopping (it can crash pacemaker)
                      2. the iterations that remain, from the interim potential; where it left nothing:
                      3. without the ladder, unless it is a repair itself 4. half the batch
no_iteration          1. without the ladder, unless it is a repair itself 2. noise and a further cycle 3. L-BFGS-B
program_missing       none: no plan repairs it
bad_data              none: no plan repairs it
failed                none: an error that no plan is known to repair
====================  ==========================================================================================

A stage that is not the last ends with the first fit that nothing broke off (`verdict.SOUND`): the next stage starts
from its best potential, with another loss. Only what was broken off is repaired there.

A fit that continues from a potential has no ladder: pacemaker would fit nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from containers.tensorpot.pacemaker.input import Fit, Loss, Minimisation
from flows.config.training import Limits
from flows.fit.verdict import SOUND, FitOutcome, Verdict

STRONGER = 100.0
STRONGEST = 1e-5  # regularisation that is not made stronger still: a fit could not follow its data
WEAKEST = 1e-8  # what 0 counts as when it is made stronger
LADDER_STEP = 50  # functions
NOISE = 0.02  # relative, on the coefficients: enough to leave a flat place, little against what was learned
KAPPA_FACTOR = 10.0  # on the odds kappa / (1 - kappa): 0.3 -> 0.04 or 0.81
LEAST_SHARE = 2**-6  # of a batch `auto`, which is at most 100 structures
MOST_AGAIN = 1000  # times that one repair is taken in a stage, over all runs that continue it; max_attempts ends one


class FitPlan(Loss, Minimisation):
    """The part of a fit that changes from attempt to attempt."""

    stage: int = Field(1, ge=1, description="from 1")
    onward: bool = Field(False, description="the stage begins with a fitted potential: a ladder cannot be")
    stage_maxiter: int = Field(ge=1, description="iterations of an attempt from the beginning of the stage")
    start: Literal["fresh", "continue"] = Field(
        "fresh", description="fresh: as the stage begins; continue: from its newest interim potential"
    )
    tried: tuple[str, ...] = Field((), description="repairs that were taken in this stage, in order")
    reason: str = Field("the first attempt", description="why this plan")


@dataclass(frozen=True)
class Left:
    """State that an attempt left, as far as the next plan depends on it.

    Attributes:
        batch_size: structures that it evaluated at a time; None: `auto`, and it ended before it reported its choice.
        iterations: of its interim potential; it may have done some more, which are lost.
        resumable: it left an interim potential that a fit may continue from.
        missed: which validation errors exceed their limit, "energy" and "force".
    """

    batch_size: int | None
    iterations: int = 0
    resumable: bool = False
    missed: frozenset[str] = frozenset()


def first_plan(fit: Fit, stage: int = 1, onward: bool = False) -> FitPlan:
    """Return the plan of a stage's first attempt.

    Args:
        fit: of the stage.
        onward: the stage begins with a fitted potential.
    """
    own: dict[str, Any] = {"stage_maxiter": fit.maxiter, "stage": stage, "onward": onward, **dict(fit.loss)}
    own |= {name: getattr(fit, name) for name in Minimisation.model_fields}
    if onward:
        own["ladder_step"] = None
    reason = "the first attempt" if stage == 1 else f"stage {stage}, from the best potential before it"
    return FitPlan(**own, reason=reason)


def left_by(outcome: FitOutcome, plan: FitPlan, limits: Limits, structures: int) -> Left:
    """Return the state that an attempt left.

    Args:
        structures: of the training set; a larger batch is one of all of them.
    """
    if outcome.failure is not None:
        return Left(batch_size=None if plan.batch_size == "auto" else min(plan.batch_size, structures))
    done = outcome.fit
    missed = frozenset(name.split("_")[0] for name, over in outcome.errors.over(limits).items() if over > 1)
    return Left(min(done.batch_size, structures), done.interim_iteration, outcome.resumable, missed)


def next_plan(plan: FitPlan, judged: Verdict, left: Left, last: bool = True) -> FitPlan | None:
    """Return the plan after this verdict on `plan`; None when no other attempt would help. See the table above.

    Args:
        last: whether the stage is the last one.
    """
    if judged in SOUND and not last:
        return None
    for repair in REPAIRS.get(judged, ()):
        if plan.tried.count(repair.name) < repair.times and (changes := repair.change(plan, left)):
            done = {"tried": (*plan.tried, repair.name), "reason": f"{WORDS[judged]}: {changes['reason']}"}
            return FitPlan.model_validate({**dict(plan), **changes, **done})
    return None


WORDS: dict[Verdict, str] = {
    "iterations_used_up": "its iterations were used up",
    "time_limit": "its time was over",
    "killed": "it was killed",
    "stalled": "it stalled",
    "not_accurate": "it is at a minimum",
    "out_of_memory": "out of memory",
    "diverged": "the loss was no number or rose",
    "crashed": "it crashed",
    "no_iteration": "it ended without an iteration",
}

Changes = dict[str, Any]
"""New values of a plan's fields; `reason` is the change in words. Empty: the repair does not apply."""
FROM_INTERIM = "continued from its interim potential"


class Repair(NamedTuple):
    """One way to change a plan, taken so many times in a stage at most."""

    name: str
    change: Callable[[FitPlan, Left], Changes]
    times: int = MOST_AGAIN


def _onward(maxiter: int) -> Changes:
    return {"start": "continue", "ladder_step": None, "maxiter": maxiter}


def _afresh(plan: FitPlan) -> Changes:
    return {"start": "fresh", "maxiter": plan.stage_maxiter}


def _remaining(plan: FitPlan, left: Left) -> int:
    """Return the iterations that an attempt did not do. Those of a ladder or of cycles are counted anew at each."""
    if plan.ladder_step is not None or plan.cycles > 1 or left.iterations >= plan.maxiter:
        return plan.stage_maxiter
    return plan.maxiter - left.iterations


def _further(plan: FitPlan, left: Left) -> Changes:
    return {**_onward(plan.stage_maxiter), "reason": FROM_INTERIM} if left.resumable else {}


def _rest(plan: FitPlan, left: Left) -> Changes:
    remaining = _remaining(plan, left)
    return {**_onward(remaining), "reason": f"{remaining} iterations, {FROM_INTERIM}"} if left.resumable else {}


def _half_batch(plan: FitPlan, left: Left) -> Changes:
    if left.batch_size is None:
        share = plan.batch_share / 2
        changes = {"batch_share": share, "reason": f"1/{1 / share:.0f} of the automatic batch"}
        return changes if share >= LEAST_SHARE else {}
    half = left.batch_size // 2
    if half == 0:
        return {}
    start = _onward(_remaining(plan, left)) if left.resumable else {}
    return {**start, "batch_size": half, "batch_share": 1.0, "reason": f"batch {left.batch_size} -> {half}"}


def _noise(plan: FitPlan, left: Left) -> Changes:
    """Relative noise does nothing to coefficients that are zero."""
    if plan.cycles > 1 or not (left.resumable or plan.onward or plan.start == "continue"):
        return {}
    start = _onward(plan.stage_maxiter) if left.resumable else {}
    return {**start, "cycles": plan.cycles + 1, "noise": NOISE, "reason": f"noise of {NOISE:g} and a further cycle"}


def _optimizer(plan: FitPlan, left: Left) -> Changes:
    if plan.optimizer == "L-BFGS-B":
        return {}
    start = _onward(plan.stage_maxiter) if left.resumable else _afresh(plan)
    return {**start, "optimizer": "L-BFGS-B", "reason": f"the optimizer {plan.optimizer} -> L-BFGS-B"}


def _regularise(plan: FitPlan, left: Left) -> Changes:
    l1, l2 = (max(value, WEAKEST) * STRONGER for value in (plan.l1, plan.l2))
    if max(l1, l2) > STRONGEST:
        return {}
    return {**_afresh(plan), "l1": l1, "l2": l2, "reason": f"L1 {plan.l1:g} -> {l1:g}, L2 {plan.l2:g} -> {l2:g}, fresh"}


def _ladder(plan: FitPlan, left: Left) -> Changes:
    if plan.onward or plan.ladder_step is not None:
        return {}
    return {**_afresh(plan), "ladder_step": LADDER_STEP, "reason": f"a ladder of {LADDER_STEP} functions, fresh"}


def _no_early_stop(plan: FitPlan, left: Left) -> Changes:
    if plan.early_stop is None:
        return {}
    if plan.ladder_step is not None:
        return {**_afresh(plan), "early_stop": None, "reason": "without early stopping, fresh"}
    if plan.cycles == 1 or not left.resumable:  # early stopping comes after iterations
        return {}
    return {**_onward(plan.stage_maxiter), "early_stop": None, "reason": f"without early stopping, {FROM_INTERIM}"}


def _no_ladder(plan: FitPlan, left: Left) -> Changes:
    """Without a ladder that is a repair itself, it would be the fit before it again."""
    if plan.ladder_step is None or _LADDER in plan.tried:
        return {}
    return {**_afresh(plan), "ladder_step": None, "reason": "without the ladder, fresh"}


def _kappa(plan: FitPlan, left: Left, missed: str, factor: float) -> Changes:
    if plan.kappa == "auto" or left.missed != {missed}:
        return {}
    odds = (clamped := min(max(plan.kappa, 0.01), 0.99)) / (1 - clamped) * factor
    kappa = round(odds / (1 + odds), 4)
    if (kappa > plan.kappa) != (factor > 1):  # it is at its end already
        return {}
    reason = f"only the {missed} error exceeds its limit: kappa {plan.kappa:g} -> {kappa:g}, {FROM_INTERIM}"
    return {**_onward(plan.stage_maxiter), "kappa": kappa, "reason": reason}


_LADDER = "ladder"
_BATCH = Repair("half batch", _half_batch)
_REST = Repair("remaining iterations", _rest)
_CYCLE = Repair("noise and cycle", _noise, 1)
_OPTIMIZER = Repair("optimizer", _optimizer, 1)
_NO_LADDER = Repair("no ladder", _no_ladder, 1)

REPAIRS: dict[Verdict, tuple[Repair, ...]] = {
    "iterations_used_up": (Repair("further iterations", _further),),
    "time_limit": (_REST,),
    "killed": (_REST, Repair("same again", lambda plan, left: {"reason": "the same fit again"})),
    "stalled": (Repair("new start", _further, 1), _CYCLE, _OPTIMIZER),
    "not_accurate": (
        Repair("kappa lower", lambda plan, left: _kappa(plan, left, "energy", 1 / KAPPA_FACTOR), 1),
        Repair("kappa higher", lambda plan, left: _kappa(plan, left, "force", KAPPA_FACTOR), 1),
    ),
    "out_of_memory": (_BATCH, _REST),
    "diverged": (Repair("regularisation", _regularise, 1), Repair(_LADDER, _ladder, 1), _OPTIMIZER),
    "crashed": (Repair("no early stop", _no_early_stop, 1), _REST, _NO_LADDER, _BATCH),
    "no_iteration": (_NO_LADDER, _CYCLE, _OPTIMIZER),
}
