"""Students fitted side by side: each with its attempts and what follows a fit, as a task run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from containers.memory import SHARE, available_bytes
from flows.data.prepare import Prepared
from flows.data.training_set import TrainingSet
from flows.fit.student import FittedStudent, make_student
from flows.run import Run
from tasks.errors import StepFailed
from tasks.labelling.task_runner import run_shards, started
from tasks.prefect_logging import run_log
from tasks.runners.base import runner_class
from tasks.runners.cancellation import end_running
from tasks.settings import Settings
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Wanted:
    """A student to be fitted; `name` ends the names of its task runs."""

    name: str
    prepared: Prepared
    training: TrainingSet


def fit_all(wanted: Sequence[Wanted], at_once: int, workspace: Workspace) -> list[FittedStudent | StepFailed]:
    """Fit and finish each of them, `at_once` at a time on this machine or as many as the Dask cluster of the settings
    has workers; a failed one keeps its place.

    Raises:
        StepCancelled: students not yet begun are left out.
        UserError: the settings name a Dask cluster that is not there.
        StoreError: the work root cannot hold the results; students not yet begun are left out.
    """
    one_each = share(workspace.settings, at_once)
    machine = workspace.model_copy(update={"settings": one_each})
    with started(workspace.settings.model_copy(update={"shards_at_once": at_once})) as runner:
        results = run_shards(
            runner,
            fit_student,
            [{"wanted": one, "workspace": machine} for one in wanted],
            [f"student {one.name}" for one in wanted],
            tick=lambda: None,
            fatal=lambda error: not isinstance(error, StepFailed),
            end=partial(end_running, workspace.run_id),
        )
    if others := [one for one in results if isinstance(one, BaseException) and not isinstance(one, StepFailed)]:
        raise others[0]
    for one, result in zip(wanted, results, strict=True):
        if isinstance(result, StepFailed):
            run_log().warning("student %s: %s", one.name, str(result).splitlines()[0])
    return results


def share(settings: Settings, at_once: int) -> Settings:
    """What each of several fits may use of the machine that it runs on."""
    if at_once == 1:
        return settings
    changes = {"cores": max(settings.cores // at_once, 1), "fit_memory_GB": _memory_GB(settings, at_once)}
    return settings.model_copy(update=changes)


def _memory_GB(settings: Settings, at_once: int) -> float | None:
    """None where it is not known here: the worker of a cluster sees its own."""
    if settings.fit_memory_GB is not None:
        return settings.fit_memory_GB / at_once
    if settings.dask_address or settings.dask_cluster:
        return None
    ours = SHARE * available_bytes() / 1e9 / at_once
    if settings.step_memory_GB is None or not runner_class(settings.runner).limits_memory:
        return ours
    return min(ours, SHARE * settings.step_memory_GB)


@task(name="student", cache_policy=NO_CACHE, persist_result=False)
def fit_student(wanted: Wanted, workspace: Workspace) -> FittedStudent:
    """Fit, and do what follows a fit."""
    return make_student(wanted.prepared, wanted.training, Run(workspace, of=wanted.name))
