"""The Prefect doors: one task for every step, `Cached` when nothing was computed; one for the report.

The Prefect doors of a sweep: one publishes its folder, one that of a committee.
"""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateDetails
from prefect.runtime import task_run
from prefect.states import Completed

from tasks.artefact import Artefact, StepCall
from tasks.progress.live_fit import FitProgress
from tasks.progress.step_bar import shown_progress, to_all
from tasks.report.publish import publish
from tasks.report.summary import RunSummary
from tasks.run_step import run_step
from tasks.studies import committee as committee_folder
from tasks.studies import sweep as sweep_report
from tasks.studies import value_curve
from tasks.studies.committee import CommitteeSummary
from tasks.studies.sweep import SweepSummary
from tasks.studies.value_curve import ValueCurve
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
    text = value_curve.publish(curve, workspace.run_folder(curve.name) / "value_curve")
    create_markdown_artifact(text, key="value-curve", description=f"{curve.name}: value curve")


@task(name="sweep", task_run_name="sweep", cache_policy=NO_CACHE, persist_result=False)
def publish_sweep(sweep: SweepSummary, workspace: Workspace) -> None:
    """Publish runs/NAME/sweep and show it as an artifact."""
    text = sweep_report.publish(sweep, workspace.run_folder(sweep.name) / "sweep")
    create_markdown_artifact(text, key="sweep", description=f"{sweep.name}: sweep")


@task(name="committee folder", task_run_name="committee folder", cache_policy=NO_CACHE, persist_result=False)
def publish_committee(committee: CommitteeSummary, workspace: Workspace) -> None:
    """Publish runs/NAME/committee and show it as an artifact."""
    text = committee_folder.publish(committee, workspace.run_folder(committee.name) / "committee")
    create_markdown_artifact(text, key="committee", description=f"{committee.name}: committee of students")
