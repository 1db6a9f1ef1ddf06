"""What a step is: the folder it runs in, the request it reads, the report it leaves.

A run of a step is one folder::

    request.json   step, version, params, inputs (name -> path and sha256), lock digest
    outputs/       the files that the step module declares in OUTPUTS, nothing else
    log.txt        what the step printed (written by whoever started it)
    report.json    written last: status, digests, metrics, versions, seconds, error

A step module has `Params`, `Metrics`, `IMAGE`, `INPUTS`, `OUTPUTS`, `VERSION`, `run` and `stub`; see `StepModule`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict, Field

STEPS: dict[str, str] = {
    "ingest": "containers.ingest.ingest",
    "teacher_info": "containers.mace.teacher.teacher_info",
    "teacher_fetch": "containers.mace.teacher.teacher_fetch",
    "mace_label": "containers.mace.labelling.mace_label",
    "teacher_properties": "containers.mace.properties.teacher_properties",
    "teacher_motion": "containers.mace.properties.teacher_motion",
    "property_structures": "containers.mace.properties.property_structures",
    "pool_labels": "containers.labels.pool_labels",
    "composition_seeds": "containers.mace.exploration.composition_seeds",
    "seed_pool": "containers.tensorpot.exploration.seed_pool",
    "baseline": "containers.tensorpot.baseline.baseline",
    "dataset": "containers.tensorpot.dataset.dataset",
    "pace_select": "containers.tensorpot.selection.pace_select",
    "strain": "containers.tensorpot.frames.strain",
    "frames": "containers.tensorpot.frames.frames",
    "pace_train": "containers.tensorpot.fit.pace_train",
    "pace_activeset": "containers.tensorpot.active_set.pace_activeset",
    "pace_corerep": "containers.tensorpot.core.pace_corerep",
    "evaluate": "containers.tensorpot.evaluation.evaluate",
    "stability": "containers.tensorpot.evaluation.stability",
    "trajectory": "containers.tensorpot.evaluation.trajectory",
    "trajectory_errors": "containers.tensorpot.evaluation.trajectory_errors",
    "student_properties": "containers.tensorpot.evaluation.student_properties",
    "weak_spots": "containers.tensorpot.selection.weak_spots",
    "committee": "containers.tensorpot.evaluation.committee",
    "explore": "containers.tensorpot.exploration.explore",
    "choose_frames": "containers.tensorpot.exploration.choose_frames",
    "frame_errors": "containers.tensorpot.exploration.frame_errors",
}
"""Every step by name. A new step is a module and a line here."""

NETWORK = frozenset({"teacher_fetch"})
"""The steps whose container has a network. None of them may open what it fetched: a pickle runs its code."""

IN_PROCESS = frozenset({"pool_labels"})
"""The steps that run in the flow's own process, whatever the runner: they open only Arrow files that we wrote."""

RESUMES = frozenset({"pace_train"})
"""The steps of which a run is given the `work` of an interrupted one of the same request, as `left`."""

Image = Literal["mace", "tensorpot"]
Device = Literal["cpu", "cuda"]
Acceleration = Literal["none", "cuequivariance", "compile"]


class Closed(BaseModel):
    """Base of everything that crosses a process border: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StepError(Exception):
    """A step could not do its work; the message says what failed and how to fix it."""


class BadInput(StepError):
    """The user's data or settings are wrong; the message names the file and the row or key."""


class OutOfMemory(StepError):
    """The step, or the program it runs, was refused memory."""


class DiskFull(StepError):
    """There is no space left for what the step writes."""


class ProgramMissing(StepError):
    """A program that the step needs is not installed in its environment."""


class InputFile(Closed):
    """One file that a step reads."""

    path: Path = Field(description="absolute path as the step sees it")
    sha256: str = Field(description="digest of the content, checked by the step before it reads")


class Resources(Closed):
    """What a step may use. Never part of the cache key: a machine does not change the science."""

    threads: int = Field(1, ge=1, description="CPU threads of the numerical libraries, or processes of one thread")
    device: Device = Field("cpu", description="where torch and TensorFlow compute")
    edges_per_batch: int | None = Field(
        None, ge=1, description="neighbour pairs that the teacher sees at once; None: the labelling step finds out"
    )
    acceleration: Acceleration = Field("none", description="other kernels for the teacher, admitted by a parity probe")
    memory_bytes: int | None = Field(
        None, ge=1, description="bytes of all processes together; None: half of what the container or host has"
    )
    inter_op_threads: int | None = Field(None, ge=1, description="TensorFlow's operations at a time; None: threads")
    time_limit_s: float | None = Field(
        None, gt=0, description="seconds after which the step is ended from outside; one that can end in order before"
    )


class Request(Closed):
    """The work of a step; `key` names its result."""

    step: str
    version: int
    lock: str = Field(description="sha256 of the image's environment lock")
    params: dict[str, Any]
    inputs: dict[str, tuple[InputFile, ...]]
    stub: bool = Field(False, description="write the declared stub instead of computing")
    resources: Resources = Resources()
    sources: dict[str, tuple[Path, ...]] = Field(
        {}, description="files of ours that hold what the parameters name by content; never part of the key"
    )

    @property
    def key(self) -> str:
        """sha256 over everything that decides the outputs, as hex. Paths, resources and sources are left out."""
        inputs = {name: [file.sha256 for file in files] for name, files in self.inputs.items()}
        decides = [self.step, self.version, self.lock, self.params, inputs, self.stub]
        return hashlib.sha256(canonical_json(decides)).hexdigest()


class StepMetrics(BaseModel):
    """Base of a step's `Metrics`: figures that flows and tasks read, the unit in the name.

    A step may report others too, which only people read. A default is what an older result lacks.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def of(cls, reported: Mapping[str, Any]) -> Self:
        """The metrics of a report. They were checked when the step ended; one that an older result lacks and that has
        no default is an `AttributeError` for whoever reads it."""
        return cast(Self, cls.model_construct(**reported))


class OutputFile(Closed):
    """One file that a step wrote, relative to `outputs/`."""

    name: str
    sha256: str
    size: int = Field(description="bytes")


class Failure(Closed):
    """Why a step failed: the exception's class name and its message."""

    kind: str
    message: str


class Report(Closed):
    """What a step did. `seal` guards the report itself against damage."""

    status: Literal["ok", "failed"]
    step: str
    key: str
    outputs: dict[str, OutputFile] = {}
    metrics: dict[str, Any] = Field({}, description="figures with the unit in the key")
    versions: dict[str, str] = Field({}, description="packages really imported from, by metadata")
    seconds: float
    peak_memory_MB: float = Field(description="largest resident size of the step or a child of it")
    error: Failure | None = None
    seal: str = ""

    def sealed(self) -> Report:
        """The same report with its seal set."""
        return self.model_copy(update={"seal": self._digest()})

    @property
    def intact(self) -> bool:
        """Whether the content still is what was sealed."""
        return self.seal == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"seal"}))).hexdigest()


@dataclass(frozen=True)
class Inputs:
    """The input files of a run by the names in the module's INPUTS."""

    files: Mapping[str, tuple[Path, ...]]

    def all(self, name: str) -> tuple[Path, ...]:
        """Every file given under `name`; empty when there is none."""
        return self.files.get(name, ())

    def one(self, name: str) -> Path:
        """The only file under `name`; `StepError` when there is none or more than one."""
        if len(files := self.all(name)) != 1:
            raise StepError(f"the step needs one file as its input {name!r}, it was given {len(files)}")
        return files[0]


class Progress(Protocol):
    """How a step tells how far it is: `progress(done, total, text)`, with figures by name where it has some."""

    def __call__(
        self, done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None
    ) -> None: ...


def no_progress(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
    """The progress of a step that nobody watches."""


@dataclass(frozen=True)
class Machine:
    """What a step may use and whom it tells."""

    resources: Resources = Resources()
    progress: Progress = no_progress


class Optional(str):
    """Description of an input that a call may leave out, in the module's INPUTS."""


class StepModule(Protocol):
    """The shape of a step module. Its top level imports only light packages; `run` imports the heavy ones."""

    IMAGE: Image
    VERSION: int  # raised when results would change
    INPUTS: dict[str, str]  # name -> description, `Optional` where a call may leave it out
    OUTPUTS: dict[str, str]  # name -> file name in outputs/
    Params: type[Closed]
    Metrics: type[StepMetrics]  # may be left out where only people read them

    def run(self, inputs: Inputs, outputs: Path, params: Any, machine: Machine) -> dict[str, Any]: ...

    def stub(self, inputs: Inputs, outputs: Path, params: Any, machine: Machine) -> dict[str, Any]: ...


def load_step(name: str) -> StepModule:
    """The module of the step called `name`."""
    if name not in STEPS:
        raise StepError(f"no step is called {name!r}; the steps are {', '.join(STEPS)}")
    module: ModuleType = importlib.import_module(STEPS[name])
    return cast(StepModule, module)


def check_input_names(step: str, given: Iterable[str]) -> None:
    """Raise `StepError` unless the step declares every given input, and every one that it needs is given."""
    declared, names = load_step(step).INPUTS, set(given)
    if unknown := sorted(names - set(declared)):
        raise StepError(f"{step} has no input called {', '.join(unknown)}")
    needed = [name for name, description in declared.items() if not isinstance(description, Optional)]
    if missing := [name for name in needed if name not in names]:
        raise StepError(f"{step} needs an input called {', '.join(missing)}")


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_digest(path: Path) -> str:
    """sha256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either absent, old or complete, also after a power cut."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
