"""Presets lie below what a config says itself."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from flows.config.schema import PRESETS, DistillConfig, PresetName

MINIMAL: dict[str, Any] = {"name": "a", "teacher": {"model": "m"}, "pool": {"files": ["p"]}}


@pytest.mark.parametrize("name", get_args(PresetName))
def test_every_preset_is_a_config_and_all_its_values_arrive(name: str) -> None:
    config = DistillConfig.model_validate(MINIMAL | {"preset": name}).model_dump()
    for section, values in PRESETS[name].items():
        assert values.items() <= config[section].items()
    assert DistillConfig.model_validate(MINIMAL | {"preset": "standard"}) == DistillConfig.model_validate(MINIMAL)


def test_what_the_config_says_stays() -> None:
    values = {"preset": "accurate", "pacemaker": {"order": 2}, "train": {"stages": []}}
    config = DistillConfig.model_validate(MINIMAL | values)
    assert (config.pacemaker.order, config.pacemaker.cutoff, config.train.stages) == (2, "wide", [])


def test_a_resolved_config_read_again_is_the_same() -> None:
    config = DistillConfig.model_validate(MINIMAL | {"preset": "accurate", "train": {"seed": 7}})
    assert DistillConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("train.maxiter", {"train": {"maxiter": 7}}),
        ("pacemaker.kappa", {"pacemaker": {"kappa": "auto"}}),
        ("pacemaker.kappa", {"pacemaker": {"kappa": 0}}),
        ("pacemaker.loss_forces", {"pacemaker": {"loss_forces": 0.5}}),
    ],
)
def test_keys_that_stages_replace_are_reported(key: str, changes: dict[str, Any]) -> None:
    (notice,) = DistillConfig.model_validate(MINIMAL | {"preset": "accurate"} | changes).without_effect
    assert notice.startswith(f"{key} has no effect beside train.stages")
    assert DistillConfig.model_validate(MINIMAL | changes).without_effect == []
    (notice,) = DistillConfig.model_validate(MINIMAL | {"pacemaker": {"kappa": 0.3, "loss_forces": 0.9}}).without_effect
    assert notice.startswith("pacemaker.loss_forces has no effect beside pacemaker.kappa")


def test_the_old_name_of_the_elements_of_types_works_with_a_notice() -> None:
    old = DistillConfig.model_validate(MINIMAL | {"dataset": {"mlip_elements": ["Cu", "Au"]}})
    assert old.dataset.elements_of_types == ["Cu", "Au"]
    assert old.notices == ["dataset.mlip_elements is now called dataset.type_elements"]
    new = DistillConfig.model_validate(MINIMAL | {"dataset": {"type_elements": ["Cu", "Cu"]}})
    assert (new.dataset.elements_of_types, new.notices) == (["Cu", "Cu"], [])
    with pytest.raises(ValidationError, match="give type_elements alone"):
        DistillConfig.model_validate(MINIMAL | {"dataset": {"mlip_elements": ["Cu"], "type_elements": ["Cu"]}})


@pytest.mark.parametrize("name", ["best", 3, ["accurate"], None])
def test_an_unknown_preset_is_refused_by_name(name: object) -> None:
    with pytest.raises(ValidationError, match="preset"):
        DistillConfig.model_validate(MINIMAL | {"preset": name})


@pytest.mark.parametrize("section", ["train", [1], 4])
def test_a_section_that_is_none_is_refused_by_its_own_name(section: object) -> None:
    with pytest.raises(ValidationError, match="train"):
        DistillConfig.model_validate(MINIMAL | {"preset": "accurate", "train": section})
