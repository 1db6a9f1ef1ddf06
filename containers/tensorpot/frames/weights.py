"""Weights of structures in the loss by energy and forces, beside those of group, origin and selection. Pure.

A squared loss is ruled by the few structures that are far from everything else: a compressed cell some eV/atom above
the ground state, atoms pushed against each other. So a structure counts less, the higher it is in energy and the
larger its forces are, as in pacemaker's own `EnergyBasedWeightingPolicy` and with its values:

    w_energy × 1 / (1 + dE / energy scale)²        w_forces × the same × 1 / (1 + F² / force scale²)

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
"""eV/atom above the hull at which a structure counts a quarter, by default; pacemaker's DE."""
FORCE_SCALE = 1.0
"""eV/Å at which its forces count half, by default; pacemaker's DF."""
DIGITS = 9  # of a share of atoms: compositions that differ less are one


def energy_weighted(
    sides: Mapping[Side, Sequence[TrainingRow]],
    energy_scale_eV_per_atom: float = ENERGY_SCALE,
    force_scale_eV_per_A: float = FORCE_SCALE,
) -> dict[Side, list[TrainingRow]]:
    """Return the sides with less weight on high energies and large forces in training and validation; test as it is."""
    labels = [row.label for name in ("train", "validation") for row in sides[name]]
    symbols = [label.atoms.get_chemical_symbols() for label in labels]
    elements = sorted({symbol for each in symbols for symbol in each})
    shares = np.array([[each.count(element) / len(each) for element in elements] for each in symbols])
    # the hull takes care of reference energies
    heights = iter(above_hull(shares, np.array([label.energy / len(label.atoms) for label in labels])))
    found = {name: list(rows) for name, rows in sides.items()}
    for name in ("train", "validation"):
        scales = (energy_scale_eV_per_atom, force_scale_eV_per_A)
        found[name] = [weighted(row, float(next(heights)), *scales) for row in sides[name]]
    return found


def made_weighted(rows: Sequence[TrainingRow], shares: Mapping[str, float]) -> list[TrainingRow]:
    """Return the training rows; those made for one purpose together weigh its share of all that were not made.

    That holds for energies and, atom by atom, for forces; strained structures, made for the stress, have no more weight
    on their forces.
    """
    energies: dict[str | None, float] = {}
    forces: dict[str | None, float] = {}
    for row in rows:
        label = row.label
        energies[row.made_for] = energies.get(row.made_for, 0.0) + label.weight
        forces[row.made_for] = forces.get(row.made_for, 0.0) + label.w_forces * len(label.atoms)

    def as_its_share(row: TrainingRow) -> TrainingRow:
        label, share = row.label, shares[row.made_for or ""]
        weight = label.weight * share * energies.get(None, 0.0) / energies[row.made_for]
        on_forces = share * forces.get(None, 0.0) / forces[row.made_for] if row.made_for != "stress" else 1.0
        return replace(row, label=replace(label, weight=weight, weight_forces=label.w_forces * on_forces))

    return [as_its_share(row) if row.made_for else row for row in rows]


def weighted(row: TrainingRow, height: float, energy_scale: float, force_scale: float) -> TrainingRow:
    """Return the row with its weights times the factors; `height` is eV/atom above the hull."""
    label = row.label
    by_energy = 1 / (1 + max(height, 0.0) / energy_scale) ** 2
    square = float(np.square(label.label_forces).sum()) / len(label.atoms)
    by_force = 1 / (1 + square / force_scale**2)
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
