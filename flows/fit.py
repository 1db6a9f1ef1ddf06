"""The attempts at a fit: run one, judge it, change the plan, until it is good enough or nothing more helps."""

from __future__ import annotations

import time

from containers.contract import Closed
from flows import calls
from flows import plan as plans
from flows.plan import FitPlan, Verdict
from flows.recipe import Recipe
from tasks.artefact import Artefact, Stored
from tasks.errors import StepFailed
from tasks.steps import step
from tasks.workspace import Workspace

ACCIDENTS = ("killed", "crashed", "out_of_memory")


class Attempt(Closed):
    """One fit: its plan, how it was judged, and its result if it left one."""

    name: str
    plan: FitPlan
    verdict: Verdict
    seconds: float
    outcome: plans.Outcome
    artefact: Artefact | None = None
    message: str = ""

    @property
    def free(self) -> bool:
        """Whether it costs nothing of `max_attempts`: an earlier run was broken off here, and this one goes on."""
        return self.artefact is not None and self.artefact.cached and self.verdict in ACCIDENTS


def fit(recipe: Recipe, data: Artefact, workspace: Workspace) -> tuple[list[Attempt], Artefact]:
    """Every attempt, and the result of the one with the smallest validation error.

    Raises:
        StepFailed: of the last attempt, when none left a potential.
    """
    attempts: list[Attempt] = []
    failures: list[StepFailed] = []
    coming: FitPlan | None = first_plan(recipe, data)
    while coming is not None and sum(not attempt.free for attempt in attempts) < recipe.config.train.max_attempts:
        attempt = _attempt(len(attempts) + 1, coming, attempts, recipe, data, workspace, failures)
        attempts.append(attempt)
        coming = plans.next_plan(coming, attempt.verdict, attempt.outcome.resumable)
    chosen = plans.best([attempt.outcome for attempt in attempts], recipe.config.convergence)
    if chosen is None:
        raise failures[-1]
    best = attempts[chosen].artefact
    assert best is not None  # `best` leaves out the attempts that failed
    return attempts, best


def first_plan(recipe: Recipe, data: Artefact) -> FitPlan:
    """The plan of the first attempt on this data set."""
    train = recipe.config.train
    return plans.first_plan(
        train.maxiter, train.batch_size, data.metrics["train_structures"], data.metrics["train_atoms"]
    )


def _attempt(
    number: int,
    coming: FitPlan,
    before: list[Attempt],
    recipe: Recipe,
    data: Artefact,
    workspace: Workspace,
    failures: list[StepFailed],
) -> Attempt:
    start = _start(before) if coming.start == "continue" else None
    call = calls.train_call(recipe, coming, data, start, workspace.settings)
    name = f"pace_train attempt {number}"
    started = time.monotonic()
    try:
        done = step(call, workspace, name)
    except StepFailed as failure:
        failures.append(failure)
        outcome, artefact, message = plans.Outcome(failure=failure.kind), None, failure.message
        seconds = time.monotonic() - started
    else:
        outcome, artefact, message = plans.Outcome(metrics=done.metrics), done, ""
        seconds = done.seconds
    verdict = plans.verdict(outcome, recipe.config.convergence)
    return Attempt(
        name=name, plan=coming, verdict=verdict, seconds=seconds, outcome=outcome, artefact=artefact, message=message
    )


def _start(before: list[Attempt]) -> Stored:
    """The potential without core repulsion that a continued fit begins with."""
    place = plans.resume_from([attempt.outcome for attempt in before])
    artefact = before[place].artefact if place is not None else None
    assert artefact is not None  # `next_plan` continues only from what is there
    return artefact.file("interim")
