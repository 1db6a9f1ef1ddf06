"""Give a fitted potential its core repulsion: r_in of every pair of elements, chosen with the potential itself.

Needs pyace, imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from containers.distances import shortest_per_pair
from containers.tensorpot import core_repulsion as core
from containers.tensorpot.fitted_potential import cutoff_of, elements_of, predict

VACUUM = 3.0  # times the cutoff: the cell of a dimer

Pair = tuple[str, str]


def add_core(configuration: Any, structures: Sequence[Atoms]) -> dict[str, core.PairCore]:
    """Give every pair of elements its ZBL core, in place. `structures` are those of the training frame.

    Returns the choice for each pair by name (`Al-Ni`). Raises `NoCoreRepulsion`.
    """
    cutoff = cutoff_of(configuration)
    pairs = list(combinations_with_replacement(elements_of(configuration), 2))
    shortest = shortest_per_pair(structures, cutoff)
    inner = {pair: shortest.get("-".join(pair), _touching(pair, cutoff)) for pair in pairs}

    def energies(pair: Pair) -> core.DimerEnergy:
        return lambda r_in, distances: _dimer_energies(configuration, inner, pair, r_in, distances)

    chosen = {pair: core.choose_r_in("-".join(pair), inner[pair], cutoff, energies(pair)) for pair in pairs}
    _set_cores(configuration, chosen)
    return {
        "-".join(pair): _pair_core(configuration, pair, r_in, shortest.get("-".join(pair)), structures)
        for pair, r_in in chosen.items()
    }


def _touching(pair: Pair, cutoff: float) -> float:
    """Where the cores of a pair meet that the data does not show: the sum of the covalent radii (Å)."""
    return min(sum(float(covalent_radii[atomic_numbers[symbol]]) for symbol in pair), 0.6 * cutoff)


def _set_cores(configuration: Any, inner: dict[Pair, float]) -> None:
    from pyace.generalfit import setup_zbl_inner_core_repulsion

    elements = elements_of(configuration)
    by_place = {(elements.index(first), elements.index(second)): r_in for (first, second), r_in in inner.items()}
    setup_zbl_inner_core_repulsion(configuration, by_place)
    for block in configuration.funcspecs_blocks:
        if block.inner_cutoff_type == "zbl":  # set on the blocks of one and two elements
            block.delta_in = core.blend_width(block.r_in)


def _dimer_energies(
    configuration: Any, inner: dict[Pair, float], pair: Pair, r_in: float, distances: NDArray[np.float64]
) -> NDArray[np.float64]:
    trial = configuration.copy()
    _set_cores(trial, {**inner, pair: r_in})
    return predict(trial, dimers(pair, distances, VACUUM * cutoff_of(configuration)))[0]


def dimers(pair: Pair, distances: NDArray[np.float64], box: float) -> list[Atoms]:
    """Two atoms at each distance (Å), alone in a cell of `box` Å."""
    return [Atoms(list(pair), [[0, 0, 0], [distance, 0, 0]], cell=[box] * 3, pbc=True) for distance in distances]


def _pair_core(
    configuration: Any, pair: Pair, r_in: float, shortest: float | None, structures: Sequence[Atoms]
) -> core.PairCore:
    distances = core.distances_inward(max(r_in, shortest or 0.0))
    cutoff = cutoff_of(configuration)
    first, second = (atomic_numbers[symbol] for symbol in pair)
    altered = shortest is not None and r_in > shortest
    return core.PairCore(
        r_in_A=r_in,
        delta_in_A=core.blend_width(r_in),
        shortest_distance_A=shortest,
        share_of_pairs_inside=share_inside(structures, pair, r_in, cutoff) if altered else 0.0,
        distance_A=tuple(distances.tolist()),
        energy_eV=tuple(predict(configuration, dimers(pair, distances, VACUUM * cutoff))[0].tolist()),
        zbl_eV=tuple(core.zbl_energy(first, second, distances).tolist()),
    )


def share_inside(structures: Sequence[Atoms], pair: Pair, r_in: float, cutoff: float) -> float:
    """Neighbours of this pair of elements closer than r_in (Å) over those inside the cutoff."""
    first, second = (atomic_numbers[symbol] for symbol in pair)
    inside = total = 0
    for atoms in structures:
        i, j, distances = neighbor_list("ijd", atoms, cutoff)
        of_pair = distances[(atoms.numbers[i] == first) & (atoms.numbers[j] == second)]
        inside, total = inside + int((of_pair < r_in).sum()), total + len(of_pair)
    return inside / total
