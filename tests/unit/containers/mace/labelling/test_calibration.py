from __future__ import annotations

from collections.abc import Callable

import pytest

from containers.mace.labelling.batches import (
    DEFAULT_BOUND,
    HIGHEST_BOUND_CPU,
    HIGHEST_BOUND_GPU,
    LOWEST_BOUND,
    BatchCalibration,
    calibrate,
    evenly,
    filled,
)


def still() -> float:
    return 0.0


def peak(at: int) -> Callable[[int], float]:
    """A machine that is fastest with a bound."""
    return lambda bound: 1e5 * min(bound / at, at / bound) ** 0.3


@pytest.mark.parametrize("at", [1000, 4000, 8000, 16_000, 32_000])
def test_the_fastest_bound_is_found(at):
    assert calibrate(peak(at), HIGHEST_BOUND_CPU, still).best == at


def test_no_bound_outside_the_limits_is_tried():
    upwards = calibrate(float, HIGHEST_BOUND_CPU, still).throughput
    assert list(upwards) == [8000, 16_000, 32_000]
    downwards = calibrate(lambda bound: 1e9 / bound, HIGHEST_BOUND_CPU, still).throughput
    assert sorted(downwards) == [LOWEST_BOUND, 2000, 4000, 8000, 16_000]


def test_a_smaller_bound_wins_where_the_larger_is_hardly_faster():
    assert BatchCalibration({8000: 100.0, 16_000: 102.0, 4000: 90.0}).best == 8000
    assert BatchCalibration({8000: 100.0, 16_000: 104.0, 4000: 90.0}).best == 16_000
    assert BatchCalibration().best == DEFAULT_BOUND


def test_each_is_timed_twice_and_the_faster_counts():
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


def test_a_gpu_is_filled_until_its_memory_ends():
    found = calibrate(memory_for(100_000), HIGHEST_BOUND_GPU, still)
    assert found.best == max(found.throughput) == 64_000


@pytest.mark.parametrize(("most", "best"), [(2500, 2000), (100, DEFAULT_BOUND)])
def test_where_the_default_does_not_fit_smaller_ones_are_tried(most, best):
    assert calibrate(memory_for(most), HIGHEST_BOUND_CPU, still).best == best


def test_nothing_is_tried_after_the_time_is_up():
    now = [0.0]

    def slow(bound: int) -> float:
        now[0] += 0.5
        return float(bound)

    found = calibrate(slow, HIGHEST_BOUND_GPU, lambda: now[0], budget_s=0.8)
    assert list(found.throughput) == [8000]


def test_evenly_spaced_places():
    assert evenly(range(10), 3) == [1, 5, 8]
    assert evenly([7, 8], 3) == [7, 8]
    assert evenly([], 3) == []
    assert len(set(evenly(range(1000), 999))) == 999


def test_batches_to_time_are_full_and_go_through_the_sample():
    assert filled([3000, 1000, 2000], 4000) == [[0, 1], [2]]
    assert filled([3000, 1000, 2000], 2500) == [[0], [1], [2]]
    assert filled([3000, 1000], 16_000) == [[0, 1] * 4]
    assert filled([9000], 1000) == [[0]] * 8
