"""The representatives of the pool, and what every chosen structure stands for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from containers.arrays import Floats
from containers.tensorpot.active_set.piece_sizes import BLOCK_ROWS, COMBINED_BYTES
from containers.tensorpot.selection import representatives
from containers.tensorpot.selection.representatives import (
    bulk_choice,
    representation_weights,
    share_d_optimal,
    structure_space,
    weights_of,
)


@pytest.fixture(autouse=True)
def _whole_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representatives, "REPRESENTATION", 1.0)


def crowd(count: int = 300, seed: int = 0) -> Floats:
    """Points of three classes of 80, 15 and 5 %, in seven correlated columns."""
    rng = np.random.default_rng(seed)
    sizes = (count * 80 // 100, count * 15 // 100, count * 5 // 100)
    centres = rng.normal(0, 10, (3, 7))
    return np.concatenate([c + rng.normal(0, 1, (size, 7)) for c, size in zip(centres, sizes, strict=True)])


def way(space: Floats, chosen: list[int]) -> float:
    """Sum over the pool of the distances to the nearest chosen one."""
    return float(cdist(space, space[chosen]).min(axis=1).sum())


def by_hand(space: Floats, chosen: list[int], count: int) -> list[int]:
    """The greedy choice by looking at every candidate every time."""
    taken = list(chosen)
    for _ in range(count):
        left = [place for place in range(len(space)) if place not in taken]
        taken.append(min(left, key=lambda place: (round(way(space, [*taken, place]), 9), place)))
    return taken[len(chosen) :]


def test_the_space_keeps_distances_and_drops_what_does_not_vary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = crowd()
    scaled = structure_space(features * np.array([1e-6, 1e3, 1, 1, 1, 1, 1]) + 5)
    np.testing.assert_allclose(cdist(scaled, scaled), cdist(*2 * [structure_space(features)]), atol=1e-6)
    features = np.concatenate([crowd(), np.full((300, 2), 3.0), crowd()[:, :1]], axis=1)
    space = structure_space(features)
    assert space.shape[1] <= 7  # two constant columns and a copy add no dimension
    variances = space.var(axis=0)
    assert (np.diff(variances) <= 0).all()
    assert variances.sum() == pytest.approx(8, rel=1.01 - representatives.KEPT_VARIANCE)  # eight columns of variance 1
    features = crowd()
    whole = structure_space(features)
    monkeypatch.setattr(representatives, "BLOCK_ROWS", 7)
    pieces = structure_space(features)
    np.testing.assert_allclose(cdist(pieces, pieces), cdist(whole, whole), atol=1e-9)
    assert bulk_choice(pieces, [7], 40) == bulk_choice(whole, [7], 40)


def test_the_space_takes_no_more_memory_than_is_reckoned_with() -> None:
    features = np.random.default_rng(0).normal(size=(40_000, 50))  # no column is like another: the worst case
    train = np.arange(len(features))
    tracemalloc.start()
    try:
        space = structure_space(features[train])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = 4 * 8 * BLOCK_ROWS * features.shape[1]
    assert space.shape[1] >= 49
    assert features.nbytes + peak <= COMBINED_BYTES * features.size + blocks


def test_the_choice_is_the_greedy_one_begins_with_the_medoid_and_is_better_than_chance() -> None:
    space = crowd(60)
    assert bulk_choice(space, [], 8) == by_hand(space, [], 8)
    assert bulk_choice(space, [50, 3], 8) == by_hand(space, [50, 3], 8)
    space = crowd()
    longer = bulk_choice(space, [], 20)
    assert longer[0] == int(cdist(space, space).sum(axis=0).argmin())
    assert longer[:7] == bulk_choice(space, [], 7)
    space = crowd()
    rng = np.random.default_rng(1)
    drawn = [way(space, rng.choice(300, 15, replace=False).tolist()) for _ in range(20)]
    assert way(space, bulk_choice(space, [], 15)) < 0.9 * min(drawn)


def test_nothing_is_chosen_twice_and_everything_can_be() -> None:
    space = crowd(40)
    picked = bulk_choice(space, [4, 9], 38)
    assert sorted([4, 9, *picked]) == list(range(40))
    with pytest.raises(ValueError, match="39 structures are requested and 38 are left"):
        bulk_choice(space, [4, 9], 39)
    space = np.array([[0.0], [0.1], [0.2], [10.0], [10.1], [10.2]])
    assert bulk_choice(space, [1], 1) == [4]
    assert bulk_choice(space, [4], 1) == [1]
    space = structure_space(np.ones((5, 3)))
    assert space.shape[0] == 5
    assert np.ptp(space) == 0
    assert bulk_choice(space, [], 3) == [0, 1, 2]
    np.testing.assert_array_equal(representation_weights(space, [1, 3]), [1.6, 0.4])


def test_blocks_and_a_part_of_a_large_pool_represent_it_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    space = crowd()
    whole = bulk_choice(space, [7], 40), representation_weights(space, [7, 250, 290]).tolist()
    monkeypatch.setattr(representatives, "BLOCK", 3)
    assert (bulk_choice(space, [7], 40), representation_weights(space, [7, 250, 290]).tolist()) == whole
    space = crowd(2000)[np.random.default_rng(2).permutation(2000)]
    whole = way(space, bulk_choice(space, [], 20))
    monkeypatch.setattr(representatives, "AUDIENCE", 400)
    in_part = bulk_choice(space, [], 20)
    assert len(set(in_part)) == 20
    assert way(space, in_part) < 1.05 * whole


def test_weights_count_what_each_stands_for_and_d_optimal_gets_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    space = np.array([[0.0], [0.1], [0.2], [0.3], [12.0], [20.0]])
    np.testing.assert_allclose(representation_weights(space, [5, 1]), [2 / 3, 4 / 3])
    np.testing.assert_array_equal(representation_weights(space, range(6)), np.ones(6))
    space = np.array([[0.0], [0.1], [0.2], [0.3], [12.0]])
    monkeypatch.setattr(representatives, "REPRESENTATION", 0.5)
    np.testing.assert_allclose(representation_weights(space, [4, 1]), [2 / 3, 4 / 3])  # roots of 1 and 4
    most = 150 // representatives.D_OPTIMAL_PART
    assert [share_d_optimal(150, size) for size in (0, 20, 135)] == [0, 20, most]
    assert 30 <= most <= 75
    assert share_d_optimal(1, 135) == 0


def test_weighted_means_of_the_few_are_those_of_the_pool() -> None:
    features = crowd()
    space = structure_space(features)
    chosen = [299, 298, 297, *bulk_choice(space, [299, 298, 297], 30)]  # three of the rarest first
    weights = representation_weights(space, chosen)
    assert weights.mean() == pytest.approx(1)
    spread = features.std(axis=0)
    plain = np.abs(features[chosen].mean(axis=0) - features.mean(axis=0)) / spread
    weighted = np.abs((weights[:, None] * features[chosen]).mean(axis=0) - features.mean(axis=0)) / spread
    assert weighted.max() < 0.1 < plain.max()


def test_dft_structures_are_not_stood_for() -> None:
    """They have a weight of their own: 96 of them beside one of four chosen structures change nothing."""
    pool = np.array([[0.0], [1.0], [2.0], [3.0]])
    dft = np.full((96, 1), 0.01)
    space, is_dft = np.vstack([dft, pool]), np.arange(100) < 96
    train = np.arange(1000, 1100)
    assert weights_of(space, train, [0, 96, 97, 98, 99], is_dft) == {1096: 1.0, 1097: 1.0, 1098: 1.0, 1099: 1.0}
    assert weights_of(space, train, [96, 99], is_dft) == {1096: 1.0, 1099: 1.0}
    assert weights_of(space, train, [97, 99], is_dft) == {1097: 1.5, 1099: 0.5}, "equally near ones to the first"
    assert weights_of(space, train, [0], is_dft) == {}
