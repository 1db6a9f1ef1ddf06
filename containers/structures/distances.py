"""Distances to the nearest neighbour, periodic images included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.spatial import cKDTree

from containers.arrays import Floats, Indices
from containers.structures.cells import lattice


@dataclass(frozen=True)
class Surroundings:
    """The atoms of a structure, wrapped into the cell, and every image that can be within reach of one.

    Attributes:
        points: (M, 3) positions in Å; the first N are the atoms themselves.
        numbers: (M,) atomic numbers.
        atoms: N.
    """

    points: Floats
    numbers: Indices
    atoms: int


def surroundings(atoms: Atoms, reach: float) -> Surroundings:
    """Return the atoms and images within `reach` (Å) of the atoms; may hold more, never less."""
    cell = lattice(atoms)
    inverse = np.linalg.inv(cell)
    reach_scaled = np.where(atoms.pbc, reach * np.linalg.norm(inverse, axis=0), np.inf)
    inside = atoms.positions @ inverse
    inside = np.where(atoms.pbc, inside - np.floor(inside), inside)
    copies = np.where(atoms.pbc, np.ceil(np.where(atoms.pbc, reach_scaled, 0.0)), 0.0).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in copies), indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = shifts[np.any(shifts != 0, axis=1)]
    images = (inside[None] + shifts[:, None]).reshape(-1, 3)
    near = np.all((images >= -reach_scaled) & (images <= 1 + reach_scaled), axis=1)
    numbers = np.concatenate([atoms.numbers, np.tile(atoms.numbers, len(shifts))[near]])
    points = np.concatenate([inside, images[near]]) @ cell
    return Surroundings(points, numbers, len(atoms))


def nearest(atoms: Atoms, reach: float) -> Floats:
    """Return (N,) Å from each atom to its nearest neighbour or image; infinity where none is within `reach`."""
    around = surroundings(atoms, reach)
    tree = cKDTree(around.points)
    found, _ = tree.query(around.points[: around.atoms], k=[2], distance_upper_bound=reach)
    return np.asarray(found[:, 0], dtype=float)


def shortest_distance(atoms: Atoms, reach: float) -> float:
    """Return the shortest distance in Å between two atoms or an atom and an image; infinity beyond `reach`."""
    return float(nearest(atoms, reach).min())


def shortest_per_pair(structures: Iterable[Atoms], reach: float) -> dict[str, float]:
    """Return the shortest distance in Å of every pair of elements within `reach`, keys like `Al-Ni`, sorted."""
    shortest: dict[str, float] = {}
    for atoms in structures:
        around = surroundings(atoms, reach)
        symbols = dict(zip(atoms.numbers.tolist(), atoms.get_chemical_symbols(), strict=True))
        for first, second in combinations_with_replacement(sorted(symbols, key=symbols.__getitem__), 2):
            tree = cKDTree(around.points[around.numbers == second])
            centres = around.points[: around.atoms][atoms.numbers == first]
            found, _ = tree.query(centres, k=[2 if first == second else 1], distance_upper_bound=reach)
            if np.isfinite(found.min()):
                pair = f"{symbols[first]}-{symbols[second]}"
                shortest[pair] = min(float(found.min()), shortest.get(pair, np.inf))
    return dict(sorted(shortest.items()))


def touching(pair: str) -> float:
    """Return the sum of the covalent radii of a pair such as `Al-Ni`, Å."""
    return float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in pair.split("-")))
