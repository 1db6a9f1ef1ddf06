"""Run the step of a kept folder again, alone, by the runner that DISTILL_RUNNER names: `python -m tasks.repeat FOLDER`.

It runs in a new folder beside FOLDER, which stays as it is: a later run may go on from what it left. Nothing is
published; the last line says where report.json, outputs/ and log.txt are.
Exit codes: 0 the step ends well, 1 it fails again, 2 it cannot be started.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from containers.contract import Report, Request, load_step
from tasks.errors import UserError, printable
from tasks.progress.step_bar import shown_progress
from tasks.run_step import run_in
from tasks.runners.base import CannotStart, Ended
from tasks.runners.readiness import ready
from tasks.settings import Settings, read_settings
from tasks.store.results import read_report
from tasks.workspace import Workspace


def repeat(kept: Path, settings: Settings) -> tuple[Ended, Report | None, Path]:
    """Run the request of `kept` again; return how it ended, its report and its folder.

    Raises `UserError` when it cannot be started.
    """
    try:
        text = (kept / "request.json").read_bytes()
        request = Request.model_validate_json(text)
        folder = Path(tempfile.mkdtemp(prefix=f"repeat-{kept.name}-", dir=kept.parent))
    except (OSError, ValidationError) as error:
        raise UserError(f"{kept} has no readable request.json, or cannot be repeated beside it: {error}") from None
    (folder / "request.json").write_bytes(text)
    (folder / "outputs").mkdir()
    image = load_step(request.step).IMAGE
    try:
        with (
            ready(Workspace(root=folder, settings=settings)) as machine,
            shown_progress(request.step, print) as progress,
        ):
            ended = run_in(folder, image, request, machine, progress)
    except (CannotStart, TimeoutError) as error:
        raise UserError(f"{request.step}: {error} (in {folder})") from None
    return ended, read_report(folder), folder


def main(arguments: list[str]) -> int:
    """Run the step of the folder named on the command line."""
    if len(arguments) != 1:
        print(f"usage: DISTILL_RUNNER=docker python -m tasks.repeat FOLDER\n\n{__doc__}", file=sys.stderr)
        return UserError.exit_code
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave in order: no container stays
    try:
        ended, report, folder = repeat(Path(arguments[0]).absolute(), read_settings())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    said = "no report" if report is None else f"{report.error.kind}: {report.error.message}" if report.error else "ok"
    print(printable(f"{ended.words}; {said}; see {folder / 'log.txt'}"))
    return 0 if said == "ok" and ended.exit_code == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
