from __future__ import annotations

import pytest

from containers.mace.batches import Size, batches, compute_in_batches, windows


def sizes(*edges: int) -> dict[int, Size]:
    return {place: Size(1, count) for place, count in enumerate(edges)}


def test_windows_cover_all_in_order_within_the_limit():
    assert windows([4, 4, 4, 9, 1], 8) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    assert windows([], 8) == []
    assert windows([0, 0], 8) == [range(2)]


def test_batches_are_sorted_bounded_and_a_large_one_is_alone():
    assert batches(sizes(50, 3, 4, 2, 200), 60) == [[3, 1, 2, 0], [4]]
    assert batches({}, 60) == []


def test_atoms_without_edges_count_so_that_a_batch_of_them_ends():
    assert batches(sizes(0, 0, 0), 2) == [[0, 1], [2]]


def test_structures_with_like_neighbours_come_together():
    assert batches({0: Size(40, 40), 1: Size(4, 70), 2: Size(40, 50)}, 100) == [[1], [0, 2]]


def in_memory_of(edges: dict[int, Size], limit: int):
    calls: list[list[int]] = []

    def compute(batch: list[int]) -> list[str]:
        calls.append(batch)
        if sum(edges[place].edges for place in batch) > limit:
            raise MemoryError
        return [f"label {place}" for place in batch]

    return compute, calls


def test_memory_that_ends_halves_the_bound_and_keeps_what_is_done():
    pool = sizes(10, 10, 10, 10, 10)
    compute, calls = in_memory_of(pool, 25)
    done, too_large, bound = compute_in_batches(pool, 1000, compute)
    assert done == {place: f"label {place}" for place in range(5)}
    assert too_large == []
    assert bound == 25
    assert calls == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]


def test_one_that_does_not_fit_alone_is_given_up_and_the_rest_go_on():
    pool = sizes(10, 500, 10)
    compute, _ = in_memory_of(pool, 25)
    done, too_large, _ = compute_in_batches(pool, 1000, compute)
    assert sorted(done) == [0, 2]
    assert too_large == [1]


@pytest.mark.parametrize("edges", [(0, 0, 0, 0), (1, 1), (7, 0, 3)])
def test_it_ends_when_there_is_no_memory_at_all(edges):
    pool = sizes(*edges)
    compute, _ = in_memory_of(pool, -1)
    done, too_large, bound = compute_in_batches(pool, 10_000, compute)
    assert done == {}
    assert sorted(too_large) == list(pool)
    assert bound >= 1
