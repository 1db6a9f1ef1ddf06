"""Errors of a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from containers.metrics import errors


def test_errors_are_in_thousandths_and_named() -> None:
    found = errors("force", "meV_per_A", [[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, 3.004]])
    assert found == {
        "force_mae_meV_per_A": pytest.approx(1.0),
        "force_rmse_meV_per_A": pytest.approx(2.0),
        "force_max_meV_per_A": pytest.approx(4.0),
    }


def test_signs_do_not_cancel() -> None:
    found = errors("energy", "meV_per_atom", [1.0, 1.0], [0.999, 1.001])
    assert list(found.values()) == pytest.approx([1.0, 1.0, 1.0])


def test_a_perfect_prediction_has_no_error() -> None:
    assert set(errors("energy", "meV_per_atom", [1.0], [1.0]).values()) == {0.0}


def test_without_numbers_there_is_none() -> None:
    assert set(errors("stress", "meV_per_A3", [], []).values()) == {None}


def test_figures_are_plain_numbers() -> None:
    found = errors("energy", "meV_per_atom", np.ones(2, dtype=np.float32), np.zeros(2))
    assert all(type(figure) is float for figure in found.values())


@pytest.mark.parametrize("predicted", [np.zeros((3, 1)), np.zeros(1), np.zeros(4)])
def test_other_shapes_are_refused(predicted: np.ndarray) -> None:
    with pytest.raises(ValueError, match="energy: reference has shape"):
        errors("energy", "meV_per_atom", np.zeros(3), predicted)
