"""How the structures without a label are cut into shards: pure decisions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

PILOT_ATOMS = 8_000
"""Atoms of the first shard on an unknown machine: some seconds of work, enough to find its speed and batches."""
FEWEST_SHARDS = 8
COUNTED = 200
"""Structures whose edges tell how many all have."""
SHORTEST = 1 / 3
"""The least part of the wanted seconds that a shard may take so that there are FEWEST_SHARDS."""


def shard_count(seconds: float, wanted_s: float) -> int:
    """Shards for so many seconds of work on one device.

    Each takes about `wanted_s`; where the work allows there are at least FEWEST_SHARDS, none shorter than a third of
    that (20 s of 60): a shard costs a start of the step.
    """
    enough = int(seconds / (wanted_s * SHORTEST))
    return max(round(seconds / wanted_s), min(FEWEST_SHARDS, enough), 1)


def cut(costs: NDArray[np.int64], shards: int) -> list[range]:
    """Consecutive structures in so many shards of equal cost, as far as whole structures allow; none is empty.

    Args:
        costs: of each structure, edges. One without edges counts as one.
    """
    done = np.cumsum(np.maximum(costs, 1))
    if not len(done):
        return []
    ends = np.searchsorted(done, done[-1] * np.arange(1, shards + 1) / shards - 0.5) + 1
    borders = np.unique(np.minimum([0, *ends], len(done)))
    return [range(start, stop) for start, stop in pairwise(borders)]


def pilot(atoms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the structures to begin with on a machine whose speed is not known: evenly over the pool.

    All of them when they are no more than two pilots.
    """
    share = PILOT_ATOMS / max(int(atoms.sum()), 1)
    if share >= 1 / 2:
        return np.arange(len(atoms))
    return evenly(len(atoms), max(round(len(atoms) * share), 1))


def evenly(count: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` of `count` places, evenly over them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
