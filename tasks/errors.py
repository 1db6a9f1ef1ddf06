"""Errors at the edge, and the exit code of each.

::

    DistillError            1
    ├── UserError           2   config or input; the message names the place and the correction
    ├── StepEnded           1   a step left no result; its folder is kept
    │   ├── StepFailed          it failed: something else may be tried
    │   └── StepCancelled       somebody ended it: nothing else is tried, so nobody catches it
    └── StoreError          1   the work root cannot hold the results
"""

from __future__ import annotations

from pathlib import Path


def printable(text: str) -> str:
    """Text from a step without what would command a terminal."""
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)


class DistillError(Exception):
    """Base of all errors that are shown without a traceback."""

    exit_code = 1


class UserError(DistillError):
    """The user's config or input is wrong."""

    exit_code = 2


class StoreError(DistillError):
    """The store cannot be written or read."""


class StepEnded(DistillError):
    """A step without a result; `kind` is the class name of its error, `folder` holds everything it left."""

    def __init__(
        self, step: str, kind: str, message: str, folder: Path, log_tail: str = "", runner: str = "subprocess"
    ) -> None:
        self.step, self.kind, self.message, self.folder = step, kind, message, folder
        self.log_tail, self.runner = log_tail, runner
        if kind == "BadInput":
            self.exit_code, text = UserError.exit_code, f"{step}: {message}"
        else:
            log = f"\nlast lines of its log:\n{log_tail}" if log_tail else ""
            repeat = f"DISTILL_RUNNER={runner} python -m tasks.repeat {folder}"
            text = f"{step} failed ({kind}): {message}{log}\nkept: {folder}\nrepeat it alone: {repeat}"
        super().__init__(printable(text))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.step, self.kind, self.message, self.folder, self.log_tail, self.runner))


class StepFailed(StepEnded):
    """A step failed."""


class StepCancelled(StepEnded):
    """Somebody ended a step."""
