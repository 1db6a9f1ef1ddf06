"""The input of pacemaker: its sections, overrides of blocks, and keys of the user's own."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML

from containers.contract import BadInput
from containers.tensorpot.pacemaker import own_keys
from containers.tensorpot.pacemaker.input import EarlyStop, Fit, Loss, Overrides, PacemakerInput, Potential, shape
from containers.tensorpot.pacemaker.own_keys import own_backend, own_fit
from flows.config.schema import DistillConfig, Pacemaker

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


def test_presets_grow_with_their_name_and_reach_and_shrink_with_more_elements() -> None:
    shapes = [shape(preset, 5.0, 1)[0] for preset in ("small", "medium", "large")]
    assert all(
        small <= large for smaller, larger in pairwise(shapes) for small, large in zip(smaller, larger, strict=True)
    )
    assert len({tuple(each) for each in shapes}) == 3
    assert shape("mace", 5.0, 1) == shape("medium", 5.0, 1)
    assert shape("mace", 6.0, 1)[0][:2] > shape("mace", 5.0, 1)[0][:2] > shape("mace", 3.0, 1)[0][:2]
    assert shape("mace", 5.0, 2)[0] == [15, 6, 3, 2, 1, 1]
    assert min(shape("mace", 5.0, 9)[0]) == 1


def test_a_section_of_the_user_passes_through_unless_a_part_is_missing() -> None:
    potential = own()
    assert potential.section() == {"deltaSplineBins": 0.001, **OWN}
    assert potential.functions_asked() == 160
    section = {key: value for key, value in OWN.items() if key != "functions"}
    with pytest.raises(BadInput, match="has no functions"):
        Potential(elements=("Al", "Ni"), cutoff=5.0, b_basis=section).section()


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


@pytest.mark.parametrize("field", [{"cutoff": 0.0}, {"order": 0}, {"order": 7}, {"functions_per_element": 0}])
def test_potential_and_loss_refuse_numbers_out_of_range(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Potential.model_validate({"elements": ("Si",), "cutoff": 5.0, **field})
    for loss in ({"l1": float("inf")}, {"l1": float("nan")}, {"l1": -1.0}, {"kappa": 1.1}):
        with pytest.raises(ValidationError):
            Loss(**loss)


@pytest.mark.parametrize("start", ["fresh", "continue", "extend"])
@pytest.mark.parametrize("own_section", [True, False])
def test_the_text_reads_back_as_what_was_requested(start: Any, own_section: bool) -> None:
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


def test_kappa_cycles_noise_and_the_start_are_written_as_pacemaker_reads_them() -> None:
    assert asked(fit=Fit(loss=Loss(kappa="auto"), maxiter=1)).sections()["fit"]["loss"]["kappa"] == "auto"
    fit = asked(fit=Fit(maxiter=1, cycles=3, noise=0.05)).sections()["fit"]
    assert (fit["fit_cycles"], fit["noise_relative_sigma"]) == (3, 0.05)
    assert {"fit_cycles", "noise_relative_sigma"}.isdisjoint(asked().sections()["fit"])
    # a potential that is continued is the text of its file; it has no ladder and keeps its coefficients
    assert asked(fit=Fit(coefficients="random"), start="continue").sections()["potential"] == "start.yaml"
    sections = asked(fit=Fit(maxiter=3, ladder_step=10), start="continue").sections()
    assert sections["potential"] == "start.yaml"
    assert "ladder_step" not in sections["fit"]
    # extending keeps the whole basis in sight
    potential = asked(start="extend").sections()["potential"]
    assert potential["initial_potential"] == "start.yaml"
    assert potential["functions"]["number_of_functions_per_element"] == 250


@pytest.mark.parametrize("own_section", [True, False])
def test_random_coefficients_reach_every_block(own_section: bool) -> None:
    overrides = Overrides.model_validate({"functions": {"Al": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}}})
    potential = own() if own_section else Potential(elements=("Al", "Ni"), cutoff=5.0, overrides=overrides)
    functions = asked(potential=potential, fit=Fit(coefficients="random")).sections()["potential"]["functions"]
    assert {block["coefs_init"] for name, block in functions.items() if name != "number_of_functions_per_element"} == {
        "random"
    }


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
    # options go to the optimizer that has them
    fit = Fit(maxiter=3, optimizer="L-BFGS-B", fit={"options": {"c1": 1e-3, "maxcor": 30}})
    assert fit.section(laddered=True)["options"] == {"gtol": 1e-8, "disp": True, "maxcor": 30}
    without = fit.model_copy(update={"fit": {"options": {"c1": 1e-3}}})
    assert "options" not in without.section(laddered=True)
    # without early stopping no limit of the validation loss ends the fit either
    fit = Fit(maxiter=3, fit={"min_relative_test_loss_per_iter": 1e-4})
    assert "min_relative_test_loss_per_iter" not in fit.section(laddered=True)
    assert "early_stopping_patience" not in fit.section(laddered=True)
    with pytest.raises(BadInput, match="trainable_parameters names 'Ge'"):
        asked(fit=Fit(maxiter=3, fit={"trainable_parameters": ["Si", "Ge"]})).sections()


@pytest.mark.parametrize("elements", [5, None, [1, "Si"], "Si"])
@pytest.mark.parametrize("number", ["many", [1], 0, True, 2.5])
def test_elements_of_the_users_section_are_symbols_and_its_number_of_functions_is_one(
    elements: Any, number: Any
) -> None:
    section = Potential(elements=("Si",), cutoff=5.0).section()
    with pytest.raises(BadInput, match="elements must be a list of chemical symbols"):
        Potential(elements=("Si",), cutoff=5.0, b_basis=section | {"elements": elements}).section()
    section["functions"]["number_of_functions_per_element"] = number
    with pytest.raises(BadInput, match="number_of_functions_per_element must be a whole number"):
        Potential(elements=("Si",), cutoff=5.0, b_basis=section).section()


# ---- overrides of blocks


TWO_ORDERS = {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 1]}
ONE_ORDER = {"nradmax_by_orders": [4], "lmax_by_orders": [0]}


def section_of(elements: tuple[str, ...] = ("Al", "Ni"), **overrides: Any) -> dict[str, Any]:
    return Potential(elements=elements, cutoff=5.0, overrides=Overrides.model_validate(overrides)).section()


def test_overrides_change_their_block_alone() -> None:
    assert section_of(embeddings={"Al": {"ndensity": 1}})["embeddings"]["Al"] == {
        "ndensity": 1,
        "fs_parameters": [1.0, 1.0],
    }
    # a pair may be shorter and the rest keeps the cutoff
    bonds = section_of(bonds={"Al-Ni": {"rcut": 4.0}})["bonds"]
    assert bonds["AlNi"] == {"rcut": 4.0}
    assert bonds["ALL"]["rcut"] == 5.0
    # functions of an element are those among its own kind
    functions = section_of(("Al", "Cu", "Ni"), functions={"Al": TWO_ORDERS})["functions"]
    assert {name for name, block in functions.items() if block == TWO_ORDERS} == {"Al"}
    # a pair has one shape with either in the centre
    functions = section_of(functions={"Al-Ni": ONE_ORDER, "Al": TWO_ORDERS})["functions"]
    assert (functions["Al"], functions["AlNi"], functions["NiAl"]) == (TWO_ORDERS, ONE_ORDER, ONE_ORDER)
    parts = section_of()
    assert set(parts["embeddings"]) == set(parts["bonds"]) == {"ALL"}
    # a potential survives the way to a step
    overrides = Overrides.model_validate({"bonds": {"Al-Ni": {"rcut": 4.0}}, "functions": {"Al": TWO_ORDERS}})
    potential = Potential(elements=("Al", "Ni"), cutoff=5.0, overrides=overrides)
    assert Potential.model_validate_json(potential.model_dump_json()).section() == potential.section()


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
        ({"functions": {"AlNi": TWO_ORDERS}}, "not 'AlNi'"),
        ({"functions": {"Al-Al": TWO_ORDERS}}, "write Al$"),
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
        section_of(**overrides)


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


def test_a_section_of_the_user_s_own_takes_no_overrides_and_advice_names_the_elements() -> None:
    with pytest.raises(BadInput, match=r"write Si-Si$"):
        section_of(("Si",), bonds={"Si": {"rcut": 4.0}})
    own = section_of()
    overrides = Overrides.model_validate({"bonds": {"Al-Ni": {"rcut": 4.0}}})
    with pytest.raises(BadInput, match="write them into it"):
        Potential(elements=("Al", "Ni"), cutoff=5.0, b_basis=own, overrides=overrides).section()


# ---- keys of the user's own


def keys_of(section: type[Any], prefix: str) -> set[str]:
    """Every key of a section of the config, with those of the sections in it."""
    keys = set()
    for name, field in section.model_fields.items():
        keys.add(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(inner, "model_fields"):
                keys |= keys_of(inner, f"{prefix}{name}.")
    return keys


@pytest.mark.parametrize(
    ("check", "keys", "told"),
    [
        (own_fit, {"maxiter": 3}, "fit.maxiter is not yours to set: use train.maxiter"),
        (own_fit, {"repulsion": "auto"}, "use pacemaker.reference_potential"),
        (own_fit, {"weighting": {"type": "EnergyBasedWeightingPolicy"}}, "energy_scale_eV_per_atom"),
        (own_fit, {"callbacks": ["os.system"]}, "no code from outside runs"),
        (own_fit, {"loss": {"kappa": 0.3}}, "fit.loss.kappa is not yours to set: use pacemaker.kappa"),
        (own_fit, {"loss": {"w_rad": 0.3}}, "fit.loss.w_rad is no key that pacemaker reads: did you mean w[0-2]_rad"),
        (own_fit, {"loss": {"w1_rad": -1.0}}, "fit.loss.w1_rad"),
        (own_fit, {"loss": 3}, "fit.loss"),
        (own_fit, {"options": {"maxiter": 3}}, "fit.options.maxiter is not yours to set"),
        (own_fit, {"options": {"gtoll": 1e-3}}, "did you mean gtol"),
        (own_fit, {"options": {"gtol": float("inf")}}, "fit.options.gtol"),
        (own_fit, {"trainable_params": "func"}, "did you mean trainable_parameters"),
        (own_fit, {"trainable_parameters": {"ALL": ["radal"]}}, "fit.trainable_parameters.*radal"),
        (own_fit, {"zzz": 1}, "known are ladder_type"),
        (own_backend, {"evaluator": "pyace"}, "always tensorpot"),
        (own_backend, {"batch_size": 3}, "use train.batch_size"),
        (own_backend, {"n_workers": 3}, "use train.threads"),
        (own_backend, {"gpuconfig": {}}, "did you mean gpu_config"),
        (own_backend, {"gpu_config": {"gpu_index": 0}}, "gpu_config.gpu_index"),
    ],
)
def test_keys_that_are_not_the_user_s_are_refused_with_what_to_use(check: Any, keys: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        check(keys)


def test_the_config_refuses_them_with_their_place() -> None:
    with pytest.raises(ValidationError, match=r"fit\n.*use train.optimizer"):
        Pacemaker(fit={"optimizer": "BFGS"})
    with pytest.raises(ValidationError, match=r"backend\n.*use train.batch_size"):
        Pacemaker(backend={"batch_size": 3})


@pytest.mark.parametrize("table", ["FIT_DECIDED", "LOSS_DECIDED", "BACKEND_DECIDED", "OPTIONS_DECIDED"])
def test_every_key_of_the_config_that_is_advised_exists(table: str) -> None:
    known = keys_of(DistillConfig, "")
    advised = [
        word.strip(",;")
        for advice in getattr(own_keys, table).values()
        for word in advice.replace(": ", " ").split()
        if "." in word.strip(",;")
    ]
    assert {word for word in advised if word not in known} == set()
