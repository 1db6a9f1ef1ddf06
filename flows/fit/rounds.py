"""The convergence loop: while a sound student misses its limits, give it more structures, more functions, or structures
that decide its properties.

`next_round` decides each round; `extend` does it and keeps the result. A round of structures adds those of the training
split that the best student so far does worst on, or extrapolates on (step `weak_spots`). A round of functions enlarges
the basis. A round for properties adds waves, strains, vacancies, surfaces and molecules (step `property_structures`),
labelled by the teacher. Each starts from the best potential so far. docs/use/extension.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from containers.properties.compare import DECIDED_BY, Group
from containers.tensorpot.evaluation import evaluate, stability
from containers.tensorpot.fit import pace_train
from containers.tensorpot.selection import pace_select
from flows.config.training import Limits
from flows.data.prepare import Prepared
from flows.fit.acquisition import for_properties, from_pool
from flows.fit.attempts import Attempt
from flows.fit.next_round import Extension, State, Stop, Tried, next_extension, standing
from flows.fit.student import FittedStudent, make_student
from flows.fit.verdict import SOUND, Errors
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log
from tasks.report.summary import Extensions, Round, Size

FULL = 0.95
"""A basis with fewer than this share of the functions requested has no more to offer; pacemaker deals them evenly to
blocks of elements and rounds down, so that a few are always missing where there are several elements."""


def state_of(student: FittedStudent, candidates: int, limits: Limits) -> State:
    """Return a student as the decisions take it.

    Args:
        candidates: structures of the training split that are not selected and could be.
    """
    made, tested = student.fit.read(pace_train.Metrics), student.evaluation.read(evaluate.Metrics)
    potential, requested = student.recipe.potential, made.functions_asked
    own = isinstance(potential.b_basis, dict)
    broken = broken_off(student.attempts, student.fit)
    last, gate = student.attempts[-1], student.stability
    because = gate.read(stability.Metrics).unstable_because if gate else None
    unsound = f"molecular dynamics: {because}" if because else None
    return State(
        structures=student.training.selection.read(pace_select.Metrics).selected,
        candidates=candidates,
        functions=potential.functions_per_element,
        growable=not own and requested is not None and made.functions >= FULL * requested,
        train=Errors.of(made.train_force_mae_meV_per_A, made.train_energy_mae_meV_per_atom),
        validation=Errors.of(made.validation_force_mae_meV_per_A, made.validation_energy_mae_meV_per_atom),
        test=Errors.of(tested.teacher_force_mae_meV_per_A, tested.teacher_energy_mae_meV_per_atom),
        extrapolating=tested.teacher_gamma_share_above_1,
        properties=_over(student, limits),
        unsound=f"the fit was broken off ({last.name}: {last.verdict})" if broken else unsound,
        interrupted=broken and last.interrupted,
    )


def _over(student: FittedStudent, limits: Limits) -> dict[Group, float]:
    """Return the largest deviation of each group of properties, in units of its limit."""
    found: dict[Group, float] = {}
    for row in student.deviations:
        group = DECIDED_BY[row.kind]
        found[group] = max(found.get(group, 0.0), limits.properties.over(row))
    return found


def broken_off(attempts: Sequence[Attempt], taken: Artefact) -> bool:
    """Return True where something broke off the last stage, or a later run would continue the fit: what was built on
    it would then be made again. A fit whose converged attempt is taken was not broken off."""
    if any(attempt.artefact is taken and attempt.verdict == "converged" for attempt in attempts):
        return False
    last = [attempt for attempt in attempts if attempt.stage == attempts[-1].stage]
    return last[-1].interrupted or not any(attempt.verdict in SOUND for attempt in last)


@dataclass(frozen=True)
class Results:
    """Results of a distillation.

    Attributes:
        selection: the first one, of `pace_select`.
        best: the student with the smallest validation errors of all rounds.
        attempts: at all fits, of all rounds; their names differ.
        extensions: the rounds as the report has them.
    """

    prepared: Prepared
    selection: Artefact
    best: FittedStudent
    attempts: list[Attempt]
    extensions: Extensions


def extend(prepared: Prepared, student: FittedStudent, run: Run) -> Results:
    """Do the rounds after a first fit; none when it is good enough, or `extend.rounds` is 0.

    The task runs of round k have names that end with `round k`. A round that fails is reported, and the best student
    stays.
    """
    selection, config = student.training.selection, prepared.config
    selected = selection.read(pace_select.Metrics)
    limits = prepared.limits
    first = state_of(student, selected.candidates - selected.selected, limits)
    students: list[FittedStudent | None] = [student]  # None: the round failed
    tried, rounds = list[Tried](), list[Round]()
    while True:
        now = standing(first, tried, config.extend, limits)
        best = students[now.best] or student
        coming = next_extension(first, tried, config.extend, limits)
        if isinstance(coming, Stop):
            break
        mine = run.within(f"round {len(rounds) + 1}")
        what = f"structures for {' and '.join(coming.groups)}" if coming.groups else f"more {coming.kind}"
        run_log().info("%s: %s, because %s", mine.of, what, coming.reason)
        made, state, added_by, failed = None, None, dict[str, int](), ""
        try:
            made, state, added_by = _fit_round(prepared, best, now.state, coming, mine)
        except StepFailed as failure:
            run_log().warning("%s failed: %s", mine.of, failure)
            failed = f"{failure.step}: {failure.message}"
        students.append(made)
        tried.append(Tried(kind=coming.kind, groups=coming.groups, state=state))
        rounds.append(
            Round(
                number=len(students) - 1,
                kind=coming.kind,
                reason=coming.reason,
                before=_size(now.state),
                after=_size(state) if state else None,
                added_by=added_by,
                helped=False,  # decided below
                failure=failed,
            )
        )
    judged = tuple(
        one.model_copy(update={"helped": helped, "chosen": now.best == one.number})
        for one, helped in zip(rounds, now.helped, strict=True)
    )
    extensions = Extensions(rounds=judged, why=coming.why, stopped_because=coming.reason)
    run_log().info(extensions.sentence())
    attempts = [attempt for one in students if one for attempt in one.attempts]
    return Results(prepared, selection, best, attempts, extensions)


def _fit_round(
    prepared: Prepared, base: FittedStudent, before: State, coming: Extension, run: Run
) -> tuple[FittedStudent, State, dict[str, int]]:
    """Return the student of the next round, fitted from the best potential of `base`, its state, and the number of
    structures that were added by the reason."""
    pacemaker = prepared.config.pacemaker.model_copy(update={"functions_per_element": coming.functions})
    grown = prepared.with_config(prepared.config.model_copy(update={"pacemaker": pacemaker}))
    training, added_by = base.training, dict[str, int]()
    if coming.kind == "structures":
        found = from_pool(prepared, base, coming.structures - before.structures, run)
        training, added_by = found.training, found.added_by
    if coming.kind == "properties":
        found = for_properties(prepared, base, coming.groups, run)
        training, added_by = found.training, found.added_by
        # the validation split has no such structures: the smallest validation error would keep the start
        last = grown.recipe.stages[-1].model_copy(update={"keep": "last"})
        recipe = grown.recipe.model_copy(update={"stages": (last,), "staged": False})
        grown, training = replace(grown, recipe=recipe), replace(training, plain=None)
    student = make_student(grown, training, run, base.fit.file("best"))
    candidates = before.candidates - (sum(added_by.values()) if coming.kind == "structures" else 0)
    return student, state_of(student, candidates, prepared.limits), added_by


def _size(state: State) -> Size:
    splits = {"validation": state.validation.model_dump(), "test": state.test.model_dump()}
    return Size(structures=state.structures, functions=state.functions, properties=dict(state.properties), **splits)
