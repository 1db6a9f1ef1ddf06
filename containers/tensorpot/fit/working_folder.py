"""Folder that pacemaker works in: a fresh, a continued or an extended fit, and one that was interrupted.

A run that was killed leaves its working folder; the engine gives it to the next run of the same request as `left`.
The next run starts from the last whole potential in it with the iterations that remain, and the histories are joined.
BFGS begins again without its knowledge of the curvature, so the bytes differ from those of a fit without interruption.

A new working folder is made whole under another name and renamed, and only then `left` is removed: a run that is
killed at any moment leaves one of them whole.

An interrupted step of a ladder is completed only where the basis is already complete; otherwise the next step of the
ladder follows. With further cycles the interrupted one gets all its iterations once more, from where it was, also
one that had done them: pacemaker puts the noise between two cycles of one run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.contract import BadInput
from containers.structures.table import write_table
from containers.tensorpot.fit.history import MetricsFile, MetricsRow, errors_by_iteration, history_table, iterations
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.training_data import Frames
from containers.tensorpot.pacemaker.input import START_FILE, PacemakerInput, Potential, Start
from containers.tensorpot.pacemaker.launcher import kept
from containers.tensorpot.pacemaker.program import INPUT_FILE
from containers.tensorpot.student import potential as fitted

LEFT = "left"  # beside `work`, see tasks.store.results
STATE, HISTORY_BEFORE = "earlier.json", "earlier.parquet"


@dataclass(frozen=True)
class Checkpoint:
    """State of a fit after interrupted runs; nothing done, by default.

    Attributes:
        iterations: all of them, up to the potential that the next run starts from.
        in_part: those in the step of the ladder, or the cycle, that was interrupted.
        cycle: the cycle that was interrupted, from 0.
        history: the rows up to there.
        errors: iteration -> validation error.
        shapes: functions and parameters of the potentials that it left.
        kappa: the force share in use.
        potential: the last whole one.
    """

    iterations: int = 0
    in_part: int = 0
    cycle: int = 0
    history: pa.Table | None = None
    errors: dict[int, float] = field(default_factory=dict)
    shapes: tuple[tuple[int, int], ...] = ()
    kappa: float | None = None
    potential: Path | None = None

    def errors_with(self, train: Sequence[MetricsRow], validation: Sequence[MetricsRow]) -> dict[int, float]:
        """Map all iterations to validation errors: those before, and those of the rows of the next run."""
        new = errors_by_iteration(train, validation)
        return {**self.errors, **{self.iterations + n: error for n, error in new.items()}}


def read_left(run: Path, probe: Atoms) -> Checkpoint | None:
    """Return the state that the run folder's `left` holds; None when it has no whole potential. Needs pyace."""
    left = run / LEFT
    if left.is_symlink() or not left.is_dir():
        return None
    for link in filter(Path.is_symlink, list(left.iterdir())):
        link.unlink()  # whatever it leads to is none of ours
    before, log = Checkpoint(), FitLog()
    if (left / STATE).is_file():  # after the runs before the last one
        state = json.loads((left / STATE).read_text())
        state["errors"] = {int(n): float(error) for n, error in state["errors"]}
        state["shapes"] = tuple((int(functions), int(parameters)) for functions, parameters in state["shapes"])
        history = pq.read_table(left / HISTORY_BEFORE) if (left / HISTORY_BEFORE).is_file() else None
        before = Checkpoint(**state, history=history)
    if (left / "log.txt").is_file():
        with (left / "log.txt").open(errors="replace") as lines:
            for line in lines:
                log.feed(line)
    train, validation = (MetricsFile(left / name).follow() for name in ("metrics.txt", "test_metrics.txt"))
    shapes = tuple(dict.fromkeys((*before.shapes, *log.shapes)))
    most = before.iterations + iterations(train)
    found = next(
        ((n, path) for n, path in kept(left).items() if n <= most and fitted.usable(path, shapes, probe)), None
    )
    if found is None:
        return None
    iteration, path = found
    last, counted = iteration - before.iterations, 0
    done = list[MetricsRow]()  # up to that iteration; not the beginning of a part after it
    for row in train:
        counted += row.step_iteration > 0
        if counted > last or (done and counted == last and row.part != done[-1].part):
            break
        done.append(row)
    if not done:
        return replace(before, iterations=iteration, shapes=shapes, potential=path)
    ends = {row.part: row.step_iteration for row in done}
    looks = [row for row in validation if row.part in ends and row.step_iteration <= ends[row.part]]
    return Checkpoint(
        iterations=iteration,
        in_part=done[-1].step_iteration + (before.in_part if len(ends) == 1 else 0),
        cycle=before.cycle + done[-1].cycle,
        history=history_table(done, looks, before.history),
        errors=before.errors_with(done, looks),
        shapes=shapes,
        kappa=log.kappa or before.kappa,
        potential=path,
    )


def hand_over(run: Path, earlier: Checkpoint, folder: Path) -> None:
    """Put the state of an interrupted run into the working folder of the next one, the potential as its start.

    The launcher counts on from the latest kept potential, which is the one of `earlier.iterations`.
    """
    assert earlier.potential is not None
    fitted.write_stripped(fitted.load(earlier.potential), folder / START_FILE)  # a count of cycles would end it at once
    names = ("iterations", "in_part", "cycle", "errors", "shapes", "kappa")
    state: dict[str, Any] = {name: getattr(earlier, name) for name in names}
    state["errors"] = sorted(earlier.errors.items())
    (folder / STATE).write_text(json.dumps(state))
    if earlier.history is not None:
        write_table(folder / HISTORY_BEFORE, earlier.history)
    for iteration, path in kept(run / LEFT).items():
        if iteration <= earlier.iterations:
            shutil.copyfile(path, folder / path.name)


def kind_of_start(potential: Potential, start: Path | None) -> Start:
    """Return how pacemaker can start from `start`; raises `BadInput` when it cannot."""
    if start is None:
        return "fresh"
    if (configuration := fitted.load(start)) is None:
        raise BadInput(f"start: {start} is no B-basis of pacemaker")
    if fitted.has_core(configuration):
        raise BadInput(f"start: {start} has a core repulsion; continue from the interim potential, which has none")
    if fitted.elements_of(configuration) != tuple(sorted(potential.elements)):
        raise BadInput(f"start: {start} is of {fitted.elements_of(configuration)}, the fit of {potential.elements}")
    if fitted.cutoff_of(configuration) != potential.cutoff:
        raise BadInput(
            f"start: {start} has the cutoff {fitted.cutoff_of(configuration)} Å, the fit {potential.cutoff} Å"
        )
    offered = fitted.functions_offered(potential.section())
    return "continue" if configuration.total_number_of_functions >= offered else "extend"


def what_remains(given: PacemakerInput, earlier: Checkpoint) -> tuple[PacemakerInput | None, Checkpoint]:
    """Return the input for what remains of a fit, None when all its iterations were done, and the state it starts from.

    A run that begins a step of the ladder has done nothing of it.
    """
    if earlier.potential is None:
        return given, earlier
    start, fit = kind_of_start(given.potential, earlier.potential), given.fit
    if start == "extend":  # the next step of the ladder begins, with all its iterations
        return given.model_copy(update={"start": start}), replace(earlier, in_part=0, cycle=0)
    iterations_left, cycles_left = fit.maxiter - earlier.in_part, fit.cycles - earlier.cycle
    if cycles_left <= 1 and iterations_left <= 0:
        return None, earlier
    left = {"maxiter": fit.maxiter if cycles_left > 1 else iterations_left, "cycles": cycles_left}
    return given.model_copy(update={"start": start, "fit": fit.model_copy(update=left)}), earlier


def make_working_folder(
    run: Path, frames: Frames, given: PacemakerInput, earlier: Checkpoint, start: Path | None
) -> Path:
    """Make a new folder with what pacemaker reads: it appends to old metrics. It is there as a whole or not at all."""
    new, work = run / "work.new", run / "work"
    for folder in (new, work):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir()
    (new / INPUT_FILE).write_text(given.text())
    frames.give(new)
    if earlier.potential is not None:
        hand_over(run, earlier, new)
    elif start is not None:
        (new / START_FILE).symlink_to(start)
    new.rename(work)
    shutil.rmtree(run / LEFT, ignore_errors=True)
    return work
