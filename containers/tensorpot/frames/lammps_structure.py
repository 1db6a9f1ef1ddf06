"""A training structure for the LAMMPS input, and the number of neighbours that LAMMPS lists for an atom.

Source: the LAMMPS manual, pages read_data, neighbor, Howto_triclinic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data

from containers.tensorpot.frames.rows import TrainingRow
from containers.tensorpot.student.calculator import neighbours

SKIN_A = 2.0
"""LAMMPS's default in units metal: it lists neighbours within the cutoff and this."""


def example(rows: Sequence[TrainingRow]) -> TrainingRow:
    """Return the row with the most elements; of these one periodic in three directions, with the lowest energy an atom.

    Molecular dynamics that begins with it begins calmly.
    """

    def place(row: TrainingRow) -> tuple[int, bool, float, str]:
        atoms = row.label.atoms
        per_atom = row.label.energy_corrected / len(atoms)
        return -len(set(atoms.numbers.tolist())), not row.atoms.pbc.all(), per_atom, row.label.name

    return min(rows, key=place)


def write_structure(path: Path, atoms: Atoms, elements: Sequence[str]) -> None:
    """Write a LAMMPS data file in which type i is `elements[i - 1]`, whether or not the structure has it.

    The cell is turned into LAMMPS's lower triangle, and its tilt is reduced: LAMMPS stops at a strong one. Atoms keep
    their order.

    Args:
        atoms: periodic in three directions, with a right-handed cell, as pacemaker takes it (see `student.padded`).
    """
    with path.open("w", encoding="ascii") as file:
        write_lammps_data(file, atoms, specorder=list(elements), masses=True, reduce_cell=True)


def most_neighbours(structures: Iterable[Atoms], reach: float) -> int:
    """Return the largest number of neighbours of an atom within `reach` (Å), over all structures."""
    return max(
        int(np.bincount(neighbours(atoms, reach)[0], minlength=len(atoms)).max(initial=0)) for atoms in structures
    )
