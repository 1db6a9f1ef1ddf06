"""What a student does on labelled structures, one by one, shared by forked processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.processes import forked_map
from containers.structures.cells import bare

if TYPE_CHECKING:
    from containers.tensorpot.student.calculator import Student

MILLI = 1000.0
PIECE = 20
"""Structures that a process is given at a time."""


@dataclass(frozen=True)
class Spot:
    """What the student does on one candidate.

    Attributes:
        force_mae, force_rmse, force_max: meV/Å, of the Cartesian components.
        energy: meV/atom, absolute error.
        gamma: largest extrapolation grade of its atoms.
    """

    id: str
    family: str
    group: str
    place: str
    atoms: int
    force_mae: float
    force_rmse: float
    force_max: float
    energy: float
    gamma: float


def looked_at(structures: Iterator[Atoms], student: Student, processes: int) -> Iterator[Spot]:
    """What the student does on each, in their order.

    Args:
        processes: how many share the work.

    Raises:
        OutOfMemory: a process was killed.
    """
    pieces = iter(lambda: list(islice(structures, PIECE)), [])
    for spots in forked_map(partial(_look_each, student), pieces, processes, "looks for weak spots"):
        yield from spots


def _look_each(student: Student, structures: list[Atoms]) -> list[Spot]:
    return [look(atoms, student) for atoms in structures]


def look(atoms: Atoms, student: Student) -> Spot:
    """Student against label on one structure of any periodicity."""
    student.calculate(bare(atoms))
    label, found = atoms.calc.results, student.results
    forces = MILLI * np.abs(np.ravel(found["forces"]) - np.ravel(label["forces"]))
    return Spot(
        id=str(atoms.info["id"]),
        family=str(atoms.info["family"] or atoms.info["id"]),
        group=str(atoms.info["group"]),
        place=f"{atoms.info['source']}, row {atoms.info['row']}",
        atoms=len(atoms),
        force_mae=float(forces.mean()),
        force_rmse=float(np.sqrt((forces**2).mean())),
        force_max=float(forces.max()),
        energy=MILLI * abs(float(found["energy"]) - float(label["energy"])) / len(atoms),
        gamma=float(np.max(found["gamma"])),
    )
