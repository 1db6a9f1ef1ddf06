"""What can go wrong at the edge, and with which exit code it ends.

::

    DistillError            1
    ├── UserError           2   config or input; the message names the place and the mend
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
    """Base of all errors that are told without a traceback."""

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
        super().__init__(self._text())
        if kind == "BadInput":
            self.exit_code = UserError.exit_code

    def _text(self) -> str:
        if self.kind == "BadInput":
            return printable(f"{self.step}: {self.message}")
        log = f"\nlast lines of its log:\n{self.log_tail}" if self.log_tail else ""
        return printable(
            f"{self.step} failed ({self.kind}): {self.message}{log}\n"
            f"kept: {self.folder}\nrepeat it alone: DISTILL_RUNNER={self.runner} python -m tasks.repeat {self.folder}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.step, self.kind, self.message, self.folder, self.log_tail, self.runner))


class StepFailed(StepEnded):
    """A step failed."""


class StepCancelled(StepEnded):
    """Somebody ended a step."""
