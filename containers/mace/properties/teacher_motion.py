"""Step `teacher_motion`: a run of the teacher beside one of the student, from the same positions and velocities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, StepMetrics
from containers.properties.motion import EVERY, Motion, Start

IMAGE: Image = "mace"
VERSION = 2
INPUTS = {
    "model": "the teacher, a MACE model; several are a committee",
    "trajectory": "the student's runs (trajectory.json), one of them with its start and its motion",
}
OUTPUTS = {"motion": "motion.json"}  # {"temperature_K", "teacher", "student", ...}


class Params(Closed):
    """Head and precision of the teacher."""

    head: str = Field(description="readout of the teacher")
    dtype: Literal["float32", "float64"] = Field(description="as its labels")


class Metrics(StepMetrics):
    """Figures that the report reads."""

    failed: str = ""  # why the teacher's run ended early; the figures below are those of a run that did not
    temperature_K: float
    steps: int
    g_difference_percent: float | None = None
    teacher_msd_A2: float | None = None
    student_msd_A2: float | None = None
    msd_after_ps: float | None = None
    teacher: dict[str, Any] | None = None
    student: dict[str, Any] | None = None


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write g(r) and mean square displacement of both, or why the teacher's run ended early."""
    from containers.mace.teacher.calculator import teacher_calculator

    start, student = read(inputs)
    atoms = start.atoms()
    atoms.calc = teacher_calculator(inputs.all("model"), params.head, machine.resources.device, params.dtype)
    trace = []
    for step, _ in enumerate(start.dynamics(atoms).irun(start.steps)):
        if not np.isfinite(atoms.get_forces()).all():
            after = f"its forces are no numbers after {step * start.timestep_fs / 1000:.3g} ps"
            return write(outputs, {"failed": after, "temperature_K": start.temperature_K, "steps": start.steps})
        if step % EVERY == 0:
            trace.append(atoms.get_positions())
            machine.progress(step, start.steps, "molecular dynamics of the teacher")
    found = Motion.of(np.array(trace), atoms.cell.array, start.numbers, EVERY * start.timestep_fs)
    return write(outputs, compared(start, found, student))


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a teacher that moves as the student does."""
    start, student = read(inputs)
    return write(outputs, compared(start, student, student))


def read(inputs: Inputs) -> tuple[Start, Motion]:
    """Return the start and the motion of the student's run."""
    given = json.loads(inputs.one("trajectory").read_bytes())["motion"]
    return Start.model_validate(given["start"]), Motion.model_validate(given["student"])


def compared(start: Start, teacher: Motion, student: Motion) -> dict[str, Any]:
    """Return both beside each other, as metrics."""
    return {
        "temperature_K": start.temperature_K,
        "steps": start.steps,
        "g_difference_percent": student.difference_percent(teacher),
        "teacher_msd_A2": teacher.msd_A2[-1],
        "student_msd_A2": student.msd_A2[-1],
        "msd_after_ps": student.time_ps[-1],
        "teacher": teacher.model_dump(mode="json"),
        "student": student.model_dump(mode="json"),
    }


def write(outputs: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Write the metrics as a file too; return them."""
    (outputs / OUTPUTS["motion"]).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found
