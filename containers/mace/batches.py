"""How structures are grouped for the model: windows bounded by atoms, batches bounded by edges, less when memory ends.

A window is a run of structures whose graphs are made together; a batch is what the model sees at once. Both depend
on the structures and the bound alone, never on the machine, so that the labels do not either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Size:
    """How large a structure is for the model: the most neighbours of one atom, and all pairs."""

    neighbours: int
    edges: int

    @property
    def cost(self) -> int:
        """Edges, at least one."""
        return max(self.edges, 1)


def windows(atoms: Sequence[int], limit: int) -> list[range]:
    """Consecutive structures with at most `limit` atoms together; a larger one is alone.

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


def batches(sizes: Mapping[int, Size], bound: int) -> list[list[int]]:
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


def compute_in_batches(
    sizes: Mapping[int, Size], bound: int, compute: Callable[[list[int]], list[T]]
) -> tuple[dict[int, T], list[int], int]:
    """Call `compute` batch by batch; when it raises `MemoryError`, halve the bound and go on.

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
