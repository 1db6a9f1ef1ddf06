"""Give a fitted potential its core, where repulsion alone takes over from the fit: r_in of every pair of elements.

r_in is chosen with the potential itself. Needs pyace, imported inside the functions.

Below `r_in - blend_width(r_in)` a pair has the universal screened nuclear repulsion (Ziegler, Biersack, Littmark
1985), or the pair terms of a difference; above `r_in` the fit, between them a blend. pacemaker's own blend is 0.1 Å
wide, which is stiff: for silicon (300 training structures, shortest distance 1.61 Å) its force reached 2.9 times
ZBL's, and one test structure at 1.58 Å was wrong by 38 eV/Å; a quarter of r_in reaches 1.6 times ZBL's, and the test
errors stay those of the bare fit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from containers.arrays import Floats
from containers.contract import BadInput, Closed
from containers.structures.distances import shortest_distance, shortest_per_pair, touching
from containers.tensorpot.student.baseline import pair_names
from containers.tensorpot.student.calculator import neighbours, pair_term, zbl
from containers.tensorpot.student.potential import cutoff_of, elements_of, predict

VACUUM = 3.0  # times the cutoff: the cell of a dimer
TOO_FAR = 10.0
"""Extrapolation grade that must not be passed outside the core; pacemaker's value."""
SCANNED, SCAN_STEP = 50, 0.05  # structures that are compressed, Å between two looks; pacemaker's values

BLEND_SHARE, WIDEST_BLEND = 0.25, 0.4  # of r_in, Å
GRID = 0.01  # Å, on which the dimer's energy must rise
CLOSEST = 0.5  # Å, down to which it must rise
MARGIN = 0.1  # Å outside r_in, from where it must rise
LEVEL_eV = 1e-9  # a smaller fall is rounding
STEP = 0.02  # Å by which r_in is raised
RAISED = 1.0  # Å by which it is raised at most
RAISED_GENTLY = 0.1  # Å, for a pair that training has no bond of: farther out is what training knows of it
INWARD_STEP = 0.05  # Å by which it is then lowered

Terms = Mapping[str, Mapping[str, Any]]
DimerEnergy = Callable[[float, Floats], Floats]
"""Energies (eV) of a pair at distances (Å) when its core takes over at r_in (Å): `energy(r_in, distances)`."""


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
        """Return a copy of the potential whose core takes over at r_in (Å, by pair)."""
        configuration = self.bare.copy()
        set_cores(configuration, r_in, whole=not self.terms)
        return configuration

    def dimer(self, r_in: Mapping[str, float], pair: str, distances: Floats) -> tuple[Floats, Floats]:
        """Return energies (eV) and forces along the pair (eV/Å, positive: pushed apart) of all terms together.

        Only the blocks of its own elements are taken, so that the time does not grow with the other elements.
        """
        elements = set(pair.split("-"))
        part = self.bare.copy()
        part.funcspecs_blocks = [block for block in part.funcspecs_blocks if elements.issuperset(block.elements_vec)]
        set_cores(part, {one: r for one, r in r_in.items() if elements.issuperset(one.split("-"))}, not self.terms)
        energies, forces = predict(part, dimers(pair, distances, VACUUM * self.cutoff))
        apart = np.array([each[1, 0] for each in forces])
        if pair in self.terms:
            added, slopes = pair_term(pair, self.terms[pair], distances)
            energies, apart = energies + added, apart - slopes
        return energies, apart


def add_core(
    potential: Core, asi: Path, given_r_in: Mapping[str, float] | None, gamma_quantile: float
) -> tuple[Any, dict[str, PairCore]]:
    """Return the potential with a core for every pair of elements, and the choice for each pair by name (`Al-Ni`).

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
    given = check_r_in(given_r_in or {}, pairs, potential.cutoff)
    chosen = {
        pair: given[pair] if pair in given else _choose(potential, {**start, **given}, pair, shortest.get(pair))
        for pair in pairs
    }
    cores = {}
    for pair in pairs:
        distances = distances_inward(max(chosen[pair] + MARGIN, shortest.get(pair, 0.0)))
        dimer = potential.dimer(chosen, pair, distances)
        known = shortest.get(pair), reach.get(pair)
        cores[pair] = pair_core(pair, chosen[pair], distances, dimer, *known, potential.structures, potential.cutoff)
    return potential.given(chosen), cores


def _choose(potential: Core, start: Mapping[str, float], pair: str, shortest: float | None) -> float:
    """Return r_in (Å) of one pair from `start`; `shortest` is its shortest distance in the training frame.

    Where its dimer rises from no r_in, the core replaces as little of the data as it can.
    """

    def energy(r_in: float, distances: Floats) -> Floats:
        return potential.dimer({**start, pair: r_in}, pair, distances)[0]

    innermost = _unseen(pair, potential.cutoff)
    if shortest is not None and shortest <= touching(pair):
        if (rising := choose_r_in(start[pair], potential.cutoff, energy)) is not None:
            return rising
        innermost = shortest
    return choose_gentle_r_in(start[pair], innermost, potential.cutoff, energy)


def _unseen(pair: str, cutoff: float) -> float:
    """Return where the core of a pair without data begins (Å): the sum of the covalent radii, in the cutoff."""
    return min(touching(pair), cutoff - MARGIN)


def check_r_in(r_in: Mapping[str, float], pairs: Sequence[str], cutoff: float) -> dict[str, float]:
    """Return given r_in (Å) by the alphabetic name of the pair; raises `BadInput` for one that cannot be."""
    named = {"-".join(sorted(pair.split("-"))): distance for pair, distance in r_in.items()}
    if unknown := sorted(set(named) - set(pairs)):
        raise BadInput(f"r_in_A has {', '.join(unknown)}; the pairs of the potential are {', '.join(pairs)}")
    for pair, distance in named.items():
        if not CLOSEST < distance < cutoff - STEP:
            raise BadInput(
                f"r_in_A of {pair} is {distance:g} Å: give one between {CLOSEST} Å and the cutoff, {cutoff:g} Å"
            )
    return named


def set_cores(configuration: Any, r_in: Mapping[str, float], whole: bool) -> None:
    """Let the core take over inside r_in (Å, by pair): ZBL when `whole`, else nothing, so that the potential fades.

    pyace blends the energy of an atom by its closest neighbour and leaves its projections alone, so that the
    extrapolation grade still shows atoms inside the core.
    """
    from pyace.generalfit import setup_zbl_inner_core_repulsion

    elements = elements_of(configuration)
    places = {tuple(elements.index(symbol) for symbol in pair.split("-")): r for pair, r in r_in.items()}
    setup_zbl_inner_core_repulsion(configuration, places, core_rep_pars=(1 if whole else 0, 1))
    for block in configuration.funcspecs_blocks:
        if block.inner_cutoff_type == "zbl":  # set on the blocks of one and two elements
            block.delta_in = blend_width(block.r_in)


def dimers(pair: str, distances: Floats, box: float) -> list[Atoms]:
    """Return two atoms at each distance (Å), alone in a cell of `box` Å."""
    places = ([[0, 0, 0], [distance, 0, 0]] for distance in distances)
    return [Atoms(pair.split("-"), place, cell=[box] * 3, pbc=True) for place in places]


def gamma_distances(potential: Core, asi: Path, quantile: float) -> dict[str, float]:
    """Return where the extrapolation grade passes TOO_FAR as atoms come closer: Å by pair.

    As pacemaker's `pace_corerep` does, training structures are compressed evenly until an atom's grade passes; its
    distance to its nearest neighbour counts for their pair, of a structure the largest. `quantile` of these is
    returned: 0 the innermost.
    """
    from pyace import PyACECalculator

    calculator, cutoff = PyACECalculator(potential.bare), potential.cutoff
    calculator.set_active_set(str(asi))
    by_distance = sorted(potential.structures, key=lambda atoms: shortest_distance(atoms, cutoff))
    found: defaultdict[str, list[float]] = defaultdict(list)
    for atoms in by_distance[:: max(1, -(-len(by_distance) // SCANNED))]:
        before = shortest_distance(atoms, cutoff)
        for shortest in np.arange(before, CLOSEST, -SCAN_STEP):
            squeezed = atoms.copy()
            squeezed.set_cell(atoms.cell.array * shortest / before, scale_atoms=True)
            calculator.calculate(squeezed)
            beyond = np.flatnonzero(np.asarray(calculator.results["gamma"]) >= TOO_FAR)
            if not beyond.size:
                continue
            first, second, vectors = neighbours(squeezed, cutoff)
            distances, passed = np.linalg.norm(vectors, axis=1), dict[str, float]()
            for atom in beyond:
                mine = np.flatnonzero(first == atom)
                if mine.size:
                    closest = mine[np.argmin(distances[mine])]
                    pair = "-".join(sorted((squeezed.symbols[atom], squeezed.symbols[second[closest]])))
                    passed[pair] = max(passed.get(pair, 0.0), float(distances[closest]))
            for pair, distance in passed.items():
                found[pair].append(distance)
            break
    return {pair: float(np.quantile(distances, quantile)) for pair, distances in sorted(found.items())}


def pair_core(
    pair: str,
    r_in: float,
    distances: Floats,
    dimer: tuple[Floats, Floats] | None,
    shortest: float | None,
    gamma_10: float | None,
    structures: Sequence[Atoms] = (),
    cutoff: float = 0.0,
) -> PairCore:
    """Describe the core of a pair.

    Args:
        dimer: energies (eV) and forces (eV/Å) at the distances (Å); None: those of ZBL.
        structures: training structures, in which pairs inside r_in and inside the cutoff are counted.
    """
    one, other = (atomic_numbers[symbol] for symbol in pair.split("-"))
    zbl_energies, zbl_slopes = zbl(one, other, distances)
    energies, forces = dimer or (zbl_energies, -zbl_slopes)
    inside = total = 0
    for atoms in structures if shortest is not None and r_in > shortest else ():  # some of the data are altered
        first, second, vectors = neighbours(atoms, cutoff)
        of_pair = vectors[(atoms.numbers[first] == one) & (atoms.numbers[second] == other)]
        inside += int((np.linalg.norm(of_pair, axis=1) < r_in).sum())
        total += len(of_pair)
    return PairCore(
        r_in_A=r_in,
        delta_in_A=blend_width(r_in),
        shortest_distance_A=shortest,
        gamma_10_distance_A=gamma_10,
        share_of_pairs_inside=inside / total if total else 0.0,
        falls_eV=falls_by(energies),
        distance_A=tuple(distances.tolist()),
        energy_eV=tuple(energies.tolist()),
        zbl_eV=tuple(zbl_energies.tolist()),
        force_eV_per_A=tuple(forces.tolist()),
        zbl_force_eV_per_A=tuple((-zbl_slopes).tolist()),
    )


class PairCore(Closed):
    """The core of one pair of elements, and the dimer through it: everything that is the student's, added up."""

    r_in_A: float
    delta_in_A: float  # width of the blend
    shortest_distance_A: float | None  # of the training frame; None when it has no such pair inside the cutoff
    gamma_10_distance_A: float | None  # where the extrapolation grade passes 10; None when no scan of the pair shows it
    share_of_pairs_inside: float  # pairs of the training frame closer than r_in: their energies are altered
    falls_eV: float  # by how much the energy falls on the way in; 0: it rises, or is level outside r_in
    distance_A: tuple[float, ...]
    energy_eV: tuple[float, ...]
    zbl_eV: tuple[float, ...]
    force_eV_per_A: tuple[float, ...]  # along the pair, positive when it is pushed apart
    zbl_force_eV_per_A: tuple[float, ...]


def blend_width(r_in: float) -> float:
    """Return the Å inside r_in over which the fit gives way to its core."""
    return min(BLEND_SHARE * r_in, WIDEST_BLEND)


def distances_inward(start: float, spacing: float = GRID) -> Floats:
    """Return distances from `start` down to CLOSEST, both included (Å)."""
    steps = np.arange(int(np.floor((start - CLOSEST) / spacing + 1e-9)), -1, -1)
    grid = np.round(CLOSEST + spacing * steps, 6)
    return grid if grid[0] >= start - 1e-9 else np.concatenate([[start], grid])


def rises_inward(energies: Floats) -> bool:
    """Return whether every energy is above the one before, and all are numbers."""
    return bool(np.isfinite(energies).all() and (np.diff(energies) > 0).all())


def falls_by(energies: Floats) -> float:
    """Return the largest drop (eV) below an energy farther out, of energies ordered inward; infinity for no number."""
    if not np.isfinite(energies).all():
        return float("inf")
    return float((np.maximum.accumulate(energies) - energies).max())


def candidates(start: float, cutoff: float, raised: float = RAISED) -> Iterator[float]:
    """Yield the r_in (Å) to try, from `start` outward by up to `raised`, each within the cutoff."""
    for count in range(round(raised / STEP) + 1):
        r_in = float(np.floor((start + STEP * count) * 1e6)) / 1e6  # rounded up, it would be inside the data
        if r_in <= cutoff - STEP:
            yield r_in


def choose_r_in(start: float, cutoff: float, energy: DimerEnergy) -> float | None:
    """Return the first r_in outward with which the dimer's energy rises strictly to CLOSEST; None if none does.

    It must rise from MARGIN outside r_in, on half of GRID.
    """
    tried = candidates(start, cutoff)
    return next((r for r in tried if rises_inward(energy(r, distances_inward(r + MARGIN, GRID / 2)))), None)


def choose_gentle_r_in(start: float, innermost: float, cutoff: float, energy: DimerEnergy) -> float:
    """Return r_in (Å) for a pair that training never sees at bonding distances, or whose dimer rises from no r_in.

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
