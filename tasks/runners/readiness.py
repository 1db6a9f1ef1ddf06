"""What a run does about its containers before, after and beside its steps; nothing where steps need none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from logging import Logger, LoggerAdapter
from typing import TYPE_CHECKING, Any

from prefect.logging.loggers import flow_run_logger

from containers.contract import Device, Image
from containers.tensorpot.pacemaker.program import SEES_A_GPU as TENSORFLOW_SEES_A_GPU
from tasks.errors import UserError
from tasks.prefect_logging import run_log
from tasks.runners.base import CannotStart
from tasks.settings import Settings
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow


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
            _remove(settings, workspace.run_id, run_log())


def settled_device(settings: Settings) -> Device:
    """Where this run computes; `CannotStart` when a GPU is asked for and cannot be used."""
    if settings.device == "cpu" or settings.runner in ("in_process", "stub"):
        return "cpu" if settings.device == "auto" else settings.device
    reason = _why_no_gpu(settings)
    if reason is None:
        return "cuda"
    if settings.device == "auto":
        run_log().info("computing on the CPU (DISTILL_DEVICE=auto): %s", reason)
        return "cpu"
    raise CannotStart(f"{reason}. Set DISTILL_DEVICE=cpu, or auto to use a GPU when there is one.")


def _why_no_gpu(settings: Settings) -> str | None:
    if settings.runner == "docker":
        from tasks.runners.docker import why_no_gpu

        return why_no_gpu(settings)
    if not _ends_well("nvidia-smi", "-L"):
        return "there is no GPU (nvidia-smi lists none)"
    probes: dict[Image, str] = SEES_A_GPU if settings.runner == "subprocess" else {}
    for image, code in probes.items():
        if not _ends_well(str(settings.python(image)), "-c", code):
            return f"there is a GPU, but the libraries of {settings.python(image)} ({image}) do not see it"
    return None


SEES_A_GPU: dict[Image, str] = {
    "mace": "import sys, torch; sys.exit(not torch.cuda.is_available())",
    "tensorpot": TENSORFLOW_SEES_A_GPU,
}


def _ends_well(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _check_engine(settings: Settings, device: Device) -> None:
    """Clear away what killed runs left, and see that both images are there and fit, before anything is computed."""
    if settings.runner == "apptainer":
        from tasks.runners.apptainer import check_images as check_files

        check_files(settings, device)
    if settings.runner != "docker":
        return
    from tasks.runners.docker import check_images, reap

    if orphans := reap(settings):
        run_log().info("removed %d containers of runs that were killed", orphans)
    check_images(settings, device)


def remove_containers_of_dead_runs(settings: Settings) -> None:
    """Remove the step containers whose process has ended; a warning when the engine does not answer."""
    from tasks.runners.docker import reap

    try:
        reap(settings)
    except CannotStart as error:
        run_log().warning("containers of ended runs may be left: %s", error)


def remove_left_containers(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Prefect's hook for cancelled and crashed runs: in a process of the worker's, with the environment of the run."""
    settings = Settings()
    if settings.runner == "docker":
        _remove(settings, str(flow_run.id), flow_run_logger(flow_run, flow))


def _remove(settings: Settings, run_id: str, log: Logger | LoggerAdapter[Logger]) -> None:
    from tasks.runners.docker import remove_run

    try:
        if removed := remove_run(settings, run_id):
            log.info("removed %d containers of this run", removed)
    except CannotStart as error:
        log.warning("containers of this run may be left: %s", error)
