"""Groups of structures for the model: windows bounded by atoms, batches bounded by edges, less when memory ends.

Structures are sorted by density, then size: atoms with like numbers of neighbours waste least (see `convolution`).
A window is a run of structures whose graphs are made together; a batch is what the model sees at once. Both depend
on the structures and the bound alone, never on the machine, so that the labels do not either. The bound itself, edges
of a batch, is found by trying, in about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeVar

import numpy as np
from ase import Atoms

from containers.arrays import Indices

T = TypeVar("T")
FULL_WINDOW = 8
"""Edges of a batch per atom of a window at most: a solid has some 25 edges for an atom, so about three batches."""
SMALL_WINDOW = 32  # about one batch
WANTED_WINDOWS = 32  # of smaller windows, so that a few processes end together
DENSITY_DECIMALS = 4  # atoms per Å³; a solid has some 0.05
LOWEST_KEPT = 500
"""Edges of a batch: with fewer, one structure or another program ends memory, which is no reason to slow the rest."""
MARGIN_A = 1.5  # around the atoms of a structure whose cell does not give its volume


@dataclass(frozen=True, order=True)
class GraphSize:
    """Size of a structure for the model: the most neighbours of one atom, and all pairs."""

    neighbours: int
    edges: int

    @property
    def cost(self) -> int:
        """Edges, at least one."""
        return max(self.edges, 1)


def planned(structures: Sequence[Atoms], bound: int) -> list[tuple[int, ...]]:
    """Return the places of the structures of each window, the densest first, for batches of at most `bound` edges."""
    counts = np.array([len(atoms) for atoms in structures], dtype=np.int64)
    limit = min(max(int(counts.sum()) // WANTED_WINDOWS, bound // SMALL_WINDOW), bound // FULL_WINDOW)
    order = densest_first(structures)
    return [tuple(order[window.start : window.stop].tolist()) for window in windows(counts[order].tolist(), limit)]


def densest_first(structures: Sequence[Atoms]) -> Indices:
    """Return the places of the structures by density, then size, then their order."""
    counts = np.array([len(atoms) for atoms in structures])
    volumes = np.array([volume(atoms) for atoms in structures])
    densities = np.divide(counts, volumes, out=np.zeros(len(counts)), where=volumes > 0)
    return np.lexsort((-counts, -densities.round(DENSITY_DECIMALS))).astype(np.int64)


def volume(atoms: Atoms) -> float:
    """Return Å³ of the cell, or of the box around the atoms if the cell is flat or not periodic in all directions.

    0 for no atoms and for numbers that are not finite.
    """
    if len(atoms) == 0 or not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return 0.0
    cell = abs(float(np.linalg.det(atoms.cell.array)))
    box = float(np.prod(np.ptp(atoms.positions, axis=0) + 2 * MARGIN_A))
    return cell if atoms.pbc.all() and cell > 0 else box


def windows(atoms: Sequence[int], limit: int) -> list[range]:
    """Group consecutive structures with at most `limit` atoms together; a larger one is alone.

    Args:
        atoms: atoms of each structure.
        limit: atoms of a window.

    Returns:
        Ranges that cover all places in order.
    """
    found: list[range] = []
    start, total = 0, 0
    for place, count in enumerate(atoms):
        if place > start and total + count > limit:
            found.append(range(start, place))
            start, total = place, 0
        total += count
    return [*found, range(start, len(atoms))] if start < len(atoms) else found


def batches(sizes: Mapping[int, GraphSize], bound: int) -> list[list[int]]:
    """Group structures into batches of at most `bound` edges; a larger one is a batch of its own.

    They are sorted by neighbours, then edges: atoms with like numbers of neighbours waste least (see `convolution`).

    Args:
        sizes: structure -> size. A structure without edges counts as one edge.
        bound: edges of a batch.
    """
    found: list[list[int]] = []
    room = 0
    for place in sorted(sizes, key=lambda key: (sizes[key], key)):
        cost = sizes[place].cost
        if cost > room:
            found.append([])
            room = bound
        found[-1].append(place)
        room -= cost
    return found


def kept(bound: int, before: int) -> int:
    """Return the next bound, when memory ended and only `bound` instead of `before` went well."""
    return max(bound, min(before, LOWEST_KEPT))


def compute_in_batches(
    sizes: Mapping[int, GraphSize], bound: int, compute: Callable[[list[int]], list[T]]
) -> tuple[dict[int, T], list[int], int]:
    """Call `compute` batch by batch; when it raises `MemoryError`, halve the bound.

    Returns:
        structure -> result, the structures that do not fit even alone, and the bound that worked.
    """
    done: dict[int, T] = {}
    too_large: list[int] = []
    waiting = batches(sizes, bound)
    while waiting:
        batch = waiting.pop(0)
        try:
            done.update(zip(batch, compute(batch), strict=True))
        except MemoryError:
            if len(batch) == 1:
                too_large += batch
                continue
            bound = min(bound, sum(sizes[place].cost for place in batch)) // 2
            left = [place for part in (batch, *waiting) for place in part]
            waiting = batches({place: sizes[place] for place in left}, bound)
    return done, too_large, bound


DEFAULT_BOUND = 8_000
"""The fastest measured on a CPU in both types: more edges miss its cache, fewer pay more calls."""
LOWEST_BOUND, HIGHEST_BOUND_CPU, HIGHEST_BOUND_GPU = 1_000, 32_000, 8_192_000
SAMPLE_EDGES = 8_000
SHARD_SAMPLES = 20
"""A shard of fewer samples is done before trying has paid."""
FEWEST_BATCHES = 32  # of a shard, so that several processes share it evenly
TIMES = 2  # each bound is timed; the faster counts, for something else may have run
WORTH = 1.03  # a larger bound must be faster by this: a smaller one takes less memory
BUDGET_S = 0.8  # no further bound is tried after it


@dataclass
class BatchCalibration:
    """Edges per second for each bound tried."""

    throughput: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """The smallest bound that is nearly as fast as the fastest; the default when none could be tried."""
        if not self.throughput:
            return DEFAULT_BOUND
        enough = max(self.throughput.values()) / WORTH
        return min(bound for bound, speed in self.throughput.items() if speed >= enough)


def calibrate(
    speed: Callable[[int], float], highest: int, clock: Callable[[], float], budget_s: float = BUDGET_S
) -> BatchCalibration:
    """Try the default bound, then larger and smaller ones as long as they are faster and there is time.

    Args:
        speed: edges per second with a bound; raises `MemoryError` when memory ends.
        highest: largest bound to try.
        clock: seconds, e.g. `time.monotonic`.
        budget_s: no further bound is tried when it is used up.
    """
    found = BatchCalibration()
    ends = clock() + budget_s

    def climb(bound: int, factor: float, before: float) -> None:
        while LOWEST_BOUND <= bound <= highest and clock() < ends:
            try:
                tried = max(speed(bound) for _ in range(TIMES))
            except MemoryError:
                tried = 0.0
            if tried:
                found.throughput[bound] = tried
            if tried <= before and (tried or factor > 1):  # no memory: only smaller ones are left to try
                return
            before = max(tried, before)
            bound = int(bound * factor)

    climb(DEFAULT_BOUND, 2, 0.0)
    if found.best == DEFAULT_BOUND:
        climb(DEFAULT_BOUND // 2, 1 / 2, found.throughput.get(DEFAULT_BOUND, 0.0))
    return found


def filled(costs: Sequence[int], bound: int) -> list[list[int]]:
    """Make batches of at most `bound` edges for about SAMPLE_EDGES, or one: places in `costs`, from the first again at
    the end. Only full ones, for a rest would be slow and would show nothing.
    """
    places = cycle(range(len(costs)))
    found: list[list[int]] = []
    for _ in range(max(SAMPLE_EDGES // bound, 1)):
        batch = [next(places)]
        room = bound - costs[batch[0]]
        while (more := costs[(batch[-1] + 1) % len(costs)]) <= room:
            batch.append(next(places))
            room -= more
        found.append(batch)
    return found


def evenly(places: Sequence[int], count: int) -> list[int]:
    """Return `count` of `places`, evenly spaced; all when there are fewer."""
    if len(places) <= count:
        return list(places)
    return [places[(2 * number + 1) * len(places) // (2 * count)] for number in range(count)]
