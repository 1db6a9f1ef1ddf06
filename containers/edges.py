"""What a structure costs the teacher: its neighbour pairs within the cutoff, which are the edges of its graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from containers.distances import periodic_cell, surroundings

MOST_IMAGES = 1e6
"""Beyond so many atoms in reach, pairs are estimated from the density: to list them would take gigabytes."""


def count_edges(structures: Sequence[Atoms], cutoff: float) -> NDArray[np.int64]:
    """Directed neighbour pairs within `cutoff` (Å) of each structure, periodic images included; [structures].

    A structure that has no neighbour list (positions or cell not finite or degenerate) counts as its atoms.
    """
    return np.array([_edges(atoms, cutoff) for atoms in structures], dtype=np.int64)


def _edges(atoms: Atoms, cutoff: float) -> int:
    volume = abs(np.linalg.det(periodic_cell(atoms))) if np.isfinite(atoms.cell.array).all() else 0.0
    if not (volume > 0 and math.isfinite(volume) and np.isfinite(atoms.positions).all()):
        return len(atoms)
    if atoms.pbc.any() and (estimate := _in_reach(atoms, cutoff)) > MOST_IMAGES:
        return int(min(estimate * len(atoms), np.iinfo(np.int32).max))
    around = surroundings(atoms, cutoff)
    centres, points = cKDTree(around.points[: around.atoms]), cKDTree(around.points)
    return int(centres.count_neighbors(points, cutoff)) - len(atoms)


def _in_reach(atoms: Atoms, cutoff: float) -> float:
    """Atoms and images that `surroundings` would list, about."""
    reach = cutoff * np.linalg.norm(np.linalg.inv(periodic_cell(atoms)), axis=0)
    return float(len(atoms) * np.prod(np.where(atoms.pbc, 2 * np.ceil(reach) + 1, 1.0)))
