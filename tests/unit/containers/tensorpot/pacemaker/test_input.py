from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML

from containers.contract import BadInput
from containers.tensorpot.pacemaker.input import EarlyStop, Fit, Loss, Overrides, PacemakerInput, Potential, shape

OWN: dict[str, Any] = {
    "elements": ["Ni", "Al"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 5.0}, "AlNi": {"rcut": 4.5}},
    "functions": {
        "number_of_functions_per_element": 80,
        "ALL": {"nradmax_by_orders": [9, 3], "lmax_by_orders": [0, 2]},
    },
}
SHAPE = {"nradmax_by_orders": [5], "lmax_by_orders": [0]}


def own(**changes: Any) -> Potential:
    section = copy.deepcopy(OWN)
    section.update(changes)
    return Potential(elements=("Al", "Ni"), cutoff=5.0, b_basis=section)


def asked(**changes: Any) -> PacemakerInput:
    fields = {
        "potential": Potential(elements=("Si",), cutoff=4.5),
        "fit": Fit(maxiter=30),
        "batch_size": 7,
    }
    return PacemakerInput(**{**fields, **changes})


@pytest.mark.parametrize("preset", ["mace", "small", "medium", "large"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
def test_a_preset_reaches_every_part_of_the_section(preset: Any, order: int) -> None:
    potential = Potential(elements=("Al", "Ni"), cutoff=4.7, order=order, functions_per_element=99, b_basis=preset)
    section = potential.section()
    functions = section["functions"]
    assert section["elements"] == ["Al", "Ni"]
    assert [bond["rcut"] for bond in section["bonds"].values()] == [4.7]
    assert functions["number_of_functions_per_element"] == 99
    assert len(functions["ALL"]["nradmax_by_orders"]) == order
    assert len(functions["ALL"]["lmax_by_orders"]) == order
    assert potential.functions_asked() == 196  # 49 for each of two blocks


def test_presets_grow() -> None:
    shapes = [shape(preset, 5.0, 1)[0] for preset in ("small", "medium", "large")]
    assert all(
        small <= large for smaller, larger in pairwise(shapes) for small, large in zip(smaller, larger, strict=True)
    )
    assert len({tuple(each) for each in shapes}) == 3


def test_mace_is_medium_at_five_and_finer_for_a_longer_reach() -> None:
    assert shape("mace", 5.0, 1) == shape("medium", 5.0, 1)
    assert shape("mace", 6.0, 1)[0][:2] > shape("mace", 5.0, 1)[0][:2] > shape("mace", 3.0, 1)[0][:2]


def test_more_elements_mean_fewer_radial_functions_of_high_order_and_never_none() -> None:
    assert shape("mace", 5.0, 2)[0] == [15, 6, 3, 2, 1, 1]
    assert min(shape("mace", 5.0, 9)[0]) == 1


def test_a_section_of_the_user_passes_through() -> None:
    potential = own()
    assert potential.section() == {"deltaSplineBins": 0.001, **OWN}
    assert potential.functions_asked() == 160


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"elements": ["Al"]}, "elements"),
        ({"bonds": {"ALL": {"rcut": 6.0}}}, "rcut"),
        ({"bonds": {"ALL": {"rcut": 4.5}}}, "rcut"),
        ({"bonds": {"ALL": {"radbase": "SBessel"}}}, "rcut"),
        ({"bonds": {"ALL": {"rcut": "5.0"}}}, "number"),
        ({"bonds": {"ALL": {"rcut": 5.0, "rcutt": 5.0}}}, "rcutt"),
        ({"bonds": {"ALL": {"rcut": 5.0, "core-repulsion": [1, 1]}}}, "reference_potential"),
        ({"bonds": [5.0]}, "mapping"),
        ({"embeddings": {"ALL": 3}}, "mapping"),
        ({"cutoff": 5.0}, "cutoff"),
        ({"initial_potential": "x.yaml"}, "initial_potential"),
        ({"bonds": {"ALL": {"rcut": 5.0}, "AlCu": {"rcut": 4.0}}}, "AlCu: a block is named by symbols of Al, Ni"),
        ({"bonds": {"ALL": {"rcut": 5.0, "radbase": "ChebLinear"}}}, "radbase: .*ChebExpCos"),
        ({"embeddings": {"ALL": {"npot": "nan", "ndensity": 1}}}, "npot"),
        ({"embeddings": {"ALL": {"ndensity": 2, "fs_parameters": [1, 1]}}}, "2 densities need 4"),
        ({"functions": {"ALL": {"nradmax_by_orders": [5, 4], "lmax_by_orders": [0]}}}, "give as many"),
        (
            {"functions": {"ALL": {"nradmax_by_orders": [5, 4], "lmax_by_orders": [0, 11]}}},
            "none|no functions above 10",
        ),
        (
            {"functions": {"ALL": {"nradmax_by_order": [5, 4], "lmax_by_orders": [0, 1]}}},
            "did you mean nradmax_by_orders",
        ),
        ({"functions": {**OWN["functions"], "AlNi": SHAPE}}, "AlNi and NiAl differ"),
        ({"deltaSplineBins": "fine"}, "deltaSplineBins"),
    ],
)
def test_a_section_that_contradicts_is_refused_with_the_place(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        own(**changes).section()


def test_a_section_with_a_part_missing_is_refused() -> None:
    section = {key: value for key, value in OWN.items() if key != "functions"}
    with pytest.raises(BadInput, match="has no functions"):
        Potential(elements=("Al", "Ni"), cutoff=5.0, b_basis=section).section()


@pytest.mark.parametrize("field", [{"cutoff": 0.0}, {"order": 0}, {"order": 7}, {"functions_per_element": 0}])
def test_potential_refuses(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Potential.model_validate({"elements": ("Si",), "cutoff": 5.0, **field})


@pytest.mark.parametrize("start", ["fresh", "continue", "extend"])
@pytest.mark.parametrize("own_section", [True, False])
def test_the_text_reads_back_as_what_was_asked(start: Any, own_section: bool) -> None:
    potential = own() if own_section else Potential(elements=("N", "No", "Y"), cutoff=5.0)
    fit = Fit(loss=Loss(kappa=0.1, l1=1e-12, l2=0.0), maxiter=9, ladder_step=3, early_stop=EarlyStop())
    written = asked(potential=potential, fit=fit, start=start)
    assert YAML(typ="safe", pure=True).load(written.text()) == written.sections()
    assert yaml.safe_load(written.text()) == written.sections()


@pytest.mark.parametrize("number", [1e-8, 1e-300, 5e300, 0.1, 3.0, 0.1 + 0.2])
def test_numbers_read_back_as_the_same_numbers_by_readers_of_both_versions_of_yaml(number: float) -> None:
    """YAML 1.1 takes 1e-8 for text."""
    text = asked(fit=Fit(loss=Loss(l1=number), maxiter=1)).text()
    for read in (yaml.safe_load, YAML(typ="safe", pure=True).load):
        assert read(text)["fit"]["loss"]["L1_coeffs"] == number


def test_the_pair_of_nitrogen_and_oxygen_stays_text() -> None:
    overrides = Overrides.model_validate({"bonds": {"N-O": {"rcut": 4.0}}})
    text = asked(potential=Potential(elements=("N", "No", "O"), cutoff=5.0, overrides=overrides)).text()
    for read in (yaml.safe_load, YAML(typ="safe", pure=True).load):
        potential = read(text)["potential"]
        assert potential["elements"] == ["N", "No", "O"]
        assert potential["bonds"]["NO"] == {"rcut": 4.0}


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -1.0])
def test_no_number_of_the_loss_is_infinite_or_negative(number: float) -> None:
    with pytest.raises(ValidationError):
        Loss(l1=number)


def test_kappa_may_be_left_to_pacemaker() -> None:
    assert asked(fit=Fit(loss=Loss(kappa="auto"), maxiter=1)).sections()["fit"]["loss"]["kappa"] == "auto"


def test_cycles_and_noise_are_written_where_there_are_several() -> None:
    fit = asked(fit=Fit(maxiter=1, cycles=3, noise=0.05)).sections()["fit"]
    assert (fit["fit_cycles"], fit["noise_relative_sigma"]) == (3, 0.05)
    assert {"fit_cycles", "noise_relative_sigma"}.isdisjoint(asked().sections()["fit"])


@pytest.mark.parametrize("own_section", [True, False])
def test_random_coefficients_reach_every_block(own_section: bool) -> None:
    overrides = Overrides.model_validate({"functions": {"Al": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}}})
    potential = own() if own_section else Potential(elements=("Al", "Ni"), cutoff=5.0, overrides=overrides)
    functions = asked(potential=potential, fit=Fit(coefficients="random")).sections()["potential"]["functions"]
    assert {block["coefs_init"] for name, block in functions.items() if name != "number_of_functions_per_element"} == {
        "random"
    }


def test_a_potential_that_is_continued_keeps_its_coefficients() -> None:
    assert asked(fit=Fit(coefficients="random"), start="continue").sections()["potential"] == "start.yaml"


def test_the_keys_of_the_user_reach_their_sections() -> None:
    own_keys = {
        "loss": {"w1_rad": 1e-7},
        "options": {"c1": 1e-3, "maxcor": 30},
        "ladder_type": "body_order",
        "trainable_parameters": {"Si": "func"},
        "min_relative_test_loss_per_iter": 1e-4,
    }
    sections = asked(
        fit=Fit(
            maxiter=3, ladder_step=5, fit=own_keys, early_stop=EarlyStop(), backend={"gpu_config": {"mem_limit": 4000}}
        ),
    ).sections()
    fit = sections["fit"]
    assert fit["loss"] == {"kappa": 0.3, "L1_coeffs": 1e-8, "L2_coeffs": 1e-8, "w1_rad": 1e-7}
    assert fit["options"] == {"gtol": 1e-8, "disp": True, "c1": 1e-3}, "pacemaker's own stay, those of L-BFGS-B do not"
    assert fit["ladder_type"] == "body_order"
    assert fit["trainable_parameters"] == {"Si": "func"}
    assert fit["min_relative_test_loss_per_iter"] == 1e-4
    assert sections["backend"]["gpu_config"] == {"mem_limit": 4000}


def test_options_go_to_the_optimizer_that_has_them() -> None:
    fit = Fit(maxiter=3, optimizer="L-BFGS-B", fit={"options": {"c1": 1e-3, "maxcor": 30}})
    assert fit.section(laddered=True)["options"] == {"gtol": 1e-8, "disp": True, "maxcor": 30}
    without = fit.model_copy(update={"fit": {"options": {"c1": 1e-3}}})
    assert "options" not in without.section(laddered=True)


def test_blocks_that_are_trained_must_be_of_the_potential() -> None:
    with pytest.raises(BadInput, match="trainable_parameters names 'Ge'"):
        asked(fit=Fit(maxiter=3, fit={"trainable_parameters": ["Si", "Ge"]})).sections()


def test_without_early_stopping_no_limit_of_the_validation_loss_ends_the_fit_either() -> None:
    fit = Fit(maxiter=3, fit={"min_relative_test_loss_per_iter": 1e-4})
    assert "min_relative_test_loss_per_iter" not in fit.section(laddered=True)
    assert "early_stopping_patience" not in fit.section(laddered=True)


def test_continuing_names_the_file_as_text_and_has_no_ladder() -> None:
    sections = asked(fit=Fit(maxiter=3, ladder_step=10), start="continue").sections()
    assert sections["potential"] == "start.yaml"
    assert "ladder_step" not in sections["fit"]


def test_extending_keeps_the_whole_basis_in_sight() -> None:
    potential = asked(start="extend").sections()["potential"]
    assert potential["initial_potential"] == "start.yaml"
    assert potential["functions"]["number_of_functions_per_element"] == 250


def test_kappa_is_a_share() -> None:
    with pytest.raises(ValidationError):
        Loss(kappa=1.1)


@pytest.mark.parametrize("elements", [5, None, [1, "Si"], "Si"])
def test_elements_of_the_users_section_must_be_symbols(elements: Any) -> None:
    section = Potential(elements=("Si",), cutoff=5.0).section() | {"elements": elements}
    with pytest.raises(BadInput, match="elements must be a list of chemical symbols"):
        Potential(elements=("Si",), cutoff=5.0, b_basis=section).section()


@pytest.mark.parametrize("number", ["many", [1], 0, True, 2.5])
def test_the_number_of_functions_of_the_users_section_must_be_one(number: Any) -> None:
    section = Potential(elements=("Si",), cutoff=5.0).section()
    section["functions"]["number_of_functions_per_element"] = number
    with pytest.raises(BadInput, match="number_of_functions_per_element must be a whole number"):
        Potential(elements=("Si",), cutoff=5.0, b_basis=section).section()
