"""A round of exploration: its runs, the errors on their frames, and the frames that are added to the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow.parquet as pq

from containers.tensorpot.dataset import dataset
from containers.tensorpot.evaluation import evaluate
from containers.tensorpot.exploration import choose_frames, explore, frame_errors
from containers.tensorpot.exploration.dynamics import Condition
from containers.tensorpot.fit import pace_train
from flows.config.exploration import ExploreCondition
from flows.data import steps as data_steps
from flows.data.labelling import label_or_refusal
from flows.data.prepare import Prepared
from flows.fit import steps
from flows.fit.acquisition import Acquired, from_dynamics
from flows.fit.consent import Declined, ask
from flows.fit.student import FittedStudent, Student
from flows.fit.verdict import Errors
from flows.run import Run
from tasks.artefact import Artefact, StepCall, Stored
from tasks.errors import StepFailed, UserError
from tasks.labelling.task_runner import run_shards, started
from tasks.prefect_tasks import step_task
from tasks.report.exploration import ConditionErrors, ExplorationRound, ExplorationRun
from tasks.runners.cancellation import end_running


def explore_round(
    prepared: Prepared,
    student: Student,
    level: int,
    rounds: Sequence[ExplorationRound],
    finished: bool,
    run: Run,
    number: int | None = None,
    uncounted: int = 0,
) -> ExplorationRound:
    """Run all conditions of a level.

    Args:
        rounds: before it.
        number: of the round, which decides its velocities; None: the next one.
        uncounted: labels that the budget does not count.
    """
    number = number or len(rounds) + 1
    wanted, limits = prepared.recipe.explore, prepared.limits
    errors = errors_of(student)  # not finite where a split has no structure
    force, energy = (
        wanted.error_ratio * error if math.isfinite(error) else 0.0
        for error in (errors.force_mae_meV_per_A, errors.energy_mae_meV_per_atom)
    )
    # frames whose errors were measured are labelled too; some were added to the data, where they count
    checked = sum(each.frames for one in rounds for each in one.errors) - sum(one.chosen for one in rounds if one.quiet)
    return ExplorationRound(
        number=number,
        level=level,
        finished=finished,
        labels=prepared.dataset.read(dataset.Metrics).teacher_rows - uncounted + checked,
        runs=run_conditions(prepared, student, level, number, run),
        share=wanted.share,
        force_limit_meV_per_A=max(force, limits.force_mae_meV_per_A),
        energy_limit_meV_per_atom=max(energy, limits.energy_mae_meV_per_atom),
        wanted_errors=level == wanted.levels,
    )


def errors_of(student: Student) -> Errors:
    """Return the errors of a student on the test split; of one that is not finished, on the validation split."""
    if isinstance(student, FittedStudent):
        tested = student.evaluation.read(evaluate.Metrics)
        return Errors.of(tested.teacher_force_mae_meV_per_A, tested.teacher_energy_mae_meV_per_atom)
    fitted = student.fit.read(pace_train.Metrics)
    return Errors.of(fitted.validation_force_mae_meV_per_A, fitted.validation_energy_mae_meV_per_atom)


def run_conditions(
    prepared: Prepared, student: Student, level: int, number: int, run: Run
) -> tuple[ExplorationRun, ...]:
    """Run every condition of a level from each of its starts, side by side on the cores of this machine or a cluster.

    A run that ends early is a result. One that fails raises what it raised.

    Args:
        number: of the round; each has other velocities.

    Raises:
        UserError: the seeds gave no start of the kinds that a condition wants.
    """
    recipe, starts = prepared.recipe, prepared.ingested.starts
    assert starts
    table = pq.read_table(
        run.workspace.store.path(starts.file("starts")), columns=["id", "group", "source", "row", "state"]
    )
    parts = (student.core, student.active_set, prepared.baseline)
    wanted: list[tuple[str, int, StepCall]] = []
    for place, given in enumerate(recipe.explore.conditions, 1):
        condition = dynamics_of(given.milder(level / recipe.explore.levels))
        rows = [row for row in table.to_pylist() if row["group"] in given.starts]
        if any(row["state"] for row in rows):
            raise UserError(
                f"explore.conditions, number {place}: a start has a charge, a spin or another state, which molecular"
                " dynamics of the student does not know. Leave conditions out, or give seeds without one."
            )
        if not rows:
            kinds = ", ".join(sorted(set(table["group"].to_pylist())))
            raise UserError(
                f"explore.conditions, number {place}: the seeds gave no start of the kind"
                f" {' or '.join(given.starts)}. They gave: {kinds}."
            )
        for row in rows:
            for replica in range(1, given.replicas + 1):
                call = steps.explore_call(recipe, condition, row["id"], replica, number, starts, *parts)
                wanted.append(
                    (f"explore {place} from {row['source']}, number {row['row']}, run {replica}", place, call)
                )
    results = run_side_by_side([(name, call) for name, _, call in wanted], run)
    return tuple(
        ExplorationRun.of_metrics(name, place, artefact, artefact.read(explore.Metrics))
        for (name, place, _), artefact in zip(wanted, results, strict=True)
    )


def dynamics_of(condition: ExploreCondition) -> Condition:
    """Return the condition as the step takes it."""
    return Condition(**{name: getattr(condition, name) for name in Condition.model_fields})


def run_side_by_side(wanted: Sequence[tuple[str, StepCall]], run: Run) -> list[Artefact]:
    """Return the results of calls, as many at a time as this machine has cores or the cluster has workers."""
    if run.note:  # a dry run looks them up
        return [run(call, name) for name, call in wanted]
    settings, workspace = run.workspace.settings, run.workspace
    with started(settings.model_copy(update={"shards_at_once": settings.cores})) as runner:
        results = run_shards(
            runner,
            step_task("explore"),
            [{"call": call, "workspace": workspace} for _, call in wanted],
            [f"{name} {run.of}" for name, _ in wanted],
            tick=lambda: None,
            fatal=lambda error: not isinstance(error, StepFailed),
            end=partial(end_running, workspace.run_id),
        )
    if failed := [one for one in results if isinstance(one, BaseException)]:
        raise failed[0]
    run.done.update({f"{name} {run.of}": result for (name, _), result in zip(wanted, results, strict=True)})
    return results


def check_tables(made: ExplorationRound, conditions: Sequence[int]) -> dict[str, Stored]:
    """Return the frames of the runs of some conditions, kept whatever their grade, by names that begin with the number
    of the condition."""
    runs = [one for one in made.runs if one.condition in conditions]
    return {f"{one.condition} check of {one.name}, round {made.number}": one.result.file("check") for one in runs}


def measure_errors(
    prepared: Prepared, student: Student, made: ExplorationRound, run: Run
) -> tuple[ConditionErrors, ...]:
    """Label frames of all runs, and return the student's errors on them by condition."""
    conditions = sorted({one.condition for one in made.runs})
    tables = {f"{name}.parquet": file for name, file in check_tables(made, conditions).items()}
    frames = run(data_steps.ingest_call(prepared.config, (), made=tables), "ingest check")
    ask(prepared, frames, f"measure the errors of {run.of}", run)
    labels, refused = label_or_refusal(prepared.recipe, frames, prepared.teachers, run, "pool_labels check")
    call = steps.frame_errors_call(student.core, student.active_set, prepared.baseline, frames, labels)
    rows = run(call).read(frame_errors.Metrics).runs
    return tuple(
        of_condition(place, [row for row in rows if int(row["source"].split()[0]) == place], made, refused)
        for place in conditions
    )


def of_condition(
    place: int, rows: Sequence[dict[str, Any]], made: ExplorationRound, refused: str | None
) -> ConditionErrors:
    """Return the mean errors of the runs of a condition, weighted by their frames."""

    def mean(key: str) -> float | None:
        found = [(row["labelled"], row[key]) for row in rows if row[key] is not None]
        return sum(count * value for count, value in found) / sum(count for count, _ in found) if found else None

    force, energy = mean("force_mae_meV_per_A"), mean("energy_mae_meV_per_atom")
    over = None
    if force is not None and energy is not None:
        over = max(force / made.force_limit_meV_per_A, energy / made.energy_limit_meV_per_atom)
    reasons = [row["set_aside_because"] for row in rows if row["set_aside_because"]]
    return ConditionErrors(
        condition=place,
        frames=sum(row["labelled"] for row in rows),
        set_aside=sum(row["set_aside"] for row in rows),
        set_aside_because=refused or next(iter(reasons), None),
        force_mae_meV_per_A=force,
        energy_mae_meV_per_atom=energy,
        over=over,
    )


def acquire(
    prepared: Prepared, student: Student, made: ExplorationRound, may_add: bool, run: Run
) -> tuple[ExplorationRound, Acquired | None, str]:
    """Measure the errors of a round without extrapolation; add the frames of its runs that the student must learn.

    Args:
        may_add: False: measure only.

    Returns:
        The round with its errors and what was added; the data, None where nothing is added; why the user declined.
    """
    grown = None
    try:
        if made.quiet and made.wanted_errors and made.labels < prepared.recipe.explore.max_labels:
            made = made.model_copy(update={"errors": measure_errors(prepared, student, made, run)})
        if may_add and not made.settled:
            made, tables = choose(prepared, student, made, run)
            grown = from_dynamics(prepared, student.training, tables, run) if tables else None
    except Declined as declined:
        return made.model_copy(update={"chosen": 0}), None, str(declined)
    except StepFailed as failure:
        if failure.kind != "BadInput" or failure.step != "pool_labels":
            raise
        return made.model_copy(update={"chosen": 0, "refused": failure.message}), None, ""
    return made, grown, ""


def choose(
    prepared: Prepared, student: Student, made: ExplorationRound, run: Run
) -> tuple[ExplorationRound, dict[str, Stored]]:
    """Choose frames that extrapolate, or where none does, those of conditions with large errors.

    Returns:
        The round with their number, and tables of the frames by name; none where there is no such frame.
    """
    if made.quiet:
        over = [one for one in made.errors if one.over is not None and one.over > 1]
        tables = check_tables(made, [one.condition for one in over])
        return made.model_copy(update={"chosen": sum(one.frames for one in over)}), tables
    wanted, settings = prepared.recipe.explore, run.workspace.settings
    most = min(wanted.structures_per_round, wanted.max_labels - made.labels)
    fitted, runs = student.fit.file("best"), [one.result for one in made.runs]
    chosen = run(steps.choose_frames_call(prepared.recipe, runs, most, fitted, student.active_set, settings))
    found = chosen.read(choose_frames.Metrics)
    if found.chosen:
        ask(prepared, chosen, f"learn what extrapolates in {run.of}", run)
    of_runs = tuple(
        one.model_copy(update={"chosen": found.by_source.get(one.result.read(explore.Metrics).source, 0)})
        for one in made.runs
    )
    figures = {"chosen": found.chosen, "gamma_max_left": found.gamma_max_left, "runs": of_runs}
    return made.model_copy(update=figures), {run.of: chosen.file("structures")} if found.chosen else {}
