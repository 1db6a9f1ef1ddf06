"""Step `teacher_info`: describe the teacher, so that nothing else has to open its pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from containers.contract import Closed, Image, Inputs, Machine
from containers.mace.teacher.description import Teacher

IMAGE: Image = "mace"
VERSION = 2
INPUTS = {"model": "a MACE model as mace-torch saves it (`NAME.model`)"}
OUTPUTS = {"teacher": "teacher.json"}


class Params(Closed):
    """No parameters: everything stands in the model."""


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Open the model once and write `teacher.json`."""
    from containers.mace.teacher.model import describe, load_model

    teacher = describe(load_model(inputs.one("model")))
    teacher.write(outputs / OUTPUTS["teacher"])
    return _metrics(teacher)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a teacher of one head that knows every element up to plutonium, with reference energies of zero."""
    elements = tuple(chemical_symbols[1:95])
    teacher = Teacher(
        model_class="Stub",
        dtype="float32",
        elements=elements,
        r_max_A=5.0,
        num_interactions=2,
        heads=("Default",),
        e0s_eV={"Default": dict.fromkeys(elements, 0.0)},
    )
    teacher.write(outputs / OUTPUTS["teacher"])
    return _metrics(teacher)


def _metrics(teacher: Teacher) -> dict[str, Any]:
    return {
        "elements": len(teacher.elements),
        "heads": len(teacher.heads),
        "r_max_A": teacher.r_max_A,
        "reads": sorted(teacher.reads),
    }
