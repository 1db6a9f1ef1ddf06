"""One step from call to artefact: look it up, or stage, run, check and publish it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from containers.child import kernel_kills
from containers.contract import InputFile, Progress, Report, Request, StepModule, load_step, no_progress
from containers.lock import lock_digest
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed, StoreError
from tasks.runners import KILLED, CannotStart, runner_of
from tasks.store import Store, read_report
from tasks.workspace import Workspace

LOG_TAIL_LINES = 12


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
    )


def look_up(call: StepCall, workspace: Workspace) -> Artefact | None:
    """The stored result of a call, or None; nothing is computed."""
    report = workspace.store.peek(request_of(call, workspace), workspace.verify)
    return Artefact.of(report, cached=True) if report else None


def run_step(call: StepCall, workspace: Workspace, progress: Progress = no_progress) -> Artefact:
    """The result of a call, from the store or by running the step.

    Raises:
        StepFailed: the step ran and failed; its folder is kept and named.
        StoreError: the work root cannot take the result (a full disk, permissions).
    """
    try:
        return _run_step(call, workspace, progress)
    except OSError as error:
        place = error.filename or workspace.root
        raise StoreError(
            f"{call.step}: {place}: {error.strerror}. Free or change the work root, then run again."
        ) from error


def _run_step(call: StepCall, workspace: Workspace, progress: Progress) -> Artefact:
    module, request, store = load_step(call.step), request_of(call, workspace), workspace.store
    with store.lock(request):
        if report := store.find(request, workspace.verify):
            return Artefact.of(report, cached=True)
        folder = store.stage(request)
        ended = _run(module, request, folder, workspace, progress)
        return Artefact.of(_published(store, folder, request, ended), cached=False)


class _Ended(NamedTuple):
    """How the process of a step ended."""

    kind: str  # of the failure, if it left no report
    words: str


def _run(module: StepModule, request: Request, folder: Path, workspace: Workspace, progress: Progress) -> _Ended:
    kills = kernel_kills()
    try:
        words = runner_of(workspace.settings).run(folder, module.IMAGE, request, progress)
    except TimeoutError as error:
        raise StepFailed(request.step, "TimeLimit", str(error), folder, _log_tail(folder)) from None
    except CannotStart as error:
        mend = "Set DISTILL_MACE_PYTHON and DISTILL_TENSORPOT_PYTHON to interpreters that run."
        raise StepFailed(request.step, "ProgramMissing", f"{error}. {mend}", folder) from None
    if not words.startswith(KILLED):
        return _Ended("Died", words)
    return _Ended("OutOfMemory" if kernel_kills() != kills else "Killed", words)


def _published(store: Store, folder: Path, request: Request, ended: _Ended) -> Report:
    report = read_report(folder)
    if report is None:
        message = f"the process ended without a report ({ended.words})"
        raise StepFailed(request.step, ended.kind, message, folder, _log_tail(folder))
    if report.error is not None:
        raise StepFailed(request.step, report.error.kind, report.error.message, folder, _log_tail(folder))
    return store.publish(folder, request)


def _log_tail(folder: Path) -> str:
    log = folder / "log.txt"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
