"""When the artifact of a running fit is shown, and what a bad server or an end does."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tasks.errors import StepFailed
from tasks.progress import live_fit
from tasks.progress.live_fit import DRAW_EVERY_S, SHOW_EVERY_S, FitProgress


class AtOnce(Executor):
    """Runs what it is given in the caller's thread."""

    def submit(self, task: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(task(*args, **options))
        return done


class Seen:
    """A fit of one iteration a second and what is shown of it."""

    def __init__(self, clock: Any) -> None:
        self.clock, self.texts, self.times, self.lines = clock, [], [], []
        self.live = FitProgress("pace_train attempt 2", self.lines.append, self.show, clock, AtOnce())

    def show(self, text: str) -> None:
        self.texts.append(text)
        self.times.append(self.clock.now)

    def fit(self, iterations: int, first: int = 1) -> None:
        for iteration in range(first, first + iterations):
            self.clock.now += 1
            figures = {"iteration": float(iteration), "train_loss": 1 / iteration, "validation_loss": 2 / iteration}
            self.live(iteration, 150, "words", figures)


@pytest.fixture
def seen(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Seen:
    monkeypatch.setattr(live_fit, "live_curve", lambda curves: f"{len(curves)} curves".encode())
    return Seen(clock)


def test_a_step_without_figures_has_no_artifact(seen: Seen) -> None:
    with seen.live as live:
        live(1, 2, "words")
        live(2, 2, "words", {})
        live(2, 2, "words", {"atoms": 5.0})
        live.ended({"structures": 3})
    assert seen.texts == []


def test_it_is_shown_at_the_first_figures_and_then_now_and_then(seen: Seen) -> None:
    with seen.live:
        seen.fit(61)
    *running, end = seen.times
    assert running[0] == 101
    assert all(later - earlier >= SHOW_EVERY_S for earlier, later in pairwise(running))
    assert len(running) == 1 + 60 // SHOW_EVERY_S
    assert end == seen.clock.now


def test_it_is_drawn_less_often_than_shown_and_at_the_end(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(live_fit, "live_curve", lambda curves: drawn.append(seen.clock.now) or b"picture")
    with seen.live:
        seen.fit(70)
    assert drawn == [101 + DRAW_EVERY_S, 101 + 2 * DRAW_EVERY_S, 170]
    assert ["![learning-curve](data:image/png;base64," in text for text in seen.texts[:7]] == [False] * 6 + [True]


def test_the_time_that_is_left_and_how_it_ended(seen: Seen) -> None:
    with seen.live as live:
        seen.fit(31)
        live.ended({"stop_reason": "early_stop", "stop_criterion": "the loss fell too slowly", "best_iteration": 2})
    assert "Iteration 31 of at most 150, 31 s, at most 1 min 59 s left" in seen.texts[-2]
    assert "**Ended: early\\_stop: the loss fell too slowly; best at iteration 2**" in seen.texts[-1]
    assert "| loss | 0.03226 | 0.06452 |" in seen.texts[-1]
    assert "left" not in seen.texts[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StepFailed("pace_train", "OutOfMemory", "2 GB: too few", Path("x")), "failed (OutOfMemory): 2 GB: too few"),
        (ZeroDivisionError("x"), "failed (ZeroDivisionError)"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)  # fmt: skip
def test_an_end_by_an_error_is_reported_and_comes_through(seen: Seen, error: BaseException, words: str) -> None:
    def failing() -> None:
        with seen.live:
            seen.fit(3)
            raise error

    with pytest.raises(type(error)):
        failing()
    assert f"**Ended: {words}**" in seen.texts[-1]


def test_a_server_that_fails_is_reported_once_and_ends_nothing(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(clock)

    def fail(text: str) -> None:
        raise ConnectionError("no server")

    seen.live = FitProgress("fit", seen.lines.append, fail, clock, AtOnce())
    with seen.live:
        seen.fit(30)
    assert seen.lines == ["the artifact of the running fit cannot be updated: ConnectionError: no server"]


@pytest.mark.parametrize(("first", "then", "total"), [(0.0, 1.0, 1e308), (-1e308, 1e308, 1e308), (0.0, 1e-300, 1e308)])
def test_a_step_that_tells_nonsense_ends_nothing(clock: Any, first: float, then: float, total: float) -> None:
    seen = Seen(clock)
    with seen.live as live:
        for done in (first, then, then):
            clock.now += 1000
            live(done, total, "", {"iteration": 1e308, "train_loss": -1e308})
    assert all("OverflowError" in line or "ValueError" in line for line in seen.lines)


def test_a_server_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_fit, "SHOW_EVERY_S", 0.0)
    monkeypatch.setattr(live_fit, "END_WITHIN_S", 0.05)
    answer, asked = Event(), []

    def hang(text: str) -> None:
        asked.append(text)
        answer.wait(60)

    try:
        with FitProgress("fit", print, hang) as live:
            for iteration in range(1, 1001):
                live(iteration, 1000, "", {"iteration": float(iteration), "train_loss": 0.5})
            while not asked:
                time.sleep(0.01)
        assert len(asked) == 1, "nothing waits in line behind the one that hangs"
    finally:
        answer.set()
