"""Fit an ACE potential with pacemaker and follow it live.

pacemaker runs as a child in an empty folder `work` beside `outputs`, which stays for whoever looks. The output
`interim` is its last potential, also when it was broken off after at least one iteration: `stop_reason` then says so,
and the fit goes on from there. It has no core repulsion yet: see `pace_corerep`.

Two fits with the same thread count gave the same bytes in every output (tried with one and with two threads on one
machine). Another thread count adds up in another order: the losses of 15 iterations then agreed to 5e-14 of their
value, and a long fit amplifies that. Threads are not part of the key: either result is as good.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from containers.contract import BadInput, Closed, Inputs, Machine, OutOfMemory, StepError
from containers.structures import write_table
from containers.tensorpot.fit_following import Course, follow
from containers.tensorpot.fit_history import history_table, iterations
from containers.tensorpot.frames import read_frame
from containers.tensorpot.pace_train_stub import write_stub
from containers.tensorpot.pacemaker_input import (
    START_FILE,
    TRAIN_FILE,
    VALIDATION_FILE,
    EarlyStop,
    Fit,
    Loss,
    PacemakerInput,
    Potential,
    Start,
)
from containers.tensorpot.pacemaker_run import INPUT_FILE, check_device, find_program
from containers.tensorpot.stop_reason import StopReason, stop_reason

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none

IMAGE: Literal["tensorpot"] = "tensorpot"
VERSION = 2
INPUTS = {
    "train": "pacemaker frame of the `frames` step",
    "validation": "pacemaker frame of the `frames` step",
    "start": "optional: B-basis without core repulsion to continue from (`interim` of an earlier attempt)",
}
OUTPUTS = {
    "interim": "interim.yaml",  # B-basis without core repulsion
    "input": "input.yaml",  # what pacemaker was given
    "history": "history.parquet",  # see fit_history.HISTORY
}

ATOMS_PER_BATCH = 1500
"""pacemaker holds about 0.3 MB an atom of a batch (100 functions); batches of 3 to 60 structures are equally fast."""
LARGEST_BATCH = 100


class Diverged(StepError):
    """The loss became infinite or no number before the first iteration ended."""


class Crashed(StepError):
    """pacemaker failed and left nothing to go on from."""


class Killed(StepError):
    """Somebody ended pacemaker before it left anything to go on from."""


class NoIteration(StepError):
    """pacemaker ended without a single iteration, whatever its exit code."""


class Params(Closed):
    """What is fitted and how. A failure or a fit that has not converged is met by changing these, see flows/plan.py."""

    potential: Potential
    loss: Loss = Loss()
    maxiter: int = Field(150, ge=1, description="iterations at most (for each step of a ladder)")
    optimizer: Literal["BFGS", "L-BFGS-B"] = Field("BFGS", description="BFGS is pacemaker's default")
    ladder_step: int | None = Field(
        None, ge=1, description="grow the basis by so many functions at a time; None: at once"
    )
    early_stop: EarlyStop | None = Field(None, description="None: only iterations and the optimizer end the fit")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="structures at a time; auto: about 1,500 atoms"
    )
    display_step: int = Field(10, ge=1, description="iterations between two looks at the validation frame")
    seed: int = Field(42, ge=0, description="seed of numpy in pacemaker")
    core: bool = Field(
        True, description="ask pacemaker for a ZBL core (fit.repulsion: auto), which only its own output gets"
    )


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Fit; the metrics say why the fit ended and what its errors are.

    Raises `BadInput`, `ProgramMissing`, `RowsDiffer`, `OutOfMemory`, `Diverged`, `Crashed`, `Killed`, `NoIteration`,
    and `StepError` when a GPU is asked for and there is none.
    """
    program = find_program()
    check_device(machine.resources)
    return train(inputs, outputs, params, machine, program)


def train(inputs: Inputs, outputs: Path, params: Params, machine: Machine, program: Path) -> dict[str, Any]:
    """`run` with the program given."""
    frames = {side: read_frame(inputs.one(side)) for side in ("train", "validation")}
    start = kind_of_start(params.potential, inputs.one("start") if inputs.all("start") else None)
    asked = pacemaker_input(params, len(frames["train"]), _atoms(frames["train"]), start)
    work = _working_folder(outputs.parent / "work", inputs, asked)
    course = follow(program, work, {side: len(frame) for side, frame in frames.items()}, params.maxiter, machine)
    reason = stop_reason(course.ending)
    interim = _fitted(course, reason, frames["train"])
    metrics = _keep(interim, outputs / OUTPUTS["interim"], frames)
    (outputs / OUTPUTS["input"]).write_text(asked.text())
    write_table(outputs / OUTPUTS["history"], history_table(list(course.ending.rows), course.validation))
    return {**_figures(course, reason, params, frames["train"], asked.batch_size), **metrics}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Small valid outputs of the right form; nothing is fitted."""
    return write_stub(outputs, OUTPUTS, params, pacemaker_input(params, 1, 1, "fresh").text())


def auto_batch_size(structures: int, atoms: int) -> int:
    """Structures in a batch of about ATOMS_PER_BATCH atoms, at least 1 and at most LARGEST_BATCH."""
    return max(1, min(LARGEST_BATCH, structures, ATOMS_PER_BATCH * structures // max(atoms, 1)))


def pacemaker_input(params: Params, structures: int, atoms: int, start: Start) -> PacemakerInput:
    """What pacemaker is asked to do for a training frame of so many structures and atoms."""
    batch = auto_batch_size(structures, atoms) if params.batch_size == "auto" else params.batch_size
    return PacemakerInput(
        potential=params.potential,
        fit=Fit(
            loss=params.loss,
            optimizer=params.optimizer,
            maxiter=params.maxiter,
            ladder_step=params.ladder_step,
            early_stop=params.early_stop,
            repulsion=params.core,
        ),
        batch_size=batch,
        display_step=params.display_step,
        seed=params.seed,
        start=start,
    )


def _atoms(frame: pd.DataFrame) -> int:
    return sum(len(structure) for structure in frame["ase_atoms"])


def kind_of_start(potential: Potential, start: Path | None) -> Start:
    """How pacemaker goes on from `start`; raises `BadInput` when it cannot."""
    if start is None:
        return "fresh"
    from containers.tensorpot import fitted_potential as fitted

    if (configuration := fitted.load(start)) is None:
        raise BadInput(f"start: {start} is no B-basis of pacemaker")
    if fitted.has_core(configuration):
        raise BadInput(f"start: {start} has a core repulsion; continue from the interim potential, which has none")
    if fitted.elements_of(configuration) != tuple(sorted(potential.elements)):
        raise BadInput(f"start: {start} is of {fitted.elements_of(configuration)}, asked are {potential.elements}")
    if fitted.cutoff_of(configuration) != potential.cutoff:
        raise BadInput(
            f"start: {start} has the cutoff {fitted.cutoff_of(configuration)} Å, asked are {potential.cutoff} Å"
        )
    offered = fitted.functions_offered(potential.section())
    return "continue" if configuration.total_number_of_functions >= offered else "extend"


def _working_folder(work: Path, inputs: Inputs, asked: PacemakerInput) -> Path:
    """An empty folder with what pacemaker reads: it appends to old metrics."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / INPUT_FILE).write_text(asked.text())
    names = {"train": TRAIN_FILE, "validation": VALIDATION_FILE, "start": START_FILE}
    for name, file in names.items():
        for path in inputs.all(name):
            (work / file).symlink_to(path)
    return work


def _fitted(course: Course, reason: StopReason, train_frame: pd.DataFrame) -> Path:
    """The last whole potential of the fit, without core repulsion; raises when there is none to go on from."""
    from containers.tensorpot import fitted_potential as fitted

    tail = "\n".join(course.ending.log.tail)
    if iterations(list(course.ending.rows)) > 0:
        probe = train_frame["ase_atoms"].iloc[0]
        for path in course.interims:
            if fitted.usable(path, course.ending.log.shapes, probe):
                return path
    elif course.ending.exit_code == 0:
        raise NoIteration(f"pacemaker ended with exit code 0 and no iteration; the last lines of its log:\n{tail}")
    message = f"pacemaker ended with exit code {course.ending.exit_code} and left no potential; its last lines:\n{tail}"
    kinds: dict[str, type[StepError]] = {"out_of_memory": OutOfMemory, "diverged": Diverged, "killed": Killed}
    raise kinds.get(reason, Crashed)(message)


def _keep(interim: Path, kept: Path, frames: dict[str, pd.DataFrame]) -> dict[str, float | None]:
    """Write the potential without time and user; its errors on both sides."""
    from containers.tensorpot import fitted_potential as fitted

    fitted.write_stripped(fitted.load(interim), kept)
    return {
        f"{side}_{name}": value
        for side, frame in frames.items()
        for name, value in fitted.errors_on(kept, frame).items()
    }


def _figures(
    course: Course, reason: StopReason, params: Params, train_frame: pd.DataFrame, batch_size: int
) -> dict[str, Any]:
    log = course.ending.log
    functions, parameters = max(log.shapes)
    times = sorted(log.microseconds_per_atom)
    return {
        "stop_reason": reason,
        "optimizer_message": log.closing.message if log.closing else "",
        "fits": 1,
        "iterations": iterations(list(course.ending.rows)),
        "evaluations": log.evaluations,
        "functions": functions,
        "functions_asked": params.potential.functions_asked(),
        "parameters": parameters,
        "structures": len(train_frame),
        "atoms": _atoms(train_frame),
        "batch_size": batch_size,
        "microseconds_per_atom": times[len(times) // 2] if times else None,
    }
