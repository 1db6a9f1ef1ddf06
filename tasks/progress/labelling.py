"""Progress of a labelling whose shards may run on other hosts: it is read from small files in the shared work root."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, cast
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from tasks.labelling.shards import ShardFile
from tasks.prefect_logging import run_log
from tasks.progress.step_bar import BAR, LOG_EVERY_S
from tasks.report.markup import duration

SHOW_EVERY_S = 5.0  # the flow, in the artifact
RATE_OVER_S = 30.0
RATE_FROM_S = 3.0  # sooner a rate would be a guess
ARTIFACT_KEY = "labelling"

Amount = NDArray[np.float64]
"""[structures, atoms] that are labelled, or are to be."""


class LabelProgress:
    """Shows how far all shards of a labelling are, when its `tick` is called about once a second.

    A context manager: the bar is gone when the block is left, and the artifact says 100 when it is left well.

    Args:
        shards: to be labelled.
        log: takes a line now and then where there is no terminal.
        show: takes per cent and a text now and then; Prefect's progress artifact by default.
        clock: seconds.
    """

    def __init__(
        self,
        shards: Iterable[ShardFile],
        log: Callable[[str], object] | None = None,
        show: Callable[[float, str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = {shard.progress: np.array([shard.structures, shard.atoms], float) for shard in shards}
        self._log, self._show, self._clock = log or run_log().info, show or self._show_artifact, clock
        self._artifact: UUID | None = None
        self._ended: Amount = np.zeros(2)
        self._total: Amount = sum(self._running.values(), np.zeros(2))
        self._seen = deque([(clock(), self._ended)])
        self._logged = self._shown = clock()
        self._show_fails = False
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc="labelling", total=self._total[0], leave=False, dynamic_ncols=True, bar_format=BAR)

    def __enter__(self) -> Self:
        self._publish(0.0, self._text(np.zeros(2)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            percent = self._percent(self._ended) if self._running else 100.0  # a shard that failed is left
            self._publish(percent, "{:,.0f} structures, {:,.0f} atoms".format(*self._ended))

    def ended(self, shard: ShardFile, labelled: bool = True) -> None:
        """All of a labelled shard counts from now on; one that failed stays as far as it came."""
        if labelled:
            self._ended = self._ended + self._running.pop(shard.progress)
            shard.progress.unlink(missing_ok=True)

    def tick(self) -> None:
        """Look how far the shards are, and show it where it is due."""
        now, done = self._clock(), self._ended
        files = {place for folder in {path.parent for path in self._running} for place in folder.iterdir()}
        for path in files & self._running.keys():
            said = json.loads(path.read_bytes())
            share = said["done"] / said["total"] if said["total"] else 0.0
            atoms = self._running[path][1] * share if said["atoms"] is None else said["atoms"]
            done = done + np.array([said["done"], atoms])
        while len(self._seen) > 1 and now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        self._seen.append((now, done))
        text = self._text(done)
        if self._bar is not None:
            self._bar.n = done[0]
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.refresh()
        elif now - self._logged >= LOG_EVERY_S:
            self._logged = now
            self._log(f"labelling: {text}")
        if now - self._shown >= SHOW_EVERY_S:
            self._publish(self._percent(done), text)

    def _percent(self, done: Amount) -> float:
        """By atoms, which is what costs; never 100 before the end."""
        return min(99.0, round(100 * float(done[1] / self._total[1]), 1)) if self._total[1] else 0.0

    def _text(self, done: Amount) -> str:
        """Structures that are done and, after the beginning, structures/s, atoms/s and the time that is left."""
        text = f"{done[0]:,.0f} of {self._total[0]:,.0f} structures"
        seconds, (structures, atoms) = self._clock() - self._seen[0][0], done - self._seen[0][1]
        if seconds < RATE_FROM_S or structures <= 0 or atoms <= 0:
            return text
        per_s, left_s = structures / seconds, (self._total - done)[1] * seconds / atoms
        figure = f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"
        return f"{text}, {figure} structures/s, {atoms / seconds:,.0f} atoms/s, {duration(max(round(left_s), 0))} left"

    def _publish(self, percent: float, text: str) -> None:
        self._shown = self._clock()
        try:
            self._show(percent, text)
        except Exception as error:  # noqa: BLE001  a server that has a bad day must not end the run
            if not self._show_fails:
                self._log(f"the progress artifact cannot be updated: {type(error).__name__}: {error}")
            self._show_fails = True

    def _show_artifact(self, percent: float, text: str) -> None:
        """Create Prefect's progress artifact of the flow run that calls, and update it from then on."""
        if self._artifact:
            update_progress_artifact(self._artifact, percent, text)
        else:  # a flow that is not async
            self._artifact = cast(UUID, create_progress_artifact(percent, ARTIFACT_KEY, text))
