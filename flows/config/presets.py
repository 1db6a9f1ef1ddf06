"""Named sets of config values: what a config does not set itself, its preset does. Measured in docs/use/training.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["standard", "accurate"]

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "standard": {},  # the sections' own defaults
    "accurate": {
        "pacemaker": {"cutoff": "wide", "order": 4, "functions_per_element": 300, "densities": 4},
        "selection": {"max_structures": 200},
        "train": {"stages": [{"kappa": 0.3, "maxiter": "auto"}, {"kappa": 0.03, "maxiter": "auto"}]},
    },
}


def under(values: Mapping[str, Any], preset: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The values of a config with those of a preset where a section does not set them."""
    filled = dict(values)
    for section, defaults in preset.items():
        given = values.get(section)
        if given is None:
            filled[section] = dict(defaults)
        elif isinstance(given, Mapping):  # anything else is told by the validation
            filled[section] = {**defaults, **given}
    return filled
