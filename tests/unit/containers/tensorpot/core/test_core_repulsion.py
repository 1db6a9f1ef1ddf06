from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from containers.tensorpot.core.inner_radius import (
    CLOSEST,
    MARGIN,
    RAISED,
    blend_width,
    candidates,
    choose_gentle_r_in,
    choose_r_in,
    distances_inward,
    falls_by,
    rises_inward,
)
from containers.tensorpot.student.calculator import zbl

Floats = NDArray[np.float64]


def blended(fit: Floats, r_in: float, distances: Floats) -> Floats:
    """A dimer: the fit outside r_in, ZBL of silicon inside the blend, a smooth step between."""
    x = np.clip((r_in - distances) / blend_width(r_in), 0, 1)
    share = x * x * (3 - 2 * x)
    return (1 - share) * fit + share * zbl(14, 14, distances)[0]


@pytest.mark.parametrize("start", [1.83, 1.8286612, 0.5, 2.0])
def test_distances_go_from_the_start_to_the_closest_in_even_steps(start: float) -> None:
    distances = distances_inward(start)
    assert distances[0] == pytest.approx(start, abs=1e-9)
    assert distances[-1] == CLOSEST
    steps = -np.diff(distances)
    assert steps[1:] == pytest.approx(0.01)
    assert (steps > 0).all()
    assert (steps <= 0.01 + 1e-9).all()


def test_rises_inward() -> None:
    assert rises_inward(np.array([0.0, 0.1, 5.0]))
    assert not rises_inward(np.array([0.0, 0.1, 0.1]))
    assert not rises_inward(np.array([0.0, np.nan, 5.0]))


def test_r_in_is_only_raised() -> None:
    tried = list(candidates(1.8, 5.0))
    assert tried[0] == 1.8
    assert (np.diff(tried) > 0).all()
    assert max(tried) == pytest.approx(1.8 + RAISED)


def test_the_first_candidate_is_never_inside_the_data() -> None:
    for shortest in (1.7104885921645847, 1.4900000004, 2.123456789):
        first = next(candidates(shortest, 5.0))
        assert shortest - 1e-6 < first <= shortest


def test_candidates_stay_inside_the_cutoff() -> None:
    assert max(candidates(2.5, 3.0)) < 3.0


def test_the_shortest_distance_is_taken_where_the_fit_lies_below_zbl() -> None:
    assert choose_r_in(1.8, 5.0, lambda r_in, d: blended(3.0 - d, r_in, d)) == 1.8


def test_the_energy_must_rise_from_a_tenth_outside() -> None:
    """The fit falls inward from 1.95 to 1.9 Å: r_in moves out until the blend has taken over there."""

    def energy(r_in: float, distances: Floats) -> Floats:
        dent = -10 * np.clip(1.95 - distances, 0.0, 0.05)
        return blended(3.0 - distances + dent, r_in, distances)

    chosen = choose_r_in(1.86, 5.0, energy)
    assert chosen > 1.86
    assert rises_inward(energy(chosen, np.append(np.arange(chosen + MARGIN, CLOSEST, -0.01), CLOSEST)))
    before = chosen - 0.02
    assert not rises_inward(energy(before, distances_inward(before + MARGIN, 0.005)))


def test_r_in_moves_out_when_the_fit_is_far_above_zbl() -> None:
    """At 1.5 Å the fit is above ZBL, so blending there would go down: only farther out does it rise."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(40 * np.exp(-4 * (distances - 1.5)), r_in, distances)

    chosen = choose_r_in(1.5, 5.0, energy)
    assert chosen > 1.5
    assert rises_inward(energy(chosen, distances_inward(chosen)))
    assert not rises_inward(energy(1.5, distances_inward(1.5)))


def test_there_may_be_none_that_rises() -> None:
    assert choose_r_in(1.5, 5.0, lambda r_in, distances: distances) is None


def test_a_flat_pair_begins_where_it_is_wanted_and_rises_from_there() -> None:
    """Training never sees the pair: its fit is exactly zero."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(np.zeros_like(distances), r_in, distances)

    assert choose_gentle_r_in(2.22, 2.22, 5.0, energy) == 2.22


@pytest.mark.parametrize("depth", [-0.3, 0.3])
def test_a_pair_that_training_has_far_apart_alone_is_not_raised_into_the_data(depth: float) -> None:
    """A fit that attracts at 4 Å, or repels there and falls into a hole farther in: no r_in makes its dimer rise."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(depth * np.sin(2 * (distances - 5.0)), r_in, distances)

    chosen = choose_gentle_r_in(4.0, 2.22, 5.0, energy)
    assert 2.22 <= chosen <= 4.0
    falls = {r_in: falls_by(energy(r_in, distances_inward(4.0 + MARGIN, 0.005))) for r_in in (2.25, 3.0, 3.5, 4.0)}
    assert falls_by(energy(chosen, distances_inward(4.0 + MARGIN, 0.005))) <= min(falls.values())
    assert rises_inward(energy(chosen, distances_inward(chosen - blend_width(chosen))))


def test_a_fit_that_repels_all_the_way_keeps_the_shortest_distance() -> None:
    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(0.1 * np.exp(4.0 - distances), r_in, distances)

    assert choose_gentle_r_in(4.0, 2.22, 5.0, energy) < 4.0  # ZBL at 4 Å lies below it: farther in it does not
    assert falls_by(np.array([0.0, 0.2, 0.1, 3.0])) == pytest.approx(0.1)
    assert falls_by(np.array([0.0, np.nan])) == np.inf
