"""Give a fitted potential its core: r_in of every pair of elements, chosen with the potential itself.

Needs pyace, imported inside the functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from containers.contract import BadInput
from containers.distances import shortest_distance, shortest_per_pair, touching
from containers.tensorpot import core_repulsion as core
from containers.tensorpot.fitted_potential import cutoff_of, elements_of, predict
from containers.tensorpot.pair_difference import pair_names
from containers.tensorpot.student import neighbours, pair_term, zbl

VACUUM = 3.0  # times the cutoff: the cell of a dimer
TOO_FAR = 10.0
"""Extrapolation grade that must not be passed outside the core; pacemaker's value."""
SCANNED, SCAN_STEP = 50, 0.05  # structures that are compressed, Å between two looks; pacemaker's values

Floats = NDArray[np.float64]
Terms = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Core:
    """A potential that is being given its core.

    Attributes:
        bare: its `BBasisConfiguration`, without a core.
        structures: those of the training frame.
        terms: pair terms that are added to the potential; where there are some, they are the core, otherwise ZBL.
    """

    bare: Any
    structures: Sequence[Atoms]
    terms: Terms

    @property
    def cutoff(self) -> float:
        """Å."""
        return cutoff_of(self.bare)

    def given(self, r_in: Mapping[str, float]) -> Any:
        """A copy of the potential whose core takes over at r_in (Å, by pair)."""
        configuration = self.bare.copy()
        set_cores(configuration, r_in, whole=not self.terms)
        return configuration

    def dimer(self, r_in: Mapping[str, float], pair: str, distances: Floats) -> tuple[Floats, Floats]:
        """Energies (eV) and forces along the pair (eV/Å, positive when it is pushed apart) of all terms together."""
        made = dimers(pair, distances, VACUUM * self.cutoff)
        energies, forces = predict(self.given(r_in), made)
        apart = np.array([each[1, 0] for each in forces])
        if pair in self.terms:
            added, slopes = pair_term(pair, self.terms[pair], distances)
            energies, apart = energies + added, apart - slopes
        return energies, apart


def add_core(
    potential: Core, asi: Path, given_r_in: Mapping[str, float] | None, gamma_quantile: float
) -> tuple[Any, dict[str, core.PairCore]]:
    """The potential with a core for every pair of elements, and the choice for each pair by name (`Al-Ni`).

    r_in is as given, or the largest of the shortest distance of the data and that where γ passes TOO_FAR, raised until
    the dimer's energy rises. A pair that the data do not have begins at the sum of the covalent radii, and one that
    they have only farther apart is never raised into the data (`choose_gentle_r_in`), nor one that rises from no r_in.

    Raises `BadInput` when a given pair is unknown.
    """
    pairs = pair_names(elements_of(potential.bare))
    shortest = shortest_per_pair(potential.structures, potential.cutoff)
    reach = gamma_distances(potential, asi, gamma_quantile)
    start = {
        pair: max(shortest[pair], reach.get(pair, 0.0)) if pair in shortest else _unseen(pair, potential.cutoff)
        for pair in pairs
    }
    given = _checked(given_r_in or {}, pairs, potential.cutoff)
    chosen = {
        pair: given[pair] if pair in given else _choose(potential, {**start, **given}, pair, shortest.get(pair))
        for pair in pairs
    }
    cores = {pair: _pair_core(potential, chosen, pair, shortest.get(pair), reach.get(pair)) for pair in pairs}
    return potential.given(chosen), cores


def _choose(potential: Core, start: Mapping[str, float], pair: str, shortest: float | None) -> float:
    """r_in (Å) of one pair from `start`; `shortest` is its shortest distance in the training frame.

    Where its dimer rises from no r_in, the core replaces as little of the data as it can.
    """

    def energy(r_in: float, distances: Floats) -> Floats:
        return potential.dimer({**start, pair: r_in}, pair, distances)[0]

    innermost = _unseen(pair, potential.cutoff)
    if shortest is not None and shortest <= touching(pair):
        if (rising := core.choose_r_in(start[pair], potential.cutoff, energy)) is not None:
            return rising
        innermost = shortest
    return core.choose_gentle_r_in(start[pair], innermost, potential.cutoff, energy)


def _unseen(pair: str, cutoff: float) -> float:
    """Where the core of a pair begins that the data do not show (Å): the sum of the covalent radii, in the cutoff."""
    return min(touching(pair), cutoff - core.MARGIN)


def _checked(r_in: Mapping[str, float], pairs: Sequence[str], cutoff: float) -> dict[str, float]:
    named = {"-".join(sorted(pair.split("-"))): distance for pair, distance in r_in.items()}
    if unknown := sorted(set(named) - set(pairs)):
        raise BadInput(f"r_in_A has {', '.join(unknown)}; the pairs of the potential are {', '.join(pairs)}")
    for pair, distance in named.items():
        if not core.CLOSEST < distance < cutoff - core.STEP:
            raise BadInput(
                f"r_in_A of {pair} is {distance:g} Å: give one between {core.CLOSEST} Å and the cutoff, {cutoff:g} Å"
            )
    return named


def set_cores(configuration: Any, r_in: Mapping[str, float], whole: bool) -> None:
    """Let the core take over inside r_in (Å, by pair): ZBL when `whole`, else nothing, so that the potential fades.

    pyace blends the energy of an atom by its closest neighbour and leaves its projections alone, so that the
    extrapolation grade still tells of atoms inside the core.
    """
    from pyace.generalfit import setup_zbl_inner_core_repulsion

    elements = elements_of(configuration)
    places = {tuple(elements.index(symbol) for symbol in pair.split("-")): r for pair, r in r_in.items()}
    setup_zbl_inner_core_repulsion(configuration, places, core_rep_pars=(1 if whole else 0, 1))
    for block in configuration.funcspecs_blocks:
        if block.inner_cutoff_type == "zbl":  # set on the blocks of one and two elements
            block.delta_in = core.blend_width(block.r_in)


def dimers(pair: str, distances: Floats, box: float) -> list[Atoms]:
    """Two atoms at each distance (Å), alone in a cell of `box` Å."""
    place = partial(Atoms, pair.split("-"), cell=[box] * 3, pbc=True)
    return [place(positions=[[0, 0, 0], [distance, 0, 0]]) for distance in distances]


def gamma_distances(potential: Core, asi: Path, quantile: float) -> dict[str, float]:
    """Where the extrapolation grade passes TOO_FAR as atoms come closer: Å by pair.

    As pacemaker's `pace_corerep` does, training structures are compressed evenly until an atom's grade passes; its
    distance to its nearest neighbour counts for their pair. `quantile` of these is returned: 0 the innermost.
    """
    from pyace import PyACECalculator

    calculator = PyACECalculator(potential.bare)
    calculator.set_active_set(str(asi))
    by_distance = sorted(potential.structures, key=lambda atoms: shortest_distance(atoms, potential.cutoff))
    scanned = by_distance[:: max(1, -(-len(by_distance) // SCANNED))]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for atoms in scanned:
        for pair, distance in _passing(atoms, calculator, potential.cutoff).items():
            found[pair].append(distance)
    return {pair: float(np.quantile(distances, quantile)) for pair, distances in sorted(found.items())}


def _passing(atoms: Atoms, calculator: Any, cutoff: float) -> dict[str, float]:
    """Largest distance of each pair at the first compression at which atoms pass TOO_FAR; empty if none does."""
    before = shortest_distance(atoms, cutoff)
    for shortest in np.arange(before, core.CLOSEST, -SCAN_STEP):
        squeezed = atoms.copy()
        squeezed.set_cell(atoms.cell.array * shortest / before, scale_atoms=True)
        calculator.calculate(squeezed)
        beyond = np.flatnonzero(np.asarray(calculator.results["gamma"]) >= TOO_FAR)
        if beyond.size:
            return _nearest_pairs(squeezed, beyond, cutoff)
    return {}


def _nearest_pairs(atoms: Atoms, chosen: NDArray[np.int64], cutoff: float) -> dict[str, float]:
    first, second, vectors = neighbours(atoms, cutoff)
    distances = np.linalg.norm(vectors, axis=1)
    found: dict[str, float] = {}
    for atom in chosen:
        mine = np.flatnonzero(first == atom)
        if mine.size:
            closest = mine[np.argmin(distances[mine])]
            pair = "-".join(sorted((atoms.symbols[atom], atoms.symbols[second[closest]])))
            found[pair] = max(found.get(pair, 0.0), float(distances[closest]))
    return found


def _pair_core(
    potential: Core, r_in: Mapping[str, float], pair: str, shortest: float | None, gamma_10: float | None
) -> core.PairCore:
    distances = core.distances_inward(max(r_in[pair] + core.MARGIN, shortest or 0.0))
    energies, forces = potential.dimer(r_in, pair, distances)
    first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
    zbl_energies, zbl_slopes = zbl(first, second, distances)
    altered = shortest is not None and r_in[pair] > shortest
    return core.PairCore(
        r_in_A=r_in[pair],
        delta_in_A=core.blend_width(r_in[pair]),
        shortest_distance_A=shortest,
        gamma_10_distance_A=gamma_10,
        share_of_pairs_inside=share_inside(potential.structures, pair, r_in[pair], potential.cutoff)
        if altered
        else 0.0,
        falls_eV=core.falls_by(energies),
        distance_A=tuple(distances.tolist()),
        energy_eV=tuple(energies.tolist()),
        zbl_eV=tuple(zbl_energies.tolist()),
        force_eV_per_A=tuple(forces.tolist()),
        zbl_force_eV_per_A=tuple((-zbl_slopes).tolist()),
    )


def share_inside(structures: Sequence[Atoms], pair: str, r_in: float, cutoff: float) -> float:
    """Neighbours of this pair of elements closer than r_in (Å) over those inside the cutoff."""
    one, other = (atomic_numbers[symbol] for symbol in pair.split("-"))
    inside = total = 0
    for atoms in structures:
        first, second, vectors = neighbours(atoms, cutoff)
        of_pair = vectors[(atoms.numbers[first] == one) & (atoms.numbers[second] == other)]
        inside, total = inside + int((np.linalg.norm(of_pair, axis=1) < r_in).sum()), total + len(of_pair)
    return inside / total
