"""Errors of the published student on structures that its own molecular dynamics visits."""

from __future__ import annotations

from containers.tensorpot.evaluation import trajectory
from flows.data.labelling import label
from flows.data.prepare import Prepared
from flows.fit import steps
from flows.fit.student import FittedStudent
from flows.run import Run
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log


def follow(prepared: Prepared, student: FittedStudent, run: Run) -> None:
    """Run molecular dynamics with the student, label frames of it, and compare. `run` keeps the results.

    Frames without a good label are counted; where none has one, that is no error of the run.
    """
    recipe, of_student = student.recipe, (student.core, student.active_set)
    if recipe.trajectory.picoseconds == 0:
        return
    frames, baseline, labels = student.training.frames, prepared.baseline, None
    made = run(steps.trajectory_call(recipe, *of_student, frames, baseline, student.stability))
    if made.read(trajectory.Metrics).frames:
        try:
            labels = label(recipe, made, prepared.teachers, run, "pool_labels trajectory")
        except StepFailed as failure:
            if failure.kind != "BadInput":  # what `pool_labels` raises when no label keeps the bounds
                raise
            run_log().warning("no frame of the student's own trajectory has a label: %s", failure.message)
    run(steps.trajectory_errors_call(*of_student, baseline, made, labels))
