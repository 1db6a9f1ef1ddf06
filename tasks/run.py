"""One step from call to artefact: look it up, or stage, run, check and publish it."""

from __future__ import annotations

from pathlib import Path

from containers.contract import InputFile, Progress, Report, Request, StepModule, load_step, no_progress
from containers.lock import lock_digest
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed
from tasks.runners import runner_of
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
    """
    module, request, store = load_step(call.step), request_of(call, workspace), workspace.store
    with store.lock(request):
        if report := store.find(request, workspace.verify):
            return Artefact.of(report, cached=True)
        folder = store.stage(request)
        _run(module, request, folder, workspace, progress)
        return Artefact.of(_published(store, folder, request), cached=False)


def _run(module: StepModule, request: Request, folder: Path, workspace: Workspace, progress: Progress) -> None:
    try:
        runner_of(workspace.settings).run(folder, module.IMAGE, request, progress)
    except TimeoutError as error:
        raise StepFailed(request.step, "TimeLimit", str(error), folder, _log_tail(folder)) from None
    except FileNotFoundError as error:
        mend = "Set DISTILL_MACE_PYTHON and DISTILL_TENSORPOT_PYTHON to interpreters that exist."
        raise StepFailed(request.step, "ProgramMissing", f"no such program: {error.filename}. {mend}", folder) from None


def _published(store: Store, folder: Path, request: Request) -> Report:
    report = read_report(folder)
    if report is None:
        raise StepFailed(request.step, "Died", "the process ended without a report", folder, _log_tail(folder))
    if report.error is not None:
        raise StepFailed(request.step, report.error.kind, report.error.message, folder, _log_tail(folder))
    return store.publish(folder, request)


def _log_tail(folder: Path) -> str:
    log = folder / "log.txt"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
