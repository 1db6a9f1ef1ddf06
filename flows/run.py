"""One run: its step calls as task runs, its results, and the totals of its labelling.

A dry run is the same with another `step`, which looks results up. Where there is none it gives an `Unmade`: a call that
reads its files cannot be looked up, and reading its figures ends the walk with `Missing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from containers.contract import OutputFile, load_step
from tasks.artefact import Artefact, External, FileRef, StepCall
from tasks.labelling.statistics import LabellingTotals
from tasks.prefect_tasks import step
from tasks.workspace import Workspace

RunStep = Callable[[StepCall, Workspace, str], Artefact]


class Missing(Exception):
    """A dry run lacks the result that the next call depends on; the message says which, if there is one."""


class Unmade(Artefact):
    """The result of a step that a dry run does not find: it has outputs without content, and nothing else."""

    @classmethod
    def by(cls, step: str) -> Unmade:
        """Return the result that the step would give."""
        names = load_step(step).OUTPUTS.items()
        outputs = {key: OutputFile(name=name, sha256="", size=0) for key, name in names}
        return cls.model_construct(step=step, key="", outputs=outputs)  # type: ignore[call-arg]  # what Missing is for

    def __getattr__(self, name: str) -> Any:
        if name in Artefact.model_fields:
            raise Missing
        return super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it from mypy


def is_made(file: FileRef) -> bool:
    """Return False for an output of an `Unmade`."""
    return isinstance(file, External) or file.key != ""


@dataclass
class Run:
    """Runs calls and collects their results. `dataclasses.replace(run, of=...)` collects in the same place.

    Attributes:
        of: ends the names of the task runs, where one flow run takes the same steps several times.
        step: runs a call as a task run of a name.
        approved: the user approves any number of labels in advance.
        note: takes a name and a dry run's line about it; None in a real run.
        done: results by the names of their task runs, for the report's table of steps.
        labels: the tables of labels, the pool's first.
        work: time and counts of the labelling, that of DFT and strained structures included.
    """

    workspace: Workspace
    of: str = ""
    step: RunStep = step
    approved: bool = False
    note: Callable[[str, str], None] | None = None
    done: dict[str, Artefact] = field(default_factory=dict)
    labels: list[Artefact] = field(default_factory=list)
    work: LabellingTotals = field(default_factory=LabellingTotals)

    def within(self, name: str) -> Run:
        """Return the run whose task runs have names that end with `name` too; it collects in the same place."""
        return replace(self, of=f"{self.of} {name}".lstrip())

    def __call__(self, call: StepCall, name: str | None = None) -> Artefact:
        """Return the result of a call; the task run is called `name`, or as its step, and ends with `of`."""
        return self.named(call, f"{name or call.step} {self.of}".rstrip())

    def named(self, call: StepCall, name: str) -> Artefact:
        """Return the result of a call whose task run has exactly this name."""
        self.done[name] = self.step(call, self.workspace, name)
        return self.done[name]
