from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from containers.contract import BadInput
from containers.tensorpot.pacemaker.blocks import Overrides
from containers.tensorpot.pacemaker.input import Potential

SHAPE = {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 1]}
OTHER = {"nradmax_by_orders": [4], "lmax_by_orders": [0]}


def section(elements: tuple[str, ...] = ("Al", "Ni"), **overrides: Any) -> dict[str, Any]:
    return Potential(elements=elements, cutoff=5.0, overrides=Overrides.model_validate(overrides)).section()


def test_the_mend_is_told_in_the_elements_of_the_potential() -> None:
    with pytest.raises(BadInput, match=r"write Si-Si$"):
        section(("Si",), bonds={"Si": {"rcut": 4.0}})


def test_fewer_densities_take_the_first_parameters() -> None:
    assert section(embeddings={"Al": {"ndensity": 1}})["embeddings"]["Al"] == {
        "ndensity": 1,
        "fs_parameters": [1.0, 1.0],
    }


def test_a_pair_may_be_shorter_and_the_rest_keeps_the_cutoff() -> None:
    bonds = section(bonds={"Al-Ni": {"rcut": 4.0}})["bonds"]
    assert bonds["AlNi"] == {"rcut": 4.0}
    assert bonds["ALL"]["rcut"] == 5.0


def test_functions_of_an_element_are_those_among_its_own_kind() -> None:
    functions = section(("Al", "Cu", "Ni"), functions={"Al": SHAPE})["functions"]
    assert {name for name, block in functions.items() if block == SHAPE} == {"Al"}


def test_a_pair_has_one_shape_with_either_in_the_centre() -> None:
    functions = section(functions={"Al-Ni": OTHER, "Al": SHAPE})["functions"]
    assert (functions["Al"], functions["AlNi"], functions["NiAl"]) == (SHAPE, OTHER, OTHER)


def test_without_overrides_there_is_only_what_holds_for_all() -> None:
    parts = section()
    assert set(parts["embeddings"]) == set(parts["bonds"]) == {"ALL"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"embeddings": {"Cu": {"ndensity": 1}}}, "embeddings.Cu: the potential has Al, Ni, not 'Cu'"),
        ({"embeddings": {"Al-Ni": {"ndensity": 1}}}, "write Al$"),
        ({"bonds": {"Al": {"rcut": 4.0}}}, "write Al-Ni$"),
        ({"bonds": {"Ni-Al": {"rcut": 4.0}}}, "write Al-Ni, in alphabetic order"),
        ({"bonds": {"Al-Cu": {"rcut": 4.0}}}, "not 'Cu'"),
        ({"bonds": {"Al-Ni": {"rcut": 5.5}}}, "more than pacemaker.cutoff"),
        ({"bonds": {p: {"rcut": 4.0} for p in ("Al-Al", "Al-Ni", "Ni-Ni")}}, "no pair reaches pacemaker.cutoff"),
        ({"functions": {"AlNi": SHAPE}}, "not 'AlNi'"),
        ({"functions": {"Al-Al": SHAPE}}, "write Al$"),
        (
            {"functions": {"Al": {"nradmax_by_orders": [5, 4, 3, 2], "lmax_by_orders": [0] * 4}}},
            "raise pacemaker.order",
        ),
        ({"embeddings": {"Al": {"ndensity": 5}}}, "give fs_parameters"),
    ],
)
def test_overrides_that_do_not_fit_the_potential_are_refused_with_the_place(
    overrides: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        section(**overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"bonds": {"Al-Ni": {"rcutt": 4.0}}},
        {"bonds": {"Al-Ni": {"rcut": "4.0"}}},
        {"bonds": {"Al-Ni": {"rcut": float("inf")}}},
        {"bonds": {"Al-Ni": {"r_in": 1.0}}},
        {"embeddings": {"Al": {"ndensity": 0}}},
        {"functions": {"Al": {"nradmax_by_orders": [5, 2]}}},
        {"functions": {"Al": {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 11]}}},
        {"functions": {"Al": {"nradmax_by_orders": [5, 0], "lmax_by_orders": [0, 1]}}},
        {"radii": {}},
    ],
)
def test_overrides_are_closed_and_typed(overrides: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate(overrides)


def test_a_section_of_the_user_s_own_takes_no_overrides() -> None:
    own = section()
    overrides = Overrides.model_validate({"bonds": {"Al-Ni": {"rcut": 4.0}}})
    with pytest.raises(BadInput, match="write them into it"):
        Potential(elements=("Al", "Ni"), cutoff=5.0, b_basis=own, overrides=overrides).section()


def test_a_potential_survives_the_way_to_a_step() -> None:
    overrides = Overrides.model_validate({"bonds": {"Al-Ni": {"rcut": 4.0}}, "functions": {"Al": SHAPE}})
    potential = Potential(elements=("Al", "Ni"), cutoff=5.0, overrides=overrides)
    assert Potential.model_validate_json(potential.model_dump_json()).section() == potential.section()
