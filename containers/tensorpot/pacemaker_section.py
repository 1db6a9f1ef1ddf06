"""The user's own `potential` section, checked: pacemaker ignores what it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from containers.contract import BadInput
from containers.tensorpot.pacemaker_blocks import Block, Bond, Embedding, OwnFunctions

SECTION_KEYS = {"deltaSplineBins", "elements", "embeddings", "bonds", "functions"}
BLOCKS: dict[str, type[Block]] = {"embeddings": Embedding, "bonds": Bond, "functions": OwnFunctions}
WORDS = {
    "embeddings": {"ALL", "UNARY"},
    "bonds": {"ALL", "UNARY", "BINARY"},
    "functions": {"ALL", "UNARY", "BINARY", "TERNARY", "QUATERNARY", "QUINARY"},
}
NUMBER_KEY = "number_of_functions_per_element"
CORE_KEYS = {"core-repulsion", "r_in", "delta_in", "inner_cutoff_type"}
SYMBOL = re.compile("[A-Z][a-z]?")

WHERE = "b_basis: the potential section"


def check_section(section: Mapping[str, Any], elements: tuple[str, ...], cutoff: float) -> None:
    """Raise `BadInput` when the user's own potential section is incomplete, unknown in part, or contradicts us."""
    _only(section, SECTION_KEYS, WHERE)
    if missing := sorted(SECTION_KEYS - {"deltaSplineBins"} - set(section)):
        raise BadInput(f"{WHERE} has no {', '.join(missing)}; add it or choose a preset (mace, small, medium, large)")
    _check_elements(section["elements"], elements)
    _check_width(section.get("deltaSplineBins", 0.001))
    for part in BLOCKS:
        if not isinstance(section[part], Mapping):
            raise BadInput(f"{WHERE}, {part} must be a mapping, not {section[part]!r}")
        for name, block in section[part].items():
            place = f"{WHERE}, {part}.{name}"
            if part == "functions" and name == NUMBER_KEY:
                _check_number(block, place)
            else:
                _check_name(str(name), part, elements, place)
                _check_block(block, BLOCKS[part], place)
    _check_mirrored(section["functions"], elements)
    _check_cutoffs(section["bonds"], cutoff)


def _check_elements(given: Any, elements: tuple[str, ...]) -> None:
    if not isinstance(given, list | tuple) or not all(isinstance(symbol, str) for symbol in given):
        raise BadInput(f"{WHERE}, elements must be a list of chemical symbols, not {given!r}")
    if sorted(given) != sorted(elements):
        raise BadInput(f"{WHERE} has the elements {list(given)}, the config {list(elements)}: make them equal")


def _check_width(width: Any) -> None:
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < 1:
        raise BadInput(f"{WHERE}, deltaSplineBins must be a number (Å) between 0 and 1, not {width!r}")


def _check_number(number: Any, where: str) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise BadInput(f"{where} must be a whole number from 1, not {number!r}")


def _check_name(name: str, part: str, elements: tuple[str, ...], where: str) -> None:
    """A block of an element that the potential lacks would be added or passed over in silence."""
    symbols = SYMBOL.findall(name)
    if name not in WORDS[part] and ("".join(symbols) != name or not set(symbols) <= set(elements)):
        words = ", ".join(sorted(WORDS[part]))
        raise BadInput(f"{where}: a block is named by symbols of {', '.join(elements)} in a row, or by {words}")


def _check_block(block: Any, model: type[Block], where: str) -> None:
    if not isinstance(block, Mapping):
        raise BadInput(f"{where} must be a mapping, not {block!r}")
    if core := sorted(CORE_KEYS & set(block)):
        raise BadInput(f"{where} sets {', '.join(core)}: leave it out, reference_potential decides the core repulsion")
    _only(block, set(model.model_fields), where)
    try:
        model.model_validate(block)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise BadInput(f"{place}: {first['msg']}, not {first['input']!r}") from None


def _only(mapping: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in set(mapping) - known):
        near = get_close_matches(unknown[0], known, n=1)
        raise BadInput(
            f"{where} has keys pacemaker would ignore: {', '.join(unknown)};"
            + (f" did you mean {near[0]}?" if near else f" known are {', '.join(sorted(known))}")
        )


def _check_mirrored(functions: Mapping[str, Any], elements: tuple[str, ...]) -> None:
    """The trainer fails on a pair whose two blocks differ in the number of functions of order 1."""
    for pair in combinations(elements, 2):
        names = "".join(pair), "".join(reversed(pair))
        shapes = [
            {**functions.get("ALL", {}), **functions.get("BINARY", {}), **functions.get(name, {})} for name in names
        ]
        if shapes[0] != shapes[1]:
            raise BadInput(
                f"{WHERE}, functions: {names[0]} and {names[1]} differ, which pacemaker's trainer cannot fit:"
                " give both the same"
            )


def _check_cutoffs(bonds: Mapping[str, Mapping[str, Any]], cutoff: float) -> None:
    reach = {name: bond["rcut"] for name, bond in bonds.items() if "rcut" in bond}
    if not reach or max(reach.values()) != cutoff:
        raise BadInput(
            f"{WHERE}: the largest bonds.*.rcut must be the cutoff of the config ({cutoff:g} Å), it has {reach}."
            " Make them equal."
        )
