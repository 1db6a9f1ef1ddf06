"""What a run does about its containers before, after and beside its steps; nothing where steps need none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import TYPE_CHECKING, Any

from containers.contract import Device
from tasks.errors import UserError
from tasks.runners import CannotStart
from tasks.settings import Settings
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

log = getLogger(__name__)


@contextmanager
def ready(workspace: Workspace) -> Iterator[Workspace]:
    """The workspace with its device settled; when the block is left in any way, no container of the run is left.

    Raises:
        UserError: the engine, an image or a GPU that the settings ask for is not there.
    """
    try:
        device = settled_device(workspace.settings)
        _check_engine(workspace.settings, device)
    except CannotStart as error:
        raise UserError(str(error)) from None
    settings = workspace.settings.model_copy(update={"device": device})
    try:
        yield workspace.model_copy(update={"settings": settings})
    finally:
        if settings.runner == "docker":
            _remove(settings, workspace.run_id)


def settled_device(settings: Settings) -> Device:
    """Where this run computes; `CannotStart` when a GPU is asked for and there is none."""
    if settings.device == "cpu" or settings.runner in ("in_process", "stub"):
        return "cpu" if settings.device == "auto" else settings.device
    if _has_gpu(settings):
        return "cuda"
    if settings.device == "auto":
        log.info("no GPU found: computing on the CPU (DISTILL_DEVICE=auto)")
        return "cpu"
    where = "The container engine cannot give a container a GPU" if settings.runner == "docker" else "There is no GPU"
    raise CannotStart(f"{where}. Set DISTILL_DEVICE=cpu, or auto to use one when there is one.")


def _has_gpu(settings: Settings) -> bool:
    if settings.runner == "docker":
        from tasks.docker_runner import has_gpu

        return has_gpu(settings)
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _check_engine(settings: Settings, device: Device) -> None:
    """Clear away what killed runs left, and see that both images are there and fit, before anything is computed."""
    if settings.runner != "docker":
        return
    from tasks.docker_runner import check_images, reap

    if orphans := reap(settings):
        log.info("removed %d containers of runs that were killed", orphans)
    check_images(settings, device)


def remove_containers_of_cancelled(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Prefect's `on_cancellation` hook: runs in the worker, whose own settings need not name the docker runner."""
    _remove(Settings(), str(flow_run.id))


def _remove(settings: Settings, run_id: str) -> None:
    from tasks.docker_runner import remove_run

    try:
        if removed := remove_run(settings, run_id):
            log.info("removed %d containers of this run", removed)
    except CannotStart as error:
        log.warning("containers of this run may be left: %s", error)
