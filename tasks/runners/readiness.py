"""A runner made ready before the steps of a run, and closed after them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING, Any

from prefect.logging.loggers import flow_run_logger

from containers.contract import Device
from tasks.errors import UserError
from tasks.prefect_logging import run_log
from tasks.runners.base import CannotStart, Runner, runner_class, runner_of
from tasks.settings import Settings
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

_prepared: ContextVar[tuple[Settings, Device] | None] = ContextVar("prepared", default=None)


@contextmanager
def ready(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace with its device settled; when the block is left in any way, no container of the run is left.

    Inside such a block of the same settings, as that of the command around its flow, nothing is looked for again.

    Raises:
        UserError: the engine, an image or a GPU that the settings ask for is not there.
    """
    settings, runner = workspace.settings, runner_of(workspace)
    before = _prepared.get()
    try:
        if before and before[0] == settings:
            device = before[1]
        else:
            device = settled_device(settings)
            runner.prepare(device)
    except CannotStart as error:
        raise UserError(str(error)) from None
    token = _prepared.set((settings, device))
    try:
        yield workspace.model_copy(update={"settings": settings.model_copy(update={"device": device})})
    finally:
        _prepared.reset(token)
        _close(runner, run_log())


def settled_device(settings: Settings) -> Device:
    """Return where this run computes; `CannotStart` when a GPU is required and cannot be used."""
    runner = runner_class(settings.runner)
    if settings.device == "cpu" or not runner.asks_for_gpu:
        return "cpu" if settings.device == "auto" else settings.device
    reason = runner(settings).why_no_gpu()
    if reason is None:
        return "cuda"
    if settings.device == "auto":
        run_log().info("computing on the CPU (DISTILL_DEVICE=auto): %s", reason)
        return "cpu"
    raise CannotStart(f"{reason}. Set DISTILL_DEVICE=cpu, or auto to use a GPU when there is one.")


def remove_containers_of_dead_runs(settings: Settings) -> None:
    """Remove the step containers whose process has ended; a warning when the engine does not answer."""
    from tasks.runners.docker import DockerRunner

    try:
        DockerRunner(settings).reap()
    except CannotStart as error:
        run_log().warning("containers of ended runs may be left: %s", error)


def remove_left_containers(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Prefect's hook for cancelled and crashed runs: in a process of the worker's, with the environment of the run."""
    settings = Settings()
    _close(runner_class(settings.runner)(settings, str(flow_run.id)), flow_run_logger(flow_run, flow))


def _close(runner: Runner, log: Logger | LoggerAdapter[Logger]) -> None:
    try:
        if removed := runner.close():
            log.info("removed %d containers of this run", removed)
    except CannotStart as error:
        log.warning("containers of this run may be left: %s", error)
