"""The functions of a basis as pacemaker would make them, and which blocks get them with one to twelve elements."""

from __future__ import annotations

from typing import Any

import pytest

from containers.contract import BadInput
from containers.tensorpot.pacemaker.basis_functions import basis_functions
from containers.tensorpot.pacemaker.input import Fit, PacemakerInput, Potential

ELEMENTS = ("Ag", "Al", "Au", "Cu", "Mo", "Nb", "Ni", "Pd", "Pt", "Ti", "W", "Zr")
OF_ONE_ELEMENT: dict[int, list[dict[int, int]]] = {
    30: [
        *[{1: 30}, {1: 15, 2: 15}, {1: 10, 2: 20}, {1: 7, 2: 21}, {1: 6, 2: 24}, {1: 5, 2: 25}],
        *[{1: 4, 2: 24}, {1: 3, 2: 21}, {1: 3, 2: 24}, {1: 3, 2: 27}, {1: 2, 2: 20}, {1: 2, 2: 22}],
    ],
    120: [
        *[{1: 120}, {1: 60, 2: 60}, {1: 30, 2: 60, 3: 30}, {1: 15, 2: 45, 3: 45, 4: 15}, {1: 24, 2: 96}],
        *[{1: 20, 2: 100}, {1: 17, 2: 102}, {1: 15, 2: 105}, {1: 13, 2: 104}, {1: 12, 2: 108}],
        *[{1: 10, 2: 100}, {1: 10, 2: 110}],
    ],
    250: [
        *[{1: 250}, {1: 125, 2: 125}, {1: 62, 2: 124, 3: 62}, {1: 31, 2: 93, 3: 93, 4: 23}],
        *[{1: 16, 2: 64, 3: 96, 4: 64}, {1: 15, 2: 75, 3: 150}, {1: 35, 2: 210}, {1: 31, 2: 217}],
        *[{1: 27, 2: 216}, {1: 25, 2: 225}, {1: 22, 2: 220}, {1: 20, 2: 220}],
    ],
}
"""By the budget, for one to twelve elements: functions of one of them, by the number of elements of the block."""


def potential(elements: int, **changes: Any) -> Potential:
    return Potential.model_validate({"elements": ELEMENTS[:elements], "cutoff": 5.0, **changes})


@pytest.mark.parametrize("elements", range(1, 13))
@pytest.mark.parametrize("functions", [30, 120, 250])
def test_every_element_and_pair_has_functions_and_larger_blocks_as_the_budget_allows(
    functions: int, elements: int
) -> None:
    found = potential(elements, functions_per_element=functions).functions()
    expected = OF_ONE_ELEMENT[functions][elements - 1]
    assert found.by_element() == dict.fromkeys(ELEMENTS[:elements], expected)
    assert min(found.blocks.values()) > 0
    assert found.empty_pairs() == []


@pytest.mark.parametrize("elements", range(1, 13))
@pytest.mark.parametrize("order", [1, 2, 4, 6])
def test_no_share_is_lost_to_blocks_that_an_order_has_not(elements: int, order: int) -> None:
    wanted = potential(elements, order=order, functions_per_element=300, b_basis="large")
    found = wanted.functions()
    assert min(found.blocks.values()) > 0
    assert found.total <= elements * 300
    assert found.total <= (wanted.functions_asked() or 0)
    if order > 2:
        assert found.total >= 0.9 * (wanted.functions_asked() or 0)


def test_sections_without_functions_or_with_endless_lists_are_refused() -> None:
    for elements in (1, 2, 3, 4):
        functions = potential(elements).section()["functions"]
        assert list(functions) == ["number_of_functions_per_element", "ALL"]
    with pytest.raises(BadInput, match=r"no function for Ag and 80 more: each of 9 .* at least 9, .* 72 for a useful"):
        potential(9, functions_per_element=8).check_functions()
    potential(9, functions_per_element=9).check_functions()
    section = potential(3).section() | {
        "functions": {
            "number_of_functions_per_element": 3,
            "ALL": {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 1]},
        }
    }
    with pytest.raises(BadInput, match="b_basis: the section gives no function to Ag"):
        potential(3, b_basis=section).check_functions()
    # ALL of many elements would be listed for hours by pacemaker
    shape = {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 1]}
    section = potential(9).section()
    with pytest.raises(BadInput, match="name UNARY, BINARY and TERNARY instead"):
        potential(9, b_basis=section | {"functions": {"ALL": shape}}).section()
    named = section | {"functions": {"UNARY": shape, "BINARY": shape}}
    assert len(potential(9, b_basis=named).functions().blocks) == 81


@pytest.mark.parametrize(
    ("asked", "written"), [(None, ["UNARY", "BINARY"]), ("func", {"UNARY": "func", "BINARY": "func"}), (["Ag"], ["Ag"])]
)
def test_the_fitted_blocks_are_named_where_all_would_permute_twelve_elements(asked: Any, written: Any) -> None:
    own = {} if asked is None else {"trainable_parameters": asked}
    made = PacemakerInput(potential=potential(12), fit=Fit(maxiter=1, fit=own), batch_size=1).sections()
    assert made["fit"]["trainable_parameters"] == written
    few = PacemakerInput(potential=potential(4), fit=Fit(maxiter=1), batch_size=1).sections()
    assert "trainable_parameters" not in few["fit"]


def test_functions_of_a_block_and_parameters_are_counted() -> None:
    overrides = {"functions": {"Ag-Al": {"nradmax_by_orders": [2], "lmax_by_orders": [0]}}}
    found = potential(3, overrides=overrides).functions()
    assert (found.blocks["Ag", "Al"], found.blocks["Al", "Ag"], found.blocks["Ag", "Au"]) == (2, 2, 62)
    section = potential(1, order=2, functions_per_element=1000, densities=3).section()
    section["functions"]["ALL"] = {"nradmax_by_orders": [4, 2], "lmax_by_orders": [0, 1]}
    found = basis_functions(section)
    assert found.total == 4 + 3 * 2
    assert found.parameters == 3 * found.total + 4 * 2 * 2
