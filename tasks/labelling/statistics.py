"""Time and counts of a run's labelling, summed over its shards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.labelling.shard_task import ShardDone
from tasks.report.summary import Labelling

SUMMED = ("structures", "atoms", "seconds_start", "seconds_neighbours", "seconds_model", "seconds_io")


@dataclass
class LabellingTotals:
    """Answers that were computed, structures that this machine could not label, and the time of both.

    Attributes:
        set_aside: structure id -> why it could not be labelled here.
        sums: of the shards' metrics.
        seconds: wall-clock of the whole labelling, the pool's table included.
    """

    computed: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0.0))
    seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block's wall-clock time."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started

    def add(self, done: ShardDone) -> None:
        """Count a shard."""
        self.computed += done.labelled
        self.set_aside |= done.set_aside
        for name in SUMMED:
            self.sums[name] += done.metrics.get(name, 0.0)

    def include(self, other: LabellingTotals) -> None:
        """Count another labelling."""
        self.computed += other.computed
        self.set_aside |= other.set_aside
        self.seconds += other.seconds
        for name in SUMMED:
            self.sums[name] += other.sums[name]

    def summary(self) -> Labelling:
        """For the report; rates are those of the labelling itself."""
        labelling_s = self.sums["seconds_neighbours"] + self.sums["seconds_model"]
        steps = {name: self.sums[name] for name in SUMMED if name.startswith("seconds")}
        rates = {f"{name}_per_s": self.sums[name] / labelling_s for name in ("structures", "atoms") if labelling_s}
        return Labelling(
            computed=self.computed, **steps, **rates, seconds_flow=max(self.seconds - sum(steps.values()), 0.0)
        )
