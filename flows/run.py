"""One run: its step calls as Prefect task runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tasks.artefact import Artefact, StepCall
from tasks.prefect_tasks import step
from tasks.workspace import Workspace


class RunCall(Protocol):
    """What runs a call under a name."""

    def __call__(self, call: StepCall, name: str | None = None) -> Artefact: ...


@dataclass
class Runner:
    """Runs calls as Prefect task runs, and keeps what they gave by name.

    Attributes:
        of: ends the names of the task runs, where one flow run takes the same steps several times.
    """

    workspace: Workspace
    of: str = ""
    done: dict[str, Artefact] = field(default_factory=dict)

    def __call__(self, call: StepCall, name: str | None = None) -> Artefact:
        """The result of a call."""
        name = name or call.step
        self.done[name] = step(call, self.workspace, f"{name} {self.of}".rstrip())
        return self.done[name]
