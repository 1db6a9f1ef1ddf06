"""The rounds of exploration: the student runs molecular dynamics, and the teacher labels where it extrapolates.

Each round runs every condition of `explore.conditions`, at first milder than asked for (`explore.levels`). Of the
frames that extrapolate, MaxVol chooses the few that enlarge the active set. The teacher labels them, the data set
grows, and the fit starts from the last potential. It ends where no condition extrapolates at the last level, or with
what is used up: rounds, labels or hours. Every step is cached, so that a killed exploration continues where it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow.parquet as pq

from containers.tensorpot.dataset import dataset
from containers.tensorpot.exploration import choose_frames, explore
from containers.tensorpot.exploration.dynamics import Condition
from flows.config.exploration import ExploreCondition
from flows.data import steps as data_steps
from flows.data.prepare import Prepared, with_structures
from flows.data.training_set import TrainingSet, frames_of
from flows.fit import steps
from flows.fit.attempts import Attempt, fit
from flows.run import Run
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed, UserError
from tasks.labelling.task_runner import run_shards, started
from tasks.prefect_logging import run_log
from tasks.prefect_tasks import step_task
from tasks.report.exploration import Exploration, ExplorationRound, ExplorationRun, of_metrics
from tasks.runners.cancellation import end_running


@dataclass(frozen=True)
class Explorer:
    """The student of a round, with what molecular dynamics needs of it."""

    prepared: Prepared
    training: TrainingSet
    attempts: list[Attempt]
    fit: Artefact
    active_set: Artefact
    core: Artefact


@dataclass(frozen=True)
class Explored:
    """The data and the last student of an exploration, and the attempts at all of its fits."""

    explorer: Explorer
    attempts: list[Attempt]
    rounds: Exploration


def explore_all(prepared: Prepared, training: TrainingSet, run: Run) -> Explored:
    """Explore until no condition extrapolates, or the budget is used up.

    Args:
        training: the training set of the first student.
    """
    wanted, begun = prepared.recipe.explore, time.monotonic()
    explorer = fit_explorer(prepared, training, replace(run, of="before exploration"), None)
    attempts = list(explorer.attempts)
    rounds: list[ExplorationRound] = []
    level, why = 1, ""
    while not why:
        mine = replace(run, of=f"exploration {len(rounds) + 1}")
        runs = run_conditions(explorer, level, mine)
        settled = all(one.survived and one.extrapolating <= wanted.share for one in runs)
        labels = explorer.prepared.dataset.read(dataset.Metrics).teacher_rows
        made = ExplorationRound(number=len(rounds) + 1, level=level, labels=labels, runs=runs)
        spent = (time.monotonic() - begun) / 3600
        if settled and level == wanted.levels:
            why = "no condition extrapolates"
        elif settled:
            level += 1
        elif len(rounds) + 1 >= wanted.rounds:
            why = f"explore.rounds ({wanted.rounds}) are used up"
        elif labels >= wanted.max_labels:
            why = f"explore.max_labels ({wanted.max_labels}) are used up"
        elif wanted.hours and spent > wanted.hours:
            why = f"explore.hours ({wanted.hours:g}) are used up"
        else:
            structures = min(wanted.structures_per_round, wanted.max_labels - labels)
            chosen = choose(explorer, [one.result for one in runs], structures, mine)
            counts = chosen.read(choose_frames.Metrics)
            if counts.chosen == 0:
                why = f"no frame can be labelled: {counts.unphysical} of {counts.frames} are unphysical"
            else:
                explorer = fit_explorer(*add_frames(explorer, chosen, mine), mine, explorer)
                attempts += explorer.attempts
                level += all(one.survived for one in runs) and level < wanted.levels
            made = made.model_copy(update={"chosen": counts.chosen, "gamma_max_left": counts.gamma_max_left})
        rounds.append(made)
        run_log().info(made.sentence())
    settled = why == "no condition extrapolates"
    found = Exploration(rounds=tuple(rounds), settled=settled, stopped_because=why, share=wanted.share)
    run_log().info(found.sentence())
    return Explored(explorer, attempts, found)


def fit_explorer(prepared: Prepared, training: TrainingSet, run: Run, before: Explorer | None) -> Explorer:
    """Fit a student of one stage, from the potential before; then its active set and its core."""
    recipe, first = prepared.recipe, prepared.recipe.stages[0]
    if before:  # the first student has all attempts and iterations, the others start from one
        first = first.model_copy(update={"maxiter": recipe.explore.maxiter})
        recipe = recipe.model_copy(update={"max_attempts": 1})
    recipe = recipe.model_copy(update={"stages": (first,), "staged": False})
    start = before.fit.file("best") if before else None
    attempts, best = fit(recipe, training.frames, prepared.limits, run, start)
    active_set = run(steps.active_set_call(recipe, best.file("best"), training.frames))
    core = run(steps.core_call(recipe, best.file("best"), active_set, training.frames, prepared.baseline))
    return Explorer(prepared, training, attempts, best, active_set, core)


def run_conditions(explorer: Explorer, level: int, run: Run) -> tuple[ExplorationRun, ...]:
    """Run every condition of a level from each of its starts, side by side on the cores of this machine or a cluster.

    A run that ends early is a result. One that fails raises what it raised.

    Raises:
        UserError: the seeds gave no start of the kinds that a condition wants.
    """
    recipe, prepared = explorer.prepared.recipe, explorer.prepared
    starts = prepared.ingested.starts
    assert starts
    table = pq.read_table(run.workspace.store.path(starts.file("starts")), columns=["id", "group", "source"])
    student = (explorer.core, explorer.active_set, prepared.baseline)
    wanted: list[tuple[str, StepCall]] = []
    for number, given in enumerate(recipe.explore.conditions, 1):
        condition = dynamics_of(given.milder(level / recipe.explore.levels))
        rows = [row for row in table.to_pylist() if row["group"] in given.starts]
        if not rows:
            kinds = ", ".join(sorted(set(table["group"].to_pylist())))
            raise UserError(
                f"explore.conditions, number {number}: the seeds gave no start of the kind"
                f" {' or '.join(given.starts)}. They gave: {kinds}."
            )
        for row in rows:
            for replica in range(1, given.replicas + 1):
                call = steps.explore_call(recipe, condition, row["id"], replica, starts, *student)
                wanted.append((f"explore {number} from {row['source']}, run {replica}", call))
    results = run_side_by_side(wanted, run)
    return tuple(
        of_metrics(name, artefact, artefact.read(explore.Metrics))
        for (name, _), artefact in zip(wanted, results, strict=True)
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


def choose(explorer: Explorer, explored: Sequence[Artefact], structures: int, run: Run) -> Artefact:
    """Choose the frames that the teacher labels."""
    fitted, settings = explorer.fit.file("best"), run.workspace.settings
    recipe = explorer.prepared.recipe
    return run(steps.choose_frames_call(recipe, explored, structures, fitted, explorer.active_set, settings))


def add_frames(explorer: Explorer, chosen: Artefact, run: Run) -> tuple[Prepared, TrainingSet]:
    """Label the chosen frames, add them to the data, and train on all that the training split has.

    A frame that is a near copy of a structure joins its family, so that no test structure has a copy in training.
    """
    prepared, training = explorer.prepared, explorer.training
    known, made = [prepared.dataset.file("dataset")], {f"{run.of}.parquet": chosen.file("structures")}
    call = data_steps.ingest_call(prepared.config, (), known, made=made, joins=True)
    grown = with_structures(prepared, run(call, "ingest"), run)
    every = grown.recipe.selection.model_copy(update={"method": "all", "fraction": None})
    recipe = grown.recipe.model_copy(update={"selection": every})
    settings, given = run.workspace.settings, training.selection.file("selection")
    selection = run(data_steps.select_call(recipe, grown.dataset, grown.baseline, settings, given))
    return grown, frames_of(grown, selection, run, training.properties)
