"""Cells of structures: the lattice, bare copies, and structures repeated until they are a piece of matter."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from containers.arrays import Floats, Mask


def lattice(atoms: Atoms) -> Floats:
    """Return the cell (3, 3) in Å, with unit vectors perpendicular to the rest in the directions that are not periodic.

    (`student.calculator`, which is published as one file, has its own.)
    """
    return np.asarray(complete_cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)), dtype=float)


def bare(atoms: Atoms) -> Atoms:
    """Return a copy with numbers, positions, cell and pbc alone."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)


def heights(atoms: Atoms) -> Floats:
    """Return (3,) Å between opposite faces of the cell."""
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0), dtype=float)


def grown(atoms: Atoms, count: int, width: float) -> Atoms:
    """Repeat the structure to `count` atoms or more and `width` Å or more between opposite faces.

    Always along the lowest height, so that the cell stays as round as it can. The structure is periodic in three
    directions: where it was not, its images are `width` apart. What it has beside numbers, positions and cell is not
    kept.
    """
    alone, cell = bare(atoms), lattice(atoms)
    cell[~atoms.pbc] *= (np.ptp(atoms.positions @ cell[~atoms.pbc].T, axis=0) + width)[:, None]
    alone.cell, alone.pbc = cell, True
    times = np.ones(3, dtype=int)
    low = heights(alone)
    while len(alone) * times.prod() < count or (low * times).min() < width:
        times[np.argmin(low * times)] += 1
    return alone * tuple(times.tolist())


def is_solid(atoms: Atoms, reach: float) -> bool:
    """Return whether matter continues in three directions: no slab of `reach` Å without an atom is parallel to a face.

    A cluster or surface that is padded with empty space is periodic by name only.
    """
    return bool(continues(atoms, reach).all())


def is_isolated(atoms: Atoms, reach: float) -> bool:
    """Return whether matter continues in no direction: none is periodic, but with `reach` Å without an atom."""
    return not continues(atoms, reach).any()


def continues(atoms: Atoms, reach: float) -> Mask:
    """Return (3,) whether matter continues along each cell vector: periodic, without a gap of `reach` Å."""
    return np.asarray(atoms.pbc & (_gaps(atoms) < reach))


def _gaps(atoms: Atoms) -> Floats:
    """Return (3,) Å of the widest slab without an atom parallel to each face; means nothing where not periodic."""
    whole = bare(atoms)
    whole.cell = lattice(atoms)
    scaled = np.sort(whole.get_scaled_positions(wrap=True), axis=0)
    gaps = np.diff(np.concatenate([scaled, scaled[:1] + 1]), axis=0).max(axis=0)
    return np.asarray(gaps * heights(whole), dtype=float)
