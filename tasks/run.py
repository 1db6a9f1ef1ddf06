"""One step from call to artefact: look it up, or stage, run, check and publish it."""

from __future__ import annotations

from pathlib import Path

from containers.contract import InputFile, Progress, Request, StepError, StepModule, load_step, no_progress
from containers.lock import lock_digest
from containers.step import check_outputs
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed, StoreError
from tasks.runners import CannotStart, Ended, InProcessRunner, Runner, SubprocessRunner
from tasks.store import read_report
from tasks.workspace import Workspace

LOG_TAIL_LINES = 12


def runner_of(workspace: Workspace) -> Runner:
    """The runner that the settings ask for; stub runs are in-process runs of a stub request."""
    settings = workspace.settings
    if settings.runner == "docker":
        from tasks.docker_runner import DockerRunner

        return DockerRunner(settings, workspace.run_id)
    if settings.runner == "apptainer":
        from tasks.apptainer_runner import ApptainerRunner

        return ApptainerRunner(settings)
    return SubprocessRunner(settings) if settings.runner == "subprocess" else InProcessRunner()


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
        _check(module, request, folder, ended)
        return Artefact.of(store.publish(folder, request), cached=False)


def _run(module: StepModule, request: Request, folder: Path, workspace: Workspace, progress: Progress) -> Ended:
    try:
        return runner_of(workspace).run(folder, module.IMAGE, request, progress)
    except TimeoutError as error:
        raise StepFailed(request.step, "TimeLimit", str(error), folder, _log_tail(folder)) from None
    except CannotStart as error:
        raise StepFailed(request.step, error.kind, str(error), folder) from None


def _check(module: StepModule, request: Request, folder: Path, ended: Ended) -> None:
    """Raise `StepFailed` unless both the report and the exit code say ok, and the outputs are the declared ones.

    The step has checked its outputs itself, but a step that opened a hostile file may have been made to lie.
    """
    report = read_report(folder)
    if report is None:
        message = f"the process ended without a report ({ended.words})"
        raise StepFailed(request.step, ended.kind, message, folder, _log_tail(folder))
    if report.error is not None:
        raise StepFailed(request.step, report.error.kind, report.error.message, folder, _log_tail(folder))
    if ended.exit_code != 0:
        message = f"its report says ok, but the process did not end well ({ended.words})"
        raise StepFailed(request.step, ended.kind, message, folder, _log_tail(folder))
    try:
        check_outputs(module, folder / "outputs")
    except StepError as error:
        raise StepFailed(request.step, type(error).__name__, str(error), folder, _log_tail(folder)) from None
    if {name: output.name for name, output in report.outputs.items()} != module.OUTPUTS:
        raise StepFailed(request.step, "StepError", "its report names other outputs than the step has", folder)


def _log_tail(folder: Path) -> str:
    log = folder / "log.txt"
    plain = log.is_file() and not log.is_symlink()  # a link may have been put there to show us another file
    lines = log.read_text(errors="replace").splitlines() if plain else []
    return "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
