"""Step `teacher_info`: what the teacher is, so that nothing else has to open its pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, write_atomic
from containers.frame_state import Quantity

IMAGE: Image = "mace"
VERSION = 2
INPUTS = {"model": "a MACE model as mace-torch saves it (`NAME.model`)"}
OUTPUTS = {"teacher": "teacher.json"}


class Params(Closed):
    """Nothing to choose: the model says it all."""


class Teacher(Closed):
    """What the rest of the project needs to know about a MACE model."""

    model_class: str = Field(description="Python class, e.g. ScaleShiftMACE")
    dtype: str = Field(description="type of the weights as saved: float32 or float64")
    elements: tuple[str, ...] = Field(description="chemical symbols, by atomic number")
    r_max_A: float = Field(gt=0, description="cutoff of one layer, Å; num_interactions layers see that many times it")
    num_interactions: int = Field(ge=1, description="message-passing layers")
    heads: tuple[str, ...] = Field(min_length=1, description="names of the readouts, in the model's order")
    e0s_eV: dict[str, dict[str, float]] = Field(description="head -> element -> reference energy, eV per atom")
    reads: dict[str, Quantity] = Field(
        {}, description="what it reads of a frame beside its geometry, by MACE's name (total_charge, total_spin, ...)"
    )

    @classmethod
    def read(cls, path: Path) -> Teacher:
        """The teacher in a `teacher.json`."""
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write `teacher.json`."""
        write_atomic(path, self.model_dump_json(indent=1).encode())


def choose_head(teacher: Teacher, wanted: str | None) -> str:
    """The head to label with; `None` means the only one.

    Raises:
        BadInput: the head is unknown (mace-torch would silently take the last), or none of several was chosen.
    """
    listed = ", ".join(teacher.heads)
    if wanted is None:
        if len(teacher.heads) > 1:
            raise BadInput(f"the teacher has several heads, choose one with teacher.head: {listed}")
        return teacher.heads[0]
    if wanted not in teacher.heads:
        raise BadInput(f"the teacher has no head {wanted!r} (teacher.head); it has: {listed}")
    return wanted


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Open the model once and write `teacher.json`."""
    from containers.mace.model import describe, load_model

    teacher = describe(load_model(inputs.one("model")))
    teacher.write(outputs / OUTPUTS["teacher"])
    return _metrics(teacher)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """A teacher of one head that knows every element up to plutonium, with reference energies of zero."""
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
