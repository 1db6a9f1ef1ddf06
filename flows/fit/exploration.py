"""The rounds of exploration: the student runs molecular dynamics, and the teacher labels where it extrapolates or errs.

Each round runs every condition of `explore.conditions`, at first milder than in the config (`explore.levels`). Of the
frames that extrapolate, MaxVol chooses the few that enlarge the active set. Where none does, errors are measured on
frames of all runs; those of a condition with large errors are added. The fit of a round is short and starts from the
last potential. A student that is settled at the last level is finished: the full fit and the rounds of extension. It
then has rounds itself, until it is settled, or until rounds, labels or hours are used up. Runs of another round have
other velocities. Every step is cached, so that a killed exploration continues where it was.
"""

from __future__ import annotations

import time
from dataclasses import replace

from containers.tensorpot.dataset import dataset
from flows.config.exploration import Explore
from flows.data.prepare import Prepared
from flows.data.training_set import TrainingSet
from flows.fit.exploration_round import acquire, explore_round
from flows.fit.rounds import Results, extend
from flows.fit.student import Student, fit_student, make_student
from flows.run import Run
from tasks.prefect_logging import run_log
from tasks.prefect_tasks import publish_exploration
from tasks.report.exploration import Exploration, ExplorationRound

SETTLED = "the finished student is settled under all conditions"


def distil_by_exploration(prepared: Prepared, training: TrainingSet, run: Run) -> tuple[Results, Exploration]:
    """Explore, finish the student, and explore with it, until it is settled or the budget is used up.

    Args:
        training: the training set of the first student.

    Returns:
        The results of the last finished student, with the attempts at all fits, and the rounds.
    """
    _, results, found = explore_all(prepared, training, run)
    assert results
    return results, found


def explore_all(
    prepared: Prepared, training: TrainingSet, run: Run, finishing: bool = True
) -> tuple[Prepared, Results | None, Exploration]:
    """Do the rounds; see `distil_by_exploration`.

    Args:
        finishing: False: end before the student would be finished.

    Returns:
        The data of the last round, what `distil_by_exploration` returns, None where no student is finished.
    """
    wanted, begun = prepared.recipe.explore, time.monotonic()
    student: Student = fit_explorer(prepared, training, None, run.within("before exploration"))
    rows = prepared.dataset.read(dataset.Metrics).teacher_rows
    uncounted = max(rows - wanted.structures, 0)  # of the user's pool, of an earlier run, of another teacher's rounds
    attempts, rounds, results = list(student.attempts), list[ExplorationRound](), None
    level, why = 1, ""
    while not why:
        mine = run.within(f"exploration {len(rounds) + 1}")
        made = explore_round(prepared, student, level, rounds, results is not None, mine, uncounted=uncounted)
        used_up = used_up_after(made, wanted, (time.monotonic() - begun) / 3600)
        made, grown, declined = acquire(prepared, student, made, not used_up, mine)
        rounds.append(made)
        run_log().info(made.sentence())
        why = SETTLED if made.settled and results else declined
        if grown:
            prepared = grown.prepared
        if made.settled and not results and level < wanted.levels:
            level += 1
        elif not results and (made.settled or not grown) and not finishing:
            why = why or used_up or made.refused or "the student is settled"
        elif not results and (made.settled or not grown):
            results = finish(prepared, student, mine)
            level, student = wanted.levels, results.best
            attempts += results.attempts
        elif grown and results:  # a round of functions may have made the basis larger
            recipe = prepared.recipe.model_copy(update={"potential": results.best.recipe.potential})
            prepared = replace(prepared, recipe=recipe)
            results = finish(prepared, replace(student, training=grown.training), mine)
            student = results.best
            attempts += results.attempts
        elif grown:
            student = fit_explorer(prepared, grown.training, student, mine)
            attempts += student.attempts
            level = min(level + all(one.survived for one in made.runs), wanted.levels)
        else:
            none = (
                "the teacher has no label of a frame" if made.quiet else "every frame that extrapolates is unphysical"
            )
            why = why or used_up or made.refused or none
        if run.note is None:
            publish_exploration(prepared.config.name, Exploration(rounds=tuple(rounds), settled=False))
    found = Exploration(rounds=tuple(rounds), settled=why == SETTLED, stopped_because=why)
    run_log().info(found.sentence())
    return prepared, results and replace(results, attempts=attempts), found


def used_up_after(made: ExplorationRound, wanted: Explore, hours: float) -> str:
    """Return what of the budget is used up after a round; empty while there is some left."""
    if made.number >= wanted.rounds:
        return f"explore.rounds ({wanted.rounds}) are used up"
    if made.labels >= wanted.max_labels:
        return f"explore.max_labels ({wanted.max_labels}) are used up"
    if wanted.hours and hours > wanted.hours:
        return f"explore.hours ({wanted.hours:g}) are used up"
    return ""


def fit_explorer(prepared: Prepared, training: TrainingSet, before: Student | None, run: Run) -> Student:
    """Fit a student of one stage. The first has all attempts and iterations; the others start from the one before."""
    recipe, first = prepared.recipe, prepared.recipe.stages[0]
    if before:
        first = first.model_copy(update={"maxiter": recipe.explore.maxiter})
        recipe = recipe.model_copy(update={"max_attempts": 1})
    recipe = recipe.model_copy(update={"stages": (first,), "staged": False})
    start = before.fit.file("best") if before else None
    return fit_student(prepared, recipe, training, run, start, resumes=False)


def finish(prepared: Prepared, student: Student, run: Run) -> Results:
    """Give a student the full fit, from its potential, and the rounds of extension."""
    mine = run.within("finished")
    return extend(prepared, make_student(prepared, student.training, mine, student.fit.file("best")), mine)
