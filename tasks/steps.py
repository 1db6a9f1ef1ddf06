"""The Prefect door to every step: one task, named by its step and shown as `Cached` when nothing was computed."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateDetails
from prefect.states import Completed, State

from tasks.artefact import Artefact, StepCall
from tasks.progress import shown_progress
from tasks.run import run_step
from tasks.workspace import Workspace


@task(cache_policy=NO_CACHE, persist_result=False)
def _step(call: StepCall, workspace: Workspace) -> Artefact | State[Artefact]:
    log = get_run_logger()
    with shown_progress(call.step, log.info) as progress:
        artefact = run_step(call, workspace, progress)
    if artefact.cached:
        details = StateDetails(cache_key=artefact.key)
        return Completed(name="Cached", message="found in the store", data=artefact, state_details=details)
    log.info("%s: %.1f s, key %s", call.step, artefact.seconds, artefact.key[:8])
    return artefact


def step(call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
    """Run `call` as a task run of its own name; raises what the step raised."""
    named = _step.with_options(name=call.step, task_run_name=run_name or call.step)
    return named(call, workspace, return_state=True).result()
