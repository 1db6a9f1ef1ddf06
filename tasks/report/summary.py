"""Values that a finished run hands to its report, and the files of the store that go into its folder."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from containers.contract import Closed
from containers.properties.compare import PropertyLimits
from containers.properties.results import Properties
from containers.tensorpot.student import calculator
from containers.tensorpot.student.baseline import Baseline
from tasks.artefact import Artefact
from tasks.report.exploration import Exploration


def _numbers_only(figures: Any) -> Any:
    """A fit that diverged leaves NaN; JSON and tables take None for "no number"."""
    if not isinstance(figures, dict):
        return figures
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in figures.items()
    }


Figures = Annotated[dict[str, float | None], BeforeValidator(_numbers_only)]
"""Numbers by name, the unit in the name; None where there is no (finite) number."""


class Size(Closed):
    """A student: what it was made with, and its errors."""

    structures: int = Field(ge=0, description="selected training structures")
    functions: int = Field(ge=1, description="basis functions per element, as requested")
    validation: Figures = Field({}, description="force_mae_meV_per_A, energy_mae_meV_per_atom")
    test: Figures = {}
    properties: Figures = Field({}, description="largest deviation of a group, in units of its limit")


class Round(Closed):
    """One time that training set or basis was extended."""

    number: int = Field(ge=1)
    kind: Literal["structures", "functions", "properties"]
    reason: str = Field(description="why this kind")
    before: Size = Field(description="the best student until then, which the round started from")
    after: Size | None = Field(description="None: the round failed")
    added_by: dict[str, int] = Field({}, description="why structures were added -> how many")
    helped: bool = Field(description="lowered the validation error, or what properties miss, by extend.min_gain")
    chosen: bool = Field(False, description="its student is the one that is published")
    failure: str = Field("", description="why it failed")


class Extensions(Closed):
    """All rounds, and why there was no other."""

    rounds: tuple[Round, ...] = ()
    why: str = Field(description="unsound, reached, unfinished, rounds, no_gain, nothing_left")
    stopped_because: str

    def sentence(self) -> str:
        """How many rounds there were, how many helped, and why there was no other."""
        if not self.rounds:
            return f"Nothing was extended: {self.stopped_because}."
        count = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        helped = sum(one.helped for one in self.rounds)
        return f"{count} of extension; {helped} helped. No further round: {self.stopped_because}."


CALCULATOR = Path(calculator.__file__)
"""The student's ASE calculator, a module that needs nothing of ours."""


PUBLISHED = {
    "potential.yaml": ("pace_corerep", "potential"),
    "potential.yace": ("pace_corerep", "yace"),
    "potential.asi": ("pace_activeset", "asi"),
    "baseline.json": ("baseline", "baseline"),
    "reference.table": ("pace_corerep", "reference_table"),
    "dataset.parquet": ("dataset", "dataset"),
    "dataset.json": ("dataset", "summary"),
    "selection.parquet": ("pace_select", "selection"),
    "frames.json": ("frames", "summary"),
    "frames.extxyz": ("frames", "extxyz"),
    "structure.data": ("frames", "structure"),
    "labels.extxyz": ("pool_labels", "extxyz"),
    "labels.cfg": ("pool_labels", "cfg"),
    "rejected.parquet": ("pool_labels", "rejected"),
    "set_aside.parquet": ("frames", "set_aside"),
}
"""Name in the run folder -> step and output that are copied there."""
PROPERTIES = {
    "properties_teacher.json": ("teacher_properties", "properties"),
    "properties_student.json": ("student_properties", "student_properties"),
    "properties_deviations.json": ("student_properties", "deviations"),
}
"""The same, where crystals were compared."""
READ = {
    "evaluation": ("evaluate", "evaluation"),
    "parity": ("evaluate", "parity"),
    "core_repulsion": ("pace_corerep", "core_repulsion"),
    "explored": ("choose_frames", "structures"),
}
"""Name -> step and output that the report reads and does not publish."""


class AttemptSummary(Closed):
    """One fit."""

    name: str
    stage: int = Field(1, ge=1, description="of the fit, from 1: a stage has a loss of its own")
    plan: dict[str, Any] = Field(description="maxiter, batch_size, start, reason, ...")
    verdict: str
    stop_criterion: str | None = Field(None, description="which criterion ended it, in words")
    iterations: int | None = Field(None, description="None when it failed before it began")
    resumed_at: int = Field(0, ge=0, description="iteration at which a run that was interrupted was taken up; 0: none")
    best_iteration: int | None = Field(None, description="whose potential was kept, by its validation error")
    seconds: float = Field(ge=0)
    train: Figures = Field({}, description="of the best potential: energy_rmse_meV_per_atom, force_mae_meV_per_A, ...")
    validation: Figures = Field({}, description="of the best potential")
    last_validation: Figures = Field({}, description="of the last potential")
    history: Path | None = Field(None, description="history.parquet of the fit, if it left one")
    message: str = Field("", description="why it failed, in one sentence")


class LabelCounts(Closed):
    """The pool's structures by what the labelling did with them."""

    computed: int = Field(ge=0, description="answers of the teachers that this run computed; reasons are answers too")
    reused: int = Field(ge=0, description="answers that were in the label stores")
    rejected: int = Field(ge=0, description="structures without a label to learn from")
    rejected_by: dict[str, int] = Field(
        {},
        description="kind of reason -> structures (pool_labels.REJECTIONS); one structure may have several",
    )


class Labelling(Closed):
    """Speed and time of the labelling in this run; zeros and None when every label was there."""

    computed: int = Field(0, ge=0, description="answers computed, over all teachers")
    structures_per_s: float | None = Field(None, description="of the labelling itself, all processes together")
    atoms_per_s: float | None = None
    seconds_start: float = Field(0.0, ge=0, description="imports, model, parity probe, calibration")
    seconds_neighbours: float = Field(0.0, ge=0, description="neighbour lists, wall-clock share of the processes")
    seconds_model: float = Field(0.0, ge=0, description="the model itself, wall-clock share of the processes")
    seconds_io: float = Field(0.0, ge=0, description="reading and writing the shards")
    seconds_flow: float = Field(0.0, ge=0, description="the rest: what is missing, shards, label stores, Prefect")


class SelectionCounts(Closed):
    """Structures before and after the selection."""

    pool: int = Field(ge=0, description="labelled structures")
    candidates: int = Field(ge=0, description="those of them on the training side that pacemaker can take")
    set_aside: int = Field(ge=0, description="structures that pacemaker cannot take, or that must not be trained on")
    selected: int = Field(ge=0)
    how: dict[str, int] = Field({}, description="selected structures by the reason they were taken")
    grades: dict[str, Any] = Field(
        {}, description="extrapolation grades of `pool` and `test` structures `before` and `after` (see pace_select)"
    )
    scarce_elements: tuple[str, ...] = Field((), description="too few environments for MaxVol")


class FitFiles(Closed):
    """One fit of those that led to the published potential: what pacemaker needs to repeat it."""

    folder: str = Field(description="its name in the run folder's `fit`")
    attempt: str = Field(description="name of the attempt")
    start: str = Field("", description="where start.yaml comes from; empty: the fit begins without a potential")
    bootstrap: int | None = Field(None, description="seed by which its training rows were drawn from the frame")
    input_yaml: Path
    train: Path = Field(description="pacemaker's training frame, before rows are drawn")
    validation: Path
    start_yaml: Path | None = None


class RunSummary(Closed):
    """One finished distillation."""

    name: str = Field(pattern=r"^[^./\\][^/\\\n\r]*$", description="of the run and of its folder")
    config: dict[str, Any] = Field(description="resolved, as it was used")
    versions: dict[str, str] = Field(description="packages really used")
    inputs: dict[str, str] = Field(description="the user's files -> sha256")
    seeds: dict[str, int] = {}
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")
    elements: tuple[str, ...] = Field(min_length=1, description="chemical symbols, in the potential's order")
    teacher: dict[str, Any] = Field(description="teacher.json, and the chosen head")
    baseline: Baseline = Field(description="what the student's own energies leave out")
    steps: dict[str, Artefact] = Field(description="by the name of the task run")
    labels: LabelCounts
    labelling: Labelling = Labelling()
    selection: SelectionCounts
    attempts: tuple[AttemptSummary, ...] = Field(min_length=1)
    chosen: int = Field(ge=0, description="index of the attempt whose potential is published, from 0")
    extensions: Extensions | None = Field(None, description="what was tried when the first fit was not good enough")
    exploration: Exploration | None = Field(None, description="rounds of molecular dynamics before the fit")
    thresholds: dict[str, float] = Field(description="largest errors that count as converged, units in the keys")
    property_limits: PropertyLimits = PropertyLimits()
    converged: bool
    not_converged_because: str | None = None
    fits: tuple[FitFiles, ...] = Field(min_length=1, description="those that led to the potential, in order")
    files: dict[str, Path] = Field(description="name of PUBLISHED or READ -> file of the store")

    def metrics(self, step: str) -> dict[str, Any]:
        """Metrics of a step; empty when it did not run."""
        return self.steps[step].metrics if step in self.steps else {}

    @cached_property
    def fidelity(self) -> dict[str, dict[str, Any] | None]:
        """Errors against `teacher` and `dft`, see the step evaluate; None without DFT test data."""
        read: dict[str, dict[str, Any] | None] = json.loads(self.files["evaluation"].read_bytes())
        return {"teacher": read["teacher"], "dft": read.get("dft")}

    @cached_property
    def properties(self) -> tuple[Properties, Properties] | None:
        """What teacher and student give for the crystals; None where none was compared."""
        paths = [self.files.get(name) for name in list(PROPERTIES)[:2]]
        teacher, student = (Properties.read(path) if path else None for path in paths)
        return (teacher, student) if teacher and student else None

    @cached_property
    def repulsion(self) -> dict[str, dict[str, Any]]:
        """core_repulsion.json: pair -> r_in_A, shortest_distance_A, distance_A, energy_eV, zbl_eV; may be empty."""
        pairs: dict[str, dict[str, Any]] = json.loads(self.files["core_repulsion"].read_bytes())["pairs"]
        return pairs
