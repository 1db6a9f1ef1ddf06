from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import pytest

from tasks.progress.step_bar import LOG_EVERY_S, shown_progress, to_all


# redirected inside the tests: pytest puts its own streams back after the fixtures
def test_without_a_terminal_nothing_is_drawn() -> None:
    with redirect_stderr(io.StringIO()) as pipe, shown_progress("mace_label", lambda line: None) as progress:
        progress(1, 2, "half")
    assert pipe.getvalue() == ""


def test_a_short_step_logs_no_line() -> None:
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("ingest", lines.append) as progress:
        for done in range(1000):
            progress(done, 1000)
    assert lines == []


def test_a_long_step_logs_a_line_now_and_then(clock: Any) -> None:
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("mace_label", lines.append, clock) as progress:
        for done in range(1, 46):
            clock.now += 1
            progress(done, 45)
    assert lines == [f"mace_label: {done:g} of 45" for done in (LOG_EVERY_S, 2 * LOG_EVERY_S, 3 * LOG_EVERY_S)]


def test_a_line_has_the_step_s_words(clock: Any) -> None:
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("pace_train", lines.append, clock) as progress:
        clock.now += LOG_EVERY_S
        progress(1.5, 10, "loss 0.1")
    assert lines == ["pace_train: 1.5 of 10 loss 0.1"]


def test_a_terminal_gets_a_bar_and_no_log_line(terminal: io.StringIO) -> None:
    lines: list[str] = []
    with redirect_stderr(terminal), shown_progress("mace_label", lines.append) as progress:
        progress(3, 4, "48 of 64 structures")
        drawn = terminal.getvalue()
        progress(4, 4)
    assert "mace_label:  75%|" in drawn
    assert "48 of 64 structures" in drawn
    assert "100%" in terminal.getvalue()
    assert lines == []


def test_the_bar_is_wiped_at_the_end(terminal: io.StringIO) -> None:
    with redirect_stderr(terminal), shown_progress("mace_label", lambda line: None) as progress:
        progress(1, 2)
    assert terminal.getvalue().rstrip("\r").split("\r")[-1].strip() == ""


@pytest.mark.parametrize(("done", "total"), [(0, 0), (5, 4)])
def test_strange_numbers_do_not_break_the_bar(terminal: io.StringIO, done: float, total: float) -> None:
    with redirect_stderr(terminal), shown_progress("pace_train", lambda line: None) as progress:
        progress(done, total, "still going")
    assert "still going" in terminal.getvalue()


def test_an_error_of_the_step_comes_through(terminal: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError), redirect_stderr(terminal), shown_progress("ingest", lambda line: None):
        raise ZeroDivisionError


FIT = {"iteration": 3.0, "train_loss": 0.5, "train_force_rmse_meV_per_A": 45.0, "validation_force_rmse_meV_per_A": 47.0}


def test_a_fit_s_figures_stand_in_the_bar(terminal: io.StringIO) -> None:
    with redirect_stderr(terminal), shown_progress("pace_train attempt 2", lambda line: None) as progress:
        progress(3, 4, "words", FIT)
    drawn = terminal.getvalue()
    assert "pace_train attempt 2:  75%|" in drawn
    assert "iteration 3: loss 5.00e-01, RMSE forces 45 (validation 47) meV/Å" in drawn


def test_figures_that_are_not_told_again_stay_in_the_log(clock: Any) -> None:
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("pace_train", lines.append, clock) as progress:
        progress(3, 9, "words", FIT)
        clock.now += LOG_EVERY_S
        progress(4, 9, "words", {"iteration": 4.0, "train_loss": 0.25})
    assert lines == [
        "pace_train: 4 of 9 iteration 4: loss 2.50e-01, RMSE/MAE/worst: forces 45/–/– (validation 47/–/–) meV/Å"
    ]


def test_everyone_is_told() -> None:
    told: list[Any] = []
    to_all(lambda *all_of_it: told.append(all_of_it), lambda *all_of_it: told.append(all_of_it))(1, 2, "x", FIT)
    assert told == [(1, 2, "x", FIT)] * 2
