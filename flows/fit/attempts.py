"""The attempts at a fit, stage by stage: run one, judge it, change the plan, until it is good enough or nothing helps.

Each stage begins with the best potential of those before it, and replaces it. Within a stage, the validation errors
decide, whenever they were reached. If something broke off the whole stage, they decide between all attempts.
docs/use/training.md has the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from containers.tensorpot.frames import frames
from flows.config.training import Limits
from flows.data.recipe import Recipe
from flows.fit import steps
from flows.fit.repairs import FitPlan, first_plan, left_by, next_plan
from flows.fit.verdict import ACCIDENTS, HINTS, SOUND, FitOutcome, Verdict, best_of, hint_for, judge
from flows.run import Run
from tasks.artefact import Artefact, FileRef, Stored
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log


@dataclass(frozen=True)
class Attempt:
    """One fit: its plan, its verdict, its result or its failure, and what it read."""

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
    def outcome(self) -> FitOutcome:
        """The result as the decisions take it."""
        return _outcome(self.result)

    @property
    def interrupted(self) -> bool:
        """True where it ended in an accident, from which a later run may continue."""
        return self.artefact is not None and self.verdict in ACCIDENTS


def led_to(taken: Artefact, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts up to the one that made `taken`, each of which began with a potential of the one before."""
    made = [attempt for attempt in attempts if attempt.artefact]
    place = next(place for place, one in enumerate(made) if one.artefact and one.artefact.key == taken.key)
    chain = [made[place]]
    for attempt in reversed(made[:place]):
        if chain[0].start and attempt.artefact and attempt.artefact.key == chain[0].start.key:
            chain.insert(0, attempt)
    return chain


def attempt_name(recipe: Recipe, stage: int, attempt: int, of: str = "") -> str:
    """Return the name of the task run of an attempt at a stage, both from 1; `of` is that of the run."""
    words = ("pace_train", of, f"stage {stage}" if recipe.staged else "", f"attempt {attempt}")
    return " ".join(filter(None, words))


def fit(
    recipe: Recipe,
    data: Artefact,
    limits: Limits,
    run: Run,
    start: Stored | None = None,
    plain: Artefact | None = None,
    resumes: bool = True,
) -> tuple[list[Attempt], Artefact]:
    """Return every attempt at every stage, and the result with the smallest validation errors of the last sound stage.

    A stage in which every attempt failed ends the fit with the best of the stages before it. Where an earlier run used
    up the attempts, an accident adds one at the very end of a fit that has not converged: anywhere else it would change
    what was fitted after it.

    Args:
        data: of the `frames` step.
        limits: validation errors within them end the attempts at a stage.
        start: potential without core repulsion that the first stage begins with.
        plain: the data of all stages but the last; None: `data`.
        resumes: whether such an attempt is added.

    Raises:
        StepFailed: of the last attempt, when none left a potential.
    """
    attempts: list[Attempt] = []
    best: Artefact | None = None
    for number, stage in enumerate(recipe.stages, 1):
        last, origin = number == len(recipe.stages), best.file("best") if best else start
        table = data if last or plain is None else plain
        plan: FitPlan | None = first_plan(stage, number, onward=origin is not None)
        made: list[Attempt] = []
        converged = any(attempt.verdict == "converged" for attempt in attempts)
        while plan is not None and (
            len(made) < recipe.max_attempts or (resumes and last and not converged and _interrupted_before(made[-1]))
        ):
            interim = [one.artefact.file("interim") for one in made if one.artefact and one.outcome.resumable]
            begin = interim[-1] if interim and plan.start == "continue" else origin
            name = attempt_name(recipe, number, len(made) + 1, run.of)
            made.append(_attempted(name, recipe, plan, table, begin, limits, run))
            structures = table.read(frames.Metrics).train_structures
            plan = next_plan(plan, made[-1].verdict, left_by(made[-1].outcome, plan, limits, structures), last)
        attempts += made
        # a stage replaces those before it, whose loss was another, unless something broke it off
        among = [attempt for attempt in made if attempt.verdict in SOUND] or attempts
        place = best_of([attempt.outcome for attempt in among], limits)
        if place is None:
            raise _nothing_fitted(attempts)
        best = among[place].artefact
        _log_end(made[-1], last)
        if not any(attempt.artefact for attempt in made):
            break
    assert best is not None
    return attempts, best


def _attempted(
    name: str, recipe: Recipe, plan: FitPlan, data: Artefact, start: Stored | None, limits: Limits, run: Run
) -> Attempt:
    result: Artefact | StepFailed
    call = steps.train_call(recipe, plan, data, start, run.workspace.settings)
    started = time.monotonic()
    try:
        result = run.named(call, name)
    except StepFailed as failure:
        result = failure
    verdict = judge(_outcome(result), limits)
    seconds = result.seconds if isinstance(result, Artefact) else time.monotonic() - started
    return Attempt(name, plan, verdict, seconds, result, call.inputs)


def _interrupted_before(attempt: Attempt) -> bool:
    """Return True where an earlier run ended in an accident here, from which this run may continue."""
    return attempt.interrupted and attempt.artefact is not None and attempt.artefact.cached


def _outcome(result: Artefact | StepFailed) -> FitOutcome:
    return FitOutcome(metrics=result.metrics) if isinstance(result, Artefact) else FitOutcome(failure=result.kind)


def _nothing_fitted(attempts: list[Attempt]) -> StepFailed:
    """Return the last failure, with the attempts before it and a hint for the user."""
    last = attempts[-1].result
    assert isinstance(last, StepFailed)
    if attempts[-1].verdict not in HINTS:
        return last
    tried = "\n".join(f"  {attempt.name}: {attempt.verdict} ({attempt.plan.reason})" for attempt in attempts)
    message = f"{last.message}\nNo attempt left a potential:\n{tried}\n{hint_for(attempts[-1].verdict, failed=True)}"
    return StepFailed(last.step, last.kind, message, last.folder, last.log_tail, last.runner)


def _log_end(attempt: Attempt, last: bool) -> None:
    """Log the end of a stage with a hint for the user; a stage that is not the last may end unconverged."""
    hint = hint_for(attempt.verdict, failed=attempt.artefact is None)
    if attempt.verdict == "converged" or (attempt.verdict in SOUND and not last):
        run_log().info("%s ended as %s", attempt.name, attempt.verdict)
    elif isinstance(attempt.result, StepFailed):
        run_log().warning("%s ended as %s: %s %s", attempt.name, attempt.verdict, attempt.result.message, hint)
    else:
        run_log().warning("%s ended as %s. %s", attempt.name, attempt.verdict, hint)
