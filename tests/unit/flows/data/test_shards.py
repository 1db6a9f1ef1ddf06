"""Shards of equal cost."""

from __future__ import annotations

import numpy as np
import pytest

from flows.data.labelling import FEWEST_SHARDS, PILOT_ATOMS, cut, pilot, shard_count


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.0, 1), (19, 1), (40, 2), (100, 5), (160, 8), (479, 8), (600, 10), (36_000, 600)],
)
def test_a_shard_takes_20_to_120_seconds_and_there_are_eight_where_the_work_allows(seconds: float, count: int) -> None:
    assert shard_count(seconds, 60) == count
    if seconds >= 40:
        assert 20 <= seconds / count <= 120
    if seconds >= 20 * FEWEST_SHARDS:
        assert count >= FEWEST_SHARDS


def test_shards_have_equal_edges_not_equal_counts() -> None:
    costs = np.array([4] * 900 + [2_600] * 100)  # single atoms, and large cells at the end
    shards = cut(costs, 8)
    edges = [int(costs[list(shard)].sum()) for shard in shards]
    assert max(abs(edge - sum(edges) / 8) for edge in edges) < 2_600  # less than one structure
    assert len(shards[0]) > 5 * len(shards[-1])


@pytest.mark.parametrize("costs", [[1], [0, 0, 0], [5, 1, 1], [1, 1, 9], [10**9] * 7, list(range(50))])
@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_shards_cover_every_structure_once_and_none_is_empty(costs: list[int], shards: int) -> None:
    found = cut(np.array(costs, dtype=np.int64), shards)
    assert [place for shard in found for place in shard] == list(range(len(costs)))
    assert all(found)
    assert len(found) <= shards


def test_nothing_is_cut_into_no_shards() -> None:
    assert cut(np.zeros(0, np.int64), 8) == []


def test_a_pilot_is_spread_over_the_pool() -> None:
    atoms = np.full(10_000, 40)
    places = pilot(atoms)
    assert PILOT_ATOMS / 2 <= atoms[places].sum() <= 2 * PILOT_ATOMS
    assert places[0] + 9_999 - places[-1] <= np.diff(places).max()
    assert np.ptp(np.diff(places)) <= 1


@pytest.mark.parametrize("atoms", [[], [1], [96] * 100])
def test_a_small_pool_is_its_own_pilot(atoms: list[int]) -> None:
    assert len(pilot(np.array(atoms, dtype=np.int64))) == len(atoms)
