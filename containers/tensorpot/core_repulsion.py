"""The core of a potential: where the ZBL repulsion takes over from the fit. Pure.

Below `r_in - blend_width(r_in)` a pair has the universal screened nuclear repulsion (Ziegler, Biersack, Littmark
1985), above `r_in` the fit, between them a blend. pacemaker's own blend is 0.1 Å wide, which is stiff: for silicon
(300 training structures, shortest distance 1.61 Å) its force reached 2.9 times ZBL's, and one test structure at
1.58 Å was wrong by 38 eV/Å; a quarter of r_in reaches 1.6 times ZBL's, and the test errors stay those of the bare fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from containers.contract import Closed, StepError

BLEND_SHARE, WIDEST_BLEND = 0.25, 0.4  # of r_in, Å
GRID = 0.01  # Å, on which the dimer's energy must rise
CLOSEST = 0.5  # Å, down to which it must rise
STEP = 0.05  # Å between two tries of r_in
BELOW, ABOVE = 0.3, 1.0  # Å around the shortest distance of the data in which r_in is sought

ZBL_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
ZBL_EXPONENTS = np.array([3.19980, 0.94229, 0.40290, 0.20162])
COULOMB = 14.399645  # eV Å, e²/(4 pi eps0)

DimerEnergy = Callable[[float, NDArray[np.float64]], NDArray[np.float64]]
"""Energies (eV) of a pair at distances (Å) when its core takes over at r_in (Å): `energy(r_in, distances)`."""


class NoCoreRepulsion(StepError):
    """No r_in makes the energy of a pair rise all the way in."""


class PairCore(Closed):
    """The core of one pair of elements, and the dimer's energy through it."""

    r_in_A: float
    delta_in_A: float  # width of the blend
    shortest_distance_A: float | None  # of the training frame; None when it has no such pair inside the cutoff
    share_of_pairs_inside: float  # pairs of the training frame closer than r_in: their energies are altered
    distance_A: tuple[float, ...]
    energy_eV: tuple[float, ...]
    zbl_eV: tuple[float, ...]


def blend_width(r_in: float) -> float:
    """Over how many Å inside r_in the fit gives way to ZBL."""
    return min(BLEND_SHARE * r_in, WIDEST_BLEND)


def zbl_energy(z_i: int, z_j: int, distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Universal ZBL repulsion (eV) of two nuclei at distances (Å)."""
    length = 0.46850 / (z_i**0.23 + z_j**0.23)
    screening = np.exp(-np.outer(distances / length, ZBL_EXPONENTS)) @ ZBL_WEIGHTS
    return np.asarray(COULOMB * z_i * z_j / distances * screening)


def distances_inward(start: float, spacing: float = GRID) -> NDArray[np.float64]:
    """From `start` down to CLOSEST, both included (Å)."""
    steps = np.arange(int(np.floor((start - CLOSEST) / spacing + 1e-9)), -1, -1)
    grid = np.round(CLOSEST + spacing * steps, 6)
    return grid if grid[0] >= start - 1e-9 else np.concatenate([[start], grid])


def rises_inward(energies: NDArray[np.float64]) -> bool:
    """Whether every energy is above the one before, and all are numbers."""
    return bool(np.isfinite(energies).all() and (np.diff(energies) > 0).all())


def candidates(shortest: float, cutoff: float) -> Iterator[float]:
    """The r_in (Å) to try, in order, each within the cutoff.

    First the shortest distance of the data, then below it, which leaves every training structure as it was fitted,
    then above it, which does not.
    """
    down = [-STEP * n for n in range(round(BELOW / STEP) + 1)]
    up = [STEP * n for n in range(1, round(ABOVE / STEP) + 1)]
    for offset in down + up:
        r_in = float(np.floor((shortest + offset) * 1e6)) / 1e6  # rounded up, it would be inside the data
        if r_in - blend_width(r_in) >= CLOSEST and r_in <= cutoff - STEP:
            yield r_in


def choose_r_in(pair: str, shortest: float, cutoff: float, energy: DimerEnergy) -> float:
    """The first candidate with which the dimer's energy rises strictly to CLOSEST.

    It must rise from r_in, and from the shortest distance of the data where that is farther out, so that no well is
    left between the data and the core. Looked at on half of GRID. Raises `NoCoreRepulsion`.
    """
    for r_in in candidates(shortest, cutoff):
        if rises_inward(energy(r_in, distances_inward(max(r_in, shortest), GRID / 2))):
            return r_in
    raise NoCoreRepulsion(
        f"no r_in from {shortest - BELOW:.2f} to {shortest + ABOVE:.2f} Å makes the energy of the {pair} dimer rise"
        f" strictly down to {CLOSEST} Å. Add compressed {pair} structures to the pool, or set"
        " reference_potential: none."
    )
