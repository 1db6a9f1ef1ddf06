"""What travels between tasks: names and digests of stored files, never the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from containers.contract import Closed, OutputFile, Report, Resources, StepMetrics, check_input_names, file_digest
from tasks.errors import UserError

M = TypeVar("M", bound=StepMetrics)


class External(Closed):
    """A file of the user's."""

    path: Path
    sha256: str


class Stored(Closed):
    """One output of a step, in the store under step and key."""

    step: str
    key: str
    name: str = Field(description="file name in outputs/")
    sha256: str


FileRef = External | Stored


class Artefact(Closed):
    """The result of a step."""

    step: str
    key: str
    outputs: dict[str, OutputFile]
    metrics: dict[str, Any]
    versions: dict[str, str]
    seconds: float = Field(description="the step's own seconds when it was computed")
    peak_memory_MB: float
    cached: bool = Field(description="found in the store, not computed by this run")

    @classmethod
    def of(cls, report: Report, cached: bool) -> Artefact:
        """The artefact that a successful report describes."""
        fields = report.model_dump(
            include={"step", "key", "outputs", "metrics", "versions", "seconds", "peak_memory_MB"}
        )
        return cls(**fields, cached=cached)

    def read(self, kind: type[M]) -> M:
        """The metrics as the step's module declares them, its `Metrics`."""
        return kind.of(self.metrics)

    def file(self, name: str) -> Stored:
        """A reference to the output declared as `name`."""
        output = self.outputs[name]
        return Stored(step=self.step, key=self.key, name=output.name, sha256=output.sha256)


class StepCall(Closed):
    """A step with everything it needs: what a flow asks for and a task does."""

    step: str
    params: dict[str, Any]
    inputs: dict[str, tuple[FileRef, ...]] = {}
    resources: Resources = Resources()
    sources: dict[str, tuple[Path, ...]] = {}


def call(
    step: str,
    params: Closed | None = None,
    resources: Resources | None = None,
    **inputs: Artefact | FileRef | Sequence[FileRef] | None,
) -> StepCall:
    """Return the call of a step.

    An artefact stands for its output of the input's name. An input of None or of no files is left out.

    Args:
        params: of the step's `Params`; None where there is nothing to choose.

    Raises:
        StepError: the step has no input of a name, or needs one that is not given.
    """
    files: dict[str, tuple[FileRef, ...]] = {}
    for name, given in inputs.items():
        given = given.file(name) if isinstance(given, Artefact) else given
        if found := (given,) if isinstance(given, FileRef) else tuple(given or ()):
            files[name] = found
    check_input_names(step, files)
    dumped = params.model_dump(mode="json") if params else {}
    return StepCall(step=step, params=dumped, inputs=files, resources=resources or Resources())


def external(path: Path) -> External:
    """The user's file with its digest; `UserError` when it cannot be read."""
    try:
        return External(path=path.absolute(), sha256=file_digest(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL or half a surrogate in the name
        reason = error.strerror if isinstance(error, OSError) else error
        variable = " Variables such as $HOME are not expanded, ~ is." if "$" in str(path) else ""
        raise UserError(
            f"cannot read {str(path)!r}: {reason}. Give the path of an existing, readable file.{variable}"
        ) from None
