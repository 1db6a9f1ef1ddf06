"""Run one step in its folder: `python -m containers.step FOLDER`.

Exit codes: 0 done, 1 failed, 2 bad input, 3 the folder cannot take the report.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from errno import ENOSPC
from pathlib import Path
from stat import S_ISREG
from typing import Any, NoReturn

from pydantic import ValidationError

from containers.contract import (
    IN_PROCESS,
    BadInput,
    DiskFull,
    Failure,
    Inputs,
    Machine,
    OutOfMemory,
    OutputFile,
    Progress,
    Report,
    Request,
    StepError,
    StepMetrics,
    StepModule,
    canonical_json,
    check_input_names,
    file_digest,
    load_step,
    no_progress,
    write_atomic,
)
from containers.environment import EnvironmentDiffers, check_environment, lock_digest

PROGRESS_MARK = "@progress "
NO_REPORT = 3


def execute(folder: Path, progress: Progress = no_progress) -> Report:
    """Do what `folder/request.json` asks, leave `folder/report.json`, and return it.

    A failure of the step is a report too; only an unreadable request and a folder that cannot be written raise.
    """
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    (folder / "report.json").unlink(missing_ok=True)
    started = time.monotonic()
    done: dict[str, Any] = {}
    try:
        done = _compute(request, folder / "outputs", progress)
        status, error = "ok", None
    except Exception as exception:  # noqa: BLE001  every failure of a step ends in its report
        if not isinstance(exception, StepError):
            traceback.print_exc()
        status, error = "failed", _failure(exception)
    report = Report(
        status=status,
        step=request.step,
        key=request.key,
        seconds=round(time.monotonic() - started, 3),
        peak_memory_MB=_peak_memory_MB(),
        error=error,
        **done,
    ).sealed()
    write_atomic(folder / "report.json", report.model_dump_json(indent=1).encode())
    return report


def _compute(request: Request, outputs: Path, progress: Progress) -> dict[str, Any]:
    module = load_step(request.step)
    if request.version != module.VERSION:
        raise StepError(f"the request asks for {request.step} version {request.version}, this is {module.VERSION}")
    if request.lock != lock_digest(module.IMAGE):
        raise EnvironmentDiffers(
            f"the request is for another containers/{module.IMAGE}/requirements.lock than this one"
        )
    versions = check_environment(module.IMAGE, in_part=request.step in IN_PROCESS)
    params = _params(module, request)
    inputs = _checked_inputs(request)
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir()
    work = module.stub if request.stub else module.run
    metrics = work(inputs, outputs, params, Machine(request.resources, progress))
    _checked_inputs(request)  # again: what was read must be what the key says
    _check_metrics(getattr(module, "Metrics", StepMetrics), metrics, request.step)
    return {"outputs": collect_outputs(module, outputs), "metrics": metrics, "versions": versions}


def _check_metrics(declared: type[StepMetrics], metrics: dict[str, Any], step: str) -> None:
    """A metric that JSON cannot hold would otherwise break the report itself, one that is missing whoever reads it."""
    try:
        declared.model_validate(metrics)
    except ValidationError as error:
        raise StepError(f"metrics of {step} are not those that it declares: {error}") from None
    try:
        canonical_json(metrics)
    except (TypeError, ValueError) as error:
        raise StepError(f"metrics of {step} must be finite and plain JSON: {error}") from error


def _params(module: StepModule, request: Request) -> Any:
    try:
        return module.Params.model_validate(request.params)
    except ValidationError as error:
        raise BadInput(f"parameters of {request.step}: {error}") from None


def _checked_inputs(request: Request) -> Inputs:
    check_input_names(request.step, [*request.inputs, *request.sources])
    for name, files in request.inputs.items():
        for file in files:
            if not file.path.is_file():
                raise BadInput(f"input {name} of {request.step} does not exist: {file.path}")
            if file_digest(file.path) != file.sha256:
                raise BadInput(f"input {name} of {request.step} changed since it was digested: {file.path}. Run again.")
    given = {name: tuple(file.path for file in files) for name, files in request.inputs.items()}
    return Inputs({**request.sources, **given})


def collect_outputs(module: StepModule, outputs: Path) -> dict[str, OutputFile]:
    """Digests of the declared outputs; raises when one is missing, undeclared or not a plain file."""
    check_outputs(module, outputs)
    paths = {name: outputs / file for name, file in module.OUTPUTS.items()}
    return {
        name: OutputFile(name=path.name, sha256=file_digest(path), size=path.stat().st_size)
        for name, path in paths.items()
    }


def check_outputs(module: StepModule, outputs: Path) -> None:
    """Raise `StepError` unless `outputs` holds the declared files and nothing else, all plain files."""
    written = {path.name for path in outputs.iterdir()}
    declared = set(module.OUTPUTS.values())
    if written != declared:
        missing, extra = sorted(declared - written), sorted(written - declared)
        raise StepError(f"outputs differ from what the step declares: missing {missing}, not declared {extra}")
    if odd := [name for name in sorted(written) if not S_ISREG((outputs / name).lstat().st_mode)]:
        raise StepError(f"outputs must be plain files, not links or folders: {odd}")


def _failure(exception: Exception) -> Failure:
    if isinstance(exception, MemoryError):
        exception = OutOfMemory(str(exception) or "Python ran out of memory")
    if isinstance(exception, OSError) and exception.errno == ENOSPC:
        exception = DiskFull(f"no space left for {exception.filename or 'the outputs'}. Free some, then run again.")
    message = str(exception) if isinstance(exception, StepError) else f"{type(exception).__name__}: {exception}"
    return Failure(kind=type(exception).__name__, message=message)


def _peak_memory_MB() -> float:
    kib = max(_own_peak_KiB(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return round(kib / 1024, 1)


def _own_peak_KiB() -> int:
    """From Linux's VmHWM: `ru_maxrss` of a started process begins at the size of the one that started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def print_progress(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
    """Progress as a marked line on standard output, which the runner turns into a bar."""
    message = json.dumps([done, total, text, *([dict(figures)] if figures else [])])
    sys.stdout.write(f"{PROGRESS_MARK}{message}\n")  # in one piece: children share the pipe
    sys.stdout.flush()


def _usage() -> int:
    print("usage: python -m containers.step FOLDER   (a folder with a request.json)", file=sys.stderr)
    return 2


def main(arguments: list[str]) -> int:
    """Run the step of the folder named on the command line."""
    if len(arguments) != 1:
        return _usage()
    try:
        report = execute(Path(arguments[0]).absolute(), print_progress)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # Podman makes a folder of a missing file
        return _usage()
    except OSError as error:
        who = f"user {os.getuid()}, group {os.getgid()}"
        print(f"{arguments[0]}: {error.strerror}: no request read or no report written (as {who})", file=sys.stderr)
        return NO_REPORT
    if report.error is None:
        return 0
    print(f"{report.error.kind}: {report.error.message}", file=sys.stderr)
    return 2 if report.error.kind == BadInput.__name__ else 1


def _leave(code: int) -> NoReturn:
    """End at once: to take torch or TensorFlow apart in order takes a second or two, and nothing is left to do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
