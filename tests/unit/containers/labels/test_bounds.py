"""Labels: bounds, histograms, and the mean of an ensemble."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from containers.contract import StepError
from containers.labels.bounds import ENERGY_EDGES, FORCE_EDGES, Figures, Histogram, Sanity, Tally, broken, measure
from containers.labels.ensemble import Labels, mean_labels, refusals
from containers.labels.rows import ROWS

NUMBERS = pa.chunked_array([pa.array([[14, 14], [8]], pa.list_(pa.int32()))])
E0S = {"Si": -4.0, "O": -2.0}


def labels(energy=(-8.0, -2.0), forces=None, distance=(2.0, np.nan), forces_std=None, stress=(None, None)) -> Labels:
    """Of a structure of two silicon atoms and one of one oxygen atom; by default free atoms."""
    return Labels(
        energy=np.array(energy, dtype=float),
        forces=np.zeros((3, 3)) if forces is None else np.array(forces, dtype=float),
        counts=np.array([2, 1]),
        stress=pa.array(stress, pa.list_(pa.float64(), 6)),
        distance=np.array(distance, dtype=float),
        energy_std=None if forces_std is None else np.zeros(2),
        forces_std=None if forces_std is None else np.array(forces_std, dtype=float),
    )


def reasons(given: Labels, max_force_std=None, **bounds) -> dict[int, dict[str, str]]:
    return broken(measure(NUMBERS, given, E0S), Sanity(**bounds), max_force_std)


def test_figures_are_energies_an_atom_without_the_reference_and_the_longest_force():
    figures = measure(NUMBERS, labels(energy=(-7.0, 1.0)), E0S)
    assert figures.energy.tolist() == [0.5, 3.0]
    figures = measure(NUMBERS, labels(forces=[[3, 4, 0], [0, 0, 1], [2, 3, 6]]), E0S)
    assert figures.norms.tolist() == [5.0, 1.0, 7.0]
    assert figures.force.tolist() == [5.0, 7.0]
    with pytest.raises(StepError, match="no reference energy of O"):
        measure(NUMBERS, labels(), {"Si": -4.0})


def test_a_figure_at_the_bound_is_good_and_one_beyond_it_is_named_with_the_setting():
    at = labels(energy=(192.0, -2.0), forces=[[0, 0, 100], [0, 0, 0], [0, 0, 0]], distance=(0.5, np.nan))
    assert reasons(at) == {}
    beyond = labels(energy=(-8.0, 98.5), forces=[[0, 0, 101], [0, 0, 0], [0, 0, 0]], distance=(0.49, np.nan))
    assert reasons(beyond) == {
        0: {
            "force": "a force of 101 eV/Å, at most 100 (labels.max_force_eV_per_A)",
            "distance": "atoms 0.49 Å apart, at least 0.5 (labels.min_distance_A)",
        },
        1: {
            "energy": "an energy of 100.5 eV/atom beyond the reference energies, at most 100 either way"
            " (labels.max_energy_eV_per_atom)"
        },
    }
    # an energy far below the reference is out of bounds too
    assert set(reasons(labels(energy=(-8.0, -103.0)))) == {1}
    assert set(reasons(labels(energy=(-8.0, -103.0)), max_energy_eV_per_atom=200.0)) == set()
    # the committee's bound is on the deviation of a force vector
    spread = labels(forces_std=[[0, 0, 0.1], [0, 0, 0], [0.1, 0.2, 0.2]])
    assert reasons(spread) == {}
    assert reasons(spread, max_force_std=0.31) == {}
    assert reasons(spread, max_force_std=0.2) == {
        1: {"committee": "the committee disagrees: force deviation 0.3 eV/Å, at most 0.2 (teacher.max_force_std)"}
    }


@pytest.mark.parametrize(
    "change",
    [
        {"energy": (np.nan, -2.0)},
        {"energy": (np.inf, -2.0)},
        {"forces": [[0, 0, 0], [0, np.nan, 0], [0, 0, 0]]},
        {"forces": [[0, -np.inf, 0], [0, 0, 0], [0, 0, 0]]},
        {"stress": ([0, 0, 0, 0, 0, np.nan], None)},
    ],
)
def test_a_label_that_is_not_finite_is_named_and_its_neighbour_is_left_alone(change):
    assert reasons(labels(**change)) == {0: {"not_finite": "the teacher's label is not finite"}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_force_eV_per_A": 0},
        {"max_energy_eV_per_atom": -1},
        {"min_distance_A": -0.1},
        {"min_distance_A": "1"},
        {"max_force": 3},
    ],
)
def test_wrong_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        Sanity(**wrong)


# ---- histograms and extremes


def of_single_atoms(norms, energy) -> Figures:
    """Structures of one atom each."""
    each = np.array(norms, dtype=float)
    return Figures(np.isfinite(each), each, each, None, np.array(energy, dtype=float), np.full(len(each), np.nan))


def test_a_histogram_has_a_bin_for_every_value_and_is_cut_to_what_is_filled():
    for edges in (FORCE_EDGES, ENERGY_EDGES):
        assert (np.diff(edges) > 0).all()
        histogram = Histogram(edges)
        histogram.add(np.array([-1e9, 0.0, *edges, 1e9, np.nan, np.inf]))
        assert histogram.counts.sum() == 3 + len(edges)
    values = np.random.default_rng(0).lognormal(size=1000)
    histogram = Histogram(FORCE_EDGES)
    histogram.add(values[:400])
    histogram.add(values[400:])
    plain = histogram.plain()
    assert plain["counts"] == np.histogram(values, plain["edges"])[0].tolist()
    assert sum(plain["counts"]) == 1000
    assert plain["counts"][0] > 0
    assert plain["counts"][-1] > 0
    assert Histogram(FORCE_EDGES).plain() == {"edges": [], "counts": []}


def test_extremes_leave_out_what_is_not_finite_and_hold_over_batches():
    tally = Tally()
    tally.measure(of_single_atoms([1.0, np.inf], [0.5, np.nan]))
    tally.measure(of_single_atoms([0.25], [-3.0]))
    metrics = tally.metrics()
    assert metrics["largest_force_eV_per_A"] == 1.0
    assert (metrics["lowest_energy_eV_per_atom"], metrics["highest_energy_eV_per_atom"]) == (-3.0, 0.5)
    assert "shortest_distance_A" not in metrics
    assert sum(metrics["force_histogram_eV_per_A"]["counts"]) == 2
    json.dumps(metrics, allow_nan=False)


# ---- the mean of an ensemble


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
