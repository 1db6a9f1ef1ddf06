"""The shortest distance between atoms, periodic images included."""

from __future__ import annotations

import itertools
from math import inf

import numpy as np
from ase import Atoms
from ase.cell import Cell


def shortest_distance(atoms: Atoms, limit: float) -> float:
    """The shortest distance between two atoms or an atom and an image (Å) when it is below `limit`, else infinity."""
    from scipy.spatial import cKDTree  # here, because the flow imports this package for its parameters only

    points, near = _with_images(atoms, limit)
    if len(near) < 2 or limit <= 0:
        return inf
    nearest, _ = cKDTree(near).query(points, k=2, distance_upper_bound=limit)
    return float(nearest[:, 1].min())


def _with_images(atoms: Atoms, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Atoms wrapped into the cell (N x 3, Å), and the same with every image within `limit` of the cell."""
    if not atoms.pbc.any():
        return atoms.positions, atoms.positions
    cell = Cell(atoms.cell.array * atoms.pbc[:, None]).complete().array  # directions that do not repeat: any vector
    reach = limit * np.linalg.norm(np.linalg.inv(cell), axis=0) * atoms.pbc  # in fractions of the cell's heights
    fractions = np.linalg.solve(cell.T, atoms.positions.T).T
    fractions -= np.floor(fractions) * atoms.pbc
    shifts = [range(-count, count + 1) for count in np.ceil(reach).astype(int)]
    images = (fractions[:, None] + np.array(list(itertools.product(*shifts)))).reshape(-1, 3)
    close = ((images >= -reach) & (images <= 1 + reach)) | ~atoms.pbc
    return fractions @ cell, images[close.all(axis=1)] @ cell
