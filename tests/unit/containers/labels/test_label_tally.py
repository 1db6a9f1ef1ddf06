from __future__ import annotations

import json

import numpy as np

from containers.labels.bounds import ENERGY_EDGES, FORCE_EDGES, Figures, Histogram, Tally


def figures(norms, energy) -> Figures:
    """Structures of one atom each."""
    each = np.array(norms, dtype=float)
    return Figures(np.isfinite(each), each, each, None, np.array(energy, dtype=float), np.full(len(each), np.nan))


def test_edges_rise_and_every_value_has_one_bin():
    for edges in (FORCE_EDGES, ENERGY_EDGES):
        assert (np.diff(edges) > 0).all()
        histogram = Histogram(edges)
        histogram.add(np.array([-1e9, 0.0, *edges, 1e9, np.nan, np.inf]))
        assert histogram.counts.sum() == 3 + len(edges)


def test_a_histogram_counts_as_numpy_does_and_is_cut_to_what_is_filled():
    values = np.random.default_rng(0).lognormal(size=1000)
    histogram = Histogram(FORCE_EDGES)
    histogram.add(values[:400])
    histogram.add(values[400:])
    plain = histogram.plain()
    assert plain["counts"] == np.histogram(values, plain["edges"])[0].tolist()
    assert sum(plain["counts"]) == 1000
    assert plain["counts"][0] > 0
    assert plain["counts"][-1] > 0


def test_nothing_counted_is_an_empty_histogram():
    assert Histogram(FORCE_EDGES).plain() == {"edges": [], "counts": []}


def test_extremes_leave_out_what_is_not_finite_and_hold_over_batches():
    tally = Tally()
    tally.measure(figures([1.0, np.inf], [0.5, np.nan]))
    tally.measure(figures([0.25], [-3.0]))
    metrics = tally.metrics()
    assert metrics["largest_force_eV_per_A"] == 1.0
    assert (metrics["lowest_energy_eV_per_atom"], metrics["highest_energy_eV_per_atom"]) == (-3.0, 0.5)
    assert "shortest_distance_A" not in metrics
    assert sum(metrics["force_histogram_eV_per_A"]["counts"]) == 2
    json.dumps(metrics, allow_nan=False)
