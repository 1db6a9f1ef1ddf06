"""One step from call to artefact: look it up, or stage, run, check and publish it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE, S_ISGID, S_ISREG, S_ISUID

from containers.contract import (
    IN_PROCESS,
    Image,
    InputFile,
    Progress,
    Report,
    Request,
    StepError,
    load_step,
    no_progress,
)
from containers.environment import lock_digest
from containers.step import check_outputs
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepCancelled, StepEnded, StepFailed, StoreError
from tasks.runners.base import CannotStart, Ended, InProcessRunner, runner_of
from tasks.runners.cancellation import of_run
from tasks.store.results import read_report
from tasks.workspace import Workspace

LOG_TAIL_LINES, LOG_TAIL_BYTES = 12, 1 << 16


def request_of(call: StepCall, workspace: Workspace) -> Request:
    """The request that a call becomes; its key decides whether anything is computed."""
    module, store = load_step(call.step), workspace.store
    inputs = {
        name: tuple(InputFile(path=store.path(file), sha256=file.sha256) for file in files)
        for name, files in call.inputs.items()
    }
    return Request(
        step=call.step,
        version=module.VERSION,
        lock=lock_digest(module.IMAGE),
        params=call.params,
        inputs=inputs,
        stub=workspace.settings.runner == "stub",
        resources=call.resources,
        sources=call.sources,
    )


def look_up(call: StepCall, workspace: Workspace) -> Artefact | None:
    """The stored result of a call, or None; nothing is computed."""
    report = workspace.store.peek(request_of(call, workspace), workspace.verify)
    return Artefact.of(report, cached=True) if report else None


def run_step(call: StepCall, workspace: Workspace, progress: Progress = no_progress) -> Artefact:
    """The result of a call, from the store or by running the step.

    Raises:
        StepEnded: the step ran and failed or was cancelled; its folder is kept and named.
        StoreError: the work root cannot take the result (a full disk, permissions).
    """
    request, store = request_of(call, workspace), workspace.store
    with disk_faults_told(call.step, workspace), store.lock(request):
        if report := store.find(request, workspace.verify):
            return Artefact.of(report, cached=True)
        folder = _run(request, workspace, progress)
        return Artefact.of(store.publish(folder, request), cached=False)


@contextmanager
def run_unstored(
    call: StepCall, workspace: Workspace, progress: Progress = no_progress
) -> Iterator[tuple[Report, Path]]:
    """Run a step whose outputs belong elsewhere; gives its report and folder, which is gone after a block left well.

    Raises:
        StepEnded: the step ran and failed or was cancelled; its folder is kept and named.
        StoreError: the work root cannot take the result (a full disk, permissions).
    """
    request = request_of(call, workspace)
    with disk_faults_told(call.step, workspace):
        folder = _run(request, workspace, progress)
        yield workspace.store.checked(folder, request), folder
        shutil.rmtree(folder)


@contextmanager
def disk_faults_told(what: str, workspace: Workspace) -> Iterator[None]:
    """Raise `StoreError` with path and correction when `what` meets a full disk or another fault of the work root."""
    try:
        yield
    except ConnectionError:  # no fault of a disk's
        raise
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or workspace.root
        raise StoreError(
            f"{what}: {place}: {os.strerror(error.errno)}. Free or change the work root, then run again."
        ) from error


def _run(request: Request, workspace: Workspace, progress: Progress) -> Path:
    """Stage and run a request; return its folder.

    Raises `StepEnded` unless both the report and the exit code say ok, and the outputs are the declared ones. The step
    has checked its outputs itself, but a step that opened a hostile file may have been made to lie.
    """
    module, folder = load_step(request.step), workspace.store.stage(request)

    def failed(kind: str, message: str) -> StepEnded:
        error, log, tail = StepCancelled if kind == "Cancelled" else StepFailed, folder / "log.txt", ""
        if log.is_file() and not log.is_symlink():  # a link may have been put there to show us another file
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
                lines = file.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines()
            tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
        return error(request.step, kind, message, folder, tail, workspace.settings.runner)

    try:
        ended = run_in(folder, module.IMAGE, request, workspace, progress)
    except TimeoutError as error:
        raise failed("TimeLimit", str(error)) from None
    except CannotStart as error:
        raise failed(error.kind, str(error)) from None
    report, outputs = read_report(folder), folder / "outputs"
    if report is None:
        raise failed(ended.kind, f"the process ended without a report ({ended.words})")
    if report.error is not None:
        raise failed(report.error.kind, report.error.message)
    if ended.exit_code != 0:
        raise failed(ended.kind, f"its report says ok, but the process did not end well ({ended.words})")
    if outputs.is_symlink() or not outputs.is_dir():
        raise failed("StepError", "outputs/ is a link or a file, it must be a plain folder")
    try:
        check_outputs(module, outputs)
    except StepError as error:
        raise failed(type(error).__name__, str(error)) from None
    if {name: output.name for name, output in report.outputs.items()} != module.OUTPUTS:
        raise failed("StepError", "its report names other outputs than the step has")
    return folder


def run_in(folder: Path, image: Image, request: Request, workspace: Workspace, progress: Progress) -> Ended:
    """Run a request in its folder, and take from what it left the right to become another user.

    So no set-uid program that a hostile step made lies in the store, to be run as the user that we are.
    """
    try:
        runner = InProcessRunner(workspace.settings) if request.step in IN_PROCESS else runner_of(workspace)
        with of_run(workspace.run_id):
            return runner.run(folder, image, request, progress)
    finally:
        for place, _, files in os.walk(folder):
            for path in (Path(place, name) for name in files):
                mode = path.lstat().st_mode
                if S_ISREG(mode) and mode & (S_ISUID | S_ISGID):
                    path.chmod(S_IMODE(mode) & ~(S_ISUID | S_ISGID))
