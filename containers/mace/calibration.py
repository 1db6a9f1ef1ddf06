"""How many edges the model shall see at once: found by trying, in about a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

DEFAULT_BOUND = 8_000
"""The fastest measured on a CPU in both types: more edges miss its cache, fewer pay more calls."""
LOWEST_BOUND, HIGHEST_BOUND_CPU, HIGHEST_BOUND_GPU = 1_000, 32_000, 8_192_000
SAMPLE_EDGES = 8_000
SHARD_SAMPLES = 20
"""A shard of fewer samples is done before trying has paid."""
FEWEST_BATCHES = 32  # of a shard, so that several processes share it evenly
TIMES = 2  # each bound is timed; the faster counts, for something else may have run
WORTH = 1.03  # a larger bound must be faster by this: a smaller one takes less memory
BUDGET_S = 0.8  # no further bound is tried after it


@dataclass
class Calibration:
    """Edges per second for each bound tried."""

    throughput: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """The smallest bound that is nearly as fast as the fastest; the default when none could be tried."""
        if not self.throughput:
            return DEFAULT_BOUND
        enough = max(self.throughput.values()) / WORTH
        return min(bound for bound, speed in self.throughput.items() if speed >= enough)


def calibrate(
    speed: Callable[[int], float], highest: int, clock: Callable[[], float], budget_s: float = BUDGET_S
) -> Calibration:
    """Try the default bound, then larger and smaller ones as long as they are faster and there is time.

    Args:
        speed: edges per second with a bound; raises `MemoryError` when memory ends.
        highest: largest bound to try.
        clock: seconds, e.g. `time.monotonic`.
        budget_s: no further bound is tried when it is used up.
    """
    found = Calibration()
    ends = clock() + budget_s

    def climb(bound: int, factor: float, before: float) -> None:
        while LOWEST_BOUND <= bound <= highest and clock() < ends:
            if tried := _fastest(speed, bound):
                found.throughput[bound] = tried
            if tried <= before and (tried or factor > 1):  # no memory: only smaller ones are left to try
                return
            before = max(tried, before)
            bound = int(bound * factor)

    climb(DEFAULT_BOUND, 2, 0.0)
    if found.best == DEFAULT_BOUND:
        climb(DEFAULT_BOUND // 2, 1 / 2, found.throughput.get(DEFAULT_BOUND, 0.0))
    return found


def _fastest(speed: Callable[[int], float], bound: int) -> float:
    """Edges per second; 0 when memory ended."""
    try:
        return max(speed(bound) for _ in range(TIMES))
    except MemoryError:
        return 0.0


def filled(costs: Sequence[int], bound: int) -> list[list[int]]:
    """Batches of at most `bound` edges for about SAMPLE_EDGES, or one: places in `costs`, again from the first when
    they are used up. Full ones, for a rest would be slow and would say nothing.
    """
    places = cycle(range(len(costs)))
    found: list[list[int]] = []
    for _ in range(max(SAMPLE_EDGES // bound, 1)):
        batch = [next(places)]
        room = bound - costs[batch[0]]
        while (more := costs[(batch[-1] + 1) % len(costs)]) <= room:
            batch.append(next(places))
            room -= more
        found.append(batch)
    return found


def evenly(places: Sequence[int], count: int) -> list[int]:
    """`count` of `places`, evenly spaced; all when there are fewer."""
    if len(places) <= count:
        return list(places)
    return [places[(2 * number + 1) * len(places) // (2 * count)] for number in range(count)]
