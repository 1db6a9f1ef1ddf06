"""Fit an ACE potential with pacemaker and follow it live.

pacemaker runs as a child in an empty folder `work` beside `outputs`, which stays for whoever looks. The output
`interim` is its last potential (of cycles, the end of the one with the lowest train loss), also when it was broken off
after at least one iteration: `stop_reason` then says so, and the next fit starts there. The output `best` is the one
with the smallest error on the validation frame among those kept on the way and the last (see history); it is what is
exported, and the errors are its own. Neither has a core repulsion yet: see `pace_corerep`. The stub writes outputs of
the same form in no time and without pyace.

Two fits with the same thread count gave the same bytes in every output (tried with one and with two threads on one
machine). Another thread count adds up in another order: the losses of 15 iterations then agreed to 5e-14 of their
value, and a long fit amplifies that. Threads are not part of the key: either result is as good. A fit that was
interrupted and resumed (see working_folder) or ended by its time limit differs, and its metrics say so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from containers.contract import Inputs, Machine, Optional, OutOfMemory, Resources, StepError, StepMetrics
from containers.memory import memory_limit
from containers.structures.table import write_table
from containers.tensorpot.fit.follow import FitRequest, FitRun, ends_at, follow, nothing_left
from containers.tensorpot.fit.history import MetricsRow, history_table
from containers.tensorpot.fit.results import first_whole, write_results
from containers.tensorpot.fit.stop_reason import ALL_DONE
from containers.tensorpot.fit.training_data import NEIGHBOURS, Frames, auto_batch_size, counted, fixed_bytes
from containers.tensorpot.fit.working_folder import (
    Checkpoint,
    kind_of_start,
    make_working_folder,
    read_left,
    what_remains,
)
from containers.tensorpot.pacemaker.input import Fit, PacemakerInput, Potential, Start
from containers.tensorpot.pacemaker.program import cancellable, check_device, fit_program
from containers.tensorpot.student.potential import functions_offered

IMAGE: Literal["tensorpot"] = "tensorpot"
VERSION = 11
INPUTS = {
    "train": "pacemaker frame of the `frames` step",
    "validation": "pacemaker frame of the `frames` step",
    "start": Optional("B-basis without core repulsion to continue from (`interim` or `best` of an earlier fit)"),
}
OUTPUTS = {
    "interim": "interim.yaml",  # B-basis without core repulsion, the last one: to continue from
    "best": "best.yaml",  # the same, the best on the validation frame: to export
    "input": "input.yaml",  # what pacemaker was given; after an interruption, what it was given at first
    "history": "history.parquet",  # see history.HISTORY
}


class Diverged(StepError):
    """The loss became infinite or no number before the first iteration ended."""


class Crashed(StepError):
    """pacemaker failed and left nothing to continue from."""


class Killed(StepError):
    """Somebody ended pacemaker before it left anything to continue from."""


class NoIteration(StepError):
    """pacemaker ended without a single iteration, whatever its exit code."""


class TimeLimit(StepError):
    """The time for the step was over before pacemaker left anything to continue from."""


class Params(Fit):
    """Potential and fit; flows/fit/repairs.py changes them after a failure or a fit that has not converged."""

    potential: Potential


class Metrics(StepMetrics):
    """End of the fit, and errors of its best potential; None where there is no number."""

    stop_reason: str
    stop_criterion: str
    iterations: int
    resumed_at: int
    best_iteration: int | None
    interim_iteration: int
    batch_size: int
    functions: int
    functions_asked: int | None
    train_force_mae_meV_per_A: float | None = None
    train_energy_mae_meV_per_atom: float | None = None
    validation_force_mae_meV_per_A: float | None
    validation_energy_mae_meV_per_atom: float | None


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Fit; the metrics say why the fit ended and what its errors are.

    Raises `BadInput`, `ProgramMissing`, `RowsDiffer`, `OutOfMemory`, `Diverged`, `Crashed`, `Killed`, `NoIteration`,
    `TimeLimit`, `Cancelled`, and `StepError` when a GPU is required and there is none.
    """
    program = fit_program()
    check_device(machine.resources)
    with cancellable():
        return train(inputs, outputs, params, machine, program)


def train(inputs: Inputs, outputs: Path, params: Params, machine: Machine, program: Sequence[str]) -> dict[str, Any]:
    """`run` with the program given."""
    resources = machine.resources
    until = ends_at(time.monotonic(), resources.time_limit_s)
    frames = Frames(inputs, params.bootstrap)
    counts = counted(frames, params.potential.cutoff)
    structures = counts.sizes["train"]
    start = inputs.one("start") if inputs.all("start") else None
    kind = kind_of_start(params.potential, start)
    given = pacemaker_input(params, structures, counts.atoms, kind, resources, counts.neighbours)
    remaining, earlier = what_remains(given, read_left(outputs.parent, counts.probe) or Checkpoint())
    work = make_working_folder(outputs.parent, frames, remaining or given, earlier, start)
    if remaining is None:
        fit_run = nothing_left(work, earlier)
    else:
        fit, functions, steps = remaining.fit, None, 1
        if fit.ladder_step is not None and remaining.start != "continue":
            functions = functions_offered(remaining.potential.section())
            steps = -(-(functions - max((shape[0] for shape in earlier.shapes), default=0)) // fit.ladder_step)
        by_train_loss = fit.early_stop and "min_relative_test_loss_per_iter" not in fit.fit
        min_fall = fit.early_stop.min_relative_loss_per_iteration if fit.early_stop and by_train_loss else None
        request = FitRequest(counts.sizes, fit.maxiter, min_fall, functions, until, steps, fit.cycles)
        fit_run = follow(program, work, request, machine, earlier)
    if not fit_run.iterations or (last := first_whole(fit_run.latest(), fit_run, counts)) is None:
        raise failure(fit_run)
    interim, best = (outputs / OUTPUTS[name] for name in ("interim", "best"))
    results = write_results(last, fit_run, frames, counts, params.loss.kappa, params.keep, interim, best)
    (outputs / OUTPUTS["input"]).write_text(given.text())
    write_table(outputs / OUTPUTS["history"], history_table(fit_run.train, fit_run.validation, earlier.history))
    closing = fit_run.ending.log.closing
    times = sorted(row.microseconds_per_atom for row in fit_run.train if row.microseconds_per_atom is not None)
    return {
        "stop_reason": fit_run.stop.reason,
        "stop_criterion": fit_run.stop.criterion,
        "optimizer_message": closing.message if closing else "",
        "fits": 1,
        "iterations": fit_run.iterations,
        "resumed_at": earlier.iterations,
        "evaluations": fit_run.evaluations,
        "functions_asked": params.potential.functions_asked(),
        "structures": structures,
        "atoms": counts.atoms,
        "microseconds_per_atom": times[len(times) // 2] if times else None,
        **results,
        "interim_iteration": last[0],
        "batch_size": given.batch_size,
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write small valid outputs of the right form, and return metrics of a fit that went well."""
    species = [{"speciesblock": element, "rcutij": params.potential.cutoff} for element in params.potential.elements]
    for name in ("interim", "best"):
        basis = {"global": {"DeltaSplineBins": 0.001}, "species": species}
        YAML(typ="safe", pure=True).dump(basis, outputs / OUTPUTS[name])
    (outputs / OUTPUTS["input"]).write_text(pacemaker_input(params, 1, 1, "fresh").text())
    train, validation = (
        [
            MetricsRow(
                ladder_step=0,
                step_iteration=iteration,
                loss=loss * fall,
                energy_loss=0.2 * loss * fall,
                force_loss=0.8 * loss * fall,
                regularisation_loss=0.0,
                energy_rmse_meV_per_atom=20 * fall,
                force_rmse_meV_per_A=100 * fall,
                force_mae_meV_per_A=80 * fall,
                energy_mae_meV_per_atom=15.0 * fall,
                energy_max_meV_per_atom=45.0 * fall,
                force_max_meV_per_A=450.0 * fall,
            )
            for iteration, fall in enumerate((1.0, 0.5, 0.25, 0.2))
        ]
        for loss in (2.0, 2.2)
    )
    write_table(outputs / OUTPUTS["history"], history_table(train, validation))
    one_side = {
        "energy_mae_meV_per_atom": 0.5,
        "energy_rmse_meV_per_atom": 0.7,
        "energy_max_meV_per_atom": 2.0,
        "force_mae_meV_per_A": 8.0,
        "force_rmse_meV_per_A": 10.0,
        "force_max_meV_per_A": 45.0,
    }
    return {
        "stop_reason": "max_iterations",
        "stop_criterion": ALL_DONE,
        "optimizer_message": "stub",
        "fits": 1,
        "iterations": 3,
        "best_iteration": 3,
        "interim_iteration": 3,
        "resumed_at": 0,
        "evaluations": 4,
        "functions": params.potential.functions_per_element * len(params.potential.elements),
        "functions_asked": params.potential.functions_asked(),
        "parameters": 0,
        "structures": 0,
        "atoms": 0,
        "batch_size": 1,
        "microseconds_per_atom": 0.0,
        **{f"last_validation_{name}": one_side[name] for name in ("energy_mae_meV_per_atom", "force_mae_meV_per_A")},
        **{f"{side}_{name}": value for side in ("train", "validation") for name, value in one_side.items()},
    }


def pacemaker_input(
    params: Params,
    structures: int,
    atoms: int,
    start: Start,
    resources: Resources | None = None,
    neighbours: float = NEIGHBOURS,
) -> PacemakerInput:
    """Return the input for a training frame of so many structures and atoms, and neighbours of an atom.

    An automatic batch is smaller where `resources` leave little memory; without them, memory is not looked at.
    """
    memory = memory_limit(resources) if resources else None
    elements = len(params.potential.elements)
    functions = (params.potential.functions_asked() or 1) // elements
    fixed = fixed_bytes(elements, params.potential.functions().parameters, params.optimizer)
    automatic = auto_batch_size(structures, atoms, functions, memory, neighbours, fixed)
    batch_size = max(1, int(params.batch_share * automatic)) if params.batch_size == "auto" else params.batch_size
    return PacemakerInput(potential=params.potential, fit=params, batch_size=batch_size, start=start)


def failure(run: FitRun) -> StepError:
    """Return the error of a fit that left no potential."""
    tail, code = "\n".join(run.ending.log.tail), run.ending.exit_code
    if code == 0 and not run.iterations:
        return NoIteration(f"pacemaker ended with exit code 0 and no iteration; the last lines of its log:\n{tail}")
    kinds: dict[str, type[StepError]] = {
        "out_of_memory": OutOfMemory,
        "diverged": Diverged,
        "killed": Killed,
        "time_limit": TimeLimit,
    }
    because = f"pacemaker ended with exit code {code} and left no potential ({run.stop.criterion})"
    return kinds.get(run.stop.reason, Crashed)(f"{because}; the last lines of its log:\n{tail}")
