"""The basis of the student: pacemaker's `potential` section from a preset, with overrides, or the user's own. Pure.

It also checks the user's own section: pacemaker ignores what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import combinations
from typing import Any, Literal

from pydantic import Field, ValidationError

from containers.contract import BadInput, Closed
from containers.tensorpot.pacemaker.basis_functions import (
    KINDS,
    NUMBER_KEY,
    SYMBOL,
    BasisFunctions,
    basis_functions,
    blocks_per_element,
)
from containers.tensorpot.pacemaker.blocks import (
    FS_PARAMETERS,
    Block,
    Bond,
    Embedding,
    Overrides,
    OwnFunctions,
    overridden,
)

Preset = Literal["mace", "small", "medium", "large"]

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "small": ((12, 4, 3, 2, 1, 1), (0, 2, 2, 1, 1, 0)),
    "medium": ((15, 6, 4, 3, 2, 1), (0, 3, 3, 2, 1, 0)),
    "large": ((20, 8, 5, 4, 3, 2), (0, 5, 4, 3, 2, 0)),
}
"""Radial functions and highest angular momentum of every order, from order 1.

Functions offered to one element at orders 1 to 6:
small 12, 42, 116, 136, 139, 140; medium 15, 99, 403, 703, 733, 734; large 20, 236, 1266, 3998, 5108, 5115.
"""

FEWEST_OF_A_BLOCK = 15
"""Functions of a block, below which blocks of many elements take too much from those of pairs. Measured with eight
elements (docs/use/pacemaker_input.md)."""
LEAST_OF_A_PAIR = 8
"""Radial functions below which the energy of a pair is crude."""
MOST_NAMED_ALL = 8
"""Elements beyond which pacemaker takes minutes to list the blocks of ALL: it tries n to the power of n names."""


class Potential(Closed):
    """The basis of the student: pacemaker's `potential` section.

    A `b_basis` that is a mapping is the user's own section: it then decides orders and numbers of functions, and
    `order`, `functions_per_element` and `densities` are not used.
    """

    elements: tuple[str, ...] = Field(min_length=1, description="chemical symbols, sorted")
    cutoff: float = Field(gt=0, description="Å; becomes potential.bonds.*.rcut")
    order: int = Field(3, ge=1, le=6, description="highest correlation order (neighbours in a product)")
    functions_per_element: int = Field(
        250,
        ge=1,
        description="at most so many basis functions an element; with several elements pacemaker deals them evenly"
        " to the blocks of elements, rounded down",
    )
    densities: int = Field(
        2, ge=1, le=len(FS_PARAMETERS) // 2, description="sums of functions whose powers make an atom's energy"
    )
    b_basis: Preset | dict[str, Any] = Field("mace", description="shape preset, or a pacemaker potential section")
    overrides: Overrides = Field(Overrides(), description="what differs from the preset for elements and pairs")

    def section(self) -> dict[str, Any]:
        """Return the `potential` section of input.yaml.

        Raises `BadInput` when the user's own section or the overrides contradict `elements`, `cutoff` or `order`.
        """
        if isinstance(self.b_basis, dict):
            if self.overrides.names():
                raise BadInput(
                    "b_basis: a section of your own takes no overrides, which change a preset: write them into it"
                )
            check_section(self.b_basis, self.elements, self.cutoff)
            if "ALL" in self.b_basis["functions"] and len(self.elements) > MOST_NAMED_ALL:
                raise BadInput(
                    f"b_basis: functions.ALL of {len(self.elements)} elements keeps pacemaker busy for hours:"
                    " name UNARY, BINARY and TERNARY instead"
                )
            return {"deltaSplineBins": 0.001, **self.b_basis}
        radial, angular = shape(self.b_basis, self.cutoff, len(self.elements))
        kinds = largest_blocks(len(self.elements), self.order, self.functions_per_element)
        names = ["ALL"] if kinds == len(self.elements) else KINDS[:kinds]  # ALL where each block gets enough
        section = {
            "deltaSplineBins": 0.001,  # Å
            "elements": list(self.elements),
            "embeddings": {
                "ALL": {
                    "npot": "FinnisSinclairShiftedScaled",
                    "fs_parameters": list(FS_PARAMETERS[: 2 * self.densities]),
                    "ndensity": self.densities,
                }
            },
            "bonds": {
                "ALL": {
                    "radbase": "SBessel",
                    "radparameters": [5.25],
                    "rcut": self.cutoff,
                    "dcut": 0.01,
                    "NameOfCutoffFunction": "cos",
                }
            },
            "functions": {
                NUMBER_KEY: self.functions_per_element,
                **{
                    name: {"nradmax_by_orders": radial[: self.order], "lmax_by_orders": angular[: self.order]}
                    for name in names
                },
            },
        }
        return overridden(section, self.overrides, self.cutoff, self.order)

    def functions(self) -> BasisFunctions:
        """Count functions and parameters of the basis; raises `BadInput` like `section`."""
        return basis_functions(self.section())

    def check_functions(self) -> None:
        """Raise `BadInput` when an element or a pair of elements would have no function."""
        if not (empty := self.functions().empty_pairs()):
            return
        missing = f"{'-'.join(empty[0])}{f' and {len(empty) - 1} more' if len(empty) > 1 else ''}"
        if isinstance(self.b_basis, dict):
            raise BadInput(
                f"b_basis: the section gives no function to {missing}: raise {NUMBER_KEY}, which pacemaker deals"
                " evenly to all blocks, or name fewer blocks (UNARY, BINARY, TERNARY)"
            )
        least = len(self.elements)
        raise BadInput(
            f"functions_per_element is {self.functions_per_element}, which leaves no function for {missing}: each of"
            f" {least} elements needs at least {least}, one for every pair, and {LEAST_OF_A_PAIR * least} for a useful"
            " potential"
        )

    def functions_asked(self) -> int | None:
        """Return the functions of all elements together, as far as they can be dealt evenly; None without a number."""
        functions = self.section()["functions"]
        if (number := functions.get(NUMBER_KEY)) is None:
            return None
        if isinstance(self.b_basis, dict):
            return int(number) * len(self.elements)
        elements = len(self.elements)
        blocks = blocks_per_element(elements, largest_blocks(elements, self.order, self.functions_per_element))
        return int(number) // blocks * blocks * elements


def largest_blocks(elements: int, order: int, functions: int) -> int:
    """Return the number of elements of the largest blocks that get functions.

    A block of k elements has functions from order k - 1 on; with empty ones, pacemaker would lose their share. Blocks
    of three elements or more are left out where each block would get fewer than FEWEST_OF_A_BLOCK.

    Args:
        elements: of the potential.
        order: highest of the potential.
        functions: of one element.
    """
    for kinds in range(min(elements, order + 1, len(KINDS)), 2, -1):
        if functions // blocks_per_element(elements, kinds) >= FEWEST_OF_A_BLOCK:
            return kinds
    return min(elements, 2)


def shape(preset: Preset, cutoff: float, elements: int) -> tuple[list[int], list[int]]:
    """Return radial functions and highest angular momentum of the orders 1 to 6.

    `mace` is `medium` with the radial resolution of orders 1 and 2 set by the teacher's cutoff (Å): three functions
    an Å for pairs, one an Å plus one for triplets, so that a longer reach is not a blurred one (5 Å gives `medium`).
    It offers one element at order 3: 353 functions at 3 Å, 403 at 5 Å, 434 at 6 Å. With several elements every
    order from 3 on loses one radial function for each further element, because the combinations of elements
    multiply what is offered (of 250 requested functions an element at 5 Å, two elements get 250, three 248, four 240).
    """
    name = "medium" if preset == "mace" else preset
    radial, angular = (list(numbers) for numbers in SHAPES[name])
    if preset == "mace":
        radial[0] = min(max(round(3 * cutoff), 8), 20)
        radial[1] = min(max(round(cutoff + 1), 4), 8)
    fewer = elements - 1
    return radial[:2] + [max(1, number - fewer) for number in radial[2:]], angular


SECTION_KEYS = {"deltaSplineBins", "elements", "embeddings", "bonds", "functions"}
BLOCKS: dict[str, type[Block]] = {"embeddings": Embedding, "bonds": Bond, "functions": OwnFunctions}
WORDS = {
    "embeddings": {"ALL", "UNARY"},
    "bonds": {"ALL", "UNARY", "BINARY"},
    "functions": {"ALL", *KINDS},
}
CORE_KEYS = {"core-repulsion", "r_in", "delta_in", "inner_cutoff_type"}
WHERE = "b_basis: the potential section"


def check_section(section: Mapping[str, Any], elements: tuple[str, ...], cutoff: float) -> None:
    """Raise `BadInput` when the user's own potential section is incomplete, unknown in part, or contradicts us."""
    _check_keys(section, SECTION_KEYS, WHERE)
    if missing := sorted(SECTION_KEYS - {"deltaSplineBins"} - set(section)):
        raise BadInput(f"{WHERE} has no {', '.join(missing)}; add it or choose a preset (mace, small, medium, large)")
    given, width = section["elements"], section.get("deltaSplineBins", 0.001)
    if not isinstance(given, list | tuple) or not all(isinstance(symbol, str) for symbol in given):
        raise BadInput(f"{WHERE}, elements must be a list of chemical symbols, not {given!r}")
    if sorted(given) != sorted(elements):
        raise BadInput(f"{WHERE} has the elements {list(given)}, the config {list(elements)}: make them equal")
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < 1:
        raise BadInput(f"{WHERE}, deltaSplineBins must be a number (Å) between 0 and 1, not {width!r}")
    for part, model in BLOCKS.items():
        if not isinstance(section[part], Mapping):
            raise BadInput(f"{WHERE}, {part} must be a mapping, not {section[part]!r}")
        for name, block in section[part].items():
            place = f"{WHERE}, {part}.{name}"
            if part == "functions" and name == NUMBER_KEY:
                if isinstance(block, bool) or not isinstance(block, int) or block < 1:
                    raise BadInput(f"{place} must be a whole number from 1, not {block!r}")
            else:
                _check_block(str(name), block, part, model, elements, place)
    functions = section["functions"]
    for pair in combinations(elements, 2):  # the trainer fails on blocks with other numbers of functions of order 1
        names = "".join(pair), "".join(reversed(pair))
        one, other = (
            {**functions.get("ALL", {}), **functions.get("BINARY", {}), **functions.get(name, {})} for name in names
        )
        if one != other:
            raise BadInput(
                f"{WHERE}, functions: {names[0]} and {names[1]} differ, which pacemaker's trainer cannot fit:"
                " give both the same"
            )
    reach = {name: bond["rcut"] for name, bond in section["bonds"].items() if "rcut" in bond}
    if not reach or max(reach.values()) != cutoff:
        raise BadInput(
            f"{WHERE}: the largest bonds.*.rcut must be the cutoff of the config ({cutoff:g} Å), it has {reach}."
            " Make them equal."
        )


def _check_block(name: str, block: Any, part: str, model: type[Block], elements: tuple[str, ...], where: str) -> None:
    """Check one block. pacemaker would add or pass over a block of an element that the potential lacks in silence."""
    symbols = SYMBOL.findall(name)
    if name not in WORDS[part] and ("".join(symbols) != name or not set(symbols) <= set(elements)):
        words = ", ".join(sorted(WORDS[part]))
        raise BadInput(f"{where}: a block is named by symbols of {', '.join(elements)} in a row, or by {words}")
    if not isinstance(block, Mapping):
        raise BadInput(f"{where} must be a mapping, not {block!r}")
    if core := sorted(CORE_KEYS & set(block)):
        raise BadInput(f"{where} sets {', '.join(core)}: leave it out, reference_potential decides the core repulsion")
    _check_keys(block, set(model.model_fields), where)
    try:
        model.model_validate(block)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise BadInput(f"{place}: {first['msg']}, not {first['input']!r}") from None


def _check_keys(mapping: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in set(mapping) - known):
        near = get_close_matches(unknown[0], known, n=1)
        raise BadInput(
            f"{where} has keys pacemaker would ignore: {', '.join(unknown)};"
            + (f" did you mean {near[0]}?" if near else f" known are {', '.join(sorted(known))}")
        )
