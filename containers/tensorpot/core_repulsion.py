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

from containers.contract import Closed, StepError

BLEND_SHARE, WIDEST_BLEND = 0.25, 0.4  # of r_in, Å
GRID = 0.01  # Å, on which the dimer's energy must rise
CLOSEST = 0.5  # Å, down to which it must rise
MARGIN = 0.1  # Å outside r_in, from where it must rise
STEP = 0.02  # Å by which r_in is raised
RAISED = 1.0  # Å by which it is raised at most

DimerEnergy = Callable[[float, NDArray[np.float64]], NDArray[np.float64]]
"""Energies (eV) of a pair at distances (Å) when its core takes over at r_in (Å): `energy(r_in, distances)`."""


class NoCoreRepulsion(StepError):
    """No r_in makes the energy of a pair rise all the way in."""


class PairCore(Closed):
    """The core of one pair of elements, and the dimer through it: everything that is the student's, added up."""

    r_in_A: float
    delta_in_A: float  # width of the blend
    shortest_distance_A: float | None  # of the training frame; None when it has no such pair inside the cutoff
    gamma_10_distance_A: float | None  # where the extrapolation grade passes 10; None when no scan of the pair tells
    share_of_pairs_inside: float  # pairs of the training frame closer than r_in: their energies are altered
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


def candidates(start: float, cutoff: float) -> Iterator[float]:
    """The r_in (Å) to try, from `start` outward, each within the cutoff."""
    for count in range(round(RAISED / STEP) + 1):
        r_in = float(np.floor((start + STEP * count) * 1e6)) / 1e6  # rounded up, it would be inside the data
        if r_in <= cutoff - STEP:
            yield r_in


def choose_r_in(pair: str, start: float, cutoff: float, energy: DimerEnergy) -> float:
    """The first r_in from `start` outward with which the dimer's energy rises strictly to CLOSEST.

    It must rise from MARGIN outside r_in. Looked at on half of GRID. Raises `NoCoreRepulsion`.
    """
    for r_in in candidates(start, cutoff):
        if rises_inward(energy(r_in, distances_inward(r_in + MARGIN, GRID / 2))):
            return r_in
    raise NoCoreRepulsion(
        f"no r_in from {start:.2f} to {start + RAISED:.2f} Å makes the energy of the {pair} dimer rise strictly from"
        f" {MARGIN} Å outside it down to {CLOSEST} Å. Add compressed {pair} structures to the pool, or set"
        " reference_potential: none."
    )
