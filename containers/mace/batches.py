"""How structures are grouped for the model: windows bounded by atoms, batches bounded by edges, less when memory ends.

A window is a run of structures whose graphs are made together; a batch is what the model sees at once. Both depend
on the structures and the bound alone, never on the machine, so that the labels do not either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


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


def batches(edges: dict[int, int], bound: int) -> list[list[int]]:
    """Group structures by size into batches of at most `bound` edges; a larger one is a batch of its own.

    Args:
        edges: structure -> edges. A structure without edges counts as one.
        bound: edges of a batch.
    """
    found: list[list[int]] = []
    room = 0
    for place in sorted(edges, key=lambda key: (edges[key], key)):
        cost = max(edges[place], 1)
        if cost > room:
            found.append([])
            room = bound
        found[-1].append(place)
        room -= cost
    return found


def compute_in_batches(
    edges: dict[int, int], bound: int, compute: Callable[[list[int]], list[T]]
) -> tuple[dict[int, T], list[int], int]:
    """Call `compute` batch by batch; when it raises `MemoryError`, halve the bound and go on.

    Returns:
        structure -> result, the structures that do not fit even alone, and the bound that worked.
    """
    done: dict[int, T] = {}
    too_large: list[int] = []
    waiting = batches(edges, bound)
    while waiting:
        batch = waiting.pop(0)
        try:
            done.update(zip(batch, compute(batch), strict=True))
        except MemoryError:
            if len(batch) == 1:
                too_large += batch
                continue
            bound = min(bound, sum(max(edges[place], 1) for place in batch)) // 2
            left = [place for part in (batch, *waiting) for place in part]
            waiting = batches({place: edges[place] for place in left}, bound)
    return done, too_large, bound
