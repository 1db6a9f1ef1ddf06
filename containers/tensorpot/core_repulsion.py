"""The core of a potential: where repulsion alone takes over from the fit. Pure.

Below `r_in - blend_width(r_in)` a pair has the universal screened nuclear repulsion (Ziegler, Biersack, Littmark
1985), or the pair terms of a difference; above `r_in` the fit, between them a blend. pacemaker's own blend is 0.1 Å
wide, which is stiff: for silicon (300 training structures, shortest distance 1.61 Å) its force reached 2.9 times
ZBL's, and one test structure at 1.58 Å was wrong by 38 eV/Å; a quarter of r_in reaches 1.6 times ZBL's, and the test
errors stay those of the bare fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from containers.contract import Closed

BLEND_SHARE, WIDEST_BLEND = 0.25, 0.4  # of r_in, Å
GRID = 0.01  # Å, on which the dimer's energy must rise
CLOSEST = 0.5  # Å, down to which it must rise
MARGIN = 0.1  # Å outside r_in, from where it must rise
LEVEL_eV = 1e-9  # a smaller fall is rounding
STEP = 0.02  # Å by which r_in is raised
RAISED = 1.0  # Å by which it is raised at most
RAISED_GENTLY = 0.1  # Å, for a pair that training has no bond of: farther out is what training knows of it
INWARD_STEP = 0.05  # Å by which it is then lowered

DimerEnergy = Callable[[float, NDArray[np.float64]], NDArray[np.float64]]
"""Energies (eV) of a pair at distances (Å) when its core takes over at r_in (Å): `energy(r_in, distances)`."""


class PairCore(Closed):
    """The core of one pair of elements, and the dimer through it: everything that is the student's, added up."""

    r_in_A: float
    delta_in_A: float  # width of the blend
    shortest_distance_A: float | None  # of the training frame; None when it has no such pair inside the cutoff
    gamma_10_distance_A: float | None  # where the extrapolation grade passes 10; None when no scan of the pair tells
    share_of_pairs_inside: float  # pairs of the training frame closer than r_in: their energies are altered
    falls_eV: float  # by how much the energy falls on the way in; 0: it rises, or is level outside r_in
    distance_A: tuple[float, ...]
    energy_eV: tuple[float, ...]
    zbl_eV: tuple[float, ...]
    force_eV_per_A: tuple[float, ...]  # along the pair, positive when it is pushed apart
    zbl_force_eV_per_A: tuple[float, ...]


def blend_width(r_in: float) -> float:
    """Over how many Å inside r_in the fit gives way to its core."""
    return min(BLEND_SHARE * r_in, WIDEST_BLEND)


def distances_inward(start: float, spacing: float = GRID) -> NDArray[np.float64]:
    """From `start` down to CLOSEST, both included (Å)."""
    steps = np.arange(int(np.floor((start - CLOSEST) / spacing + 1e-9)), -1, -1)
    grid = np.round(CLOSEST + spacing * steps, 6)
    return grid if grid[0] >= start - 1e-9 else np.concatenate([[start], grid])


def rises_inward(energies: NDArray[np.float64]) -> bool:
    """Whether every energy is above the one before, and all are numbers."""
    return bool(np.isfinite(energies).all() and (np.diff(energies) > 0).all())


def falls_by(energies: NDArray[np.float64]) -> float:
    """The largest drop (eV) of energies that are ordered inward below one before; infinity where one is no number."""
    if not np.isfinite(energies).all():
        return float("inf")
    return float((np.maximum.accumulate(energies) - energies).max())


def candidates(start: float, cutoff: float, raised: float = RAISED) -> Iterator[float]:
    """The r_in (Å) to try, from `start` outward by up to `raised`, each within the cutoff."""
    for count in range(round(raised / STEP) + 1):
        r_in = float(np.floor((start + STEP * count) * 1e6)) / 1e6  # rounded up, it would be inside the data
        if r_in <= cutoff - STEP:
            yield r_in


def choose_r_in(start: float, cutoff: float, energy: DimerEnergy) -> float | None:
    """The first r_in from `start` outward with which the dimer's energy rises strictly to CLOSEST; None if none does.

    It must rise from MARGIN outside r_in. Looked at on half of GRID.
    """
    for r_in in candidates(start, cutoff):
        if rises_inward(energy(r_in, distances_inward(r_in + MARGIN, GRID / 2))):
            return r_in
    return None


def choose_gentle_r_in(start: float, innermost: float, cutoff: float, energy: DimerEnergy) -> float:
    """r_in (Å) for a pair that training never sees at bonding distances, or whose dimer rises from no r_in.

    No r_in is refused. The first one wins whose dimer never falls on the way in:
    from `start` outward by RAISED_GENTLY, then inward to `innermost`. A flat energy outside r_in is right for a pair
    that training never sees. If all fall, the one that falls least is taken, and none outside `start`.

    Args:
        start: shortest distance of the pair in the training frame; `innermost` when it has none.
        innermost: sum of the covalent radii, or the shortest distance where that is below it.
    """
    inward = np.arange(start - INWARD_STEP, innermost, -INWARD_STEP).tolist()
    falls = dict[float, float]()
    for r_in in (*candidates(start, cutoff, RAISED_GENTLY), *inward):
        distances = distances_inward(max(start, r_in) + MARGIN, GRID / 2)
        energies = energy(r_in, distances)
        if falls_by(energies) < LEVEL_eV and rises_inward(energies[distances < r_in - GRID / 2]):
            return r_in
        if r_in <= start:
            falls[r_in] = falls_by(energies)
    return min(falls, key=falls.__getitem__)
