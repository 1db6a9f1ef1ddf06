"""Description of a teacher, without the heavy packages."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from containers.contract import BadInput, Closed, write_atomic
from containers.structures.state import Quantity


class Teacher(Closed):
    """Description of a MACE model for the rest of the project."""

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
        """Read a `teacher.json`."""
        return cls.model_validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write `teacher.json`."""
        write_atomic(path, self.model_dump_json(indent=1).encode())


def choose_head(teacher: Teacher, wanted: str | None) -> str:
    """Return the head to label with; `None` means the only one.

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
