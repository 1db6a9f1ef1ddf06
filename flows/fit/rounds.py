"""The convergence loop: while a sound student misses its limits, give it more structures or more functions.

What each round does is decided in `extension`; here it is done, and remembered. A round of structures adds those of
the training side that the best student so far does worst on, or extrapolates on (step `weak_spots`); a round of
functions enlarges the basis. Either goes on from the best potential so far. docs/extension.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.data.prepare import Prepared
from flows.data.recipe import Recipe
from flows.data.training_set import frames_of
from flows.fit import steps
from flows.fit.attempts import Attempt, fit
from flows.fit.next_round import Errors, Extension, Standing, State, Stop, Tried, next_extension, standing
from flows.fit.student import Student, finish
from flows.fit.verdict import SOUND
from flows.run import Runner
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed
from tasks.labelling.statistics import Work
from tasks.prefect_logging import run_log
from tasks.report.summary import Extensions, Round, Size

FULL = 0.95
"""A basis with fewer than this share of the functions asked for has no more to offer; pacemaker deals them evenly to
blocks of elements and rounds down, so that a few are always missing where there are several elements."""


@dataclass(frozen=True)
class Fitted:
    """A finished student with everything it was made from.

    Attributes:
        recipe: its potential has the number of functions.
        selection: of `pace_select`, or of `weak_spots`.
        candidates: structures of the training side that are not selected and could be.
        work: what the labelling of strained structures took, where a round made its own.
    """

    recipe: Recipe
    selection: Artefact
    candidates: int
    frames: Artefact
    attempts: list[Attempt]
    student: Student
    work: Sequence[Work] = ()

    @property
    def state(self) -> State:
        """What the decisions need to know."""
        made, tested = self.student.fit.metrics, self.student.evaluation.metrics
        asked = made["functions_asked"]
        own = isinstance(self.recipe.potential.b_basis, dict)
        return State(
            structures=self.selection.metrics["selected"],
            candidates=self.candidates,
            functions=self.recipe.potential.functions_per_element,
            growable=not own and asked is not None and made["functions"] >= FULL * asked,
            train=Errors.of(made, "train"),
            validation=Errors.of(made, "validation"),
            test=Errors.of(tested, "teacher"),
            extrapolating=tested["teacher_gamma_share_above_1"],
            unsound=self.unsound,
            goes_on=broken_off(self.attempts, self.student.fit) and self.attempts[-1].goes_on,
        )

    @property
    def unsound(self) -> str | None:
        """Why nothing can be built on the student; None when it is sound."""
        if broken_off(self.attempts, self.student.fit):
            return f"the fit was broken off ({self.attempts[-1].name}: {self.attempts[-1].verdict})"
        gate = self.student.stability
        because = gate.metrics["unstable_because"] if gate else None
        return f"molecular dynamics: {because}" if because else None


def broken_off(attempts: Sequence[Attempt], taken: Artefact) -> bool:
    """Whether the last stage that was tried came to no end by itself, or a later run would go on with the fit: what
    was built on it would then be made again. One of which a converged attempt is taken was not."""
    if any(attempt.artefact is taken and attempt.verdict == "converged" for attempt in attempts):
        return False
    last = [attempt for attempt in attempts if attempt.stage == attempts[-1].stage]
    return last[-1].goes_on or not any(attempt.verdict in SOUND for attempt in last)


@dataclass(frozen=True)
class _Round:
    """A round that is over: what was asked, of which student, and what came of it (None and why: it failed)."""

    asked: Extension
    base: Fitted
    made: Fitted | None
    failure: str = ""

    @property
    def tried(self) -> Tried:
        return Tried(kind=self.asked.kind, state=self.made and self.made.state)


@dataclass(frozen=True)
class Extended:
    """What the loop came to.

    Attributes:
        best: the student with the smallest validation errors of all rounds.
        attempts: at all fits, of all rounds; their names differ.
        extensions: the rounds as the report tells them.
        work: what the labelling of strained structures took.
    """

    best: Fitted
    attempts: list[Attempt]
    extensions: Extensions
    work: list[Work]

    @property
    def artefacts(self) -> dict[str, Artefact]:
        """By step, what the best student was made of and ended in; `pace_select` and the fit left out."""
        student = self.best.student
        found = {
            "frames": self.best.frames,
            "pace_activeset": student.active_set,
            "pace_corerep": student.core,
            "stability": student.stability,
            "evaluate": student.evaluation,
        }
        return {name: artefact for name, artefact in found.items() if artefact}


def extended(prepared: Prepared, frames: Artefact, attempts: list[Attempt], student: Student, run: Runner) -> Extended:
    """The rounds after a first fit; none when it is good enough, or `extend.rounds` is 0.

    The results of round k are in `run.done` under names that end with `round k`.

    Args:
        frames, attempts, student: of the first fit.
        run: has run the first selection.

    A round that fails is reported, and the best student stays.
    """
    selection = run.done["pace_select"]
    left = selection.metrics["candidates"] - selection.metrics["selected"]
    first = Fitted(prepared.recipe, selection, left, frames, attempts, student)
    rounds: list[_Round] = []
    while isinstance(asked := _next(first, rounds), Extension):
        base, mine = _best(first, rounds), Runner(run.workspace, f"round {len(rounds) + 1}")
        run_log().info("%s: more %s, because %s", mine.of, asked.kind, asked.reason)
        rounds.append(_tried(prepared, base, asked, mine))
        run.done |= {f"{name} {mine.of}": artefact for name, artefact in mine.done.items()}
    extensions = Extensions(rounds=_told(first, rounds), why=asked.why, stopped_because=asked.reason)
    run_log().info(extensions.told())
    fits = [first, *(one.made for one in rounds if one.made)]
    attempts = [attempt for one in fits for attempt in one.attempts]
    return Extended(_best(first, rounds), attempts, extensions, [work for one in fits for work in one.work])


def _next(first: Fitted, rounds: Sequence[_Round]) -> Extension | Stop:
    config = first.recipe.config
    return next_extension(first.state, [one.tried for one in rounds], config.extend, config.convergence)


def _standing(first: Fitted, rounds: Sequence[_Round]) -> Standing:
    config = first.recipe.config
    return standing(first.state, [one.tried for one in rounds], config.extend, config.convergence)


def _best(first: Fitted, rounds: Sequence[_Round]) -> Fitted:
    best = _standing(first, rounds).best
    return (rounds[best - 1].made if best else None) or first


def _tried(prepared: Prepared, base: Fitted, asked: Extension, run: Runner) -> _Round:
    """Do what is asked."""
    try:
        return _Round(asked, base, _made(prepared, base, asked, run))
    except StepFailed as failure:
        run_log().warning("%s failed: %s", run.of, failure)
        return _Round(asked, base, None, f"{failure.step}: {failure.message}")


def _made(prepared: Prepared, base: Fitted, asked: Extension, run: Runner) -> Fitted:
    """The student with the sizes that are asked for, from the best potential of `base`."""
    potential = base.recipe.potential.model_copy(update={"functions_per_element": asked.functions})
    recipe = base.recipe.model_copy(update={"potential": potential})
    work: Sequence[Work]
    selection, candidates, frames, work = base.selection, base.candidates, base.frames, ()
    if asked.kind == "structures":
        more = asked.structures - base.state.structures
        selection = run(_weak_spots(prepared, base, more, run))
        candidates -= selection.metrics["added"]
        frames, work = frames_of(prepared, selection, run)
    attempts, best = fit(recipe, frames, run.workspace, of=run.of, start=base.student.fit.file("best"))
    student = finish(recipe, best, frames, prepared.baseline, prepared.ingested.dft_test, run)
    return Fitted(recipe, selection, candidates, frames, attempts, student, work)


def _weak_spots(prepared: Prepared, base: Fitted, more: int, run: Runner) -> StepCall:
    student, settings = base.student, run.workspace.settings
    return steps.weak_spots_call(
        base.recipe,
        prepared.dataset,
        base.selection,
        prepared.baseline,
        student.core,
        student.active_set,
        more,
        settings,
    )


def _told(first: Fitted, rounds: Sequence[_Round]) -> tuple[Round, ...]:
    now = _standing(first, rounds)
    return tuple(
        Round(
            number=number,
            kind=one.asked.kind,
            reason=one.asked.reason,
            before=_size(one.base.state),
            after=_size(one.made.state) if one.made else None,
            added_by=one.made.selection.metrics["added_by"] if one.made and one.asked.kind == "structures" else {},
            helped=now.helped[number - 1],
            chosen=now.best == number,
            failure=one.failure,
        )
        for number, one in enumerate(rounds, 1)
    )


def _size(state: State) -> Size:
    sides = {"validation": state.validation.model_dump(), "test": state.test.model_dump()}
    return Size(structures=state.structures, functions=state.functions, **sides)
