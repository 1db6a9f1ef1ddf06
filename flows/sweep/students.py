"""Students fitted side by side: each with its attempts and the steps after a fit, as a task run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from tasks.studies.sweep import SweepFailure
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


def failure_of(name: str, failure: StepFailed, changes: dict[str, Any] | None = None) -> SweepFailure:
    """Return a student that failed as the report has it."""
    return SweepFailure(name=name, changes=changes or {}, step=failure.step, message=failure.message)


def share(settings: Settings, at_once: int) -> Settings:
    """Return the settings of each of several fits at once on a machine: its part of cores and memory.

    The memory is left open on a cluster, where a worker sees its own.
    """
    if at_once == 1:
        return settings
    memory_GB = None
    if settings.fit_memory_GB is not None:
        memory_GB = settings.fit_memory_GB / at_once
    elif not settings.dask_address and not settings.dask_cluster:
        memory_GB = SHARE * available_bytes() / 1e9 / at_once
        if settings.step_memory_GB is not None and runner_class(settings.runner).limits_memory:
            memory_GB = min(memory_GB, SHARE * settings.step_memory_GB)
    return settings.model_copy(update={"cores": max(settings.cores // at_once, 1), "fit_memory_GB": memory_GB})


@task(name="student", cache_policy=NO_CACHE, persist_result=False)
def fit_student(wanted: Wanted, workspace: Workspace) -> FittedStudent:
    """Fit a student, and take the steps after its fit."""
    return make_student(wanted.prepared, wanted.training, Run(workspace, of=wanted.name))
