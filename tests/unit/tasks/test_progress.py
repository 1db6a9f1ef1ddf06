from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import pytest

from tasks.progress import LOG_EVERY_S, shown_progress


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
