from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tasks.labelling.shards import write_progress
from tasks.progress.labelling import LabelProgress
from tasks.progress.step_bar import LOG_EVERY_S


class Shard(NamedTuple):
    """As much of a shard as progress needs."""

    progress: Path
    structures: int = 500
    atoms: int = 20_000


class Seen:
    """A labelling of four shards as its log and its artifact see it."""

    def __init__(self, folder: Path, clock: Any) -> None:
        self.clock = clock
        self.lines: list[str] = []
        self.shown: list[tuple[float, str]] = []
        self.shards = [Shard(folder / f"{number}.progress") for number in range(4)]
        self.progress = LabelProgress(
            self.shards, self.lines.append, lambda percent, text: self.shown.append((percent, text)), self.clock
        )

    def tell(self, number: int, done: float, text: str = "") -> None:
        write_progress(self.shards[number].progress, self.clock)(done, 500, text)

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.now += 1
            self.progress.tick()


@pytest.fixture
def seen(tmp_path: Path, clock: Any) -> Seen:
    with redirect_stderr(io.StringIO()):
        return Seen(tmp_path, clock)


def test_a_shard_tells_at_most_once_a_second_and_its_end_always(tmp_path: Path, clock: Any) -> None:
    path = tmp_path / "1.progress"
    tell = write_progress(path, clock)
    told = []
    for done in (1, 2, 3, 500):
        tell(done, 500, f"{done} structures, {1000 * done:,} atoms")
        told.append(json.loads(path.read_bytes()))
    clock.now += 1
    tell(4, 500)
    first, last = {"done": 1, "atoms": 1000, "total": 500}, {"done": 500, "atoms": 500_000, "total": 500}
    assert told == [first, first, first, last]
    assert json.loads(path.read_bytes()) == {"done": 4, "atoms": None, "total": 500}
    assert [file.name for file in tmp_path.iterdir()] == ["1.progress"]


def test_what_shards_tell_and_what_has_ended_is_added(seen: Seen) -> None:
    seen.tell(1, 100, "100 structures, 9,000 atoms")
    seen.tell(2, 250)  # does not tell its atoms: half of 20,000
    seen.tell(0, 500, "500 structures, 20,000 atoms")
    seen.progress.ended(seen.shards[0])  # counts once
    assert not seen.shards[0].progress.exists()
    seen.pass_s(15)
    assert seen.lines == ["labelling: 850 of 2,000 structures, 57 structures/s, 2,600 atoms/s, 16 s left"]
    assert seen.shown[-1][0] == pytest.approx(100 * 39_000 / 80_000, abs=0.1)


def test_the_rate_is_that_of_the_last_half_minute(seen: Seen) -> None:
    for second in range(200):
        seen.tell(1, second + 1, f"{second + 1} structures, {10 * (second + 1)} atoms")  # 1/s
        seen.pass_s(1)
    for second in range(40):
        seen.tell(2, 5 * (second + 1), f"x structures, {50 * (second + 1)} atoms")  # now 5/s
        seen.pass_s(1)
    assert ", 5 structures/s, 50 atoms/s" in seen.lines[-1]


def test_at_the_beginning_there_is_no_rate(seen: Seen) -> None:
    seen.pass_s(LOG_EVERY_S)
    assert seen.lines == ["labelling: 0 of 2,000 structures"]


def test_the_artifact_is_shown_every_five_seconds_and_at_the_end(seen: Seen) -> None:
    with seen.progress:
        for shard in seen.shards:
            seen.pass_s(5)
            seen.progress.ended(shard)
    assert [percent for percent, _ in seen.shown] == [0, 0, 25, 50, 75, 100]
    assert seen.shown[-1][1] == "2,000 structures, 80,000 atoms"


def test_it_says_100_only_when_the_labelling_ended_well(seen: Seen) -> None:
    def interrupted() -> None:
        with seen.progress:
            for shard in seen.shards:
                seen.progress.ended(shard)
            seen.pass_s(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert max(percent for percent, _ in seen.shown) == 99


def test_it_does_not_say_100_when_a_shard_failed(seen: Seen) -> None:
    with seen.progress:
        for shard in seen.shards:
            seen.progress.ended(shard, labelled=shard is not seen.shards[0])
    assert 0 < seen.shown[-1][0] < 100


def test_an_artifact_that_fails_is_reported_once_and_ends_nothing(
    tmp_path: Path, clock: Any, terminal: io.StringIO
) -> None:
    lines: list[str] = []

    def refuse(percent: float, text: str) -> None:
        raise ConnectionError("no server")

    with redirect_stderr(terminal), LabelProgress([Shard(tmp_path / "1")], lines.append, refuse, clock) as progress:
        for _ in range(20):
            clock.now += 1
            progress.tick()
    assert lines == ["the progress artifact cannot be updated: ConnectionError: no server"]


def test_a_terminal_gets_a_bar_with_structures_rate_and_time_left(
    tmp_path: Path, clock: Any, terminal: io.StringIO
) -> None:
    with redirect_stderr(terminal):
        seen = Seen(tmp_path, clock)
        with seen.progress:
            seen.tell(0, 400, "400 structures, 16,000 atoms")
            seen.pass_s(10)
            drawn = terminal.getvalue().split("\r")[-1]
    assert "labelling:  20%|" in drawn
    assert "400 of 2,000 structures, 40 structures/s, 1,600 atoms/s, 40 s left" in drawn
    assert seen.lines == []
    assert terminal.getvalue().rstrip("\r").split("\r")[-1].strip() == "", "the bar is wiped"


def test_nothing_to_label_divides_by_nothing(tmp_path: Path) -> None:
    shown: list[float] = []
    with redirect_stderr(io.StringIO()), LabelProgress([], print, lambda percent, _: shown.append(percent)) as progress:
        progress.tick()
    assert shown == [0, 100]
