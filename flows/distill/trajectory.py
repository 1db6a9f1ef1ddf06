"""Errors of the published student on structures that its own molecular dynamics visits."""

from __future__ import annotations

from containers.contract import Device
from containers.ingest import ingest
from containers.mace.properties import teacher_motion
from containers.tensorpot.evaluation import trajectory
from flows.data.labelling import label_or_refusal
from flows.data.prepare import Prepared
from flows.fit import steps
from flows.fit.student import FittedStudent
from flows.run import Run
from tasks.prefect_logging import run_log
from tasks.report.trajectory import MOST_OF_LABELLING

SMALL_ON_A_GPU = 30
"""Cost of an atom of a small cell on a GPU over that in a batch that fills the GPU. Estimated, not measured."""


def follow(prepared: Prepared, student: FittedStudent, run: Run) -> None:
    """Run molecular dynamics with the student, label frames of it, and compare. `run` keeps the results.

    Frames without a label within the bounds are counted. If no frame has one, the run continues with a warning.
    """
    recipe, of_student = student.recipe, (student.core, student.active_set)
    if recipe.trajectory.picoseconds == 0:
        return
    frames, baseline, labels = student.training.frames, prepared.baseline, None
    made = run(steps.trajectory_call(recipe, *of_student, frames, baseline, student.stability))
    found = made.read(trajectory.Metrics)
    if found.frames:
        labels, refused = label_or_refusal(recipe, made, prepared.teachers, run, "pool_labels trajectory")
        if refused:
            run_log().warning("no frame of the student's own trajectory has a label: %s", refused)
    run(steps.trajectory_errors_call(*of_student, baseline, made, labels))
    beside = steps.teacher_motion_call(recipe, prepared.models.values(), made, run.workspace.settings)
    labelled_here = beside.resources.device == run.workspace.settings.teacher_device
    atoms = prepared.ingested.pool.read(ingest.Metrics).atoms
    if labelled_here and affordable(found.motion_atom_steps, atoms, beside.resources.device):
        motion = run(beside).read(teacher_motion.Metrics)
        if motion.failed:
            run_log().warning("the teacher's run beside the student's ended early: %s", motion.failed)


def affordable(atom_steps: int | None, pool_atoms: int, device: Device) -> bool:
    """Return whether the teacher may repeat the student's run: it costs less than MOST_OF_LABELLING.

    Args:
        atom_steps: atoms times steps of the run; None where there is none.
        pool_atoms: that the teacher labelled, one evaluation each.
    """
    if atom_steps is None:
        return False
    return atom_steps * (SMALL_ON_A_GPU if device == "cuda" else 1) < MOST_OF_LABELLING * pool_atoms
