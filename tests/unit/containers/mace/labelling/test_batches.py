from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from containers.mace.labelling.batches import GraphSize, batches, compute_in_batches, densest_first, planned, windows


def sizes(*edges: int) -> dict[int, GraphSize]:
    return {place: GraphSize(1, count) for place, count in enumerate(edges)}


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
    assert batches({0: GraphSize(40, 40), 1: GraphSize(4, 70), 2: GraphSize(40, 50)}, 100) == [[1], [0, 2]]


def in_memory_of(edges: dict[int, GraphSize], limit: int):
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


def test_one_that_does_not_fit_alone_is_given_up_and_the_rest_is_done():
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


def strained(factor: float, repeat: int = 1) -> Atoms:
    atoms = bulk("Si", cubic=True).repeat((repeat, 1, 1))
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    return atoms


def test_the_densest_come_first_then_the_largest():
    structures = [strained(1.0), strained(0.9), strained(1.1), strained(1.0, 3)]
    assert densest_first(structures).tolist() == [1, 3, 0, 2]


def test_structures_without_a_volume_are_sorted_too():
    flat, lost = Atoms("Si2", cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=True), Atoms("Si", [[np.nan, 0, 0]])
    cluster = Atoms(strained(1.0, 2), pbc=False, cell=np.zeros((3, 3)))
    structures = [flat, Atoms(), lost, cluster, strained(1.0), Atoms("Si", cell=[np.nan] * 3, pbc=True)]
    order = densest_first(structures).tolist()
    assert sorted(order) == list(range(6))
    assert order[0] == 0  # by the box around its atoms
    assert set(order[1:3]) == {3, 4}


def test_a_plan_has_every_structure_once_and_enough_windows_to_share():
    structures = [strained(1 + number / 1000, 1 + number % 5) for number in range(300)]
    plan = planned(structures, 8000)
    assert sorted(place for window in plan for place in window) == list(range(300))
    atoms = [sum(len(structures[place]) for place in window) for window in plan]
    assert len(plan) > 16
    assert max(atoms) <= 8000 // 8
    assert planned([], 8000) == []
    assert planned(structures[:1], 8000) == [(0,)]


def test_a_plan_does_not_end_in_tiny_windows_nor_when_the_bound_is_tiny():
    assert len(planned([strained(1.0) for _ in range(20)], 8000)) == 1
    assert len(planned([strained(1.0) for _ in range(20)], 1)) == 20
