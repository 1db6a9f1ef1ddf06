"""D-optimal structures: those that hold the environments of largest volume, pass by pass.

One pass of MaxVol gives at most as many structures as there are functions of all elements. A budget beyond that is
filled by further passes over the structures that are left; a smaller one takes those that add most.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from containers.arrays import Floats, Mask
from containers.contract import Progress
from containers.tensorpot.active_set.active_rows import greedy_order
from containers.tensorpot.active_set.maxvol import Active, active_set
from containers.tensorpot.active_set.projection_files import Projected


@dataclass(frozen=True)
class Search:
    """Structures among which D-optimal ones are searched.

    Attributes:
        projected: of N structures.
        free: (N,) which of them can be chosen.
        given: (N,) which are in the set already: their rows count, and are not chosen.
        dft: (N,) which of the given have a DFT label, and so a weight of their own.
        tolerance: largest extrapolation grade that MaxVol leaves.
    """

    projected: Projected
    free: Mask
    given: Mask
    dft: Mask
    tolerance: float
    one_shot_bytes: int
    progress: Progress

    def active_sets(self, structures: Mask, start: dict[str, Active] | None = None) -> dict[str, Active]:
        """Return the active set of every element over the rows of some structures (a mask)."""
        return {
            name: active_set(
                rows.of(structures), self.tolerance, self.one_shot_bytes, None if start is None else start[name]
            )
            for name, rows in self.projected.elements.items()
        }


@dataclass(frozen=True)
class FirstPass:
    """Result of one pass of MaxVol over everything.

    Attributes:
        places: structures that hold active environments, most important first.
        rare: (N,) whether a structure has an element of `scarce`: all that are free are wanted.
        sets: the active sets by element.
    """

    places: list[int]
    rare: Mask
    sets: dict[str, Active]

    @property
    def scarce(self) -> list[str]:
        """Elements with fewer environments than functions, so that MaxVol has no choice."""
        return [name for name, active in self.sets.items() if active.scarce]


def first_pass(search: Search, most: int, ranked: bool) -> FirstPass:
    """Make one pass over the rows of what is free and given.

    Args:
        most: where there are more structures than this, they are in the order of what they add.
        ranked: order them so in any case.
    """
    start = search.active_sets(search.given) if search.given.any() else None
    sets = search.active_sets(search.given | search.free, start)
    rare = np.zeros(len(search.free), dtype=bool)
    for name in (name for name, active in sets.items() if active.scarce):
        for owners in search.projected.elements[name].owners:
            rare[owners] = True
    return FirstPass(_in_order(search, sets, most, ranked), rare, sets)


def further_passes(search: Search, chosen: list[int], count: int) -> tuple[list[int], int]:
    """Return `count` more structures (fewer when none is left) by MaxVol over those not chosen yet, pass by pass, and
    the number of passes."""
    left, more, passes = search.free.copy(), list[int](), 0
    while len(more) < count:
        left[chosen + more] = False
        search.progress(len(more), count, "D-optimal structures")
        found = _in_order(search, search.active_sets(left), count - len(more), False)
        if not found:
            break
        more, passes = more + found, passes + 1
    return more[:count], passes


def _in_order(search: Search, sets: dict[str, Active], most: int, ranked: bool) -> list[int]:
    """Return places of the free structures that hold active environments, by how many they hold; when there are more
    than `most`, by `greedy_order`: the coordinates of the elements stand side by side."""
    owners = (owner for active in sets.values() for owner in active.owners.tolist())
    counts = Counter(owner for owner in owners if search.free[owner])
    places = sorted(counts, key=lambda place: (-counts[place], place))
    if len(places) <= most and not ranked:
        return places
    index = {place: k for k, place in enumerate(places)}
    own: list[list[int]] = [[] for _ in places]
    given, first = list[int](), 0
    for active in sets.values():
        for number, owner in enumerate(active.owners.tolist(), first):
            (own[index[owner]] if owner in index else given).append(number)
        first += len(active.rows)
    back: dict[str, Floats] = {name: np.asarray(np.linalg.pinv(one.rows), dtype=float) for name, one in sets.items()}

    def coordinates(k: int) -> Floats:
        """Return (n, R) of the rows of one structure in terms of all active rows.

        Read anew for each: those of all would need more memory than everything else, by the elements' number squared.
        """
        mask = np.zeros(len(search.free), dtype=bool)
        mask[places[k]] = True
        blocks, before = list[Floats](), 0
        for name, matrix in back.items():
            after = before + matrix.shape[1]
            for rows, _ in search.projected.elements[name].of(mask).pieces():
                blocks.append(np.pad(rows @ matrix, ((0, 0), (before, first - after))))
            before = after
        return np.concatenate(blocks)

    mine = [np.array(one, dtype=np.int64) for one in own]
    order = greedy_order(coordinates, first, mine, np.array(given, dtype=np.int64))
    return [places[k] for k in order]
