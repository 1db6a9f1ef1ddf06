from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from containers.contract import StepError
from containers.labels.ensemble import mean_labels, refusals
from containers.labels.rows import ROWS

NUMBERS = pa.chunked_array([pa.array([[14, 14], [8]], pa.list_(pa.int32()))])
STRESS = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def member(energies, forces, stress=(None, None), distances=(2.0, None), reasons=(None, None)) -> pa.Table:
    """Rows of one teacher for a structure of two atoms and one of one atom."""
    names = ("energy", "forces", "stress", "min_distance_A", "reason")
    answers = zip(energies, map(list, forces), stress, distances, reasons, strict=True)
    rows = [
        {"id": bytes([place]) * 32, **dict(zip(names, answer, strict=True))} for place, answer in enumerate(answers)
    ]
    return pa.Table.from_pylist(rows, schema=ROWS)


def test_one_teacher_s_label_is_untouched_and_has_no_deviation():
    forces = [np.linspace(-1, 1, 6), [1 / 3, -0.0, 1e-300]]
    labels = mean_labels([member([-1 / 3, 5.0], forces, [STRESS, None])], NUMBERS)
    assert labels.energy.tolist() == [-1 / 3, 5.0]
    assert labels.forces.ravel().tolist() == [*forces[0], *forces[1]]
    assert labels.stress.to_pylist() == [STRESS, None]
    assert (labels.energy_std, labels.forces_std) == (None, None)
    assert set(labels.columns()) == {"energy", "forces", "stress"}


def test_mean_and_population_deviation_of_three():
    energies = np.array([[1.0, 10.0], [2.0, 10.0], [6.0, 10.0]])
    forces = np.random.default_rng(0).normal(size=(3, 9))
    rows = [
        member(energy, (force[:6], force[6:]), [(np.array(STRESS) * scale).tolist(), None])
        for energy, force, scale in zip(energies, forces, (1, 2, 3), strict=True)
    ]
    labels = mean_labels(rows, NUMBERS)
    assert labels.energy.tolist() == [3.0, 10.0]
    assert labels.energy_std == pytest.approx([np.sqrt(14 / 3), 0.0])
    assert labels.forces.ravel() == pytest.approx(forces.mean(axis=0))
    assert labels.forces_std.ravel() == pytest.approx(np.sqrt(((forces - forces.mean(axis=0)) ** 2).mean(axis=0)))
    assert labels.stress.to_pylist() == [pytest.approx([2 * value for value in STRESS]), None]
    assert [len(row) for row in labels.columns()["forces_std"].to_pylist()] == [6, 3]


def test_stress_needs_all_members_a_distance_one_and_a_reason_names_its_teacher():
    forces = [[0.0] * 6, [0.0] * 3]
    labels = mean_labels([member([0, 0], forces, [STRESS, STRESS]), member([0, 0], forces, [None, STRESS])], NUMBERS)
    assert labels.stress.to_pylist() == [None, STRESS]
    far, near = (member([0, 0], forces, distances=seen) for seen in ([2.5, None], [None, None]))
    assert np.array_equal(mean_labels([near, far], NUMBERS).distance, [2.5, np.nan], equal_nan=True)
    good, bad = member([0, 0], forces), member([0, 0], forces, reasons=(None, "unknown element O"))
    assert refusals([bad]) == [None, "unknown element O"]
    assert refusals([good, bad]) == [None, "teacher 2 of 2: unknown element O"]
    assert refusals([bad, bad])[1] == "teacher 1 of 2: unknown element O; teacher 2 of 2: unknown element O"
    none = NUMBERS.slice(0, 0)
    labels = mean_labels([ROWS.empty_table(), ROWS.empty_table()], none)
    assert [len(column) for column in labels.columns().values()] == [0] * 5


@pytest.mark.parametrize("forces", [([0.0] * 3, [0.0] * 6), ([0.0] * 6, [])])
def test_a_label_of_another_structure_is_refused(forces):
    with pytest.raises(StepError, match=r"does not fit it: \d force components for \d atoms"):
        mean_labels([member([0, 0], forces)], NUMBERS)
