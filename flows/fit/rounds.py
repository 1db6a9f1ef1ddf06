"""The convergence loop: while a sound student misses its limits, give it more structures or more functions.

What each round does is decided in `extension`; here it is done, and remembered. A round of structures adds those of
the training side that the best student so far does worst on, or extrapolates on (step `weak_spots`); a round of
functions enlarges the basis. Either goes on from the best potential so far. docs/use/extension.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from containers.tensorpot.evaluation import evaluate, stability
from containers.tensorpot.fit import pace_train
from containers.tensorpot.selection import pace_select, weak_spots
from flows.data.prepare import Prepared
from flows.data.training_set import frames_of
from flows.fit import steps
from flows.fit.attempts import Attempt
from flows.fit.next_round import Errors, Extension, Standing, State, Stop, Tried, next_extension, standing
from flows.fit.student import Student, make_student
from flows.fit.verdict import SOUND
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log
from tasks.report.summary import Extensions, Round, Size

FULL = 0.95
"""A basis with fewer than this share of the functions asked for has no more to offer; pacemaker deals them evenly to
blocks of elements and rounds down, so that a few are always missing where there are several elements."""


def state_of(student: Student, candidates: int) -> State:
    """What the decisions need to know of a student.

    Args:
        candidates: structures of the training side that are not selected and could be.
    """
    made, tested = student.fit.read(pace_train.Metrics), student.evaluation.read(evaluate.Metrics)
    potential, asked = student.recipe.potential, made.functions_asked
    own = isinstance(potential.b_basis, dict)
    broken = broken_off(student.attempts, student.fit)
    last, gate = student.attempts[-1], student.stability
    because = gate.read(stability.Metrics).unstable_because if gate else None
    unsound = f"molecular dynamics: {because}" if because else None
    return State(
        structures=student.training.selection.read(pace_select.Metrics).selected,
        candidates=candidates,
        functions=potential.functions_per_element,
        growable=not own and asked is not None and made.functions >= FULL * asked,
        train=Errors.of(made.train_force_mae_meV_per_A, made.train_energy_mae_meV_per_atom),
        validation=Errors.of(made.validation_force_mae_meV_per_A, made.validation_energy_mae_meV_per_atom),
        test=Errors.of(tested.teacher_force_mae_meV_per_A, tested.teacher_energy_mae_meV_per_atom),
        extrapolating=tested.teacher_gamma_share_above_1,
        unsound=f"the fit was broken off ({last.name}: {last.verdict})" if broken else unsound,
        goes_on=broken and last.goes_on,
    )


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
    before: State
    made: Student | None
    state: State | None
    failure: str = ""


@dataclass(frozen=True)
class Results:
    """What a distillation came to.

    Attributes:
        selection: the first one, of `pace_select`.
        best: the student with the smallest validation errors of all rounds.
        attempts: at all fits, of all rounds; their names differ.
        extensions: the rounds as the report tells them.
    """

    prepared: Prepared
    selection: Artefact
    best: Student
    attempts: list[Attempt]
    extensions: Extensions


def extend(prepared: Prepared, student: Student, run: Run) -> Results:
    """Do the rounds after a first fit; none when it is good enough, or `extend.rounds` is 0.

    The task runs of round k have names that end with `round k`. A round that fails is reported, and the best student
    stays.
    """
    selection, config = student.training.selection, prepared.config
    selected = selection.read(pace_select.Metrics)
    first = state_of(student, selected.candidates - selected.selected)
    students, rounds, best = [student], list[_Round](), student
    while True:
        tried = [Tried(kind=one.asked.kind, state=one.state) for one in rounds]
        now = standing(first, tried, config.extend, config.convergence)
        best = (rounds[now.best - 1].made if now.best else None) or student
        asked = next_extension(first, tried, config.extend, config.convergence)
        if isinstance(asked, Stop):
            break
        mine = replace(run, of=f"round {len(rounds) + 1}")
        run_log().info("%s: more %s, because %s", mine.of, asked.kind, asked.reason)
        try:
            made, state = _made(prepared, best, now.state, asked, mine)
            students.append(made)
            rounds.append(_Round(asked, now.state, made, state))
        except StepFailed as failure:
            run_log().warning("%s failed: %s", mine.of, failure)
            rounds.append(_Round(asked, now.state, None, None, f"{failure.step}: {failure.message}"))
    extensions = Extensions(rounds=_told(rounds, now), why=asked.why, stopped_because=asked.reason)
    run_log().info(extensions.sentence())
    attempts = [attempt for one in students for attempt in one.attempts]
    return Results(prepared, selection, best, attempts, extensions)


def _made(prepared: Prepared, base: Student, before: State, asked: Extension, run: Run) -> tuple[Student, State]:
    """Return the student of the next round, fitted from the best potential of `base`, and its state."""
    pacemaker = prepared.config.pacemaker.model_copy(update={"functions_per_element": asked.functions})
    grown = prepared.with_config(prepared.config.model_copy(update={"pacemaker": pacemaker}))
    training, candidates = base.training, before.candidates
    if asked.kind == "structures":
        call = steps.weak_spots_call(
            base.recipe,
            prepared.dataset,
            training.selection,
            prepared.baseline,
            base.core,
            base.active_set,
            asked.structures - before.structures,
            run.workspace.settings,
        )
        selection = run(call)
        candidates -= selection.read(weak_spots.Metrics).added
        training = frames_of(prepared, selection, run)
    student = make_student(grown, training, run, base.fit.file("best"))
    return student, state_of(student, candidates)


def _told(rounds: Sequence[_Round], now: Standing) -> tuple[Round, ...]:
    return tuple(
        Round(
            number=number,
            kind=one.asked.kind,
            reason=one.asked.reason,
            before=_size(one.before),
            after=_size(one.state) if one.state else None,
            added_by=one.made.training.selection.read(weak_spots.Metrics).added_by
            if one.made and one.asked.kind == "structures"
            else {},
            helped=now.helped[number - 1],
            chosen=now.best == number,
            failure=one.failure,
        )
        for number, one in enumerate(rounds, 1)
    )


def _size(state: State) -> Size:
    sides = {"validation": state.validation.model_dump(), "test": state.test.model_dump()}
    return Size(structures=state.structures, functions=state.functions, **sides)
