"""What a student does on labelled structures, one by one, shared by forked processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.contract import OutOfMemory
from containers.processes import die_with_parent
from containers.structures.cells import bare
from containers.tensorpot.active_set.projection_files import processes_for

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
        processes: how many share the work; they are forked, so that nothing is loaded again.

    Raises:
        OutOfMemory: a process was killed.
    """
    processes = processes_for(processes)
    if processes == 1:
        yield from (look(atoms, student) for atoms in structures)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _begin, (student, die_with_parent())) as pool:
        try:
            while held := list(islice(structures, PIECE * processes)):  # a few at a time: they must not pile up
                yield from pool.map(_look, held, chunksize=PIECE)
        except BrokenProcessPool as error:
            raise OutOfMemory(
                "a process that looks for weak spots was killed, most likely for want of memory: give the step more"
                " memory or fewer threads"
            ) from error


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


_student: Student


def _begin(student: Student, bind: object) -> None:
    global _student  # a forked process is given the student once, not with every structure
    if callable(bind):
        bind()
    _student = student


def _look(atoms: Atoms) -> Spot:
    return look(atoms, _student)
