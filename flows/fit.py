"""The attempts at a fit: run one, judge it, change the plan, until it is good enough or nothing more helps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from flows import calls
from flows import plan as plans
from flows.data import RunCall
from flows.plan import FitPlan, Outcome, Verdict
from flows.recipe import Recipe
from tasks.artefact import Artefact, StepCall, Stored
from tasks.errors import StepFailed
from tasks.steps import step
from tasks.workspace import Workspace

ACCIDENTS = ("killed", "crashed", "out_of_memory")


@dataclass(frozen=True)
class Attempt:
    """One fit: its plan, how it was judged, and its result or its failure."""

    name: str
    plan: FitPlan
    verdict: Verdict
    seconds: float
    result: Artefact | StepFailed

    @property
    def artefact(self) -> Artefact | None:
        """The result, if it left one."""
        return self.result if isinstance(self.result, Artefact) else None

    @property
    def outcome(self) -> Outcome:
        """What the decisions need to know."""
        return _outcome(self.result)

    @property
    def left_off(self) -> bool:
        """Whether an earlier run ended in an accident here, from which this run may go on."""
        return self.artefact is not None and self.artefact.cached and self.verdict in ACCIDENTS


class RunStep(Protocol):
    """What runs a call: `tasks.steps.step`, or a test's own."""

    def __call__(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact: ...


def fit(recipe: Recipe, data: Artefact, workspace: Workspace, run: RunStep = step) -> tuple[list[Attempt], Artefact]:
    """Every attempt, and the result of the one with the smallest validation error.

    Raises:
        StepFailed: of the last attempt, when none left a potential.
    """
    attempts: list[Attempt] = []
    plan: FitPlan | None = first_plan(recipe, data)
    while plan is not None and (len(attempts) < recipe.config.train.max_attempts or attempts[-1].left_off):
        start = _start(attempts) if plan.start == "continue" else None
        call = calls.train_call(recipe, plan, data, start, workspace.settings)
        attempts.append(_attempted(f"pace_train attempt {len(attempts) + 1}", plan, call, recipe, workspace, run))
        plan = plans.next_plan(plan, attempts[-1].verdict, attempts[-1].outcome.resumable)
    best = plans.best([attempt.outcome for attempt in attempts], recipe.config.convergence)
    result = attempts[-1 if best is None else best].result
    if isinstance(result, StepFailed):
        raise result
    return attempts, result


@dataclass(frozen=True)
class Student:
    """A finished student: its fit, its active set, the exported potential, its errors."""

    fit: Artefact
    active_set: Artefact
    core: Artefact
    evaluation: Artefact


def finish(
    recipe: Recipe, best: Artefact, frames: Artefact, baseline: Artefact, dft_test: Artefact | None, run: RunCall
) -> Student:
    """Active set, core and evaluation of a fit."""
    active_set = run(calls.active_set_call(recipe, best.file("interim"), frames))
    core = run(calls.core_call(recipe, best.file("interim"), active_set, frames, baseline))
    evaluation = run(calls.evaluate_call(recipe, core, active_set, frames, baseline, dft_test))
    return Student(best, active_set, core, evaluation)


def first_plan(recipe: Recipe, data: Artefact) -> FitPlan:
    """The plan of the first attempt on this data set."""
    train, counts = recipe.config.train, data.metrics
    return plans.first_plan(train.maxiter, train.batch_size, counts["train_structures"], counts["train_atoms"])


def _attempted(name: str, plan: FitPlan, call: StepCall, recipe: Recipe, workspace: Workspace, run: RunStep) -> Attempt:
    result: Artefact | StepFailed
    started = time.monotonic()
    try:
        result = run(call, workspace, name)
    except StepFailed as failure:
        result = failure
    verdict = plans.verdict(_outcome(result), recipe.config.convergence)
    seconds = result.seconds if isinstance(result, Artefact) else time.monotonic() - started
    return Attempt(name, plan, verdict, seconds, result)


def _outcome(result: Artefact | StepFailed) -> Outcome:
    return Outcome(metrics=result.metrics) if isinstance(result, Artefact) else Outcome(failure=result.kind)


def _start(before: list[Attempt]) -> Stored | None:
    """The potential without core repulsion that a continued fit begins with."""
    place = plans.resume_from([attempt.outcome for attempt in before])
    artefact = before[place].artefact if place is not None else None
    return artefact.file("interim") if artefact else None
