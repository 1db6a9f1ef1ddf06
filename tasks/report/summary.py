"""What a finished run hands to its report: plain values, and where the files of the store lie.

Numbers by name as reports take them.

The rounds of the convergence loop as plain values.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from containers.contract import Closed
from containers.tensorpot.student import calculator
from containers.tensorpot.student.baseline import Baseline


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
    functions: int = Field(ge=1, description="basis functions asked for an element")
    validation: Figures = Field({}, description="force_mae_meV_per_A, energy_mae_meV_per_atom")
    test: Figures = {}


class Round(Closed):
    """One time that training set or basis was extended."""

    number: int = Field(ge=1)
    kind: Literal["structures", "functions"]
    reason: str = Field(description="why this kind")
    before: Size = Field(description="the best student until then, which the round started from")
    after: Size | None = Field(description="None: the round failed")
    added_by: dict[str, int] = Field({}, description="why structures were added -> how many")
    helped: bool = Field(description="lowered the validation error by extend.min_gain")
    chosen: bool = Field(False, description="its student is the one that is published")
    failure: str = Field("", description="why it failed")


class Extensions(Closed):
    """All rounds, and why there was no other."""

    rounds: tuple[Round, ...] = ()
    why: str = Field(description="unsound, reached, unfinished, rounds, no_gain, nothing_left")
    stopped_because: str

    def told(self) -> str:
        """One sentence."""
        if not self.rounds:
            return f"Nothing was extended: {self.stopped_because}."
        helped = sum(one.helped for one in self.rounds)
        rounds = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        return f"{rounds} of extension, of which {helped} helped; it ended because {self.stopped_because}."


CALCULATOR = Path(calculator.__file__)
"""The student's ASE calculator, a module that needs nothing of ours."""


class StepSummary(Closed):
    """One step as it ran, now or when its artefact was made."""

    key: str = Field(description="names the artefact in the store")
    cached: bool
    seconds: float = Field(ge=0, description="of the computation, also when it was taken from the store")
    peak_memory_MB: float = Field(ge=0)
    metrics: dict[str, Any] = {}


class Attempt(Closed):
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
    """What the labelling of this run took; zeros and None when every label was there."""

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


class Thresholds(Closed):
    """What `converged` means."""

    force_mae_meV_per_A: float = Field(gt=0)
    energy_mae_meV_per_atom: float = Field(gt=0)


class StoreFiles(Closed):
    """Entries of the store that the report reads or publishes."""

    potential_yaml: Path
    potential_yace: Path
    potential_asi: Path
    baseline: Path
    reference_table: Path
    dataset: Path
    dataset_json: Path
    selection: Path
    frames_json: Path
    frames_extxyz: Path
    structure: Path
    labels_extxyz: Path
    labels_cfg: Path
    rejected: Path
    set_aside: Path
    evaluation: Path
    parity: Path
    core_repulsion: Path

    def published(self) -> dict[str, Path]:
        """Name in the run folder -> file that is copied there."""
        return {
            "potential.yaml": self.potential_yaml,
            "potential.yace": self.potential_yace,
            "potential.asi": self.potential_asi,
            "baseline.json": self.baseline,
            "reference.table": self.reference_table,
            "calculator.py": CALCULATOR,
            "dataset.parquet": self.dataset,
            "dataset.json": self.dataset_json,
            "selection.parquet": self.selection,
            "frames.json": self.frames_json,
            "frames.extxyz": self.frames_extxyz,
            "structure.data": self.structure,
            "labels.extxyz": self.labels_extxyz,
            "labels.cfg": self.labels_cfg,
            "rejected.parquet": self.rejected,
            "set_aside.parquet": self.set_aside,
        }


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
    steps: dict[str, StepSummary]
    labels: LabelCounts
    labelling: Labelling = Labelling()
    selection: SelectionCounts
    attempts: tuple[Attempt, ...] = Field(min_length=1)
    chosen: int = Field(ge=0, description="index of the attempt whose potential is published, from 0")
    extensions: Extensions | None = Field(None, description="what was tried when the first fit was not good enough")
    thresholds: Thresholds
    converged: bool
    not_converged_because: str | None = None
    fits: tuple[FitFiles, ...] = Field(min_length=1, description="those that led to the potential, in order")
    files: StoreFiles

    @property
    def lammps_neighbours(self) -> int:
        """Most neighbours that LAMMPS lists for an atom of the training set."""
        return int(self.steps["frames"].metrics["lammps_neighbours"])

    @property
    def lammps_structure(self) -> str:
        """Where the structure of `structure.data` comes from."""
        return str(self.steps["frames"].metrics["lammps_structure"])

    @property
    def energy_less_e0s(self) -> dict[str, float | None]:
        """Median energies of the training set less the E0s, eV/atom: `all`, and by element."""
        found: dict[str, float | None] = self.steps["frames"].metrics["energy_less_e0s_eV_per_atom"]
        return found

    @property
    def force_histogram(self) -> dict[str, list[float]]:
        """Edges (eV/Å) and counts of the force on each atom that was labelled; empty when it is not known."""
        pooled = self.steps.get("pool_labels")
        histogram: dict[str, list[float]] = pooled.metrics.get("force_histogram_eV_per_A", {}) if pooled else {}
        return histogram

    @property
    def unstable_because(self) -> str | None:
        """Why molecular dynamics with the student went wrong; None when it did not, or was not asked for."""
        gate = self.steps.get("stability")
        because: str | None = gate.metrics["unstable_because"] if gate else None
        return because

    @property
    def largest_force_eV_per_A(self) -> float | None:
        """The config's bound on the force on an atom."""
        bound: float | None = self.config.get("labels", {}).get("max_force_eV_per_A")
        return bound

    @cached_property
    def fidelity(self) -> dict[str, dict[str, Any] | None]:
        """evaluation.json: errors against `teacher` and `dft` (None without DFT test data)."""
        read: dict[str, dict[str, Any] | None] = json.loads(self.files.evaluation.read_bytes())
        return {"teacher": read["teacher"], "dft": read.get("dft")}

    @cached_property
    def repulsion(self) -> dict[str, dict[str, Any]]:
        """core_repulsion.json: pair -> r_in_A, shortest_distance_A, distance_A, energy_eV, zbl_eV; may be empty."""
        pairs: dict[str, dict[str, Any]] = json.loads(self.files.core_repulsion.read_bytes())["pairs"]
        return pairs
