"""Errors of a prediction, with the unit in the name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

MILLI = 1000.0


def of_side(metrics: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The figures whose names begin with `{side}_`, by the rest of their names."""
    return {key.removeprefix(f"{side}_"): value for key, value in metrics.items() if key.startswith(f"{side}_")}


def errors(quantity: str, unit: str, reference: ArrayLike, predicted: ArrayLike) -> dict[str, float | None]:
    """MAE, RMSE and largest absolute error of one quantity, 1000 times the unit of the arrays.

    Args:
        quantity: first word of the keys: `energy`, `force`, `stress`.
        unit: last words of the keys, e.g. `meV_per_A` for arrays in eV/Å.
        reference, predicted: any equal shapes; force arrays give errors per Cartesian component.

    Returns:
        `{quantity}_mae_{unit}`, `{quantity}_rmse_{unit}`, `{quantity}_max_{unit}`; None when there is no number.

    Raises:
        ValueError: the shapes differ (numpy would spread one over the other without a word).
    """
    expected, found = np.asarray(reference, dtype=float), np.asarray(predicted, dtype=float)
    if expected.shape != found.shape:
        raise ValueError(f"{quantity}: reference has shape {expected.shape}, prediction {found.shape}")
    difference = MILLI * np.abs(found - expected).ravel()
    names = [f"{quantity}_{statistic}_{unit}" for statistic in ("mae", "rmse", "max")]
    if difference.size == 0:
        return dict.fromkeys(names)
    figures = (difference.mean(), np.sqrt((difference**2).mean()), difference.max())
    return dict(zip(names, map(float, figures), strict=True))
