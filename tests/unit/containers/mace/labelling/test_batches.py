"""Windows, batches and plans, and the calibration of a batch's bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from containers.mace.labelling.batches import (
    DEFAULT_BOUND,
    HIGHEST_BOUND_CPU,
    HIGHEST_BOUND_GPU,
    LOWEST_BOUND,
    BatchCalibration,
    GraphSize,
    batches,
    calibrate,
    compute_in_batches,
    densest_first,
    evenly,
    filled,
    planned,
    windows,
)


def sizes(*edges: int) -> dict[int, GraphSize]:
    return {place: GraphSize(1, count) for place, count in enumerate(edges)}


def test_windows_are_in_order_within_the_limit_and_batches_sorted():
    assert windows([4, 4, 4, 9, 1], 8) == [range(2), range(2, 3), range(3, 4), range(4, 5)]
    assert windows([], 8) == []
    assert windows([0, 0], 8) == [range(2)]
    assert batches(sizes(50, 3, 4, 2, 200), 60) == [[3, 1, 2, 0], [4]]
    assert batches({}, 60) == []
    # atoms without edges count, so that a batch of them ends
    assert batches(sizes(0, 0, 0), 2) == [[0, 1], [2]]
    # structures with as many neighbours an atom come together
    assert batches({0: GraphSize(40, 40), 1: GraphSize(4, 70), 2: GraphSize(40, 50)}, 100) == [[1], [0, 2]]


def in_memory_of(edges: dict[int, GraphSize], limit: int):
    calls: list[list[int]] = []

    def compute(batch: list[int]) -> list[str]:
        calls.append(batch)
        if sum(edges[place].edges for place in batch) > limit:
            raise MemoryError
        return [f"label {place}" for place in batch]

    return compute, calls


def test_memory_that_ends_halves_the_bound_and_gives_up_what_fits_nowhere():
    pool = sizes(10, 10, 10, 10, 10)
    compute, calls = in_memory_of(pool, 25)
    done, too_large, bound = compute_in_batches(pool, 1000, compute)
    assert done == {place: f"label {place}" for place in range(5)}
    assert too_large == []
    assert bound == 25
    assert calls == [[0, 1, 2, 3, 4], [0, 1], [2, 3], [4]]
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
    flat, lost = Atoms("Si2", cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=True), Atoms("Si", [[np.nan, 0, 0]])
    cluster = Atoms(strained(1.0, 2), pbc=False, cell=np.zeros((3, 3)))
    structures = [flat, Atoms(), lost, cluster, strained(1.0), Atoms("Si", cell=[np.nan] * 3, pbc=True)]
    order = densest_first(structures).tolist()
    assert sorted(order) == list(range(6))
    assert order[0] == 0  # by the box around its atoms
    assert set(order[1:3]) == {3, 4}


def test_a_plan_has_every_structure_once_and_enough_windows_to_share_none_of_them_tiny():
    structures = [strained(1 + number / 1000, 1 + number % 5) for number in range(300)]
    plan = planned(structures, 8000)
    assert sorted(place for window in plan for place in window) == list(range(300))
    atoms = [sum(len(structures[place]) for place in window) for window in plan]
    assert len(plan) > 16
    assert max(atoms) <= 8000 // 8
    assert planned([], 8000) == []
    assert planned(structures[:1], 8000) == [(0,)]
    assert len(planned([strained(1.0) for _ in range(20)], 8000)) == 1
    assert len(planned([strained(1.0) for _ in range(20)], 1)) == 20


# ---- the bound of a batch is calibrated


def still() -> float:
    return 0.0


def peak(at: int) -> Callable[[int], float]:
    """A machine that is fastest with a bound."""
    return lambda bound: 1e5 * min(bound / at, at / bound) ** 0.3


@pytest.mark.parametrize("at", [1000, 4000, 8000, 16_000, 32_000])
def test_the_fastest_bound_is_found(at):
    assert calibrate(peak(at), HIGHEST_BOUND_CPU, still).best == at


def test_bounds_are_timed_twice_and_a_smaller_wins_where_the_larger_is_hardly_faster():
    assert BatchCalibration({8000: 100.0, 16_000: 102.0, 4000: 90.0}).best == 8000
    assert BatchCalibration({8000: 100.0, 16_000: 104.0, 4000: 90.0}).best == 16_000
    assert BatchCalibration().best == DEFAULT_BOUND
    upwards = calibrate(float, HIGHEST_BOUND_CPU, still).throughput
    assert list(upwards) == [8000, 16_000, 32_000]
    downwards = calibrate(lambda bound: 1e9 / bound, HIGHEST_BOUND_CPU, still).throughput
    assert sorted(downwards) == [LOWEST_BOUND, 2000, 4000, 8000, 16_000]
    times = iter([50.0, 100.0, 70.0, 60.0, 80.0, 20.0])
    assert calibrate(lambda bound: next(times), HIGHEST_BOUND_CPU, still).throughput == {
        8000: 100.0,
        16_000: 70.0,
        4000: 80.0,
    }


def memory_for(most: int) -> Callable[[int], float]:
    def speed(bound: int) -> float:
        if bound > most:
            raise MemoryError
        return float(bound)

    return speed


def test_a_gpu_is_filled_until_its_memory_or_the_time_ends():
    found = calibrate(memory_for(100_000), HIGHEST_BOUND_GPU, still)
    assert found.best == max(found.throughput) == 64_000
    now = [0.0]

    def slow(bound: int) -> float:
        now[0] += 0.5
        return float(bound)

    found = calibrate(slow, HIGHEST_BOUND_GPU, lambda: now[0], budget_s=0.8)
    assert list(found.throughput) == [8000]


@pytest.mark.parametrize(("most", "best"), [(2500, 2000), (100, DEFAULT_BOUND)])
def test_where_the_default_does_not_fit_smaller_ones_are_tried(most, best):
    assert calibrate(memory_for(most), HIGHEST_BOUND_CPU, still).best == best


def test_the_sample_is_evenly_spaced_and_its_batches_are_full():
    assert evenly(range(10), 3) == [1, 5, 8]
    assert evenly([7, 8], 3) == [7, 8]
    assert evenly([], 3) == []
    assert len(set(evenly(range(1000), 999))) == 999
    assert filled([3000, 1000, 2000], 4000) == [[0, 1], [2]]
    assert filled([3000, 1000, 2000], 2500) == [[0], [1], [2]]
    assert filled([3000, 1000], 16_000) == [[0, 1] * 4]
    assert filled([9000], 1000) == [[0]] * 8
