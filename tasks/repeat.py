"""Run the step of a kept folder again, alone, by the runner that DISTILL_RUNNER names: `python -m tasks.repeat FOLDER`.

Nothing is published; its report.json, outputs/ and log.txt are written anew, where they can be looked at.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from containers.contract import Request, load_step
from tasks.errors import UserError
from tasks.progress import shown_progress
from tasks.run import runner_of
from tasks.runners import CannotStart
from tasks.settings import Settings
from tasks.store import read_report
from tasks.workspace import Workspace


def repeat(folder: Path, settings: Settings) -> str:
    """Run what `folder/request.json` asks; how it went. Raises `UserError` when it cannot be started."""
    try:
        request = Request.model_validate_json((folder / "request.json").read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{folder} has no readable request.json: {error}") from None
    workspace = Workspace(root=folder, settings=settings)
    try:
        with shown_progress(request.step, print) as progress:
            ended = runner_of(workspace).run(folder, load_step(request.step).IMAGE, request, progress)
    except (CannotStart, TimeoutError) as error:
        raise UserError(f"{request.step}: {error}") from None
    report = read_report(folder)
    said = "no report" if report is None else f"{report.error.kind}: {report.error.message}" if report.error else "ok"
    return f"{request.step}: {ended.words}; {said}; see {folder / 'log.txt'}"


def main(arguments: list[str]) -> int:
    """Run the step of the folder named on the command line."""
    if len(arguments) != 1:
        print(f"usage: DISTILL_RUNNER=docker python -m tasks.repeat FOLDER\n\n{__doc__}", file=sys.stderr)
        return UserError.exit_code
    try:
        print(repeat(Path(arguments[0]).absolute(), Settings()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
