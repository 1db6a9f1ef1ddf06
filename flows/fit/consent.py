"""Consent of the user before the teacher labels many structures."""

from __future__ import annotations

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.data.prepare import Prepared
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import UserError
from tasks.labelling.shards import StructurePool
from tasks.prefect_logging import run_log

WAIT_S = 7 * 24 * 3600
"""How long a paused run waits."""


class Approval(RunInput):
    """What the user answers when a run is paused."""

    approved: bool = Field(True, description="label these structures; false ends the exploration")


class Declined(Exception):
    """The user declined the labels; the message says what for."""


def ask(prepared: Prepared, table: Artefact, purpose: str, run: Run) -> None:
    """Wait for approval where `explore.ask_above` wants it: a run of a deployment pauses, a command ends.

    Structures that are labelled already cost nothing, so that a run that continues asks for none of them again.

    Args:
        table: of structures to be labelled.

    Raises:
        Declined: the answer was no.
        UserError: a command has no flag that approves.
    """
    most = prepared.recipe.explore.ask_above
    if most is None or run.approved or run.note:
        return
    ids = StructurePool(run.workspace.store.path(table.file("structures"))).ids
    new = max(int(teacher.store(run.workspace).missing(ids).sum()) for teacher in prepared.teachers)
    if new <= most:
        return
    question = f"{new} structures must be labelled to {purpose}, more than explore.ask_above ({most})"
    if deployment.id is None:
        raise UserError(f"{question}. Run the same command with --approve-labels: it continues here.")
    run_log().info("paused: %s. Resume the run in the UI with your answer.", question)
    wanted = Approval.with_initial_data(description=question)
    try:
        answer = pause_flow_run(wait_for_input=wanted, timeout=WAIT_S)
    except FlowPauseTimeout:
        raise Declined(f"{question}, and nobody answered for a week") from None
    if not answer.approved:
        raise Declined(f"{question}, and the answer was no")
