"""Progress of a labelling whose shards may run on other hosts: it goes through small files in the shared work root."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from containers.contract import Progress, write_atomic
from tasks.prefect_logging import run_log
from tasks.progress.step_bar import LOG_EVERY_S
from tasks.report.markup import duration

TELL_EVERY_S = 1.0  # a shard, to its file
SHOW_EVERY_S = 5.0  # the flow, in the artifact
RATE_OVER_S = 30.0
RATE_FROM_S = 3.0  # sooner a rate would be a guess
ATOMS = re.compile(r"([\d,]+) atoms")
ARTIFACT_KEY = "labelling"

Clock = Callable[[], float]
Show = Callable[[float, str], object]


class Amount(NamedTuple):
    """What is labelled, or is to be."""

    structures: float = 0
    atoms: float = 0

    def plus(self, other: Amount) -> Amount:
        return Amount(self.structures + other.structures, self.atoms + other.atoms)

    def minus(self, other: Amount) -> Amount:
        return Amount(self.structures - other.structures, self.atoms - other.atoms)


def told_in(path: Path, clock: Clock = time.monotonic) -> Progress:
    """A progress function for a shard's task: `path` gets the structures and atoms done, at most once a second."""
    told = -TELL_EVERY_S + clock()

    def tell(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        nonlocal told
        if clock() - told < TELL_EVERY_S and done < total:
            return
        told = clock()
        atoms = ATOMS.search(text)
        number = int(atoms[1].replace(",", "")) if atoms else None
        write_atomic(path, json.dumps({"done": done, "atoms": number, "total": total}).encode())

    return tell


class Shard(Protocol):
    """What is labelled together; `progress` is the file where the one who labels it tells how far it is."""

    @property
    def structures(self) -> int: ...
    @property
    def atoms(self) -> int: ...
    @property
    def progress(self) -> Path: ...


class LabelProgress:
    """Shows how far all shards of a labelling are, when its `tick` is called about once a second.

    A context manager: the bar is gone when the block is left, and the artifact says 100 when it is left well.

    Args:
        shards: what is to be labelled.
        log: takes a line now and then where there is no terminal.
        show: takes per cent and a text now and then; Prefect's progress artifact by default.
        clock: seconds.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        log: Callable[[str], object] | None = None,
        show: Show | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._running = {shard.progress: Amount(shard.structures, shard.atoms) for shard in shards}
        self._log, self._show, self._clock = log or run_log().info, show or progress_artifact(), clock
        self._ended = Amount()
        self._total = _sum(self._running.values())
        self._seen = deque([(clock(), Amount())])
        self._logged = self._shown = clock()
        self._show_fails = False
        self._bar = _bar(self._total) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        self._publish(0.0, self._text(Amount()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            percent = _percent(self._ended, self._total) if self._running else 100.0  # what failed is left
            self._publish(percent, f"{self._ended.structures:,.0f} structures, {self._ended.atoms:,.0f} atoms")

    def ended(self, shard: Shard, labelled: bool = True) -> None:
        """All of a labelled shard counts from now on; one that failed stays as far as it came."""
        if not labelled:
            return
        self._ended = self._ended.plus(self._running.pop(shard.progress))
        shard.progress.unlink(missing_ok=True)

    def tick(self) -> None:
        """Look how far the shards are, and show it where it is due."""
        now, done = self._clock(), self._done()
        while len(self._seen) > 1 and now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        self._seen.append((now, done))
        text = self._text(done)
        if self._bar is not None:
            self._bar.n = done.structures
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.refresh()
        elif now - self._logged >= LOG_EVERY_S:
            self._logged = now
            self._log(f"labelling: {text}")
        if now - self._shown >= SHOW_EVERY_S:
            self._publish(_percent(done, self._total), text)

    def _done(self) -> Amount:
        files = {place for folder in {path.parent for path in self._running} for place in folder.iterdir()}
        begun = [(path, amount) for path, amount in self._running.items() if path in files]
        return self._ended.plus(_sum(_told(path, amount) for path, amount in begun))

    def _text(self, done: Amount) -> str:
        counted = f"{done.structures:,.0f} of {self._total.structures:,.0f} structures"
        return ", ".join([counted, *_rates(self._seen[0], (self._clock(), done), self._total)])

    def _publish(self, percent: float, text: str) -> None:
        self._shown = self._clock()
        try:
            self._show(percent, text)
        except Exception as error:  # noqa: BLE001  a server that has a bad day must not end the run
            if not self._show_fails:
                self._log(f"the progress artifact cannot be updated: {type(error).__name__}: {error}")
            self._show_fails = True


def _bar(total: Amount) -> tqdm[None]:
    layout = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
    return tqdm(desc="labelling", total=total.structures, leave=False, dynamic_ncols=True, bar_format=layout)


def _sum(amounts: Iterable[Amount]) -> Amount:
    structures, atoms = 0.0, 0.0
    for amount in amounts:
        structures, atoms = structures + amount.structures, atoms + amount.atoms
    return Amount(structures, atoms)


def _told(path: Path, shard: Amount) -> Amount:
    """What the file of a shard says. Atoms that it does not tell are a share of all."""
    told = json.loads(path.read_bytes())
    share = told["done"] / told["total"] if told["total"] else 0.0
    return Amount(told["done"], shard.atoms * share if told["atoms"] is None else told["atoms"])


def _percent(done: Amount, total: Amount) -> float:
    """By atoms, which is what costs; never 100 before the end."""
    return min(99.0, round(100 * done.atoms / total.atoms, 1)) if total.atoms else 0.0


def _rates(then: tuple[float, Amount], now: tuple[float, Amount], total: Amount) -> list[str]:
    """Structures/s, atoms/s and the time left; nothing at the beginning."""
    seconds, made = now[0] - then[0], now[1].minus(then[1])
    if seconds < RATE_FROM_S or made.structures <= 0 or made.atoms <= 0:
        return []
    left = total.minus(now[1]).atoms * seconds / made.atoms
    per_s = made.structures / seconds
    figure = f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"
    return [f"{figure} structures/s", f"{made.atoms / seconds:,.0f} atoms/s", f"{duration(max(round(left), 0))} left"]


def progress_artifact(key: str = ARTIFACT_KEY) -> Show:
    """What creates Prefect's progress artifact of the flow run that calls, and updates it from then on."""
    made: list[UUID] = []

    def show(percent: float, text: str) -> None:
        if made:
            update_progress_artifact(made[0], percent, text)
        else:
            made.append(cast(UUID, create_progress_artifact(percent, key, text)))  # a flow that is not async

    return show
