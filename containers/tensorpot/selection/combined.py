"""The methods that choose by projections: D-optimal alone, and combined with representatives of the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from containers.contract import BadInput, StepError
from containers.tensorpot.selection.d_optimal import Search, first_pass, further_passes
from containers.tensorpot.selection.representatives import (
    bulk_choice,
    share_d_optimal,
    structure_space,
    weights_of,
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
        """Return the weight of one structure, chosen here or given."""
        return self.weights.get(place, 1.0)


def with_every_element(
    order: Sequence[T], count: int, elements: Callable[[T], AbstractSet[str]], covered: Iterable[str]
) -> list[T]:
    """Return the first `count` of `order`; the last of them give way to the first with an element that all others lack.

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
        guards, missing = set[T](), seen - set(covered)
        while missing:  # greedily few that have all of them together
            best = max(order, key=lambda one: len(elements(one) & missing))
            guards.add(best)
            missing = missing - elements(best)
    room = max(count - len(guards), 0)
    fill = set([one for one in order if one not in guards][:room])
    return [one for one in order if one in guards or one in fill]


def choose(search: Search, most: int, combined: bool, elements: Sequence[AbstractSet[str]]) -> Chosen:
    """Choose at most `most` of the free structures, every element of them among what is chosen and given.

    Args:
        elements: chemical symbols of each structure.
        combined: D-optimal ones for a part of the budget only (`bulk.share_d_optimal`), representatives for the rest;
            otherwise passes of MaxVol until the budget is filled.
    """
    first = first_pass(search, most, ranked=combined)
    share = share_d_optimal(most, len(first.places)) if combined else most
    covered = set[str]().union(*(elements[place] for place in np.flatnonzero(search.given).tolist()))
    guards = with_every_element(first.places, share, elements.__getitem__, covered)
    if len(guards) > most:
        raise BadInput(no_room(most, len(guards)))
    how: dict[int, How] = {place: "scarce" if first.rare[place] else "d_optimal" for place in guards}
    # the rest with a scarce element, if all of it fits: of a dopant in every structure a part is no better than others
    scarce = [place for place in first.places if first.rare[place]]
    scarce += np.flatnonzero(first.rare & search.free).tolist()
    whole = how | dict.fromkeys((place for place in scarce if place not in how), "scarce")
    how = whole if len(whole) <= most else how
    sets, passes, weights = first.sets, 1, dict[int, float]()
    if combined:
        if search.projected.features is None:
            raise StepError("the combined method needs the structures' mean projections")
        train = np.flatnonzero(search.free | search.given)
        space = structure_space(search.projected.features[train])
        row_of = {int(place): row for row, place in enumerate(train)}
        taken = [row_of[int(place)] for place in np.flatnonzero(search.given)] + [row_of[place] for place in how]
        more = bulk_choice(space, taken, min(most, int(search.free.sum())) - len(how))
        how |= {int(train[row]): "bulk" for row in more}
        weights = weights_of(space, train, taken + more, search.dft[train])
    else:
        places, further = further_passes(search, list(how), most - len(how))
        how, passes = how | dict.fromkeys(places, "d_optimal"), 1 + further
    facts = {
        "scarce_elements": first.scarce,
        "functions": {name: active.functions for name, active in sets.items()},
        "environments": {name: active.environments for name, active in sets.items()},
        "spanned": {name: len(active.rows) for name, active in sets.items()},
        "log_det": {name: active.log_det for name, active in sets.items()},
        "structures_of_one_pass": len(first.places),
        "passes": passes,
    }
    return Chosen(how, facts, weights)


def no_room(most: int, needed: int) -> str:
    """Return the message for a budget that leaves an element out."""
    return (
        f"the budget of the selection has room for {most} new structures, but {needed} are needed for training to see"
        " every element: raise selection.max_structures"
    )
