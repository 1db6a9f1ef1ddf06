"""The mean size of forces and the spread of energies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from containers.tensorpot.dataset.sizes import Sizes


def table(rows: list[tuple[list[int], float, float, str]]) -> pa.Table:
    """Rows of numbers, energy per atom, and the size of every force component, by origin."""
    return pa.table(
        {
            "numbers": pa.array([numbers for numbers, *_ in rows], pa.list_(pa.uint8())),
            "energy": [energy * len(numbers) for numbers, energy, _, _ in rows],
            "forces": pa.array([[(-1.0) ** n * size for n in range(3 * len(numbers))] for numbers, _, size, _ in rows]),
            "origin": [origin for *_, origin in rows],
        }
    )


def test_energies_spread_around_what_the_elements_give_and_the_teacher_s_labels_alone_count() -> None:
    sizes = Sizes(("Al", "Ni"))
    sizes.add(table([([13, 13], -3.0, 0.1, "teacher"), ([13], -3.2, 0.4, "teacher"), ([13], 900.0, 99.0, "dft")]))
    sizes.add(table([([28], -5.1, 0.1, "teacher"), ([28, 28, 28], -4.9, 0.1, "teacher")]))
    found = sizes.figures()
    assert found["energy_spread_meV_per_atom"] == pytest.approx(100.0), "0.1 eV about the mean of each element"
    assert found["force_mean_meV_per_A"] == pytest.approx(1000 * np.average([0.1, 0.4, 0.1, 0.1], weights=[2, 1, 1, 3]))


def test_energies_on_one_line_have_no_spread() -> None:
    sizes = Sizes(("Al", "Ni"))
    sizes.add(table([([13], -3.0, 0.0, "teacher"), ([28], -5.0, 0.0, "teacher"), ([13, 28], -4.0, 0.0, "teacher")]))
    assert sizes.figures() == {
        "force_mean_meV_per_A": 0.0,
        "energy_spread_meV_per_atom": pytest.approx(0.0, abs=1e-9),
    }
