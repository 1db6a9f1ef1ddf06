"""Folder that pacemaker works in: a fresh, a continued or an extended fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from containers.contract import BadInput
from containers.tensorpot.fit.resume import LEFT, Earlier, take_over
from containers.tensorpot.fit.training_data import Frames
from containers.tensorpot.pacemaker.input import START_FILE, PacemakerInput, Potential, Start
from containers.tensorpot.pacemaker.program import INPUT_FILE


def kind_of_start(potential: Potential, start: Path | None) -> Start:
    """How pacemaker goes on from `start`; raises `BadInput` when it cannot."""
    if start is None:
        return "fresh"
    from containers.tensorpot.student import potential as fitted

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


def what_remains(given: PacemakerInput, earlier: Earlier) -> PacemakerInput | None:
    """What is left to do of a fit that was interrupted; None when all its iterations were done."""
    if earlier.potential is None:
        return given
    start, fit = kind_of_start(given.potential, earlier.potential), given.fit
    iterations_left, cycles_left = fit.maxiter - earlier.in_part, fit.cycles - earlier.cycle
    if start == "extend":  # the next step of the ladder begins, with all its iterations
        return given.model_copy(update={"start": start})
    if cycles_left <= 1 and iterations_left <= 0:
        return None
    left = {"maxiter": fit.maxiter if cycles_left > 1 else iterations_left, "cycles": cycles_left}
    return given.model_copy(update={"start": start, "fit": fit.model_copy(update=left)})


def taken_up(given: PacemakerInput, earlier: Earlier) -> tuple[PacemakerInput | None, Earlier]:
    """What remains, and what was done as the next run sees it: nothing of a step of the ladder that it begins."""
    asked = what_remains(given, earlier)
    begins = asked is not None and asked.start == "extend"
    return asked, replace(earlier, in_part=0, cycle=0) if begins else earlier


def _working_folder(run: Path, frames: Frames, asked: PacemakerInput, earlier: Earlier, start: Path | None) -> Path:
    """A new folder with what pacemaker reads: it appends to old metrics. It is there as a whole or not at all."""
    new, work = run / "work.new", run / "work"
    for folder in (new, work):
        shutil.rmtree(folder, ignore_errors=True)
    new.mkdir()
    (new / INPUT_FILE).write_text(asked.text())
    frames.give(new)
    if earlier.potential is not None:
        take_over(run, earlier, new)
    elif start is not None:
        (new / START_FILE).symlink_to(start)
    new.rename(work)
    shutil.rmtree(run / LEFT, ignore_errors=True)
    return work
