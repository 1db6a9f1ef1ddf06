"""The Prefect doors of a sweep: one publishes its folder, one that of a committee."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks import committee_folder, sweep_report
from tasks.committee_folder import CommitteeSummary
from tasks.sweep_summary import SweepSummary
from tasks.workspace import Workspace


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
