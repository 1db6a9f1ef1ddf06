"""The Prefect doors: one task for every step, `Cached` when nothing was computed; one for the report."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateDetails
from prefect.runtime import task_run
from prefect.states import Completed

from tasks import value_report
from tasks.artefact import Artefact, StepCall
from tasks.fit_progress import FitProgress
from tasks.progress import shown_progress, to_all
from tasks.report import publish
from tasks.run import run_step
from tasks.run_summary import RunSummary
from tasks.value_summary import ValueCurve
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


def step(call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
    """Run `call` as a task run of its own name; raises what the step raised."""
    named = _step.with_options(name=call.step, task_run_name=run_name or call.step)
    artefact: Artefact = named(call, workspace, return_state=True).result()
    return artefact


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(summary: RunSummary, workspace: Workspace) -> None:
    """Publish the run folder and show its convergence as artifacts."""
    published = publish(summary, workspace.root / "runs")
    for key, markdown in published.artifacts.items():
        create_markdown_artifact(markdown, key=key, description=f"{summary.name}: {key}")


@task(name="value curve", task_run_name="value curve", cache_policy=NO_CACHE, persist_result=False)
def publish_values(curve: ValueCurve, workspace: Workspace) -> None:
    """Publish runs/NAME/value_curve and show it as an artifact."""
    text = value_report.publish(curve, workspace.run_folder(curve.name) / "value_curve")
    create_markdown_artifact(text, key="value-curve", description=f"{curve.name}: value curve")
