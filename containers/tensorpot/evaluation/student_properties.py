"""Step `student_properties`: the student's properties of the teacher's crystals, beside the teacher's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from containers.contract import Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.properties.compare import deviations
from containers.properties.measure import measure_all
from containers.properties.molecules import dimers, measure_molecules
from containers.properties.results import Properties, Settings
from containers.properties.speed import Speed

IMAGE: Image = "tensorpot"
VERSION = 5
INPUTS = {
    "potential": "the student (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "properties": "the teacher's (properties.json of teacher_properties)",
    "yace": Optional("the student for LAMMPS, whose speed is measured where there is one (.yace)"),
    "reference_table": Optional("its pair terms for LAMMPS (.table)"),
}
OUTPUTS = {"student_properties": "student_properties.json", "deviations": "deviations.json"}


class Params(Closed):
    """Properties to measure: those of the teacher."""

    settings: Settings = Settings()


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    deviations: list[dict[str, Any]]  # of `Deviation`
    speed: Speed = Speed()


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Relax and measure the teacher's crystals and molecules with the student; write them beside the teacher's."""
    from containers.tensorpot.evaluation.student_speed import student_speed
    from containers.tensorpot.student.lammps import Files
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    teacher = Properties.read(inputs.one("properties"))
    crystals = [crystal.atoms() for crystal in teacher.crystals]
    speed = Speed()
    if inputs.all("yace"):
        files = Files(
            inputs.one("yace"), inputs.one("reference_table"), sorted(student.e0s_eV), has_pairs=bool(student.pairs)
        )
        speed = student_speed(student, teacher.crystals, files)
    left_out: dict[str, str] = {}
    molecules = measure_molecules((molecule.atoms() for molecule in teacher.molecules), student, left_out)
    names = [crystal.name for crystal in teacher.crystals]
    properties = measure_all(crystals, student, params.settings, machine.progress, names)
    further = {
        "molecules": molecules,
        "dimers": dimers({pair: dimer.distance_A for pair, dimer in teacher.dimers.items()}, student),
        "left_out": {**left_out, **properties.left_out},
    }
    found = write(outputs, teacher, properties.model_copy(update=further))
    return found | {"speed": speed.model_dump()}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the teacher's properties as the student's."""
    teacher = Properties.read(inputs.one("properties"))
    return write(outputs, teacher, teacher) | {"speed": Speed().model_dump()}


def write(outputs: Path, teacher: Properties, student: Properties) -> dict[str, Any]:
    """Write both outputs; return the metrics."""
    (outputs / OUTPUTS["student_properties"]).write_text(student.model_dump_json(indent=1))
    rows = [row.model_dump() for row in deviations(teacher, student)]
    (outputs / OUTPUTS["deviations"]).write_text(json.dumps(rows, indent=1) + "\n")
    return {"deviations": rows, "left_out": student.left_out}
