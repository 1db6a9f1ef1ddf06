"""Weights of structures in the loss by energy and forces, beside those of group, origin and selection. Pure.

A squared loss is ruled by the few structures that are far from everything else: a compressed cell some eV/atom above
the ground state, atoms pushed against each other. So a structure counts less, the higher it is in energy and the
larger its forces are, as in pacemaker's own `EnergyBasedWeightingPolicy` and with its values:

    w_energy × 1 / (1 + dE / ENERGY_SCALE)²        w_forces × the same × 1 / (1 + F² / FORCE_SCALE²)

dE (eV/atom) is the height above the convex hull of energy over composition of the training and validation rows, F
(eV/Å) the root mean square force on an atom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from containers.arrays import Floats
from containers.structures.split import Side
from containers.tensorpot.frames.rows import TrainingRow

ENERGY_SCALE = 1.0
"""eV/atom above the hull at which a structure counts a quarter; pacemaker's DE."""
FORCE_SCALE = 1.0
"""eV/Å at which its forces count half; pacemaker's DF."""
DIGITS = 9  # of a share of atoms: compositions that differ less are one


def energy_weighted(sides: Mapping[Side, Sequence[TrainingRow]]) -> dict[Side, list[TrainingRow]]:
    """Return the sides with less weight on high energies and large forces in training and validation; test as it is."""
    labels = [row.label for name in ("train", "validation") for row in sides[name]]
    symbols = [label.atoms.get_chemical_symbols() for label in labels]
    elements = sorted({symbol for each in symbols for symbol in each})
    shares = np.array([[each.count(element) / len(each) for element in elements] for each in symbols])
    # the hull takes care of reference energies
    heights = iter(above_hull(shares, np.array([label.energy / len(label.atoms) for label in labels])))
    found = {name: list(rows) for name, rows in sides.items()}
    for name in ("train", "validation"):
        found[name] = [weighted(row, float(next(heights))) for row in sides[name]]
    return found


def made_weighted(rows: Sequence[TrainingRow], shares: Mapping[str, float]) -> list[TrainingRow]:
    """Return the training rows; those made for one purpose together weigh its share of all that were not made.

    Strained structures, made for the stress, do so by their energies alone.
    """
    weights: dict[str | None, float] = {}
    for row in rows:
        weights[row.made_for] = weights.get(row.made_for, 0.0) + row.label.weight
    found = []
    for row in rows:
        if row.made_for:
            factor, label = shares[row.made_for] * weights.get(None, 0.0) / weights[row.made_for], row.label
            forces = label.w_forces * (1 if row.made_for == "stress" else factor)
            row = replace(row, label=replace(label, weight=label.weight * factor, weight_forces=forces))
        found.append(row)
    return found


def weighted(row: TrainingRow, height: float) -> TrainingRow:
    """Return the row with its weights times the factors; `height` is eV/atom above the hull."""
    label = row.label
    by_energy = 1 / (1 + max(height, 0.0) / ENERGY_SCALE) ** 2
    square = float(np.square(label.label_forces).sum()) / len(label.atoms)
    by_force = 1 / (1 + square / FORCE_SCALE**2)
    weight = label.weight * by_energy
    return replace(row, label=replace(label, weight=weight, weight_forces=label.w_forces * by_energy * by_force))


def above_hull(shares: Floats, energies: Floats) -> Floats:
    """Return (N,) eV/atom by which energies (N,) are above their lower convex hull over composition (N, E)."""
    from scipy.optimize import linprog

    points, place = np.unique(shares.round(DIGITS), axis=0, return_inverse=True)
    place = place.ravel()
    lowest = np.full(len(points), np.inf)
    np.minimum.at(lowest, place, energies)
    if len(points) == 1:
        return energies - lowest[place]
    hull = [linprog(lowest, A_eq=points.T, b_eq=point, method="highs").fun for point in points]
    return energies - np.minimum(np.array(hull), lowest)[place]
