"""The functions that pacemaker makes of a `potential` section, counted without pacemaker. Pure and exact.

A block is a central element and the set of other elements among its neighbours. A function of order n is a product of n
neighbours; together with the centre they are exactly the elements of its block, so a block of k elements has functions
from order k - 1 on. pyace lists the functions of a block by order, elements, radial functions and angular momenta, and
where `number_of_functions_per_element` is given it deals this number times the elements evenly to ALL blocks, rounded
down, empty ones included. Each block takes its own of the lowest power: the order and all radial and angular indices
together. The rest of the number is lost.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, combinations_with_replacement, product
from math import comb
from typing import Any

KINDS = ("UNARY", "BINARY", "TERNARY", "QUATERNARY", "QUINARY")
"""pacemaker's names for all blocks of one, two, ... elements."""
NUMBER_KEY = "number_of_functions_per_element"
SYMBOL = re.compile("[A-Z][a-z]?")

Block = tuple[str, ...]
Shape = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Radial:
    """Radial functions of a pair: of order 1, of higher orders, and the highest angular momentum."""

    base: int = 0
    higher: int = 0
    angular: int = 0

    def widest(self, other: Radial) -> Radial:
        """Return as many as either has."""
        return Radial(max(self.base, other.base), max(self.higher, other.higher), max(self.angular, other.angular))

    @property
    def coefficients(self) -> int:
        """Coefficients that mix radial functions of order 1 to those of higher orders."""
        return self.base * self.higher * (self.angular + 1)


@dataclass(frozen=True)
class BasisFunctions:
    """The functions of a basis.

    Attributes:
        blocks: functions of every block, by its elements, the centre first.
        radial: by pair, centre first.
        densities: by element.
    """

    blocks: dict[Block, int]
    radial: dict[tuple[str, str], Radial]
    densities: dict[str, int]

    @property
    def total(self) -> int:
        """Functions of all elements."""
        return sum(self.blocks.values())

    @property
    def parameters(self) -> int:
        """Numbers that the fit finds: coefficients of the functions, and of the radial functions of each pair."""
        functions = sum(count * self.densities[block[0]] for block, count in self.blocks.items())
        return functions + sum(found.coefficients for (one, other), found in self.radial.items() if one <= other)

    def by_element(self) -> dict[str, dict[int, int]]:
        """Functions of each element, by the number of elements of their block (1, 2, ...)."""
        counts: dict[str, Counter[int]] = {}
        for block, count in self.blocks.items():
            counts.setdefault(block[0], Counter())[len(block)] += count
        return {element: dict(sorted(counted.items())) for element, counted in sorted(counts.items())}

    def empty_pairs(self) -> list[Block]:
        """Elements and pairs without any function; a potential with them says nothing about such neighbours."""
        elements = sorted(self.densities)
        pairs = [(one,) if one == other else (one, other) for one, other in product(elements, repeat=2)]
        return [pair for pair in pairs if not self.blocks.get(pair)]


def basis_functions(section: Mapping[str, Any]) -> BasisFunctions:
    """Count the functions of a `potential` section whose keys have been checked."""
    shapes = _shapes(section["functions"], sorted(section["elements"]))
    number, elements = section["functions"].get(NUMBER_KEY), len(section["elements"])
    most = None if number is None else number * elements // len(shapes)
    blocks: dict[Block, int] = {}
    radial: dict[tuple[str, str], Radial] = {}
    for block, shape in shapes.items():
        members = sorted(block)
        blocks[block], found = _taken(members.index(block[0]), len(block), shape, most)
        for place, needed in found:
            for pair in ((block[0], members[place]), (members[place], block[0])):
                radial[pair] = radial.get(pair, Radial()).widest(needed)
    for pair, needed in radial.items():  # a bond keeps what it names itself
        merged: dict[str, Any] = {}
        kind = "UNARY" if pair[0] == pair[1] else "BINARY"
        for name in ("ALL", kind, "".join(dict.fromkeys(pair)), "".join(pair[::-1])):
            merged |= section["bonds"].get(name, {})
        named = Radial(merged.get("nradbase", 0), merged.get("nradmax", 0), merged.get("lmax", 0))
        radial[pair] = needed.widest(named)
    densities = {}
    for element in section["elements"]:
        named_by = (section["embeddings"].get(name, {}).get("ndensity") for name in (element, "UNARY", "ALL"))
        densities[element] = next((number for number in named_by if number is not None), 1)
    return BasisFunctions(blocks, radial, densities)


def blocks_per_element(elements: int, kinds: int) -> int:
    """Count the blocks with one element in the centre, of up to `kinds` elements."""
    return sum(comb(elements - 1, others) for others in range(min(kinds, elements)))


def _shapes(functions: Mapping[str, Any], elements: Sequence[str]) -> dict[Block, Shape]:
    """Return the shape of every block; a name of elements wins over UNARY, BINARY, ..., and these over ALL."""
    sizes = range(1, len(elements) + 1) if "ALL" in functions else []
    named = {size: functions[kind] for size, kind in enumerate(KINDS, 1) if kind in functions}
    shapes: dict[Block, Shape] = {}
    for size in sorted({*sizes, *named}):
        shape = _shape(named.get(size) or functions["ALL"])
        for centre in elements:
            others = [element for element in elements if element != centre]
            shapes |= {(centre, *rest): shape for rest in combinations(others, size - 1)}
    known = {"ALL", NUMBER_KEY, *KINDS}
    return shapes | {
        tuple(SYMBOL.findall(name)): _shape(block) for name, block in functions.items() if name not in known
    }


def _shape(block: Mapping[str, Any]) -> Shape:
    return tuple(block["nradmax_by_orders"]), tuple(block["lmax_by_orders"])


@lru_cache
def _taken(centre: int, elements: int, shape: Shape, most: int | None) -> tuple[int, tuple[tuple[int, Radial], ...]]:
    """Count the functions that a block takes; return what they need of the pairs of the centre, by neighbour.

    Args:
        centre: place of the central element among the sorted elements of the block.
    """
    rows = list(_rows(centre, elements, shape))
    if most is not None:
        rows.sort(key=lambda row: len(row.radial) + sum(row.radial) + sum(row.angular))
    count, needed = 0, dict[int, Radial]()
    for row in rows:
        if most is not None and count >= most:
            break
        count += row.couplings if most is None else min(row.couplings, most - count)
        for place, n, angular in zip(row.places, row.radial, row.angular, strict=True):
            own = Radial(n, 0, angular) if len(row.places) == 1 else Radial(0, n, angular)
            needed[place] = needed.get(place, Radial()).widest(own)
    return count, tuple(sorted(needed.items()))


@dataclass(frozen=True)
class _Row:
    """Functions that differ in the coupling of their angular momenta only."""

    places: tuple[int, ...]
    radial: tuple[int, ...]
    angular: tuple[int, ...]
    couplings: int


def _rows(centre: int, elements: int, shape: Shape) -> Iterator[_Row]:
    """Yield all functions of a block in the order of pyace."""
    for order, (radial, angular) in enumerate(zip(*shape, strict=True), 1):
        for places in combinations_with_replacement(range(elements), order):
            if {centre, *places} != set(range(elements)):
                continue
            by_place = [combinations_with_replacement(range(1, radial + 1), n) for n in Counter(places).values()]
            for chosen in product(*by_place):
                ns = tuple(n for group in chosen for n in group)
                same = tuple(Counter(zip(places, ns, strict=True)).values())
                yield from (_Row(places, ns, ls, count) for ls, count in _angular(same, angular))


@lru_cache
def _angular(same: tuple[int, ...], highest: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return angular momenta of a product of neighbours, and the number of ways that couple them to an even scalar.

    Args:
        same: how many neighbours share element and radial function, group by group.
    """
    groups = [combinations_with_replacement(range(highest + 1), size) for size in same]
    found = [(chosen, _couplings(chosen)) for chosen in product(*groups) if sum(map(sum, chosen)) % 2 == 0]
    return tuple((tuple(one for group in chosen for one in group), count) for chosen, count in found if count)


def _couplings(groups: tuple[tuple[int, ...], ...]) -> int:
    """Count scalars in a product of angular momenta that is symmetric in those of a group: weights 0 less weights 1."""
    weights = Counter({0: 1})
    for group in groups:
        for angular, times in Counter(group).items():
            before, weights = weights, Counter()
            for other, ways in _symmetric_weights(angular, times):
                for one, count in before.items():
                    weights[one + other] += count * ways
    return weights[0] - weights[1]


@lru_cache
def _symmetric_weights(angular: int, times: int) -> tuple[tuple[int, int], ...]:
    """Return weights of the symmetric power of an angular momentum, and how often each comes."""
    return tuple(Counter(map(sum, combinations_with_replacement(range(-angular, angular + 1), times))).items())
