from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from containers.tensorpot.core_repulsion import (
    ABOVE,
    BELOW,
    CLOSEST,
    NoCoreRepulsion,
    blend_width,
    candidates,
    choose_r_in,
    distances_inward,
    rises_inward,
    zbl_energy,
)

Floats = NDArray[np.float64]


def blended(fit: Floats, r_in: float, distances: Floats) -> Floats:
    """A dimer: the fit outside r_in, ZBL of silicon inside the blend, a smooth step between."""
    x = np.clip((r_in - distances) / blend_width(r_in), 0, 1)
    share = x * x * (3 - 2 * x)
    return (1 - share) * fit + share * zbl_energy(14, 14, distances)


def test_zbl_of_two_protons_far_inside_is_nearly_coulomb() -> None:
    close = np.array([1e-4])
    assert zbl_energy(1, 1, close)[0] == pytest.approx(14.399645 / 1e-4, rel=1e-3)


def test_zbl_is_screened_symmetric_and_falls_outward() -> None:
    distances = np.linspace(0.3, 3, 200)
    energies = zbl_energy(14, 8, distances)
    assert (np.diff(energies) < 0).all()
    assert np.array_equal(energies, zbl_energy(8, 14, distances))
    assert energies[-1] < 0.01 * 14.399645 * 14 * 8 / 3


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


def test_candidates_leave_the_data_alone_first() -> None:
    tried = list(candidates(1.8, 5.0))
    assert tried[0] == 1.8
    below = [r_in for r_in in tried if r_in < 1.8]
    assert tried[1 : 1 + len(below)] == below
    assert min(tried) == pytest.approx(1.8 - BELOW)
    assert max(tried) == pytest.approx(1.8 + ABOVE)


def test_the_first_candidate_is_never_inside_the_data() -> None:
    for shortest in (1.7104885921645847, 1.4900000004, 2.123456789):
        first = next(candidates(shortest, 5.0))
        assert shortest - 1e-6 < first <= shortest


def test_candidates_stay_between_the_closest_distance_and_the_cutoff() -> None:
    assert all(r_in - blend_width(r_in) >= CLOSEST for r_in in candidates(0.8, 5.0))
    assert max(candidates(2.5, 3.0)) < 3.0


def test_the_shortest_distance_is_taken_where_the_fit_lies_below_zbl() -> None:
    assert choose_r_in("Si-Si", 1.8, 5.0, lambda r_in, d: blended(3.0 - d, r_in, d)) == 1.8


def test_a_well_between_the_data_and_the_core_is_not_left() -> None:
    """The fit falls again below 1.75 Å: the core must begin where it still rises."""

    def energy(r_in: float, distances: Floats) -> Floats:
        fit = np.where(distances > 1.75, 10 * (2.0 - distances), 2.5 - 30 * (1.75 - distances))
        return blended(fit, r_in, distances)

    chosen = choose_r_in("Si-Si", 1.8, 5.0, energy)
    assert rises_inward(energy(chosen, distances_inward(max(chosen, 1.8))))


def test_r_in_moves_out_when_the_fit_is_far_above_zbl() -> None:
    """At 1.5 Å the fit is above ZBL, so blending there would go down: only farther out does it rise."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(40 * np.exp(-4 * (distances - 1.5)), r_in, distances)

    chosen = choose_r_in("Si-Si", 1.5, 5.0, energy)
    assert chosen > 1.5
    assert rises_inward(energy(chosen, distances_inward(chosen)))
    assert not rises_inward(energy(1.5, distances_inward(1.5)))


def test_it_says_so_when_nothing_rises() -> None:
    with pytest.raises(NoCoreRepulsion, match="Si-O dimer"):
        choose_r_in("Si-O", 1.5, 5.0, lambda r_in, distances: distances)
