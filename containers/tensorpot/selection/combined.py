"""The methods that choose by projections: D-optimal alone, and combined with representatives of the bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from containers.arrays import Floats, Indices, Mask
from containers.contract import BadInput, StepError
from containers.tensorpot.selection.d_optimal import FirstPass, Search, first_pass, further_passes
from containers.tensorpot.selection.representatives import (
    bulk_choice,
    representation_weights,
    share_d_optimal,
    structure_space,
)

T = TypeVar("T")
How = Literal["given", "d_optimal", "scarce", "bulk", "random", "all"]


@dataclass(frozen=True)
class Chosen:
    """Structures by their places.

    Attributes:
        how: why each was chosen, most important first.
        weights: how much a structure counts in the fit, where that is not 1.
        facts: figures for the report.
    """

    how: dict[int, How]
    facts: dict[str, Any]
    weights: dict[int, float] = field(default_factory=dict)

    def weight(self, place: int) -> float:
        """Of one structure, chosen here or given."""
        return self.weights.get(place, 1.0)


def with_every_element(
    order: Sequence[T], count: int, elements: Callable[[T], AbstractSet[str]], covered: Iterable[str]
) -> list[T]:
    """The first `count` of `order`, the last of them giving way to the first one with an element that all others lack.

    Args:
        elements: chemical symbols of one.
        covered: elements that training has already.
    """
    seen, guards = set(covered), set[T]()
    for one in order:
        if elements(one) - seen:
            guards.add(one)
            seen |= elements(one)
    if len(guards) > count:
        guards = _few_with_all(order, elements, seen - set(covered))
    room = max(count - len(guards), 0)
    fill = set([one for one in order if one not in guards][:room])
    return [one for one in order if one in guards or one in fill]


def _few_with_all(order: Sequence[T], elements: Callable[[T], AbstractSet[str]], missing: set[str]) -> set[T]:
    """Greedily few that have all the missing elements together; each is in one of `order`."""
    found = set[T]()
    while missing:
        best = max(order, key=lambda one: len(elements(one) & missing))
        found.add(best)
        missing = missing - elements(best)
    return found


def choose(search: Search, most: int, combined: bool, elements: Sequence[AbstractSet[str]]) -> Chosen:
    """At most `most` of the free structures, every element of them among what is chosen and given.

    Args:
        elements: chemical symbols of each structure.
        combined: D-optimal ones for a part of the budget only (`bulk.share_d_optimal`), representatives for the rest;
            otherwise passes of MaxVol until the budget is filled.
    """
    first = first_pass(search, most, ranked=combined)
    share = share_d_optimal(most, len(first.places)) if combined else most
    how = _guards(search, first, share, most, elements)
    if combined:
        return _with_bulk(search, how, most, _facts(first, 1))
    more, passes = further_passes(search, list(how), most - len(how))
    return Chosen(how | dict.fromkeys(more, "d_optimal"), _facts(first, 1 + passes))


def _guards(
    search: Search, first: FirstPass, share: int, most: int, elements: Sequence[AbstractSet[str]]
) -> dict[int, How]:
    """The D-optimal structures of the first pass, `share` or as many as all elements need; then the rest with a scarce
    element, if all of it fits in the budget: of a dopant in every structure a part is no better than what the method
    chooses.

    Raises:
        BadInput: the budget has no room for a structure of every element.
    """
    covered = set[str]().union(*(elements[place] for place in np.flatnonzero(search.given).tolist()))
    taken = with_every_element(first.places, share, elements.__getitem__, covered)
    if len(taken) > most:
        raise BadInput(no_room(most, len(taken)))
    how: dict[int, How] = {place: "scarce" if first.rare[place] else "d_optimal" for place in taken}
    left_out = [place for place in first.places if place not in how and first.rare[place]]
    others = np.flatnonzero(first.rare & search.free).tolist()
    whole = how | dict.fromkeys((place for place in left_out + others if place not in how), "scarce")
    return whole if len(whole) <= most else how


def no_room(most: int, needed: int) -> str:
    """What a budget that leaves an element out is refused with."""
    return (
        f"the budget of the selection has room for {most} new structures, but {needed} are needed for training to see"
        " every element: raise selection.max_structures"
    )


def _with_bulk(search: Search, how: dict[int, How], most: int, facts: dict[str, Any]) -> Chosen:
    """The rest of the budget by `bulk_choice` over all structures of the training side."""
    if search.projected.features is None:
        raise StepError("the combined method needs the structures' mean projections")
    train = np.flatnonzero(search.free | search.given)
    space = structure_space(search.projected.features[train])
    place_in = {int(place): k for k, place in enumerate(train)}
    taken = [place_in[int(place)] for place in np.flatnonzero(search.given)] + [place_in[place] for place in how]
    count = min(most - len(how), int(search.free.sum()) - len(how))
    more = bulk_choice(space, taken, count)
    how |= {int(train[k]): "bulk" for k in more}
    return Chosen(how, facts, weights_of(space, train, taken + more, search.dft[train]))


def weights_of(space: Floats, train: Indices, chosen: list[int], dft: Mask) -> dict[int, float]:
    """Weight of each chosen structure of the pool, for what it stands for there: DFT structures have their own.

    Args:
        space: (N, R) of the training side.
        train: (N,) the structures' places elsewhere, by which the weights are given.
        chosen: rows of `space`.
        dft: (N,) which rows are DFT structures.
    """
    pool = np.flatnonzero(~dft)
    place_in = {int(k): place for place, k in enumerate(pool)}
    weighed = [k for k in chosen if k in place_in]
    if not weighed:
        return {}
    weights = representation_weights(space[pool], [place_in[k] for k in weighed])
    return {int(train[k]): float(one) for k, one in zip(weighed, weights, strict=True)}


def _facts(first: FirstPass, passes: int) -> dict[str, Any]:
    sets = first.sets
    return {
        "scarce_elements": first.scarce,
        "functions": {name: active.functions for name, active in sets.items()},
        "environments": {name: active.environments for name, active in sets.items()},
        "spanned": {name: len(active.rows) for name, active in sets.items()},
        "log_det": {name: active.log_det for name, active in sets.items()},
        "structures_of_one_pass": len(first.places),
        "passes": passes,
    }
