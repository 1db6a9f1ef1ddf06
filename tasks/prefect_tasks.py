"""The Prefect tasks: one for every step, `Cached` when nothing was computed; one for the report; one for a study."""

from __future__ import annotations

from typing import Any

from prefect import Task, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateDetails
from prefect.runtime import task_run
from prefect.states import Completed

from tasks.artefact import Artefact, StepCall
from tasks.progress.live_fit import FitProgress
from tasks.progress.step_bar import shown_progress, to_all
from tasks.report.exploration import Exploration, exploration
from tasks.report.markup import to_markdown
from tasks.report.publish import publish
from tasks.report.summary import RunSummary
from tasks.run_step import run_step
from tasks.studies.study import Study
from tasks.workspace import Workspace


@task(cache_policy=NO_CACHE, persist_result=False)
def _step(call: StepCall, workspace: Workspace) -> Any:
    log = get_run_logger()
    name = task_run.name or call.step
    with shown_progress(name, log.info) as progress, FitProgress(name, log.warning) as live:
        artefact = run_step(call, workspace, to_all(progress, live))
        live.ended(artefact.metrics)
    if artefact.cached:
        details = StateDetails(cache_key=artefact.key)
        return Completed(name="Cached", message="found in the store", data=artefact, state_details=details)
    log.info("%s: %.1f s, key %s", call.step, artefact.seconds, artefact.key[:8])
    return artefact


def step_task(name: str) -> Task[..., Any]:
    """Return the task that runs a call, for many calls side by side."""
    return _step.with_options(name=name)


def step(call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
    """Run `call` as a task run of its own name; raises what the step raised."""
    named = _step.with_options(name=call.step, task_run_name=run_name or call.step)
    artefact: Artefact = named(call, workspace, return_state=True).result()
    return artefact


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(summary: RunSummary, workspace: Workspace) -> None:
    """Publish the run folder and show its convergence as artifacts."""
    for key, markdown in publish(summary, workspace.root / "runs" / summary.name).items():
        create_markdown_artifact(markdown, key=key, description=f"{summary.name}: {key}")


def publish_exploration(name: str, found: Exploration) -> None:
    """Show the rounds of exploration so far as an artifact."""
    markdown = to_markdown(f"{name}: exploration", [exploration(found)], {})
    create_markdown_artifact(markdown, key="exploration", description=f"{name}: rounds of exploration so far")


@task(cache_policy=NO_CACHE, persist_result=False)
def _publish_study(study: Study, workspace: Workspace) -> None:
    text = study.publish(workspace.run_folder(study.name) / study.KIND)
    create_markdown_artifact(text, study.KIND.replace("_", "-"), description=f"{study.name}: {study.TITLE}")


def publish_study(study: Study, workspace: Workspace) -> None:
    """Publish runs/NAME/KIND as a task run and show it as an artifact."""
    _publish_study.with_options(name=study.TASK, task_run_name=study.TASK)(study, workspace)
