"""The attempts at a fit, stage by stage: run one, judge it, change the plan, until it is good enough or nothing helps.

Each stage begins with the best potential of those before it. What is returned is the best of all attempts of all
stages by its validation errors, whenever it was reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from containers.tensorpot.frames import frames
from flows.data.recipe import Recipe
from flows.fit import repairs as plans
from flows.fit import steps
from flows.fit.repairs import FitPlan
from flows.fit.verdict import ACCIDENTS, MENDS, SOUND, Outcome, Verdict, best_of, judge, mend_of, resume_from
from flows.run import Run
from tasks.artefact import Artefact, FileRef, Stored
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log


@dataclass(frozen=True)
class Attempt:
    """One fit: its plan, how it was judged, its result or its failure, and what it read."""

    name: str
    plan: FitPlan
    verdict: Verdict
    seconds: float
    result: Artefact | StepFailed
    inputs: Mapping[str, tuple[FileRef, ...]] = field(default_factory=dict)

    @property
    def stage(self) -> int:
        """From 1."""
        return self.plan.stage

    @property
    def artefact(self) -> Artefact | None:
        """The result, if it left one."""
        return self.result if isinstance(self.result, Artefact) else None

    @property
    def start(self) -> Stored | None:
        """The potential that it began with."""
        found = self.inputs.get("start", ())
        return next((one for one in found if isinstance(one, Stored)), None)

    @property
    def outcome(self) -> Outcome:
        """What the decisions need to know."""
        return _outcome(self.result)

    @property
    def goes_on(self) -> bool:
        """Whether it ended in an accident, from which a later run may go on."""
        return self.artefact is not None and self.verdict in ACCIDENTS

    @property
    def left_off(self) -> bool:
        """Whether an earlier run ended in an accident here, from which this run may go on."""
        return self.goes_on and self.artefact is not None and self.artefact.cached


def led_to(taken: Artefact, attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts of which each began with a potential of the one before, up to the one that made `taken`."""
    by_key = {attempt.artefact.key: attempt for attempt in attempts if attempt.artefact}
    chain = [by_key[taken.key]]
    while (start := chain[0].start) is not None:
        chain.insert(0, by_key[start.key])
    return chain


@dataclass(frozen=True)
class _Fit:
    """What every attempt of a fit has in common."""

    recipe: Recipe
    data: Artefact
    run: Run

    def name(self, stage: int, attempt: int) -> str:
        words = ("pace_train", self.run.of, _of_stage(self.recipe, stage), f"attempt {attempt}")
        return " ".join(filter(None, words))

    def attempted(self, name: str, plan: FitPlan, start: Stored | None) -> Attempt:
        result: Artefact | StepFailed
        call = steps.train_call(self.recipe, plan, self.data, start, self.run.workspace.settings)
        started = time.monotonic()
        try:
            result = self.run.named(call, name)
        except StepFailed as failure:
            result = failure
        verdict = judge(_outcome(result), self.recipe.convergence)
        seconds = result.seconds if isinstance(result, Artefact) else time.monotonic() - started
        return Attempt(name, plan, verdict, seconds, result, call.inputs)

    def next(self, attempt: Attempt, last: bool) -> FitPlan | None:
        structures = self.data.read(frames.Metrics).train_structures
        left = plans.left_by(attempt.outcome, attempt.plan, self.recipe.convergence, structures)
        return plans.next_plan(attempt.plan, attempt.verdict, left, last)

    def another(self, before: list[Attempt], made: list[Attempt], last: bool) -> bool:
        """Whether a stage may have a further attempt. Where an earlier run used them up, an accident adds one at the
        very end of a fit that has not converged: anywhere else it would change what was fitted after it."""
        if len(made) < self.recipe.max_attempts:
            return True
        return last and made[-1].left_off and all(attempt.verdict != "converged" for attempt in before)

    def best(self, attempts: list[Attempt]) -> Artefact | None:
        place = best_of([attempt.outcome for attempt in attempts], self.recipe.convergence)
        return None if place is None else attempts[place].artefact


def fit(recipe: Recipe, data: Artefact, run: Run, start: Stored | None = None) -> tuple[list[Attempt], Artefact]:
    """Return every attempt at every stage, and the result of the one with the smallest validation errors.

    A stage in which every attempt failed ends the fit with the best of the stages before it.

    Args:
        data: of the `frames` step.
        start: potential without core repulsion that the first stage begins with.

    Raises:
        StepFailed: of the last attempt, when none left a potential.
    """
    one = _Fit(recipe, data, run)
    attempts: list[Attempt] = []
    best: Artefact | None = None
    for number, stage in enumerate(recipe.stages, 1):
        origin = best.file("best") if best else start
        plan = plans.first_plan(stage, number, onward=origin is not None)
        made = _stage(one, plan, origin, attempts, last=number == len(recipe.stages))
        attempts += made
        best = one.best(attempts)
        if best is None:
            raise _nothing_fitted(attempts)
        _tell(made[-1], last=number == len(recipe.stages))
        if not any(attempt.artefact for attempt in made):
            break
    assert best is not None
    return attempts, best


def _stage(one: _Fit, first: FitPlan, origin: Stored | None, before: list[Attempt], last: bool) -> list[Attempt]:
    """The attempts at one stage, after those of the stages before."""
    attempts: list[Attempt] = []
    plan: FitPlan | None = first
    while plan is not None and one.another(before, attempts, last):
        start = _newest(attempts) or origin if plan.start == "continue" else origin
        attempts.append(one.attempted(one.name(plan.stage, len(attempts) + 1), plan, start))
        plan = one.next(attempts[-1], last)
    return attempts


def first_names(recipe: Recipe) -> list[str]:
    """What the task runs of each stage's first attempt are called: those that there will be in any case."""
    stages = range(1, len(recipe.stages) + 1)
    return [" ".join(filter(None, ("pace_train", _of_stage(recipe, stage), "attempt 1"))) for stage in stages]


def _of_stage(recipe: Recipe, stage: int) -> str:
    return f"stage {stage}" if recipe.staged else ""


def _newest(attempts: list[Attempt]) -> Stored | None:
    """The interim potential, without core repulsion, of the newest attempt that left a good one."""
    place = resume_from([attempt.outcome for attempt in attempts])
    artefact = attempts[place].artefact if place is not None else None
    return artefact.file("interim") if artefact else None


def _outcome(result: Artefact | StepFailed) -> Outcome:
    return Outcome(metrics=result.metrics) if isinstance(result, Artefact) else Outcome(failure=result.kind)


def _nothing_fitted(attempts: list[Attempt]) -> StepFailed:
    """The last failure, with what was tried before it and what the user can do."""
    last = attempts[-1].result
    assert isinstance(last, StepFailed)
    if attempts[-1].verdict not in MENDS:
        return last
    tried = "\n".join(f"  {attempt.name}: {attempt.verdict} ({attempt.plan.reason})" for attempt in attempts)
    mend = mend_of(attempts[-1].verdict, failed=True)
    message = f"{last.message}\nNo attempt left a potential:\n{tried}\n{mend}"
    return StepFailed(last.step, last.kind, message, last.folder, last.log_tail, last.runner)


def _tell(attempt: Attempt, last: bool) -> None:
    """Log how a stage ended, and what the user can do about it; a stage that is not the last may end unconverged."""
    mend = mend_of(attempt.verdict, failed=attempt.artefact is None)
    if attempt.verdict == "converged" or (attempt.verdict in SOUND and not last):
        run_log().info("%s ended as %s", attempt.name, attempt.verdict)
    elif isinstance(attempt.result, StepFailed):
        run_log().warning("%s ended as %s: %s %s", attempt.name, attempt.verdict, attempt.result.message, mend)
    else:
        run_log().warning("%s ended as %s. %s", attempt.name, attempt.verdict, mend)
