"""Structures repeated until they are large enough to be a piece of matter."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


def heights(atoms: Atoms) -> NDArray[np.float64]:
    """(3,) Å between opposite faces of the cell."""
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0), dtype=float)


def grown(atoms: Atoms, count: int, width: float) -> Atoms:
    """The structure repeated to `count` atoms or more and `width` Å or more between opposite faces.

    Always along the lowest height, so that the cell stays as round as it can. The structure is periodic in three
    directions; what it has beside numbers, positions and cell is not kept.
    """
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True)
    times = np.ones(3, dtype=int)
    low = heights(bare)
    while len(bare) * times.prod() < count or (low * times).min() < width:
        times[np.argmin(low * times)] += 1
    return bare * tuple(times.tolist())


def is_solid(atoms: Atoms, reach: float) -> bool:
    """Whether matter goes on in three directions: no slab of `reach` Å without an atom is parallel to a face.

    A cluster or surface that is padded with empty space is periodic by name only.
    """
    scaled = np.sort(atoms.get_scaled_positions(wrap=True), axis=0)
    gaps = np.diff(np.concatenate([scaled, scaled[:1] + 1]), axis=0).max(axis=0)
    return bool(atoms.pbc.all() and (gaps * heights(atoms) < reach).all())
