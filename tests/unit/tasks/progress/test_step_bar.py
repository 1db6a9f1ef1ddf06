"""The bar of a step, and the line and table of a running fit."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import pytest

from tasks.progress.live_fit import LiveFit, course, ended_words, markdown, words
from tasks.progress.step_bar import LOG_EVERY_S, shown_progress, to_all


# redirected inside the tests: pytest puts its own streams back after the fixtures
def test_without_a_terminal_nothing_is_drawn() -> None:
    with redirect_stderr(io.StringIO()) as pipe, shown_progress("mace_label", lambda line: None) as progress:
        progress(1, 2, "half")
    assert pipe.getvalue() == ""


def test_a_long_step_logs_a_line_now_and_then_and_a_short_one_none(clock: Any) -> None:
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("ingest", lines.append) as progress:
        for done in range(1000):
            progress(done, 1000)
    assert lines == []
    with redirect_stderr(io.StringIO()), shown_progress("mace_label", lines.append, clock) as progress:
        for done in range(1, 46):
            clock.now += 1
            progress(done, 45)
    assert lines == [f"mace_label: {done:g} of 45" for done in (LOG_EVERY_S, 2 * LOG_EVERY_S, 3 * LOG_EVERY_S)]
    lines.clear()
    with redirect_stderr(io.StringIO()), shown_progress("pace_train", lines.append, clock) as progress:
        clock.now += LOG_EVERY_S
        progress(1.5, 10, "loss 0.1")
    assert lines == ["pace_train: 1.5 of 10 loss 0.1"]


def test_a_terminal_gets_a_bar_that_is_wiped_at_the_end_and_no_log_line(terminal: io.StringIO) -> None:
    lines: list[str] = []
    with redirect_stderr(terminal), shown_progress("mace_label", lines.append) as progress:
        progress(3, 4, "48 of 64 structures")
        drawn = terminal.getvalue()
        progress(4, 4)
    assert "mace_label:  75%|" in drawn
    assert "48 of 64 structures" in drawn
    assert "100%" in terminal.getvalue()
    assert lines == []
    assert terminal.getvalue().rstrip("\r").split("\r")[-1].strip() == ""
    with pytest.raises(ZeroDivisionError), redirect_stderr(terminal), shown_progress("ingest", lambda line: None):
        raise ZeroDivisionError


@pytest.mark.parametrize(("done", "total"), [(0, 0), (5, 4)])
def test_strange_numbers_do_not_break_the_bar(terminal: io.StringIO, done: float, total: float) -> None:
    with redirect_stderr(terminal), shown_progress("pace_train", lambda line: None) as progress:
        progress(done, total, "still going")
    assert "still going" in terminal.getvalue()


FIT = {"iteration": 3.0, "train_loss": 0.5, "train_force_rmse_meV_per_A": 45.0, "validation_force_rmse_meV_per_A": 47.0}


def test_a_fit_s_figures_stand_in_the_bar_and_stay_in_the_log(terminal: io.StringIO, clock: Any) -> None:
    with redirect_stderr(terminal), shown_progress("pace_train attempt 2", lambda line: None) as progress:
        progress(3, 4, "words", FIT)
    drawn = terminal.getvalue()
    assert "pace_train attempt 2:  75%|" in drawn
    assert "iteration 3: loss 5.00e-01, RMSE forces 45 (validation 47) meV/Å" in drawn
    lines: list[str] = []
    with redirect_stderr(io.StringIO()), shown_progress("pace_train", lines.append, clock) as progress:
        progress(3, 9, "words", FIT)
        clock.now += LOG_EVERY_S
        progress(4, 9, "words", {"iteration": 4.0, "train_loss": 0.25})
    assert lines == [
        "pace_train: 4 of 9 iteration 4: loss 2.50e-01, RMSE/MAE/worst: forces 45/–/– (validation 47/–/–) meV/Å"
    ]
    told: list[Any] = []
    to_all(lambda *all_of_it: told.append(all_of_it), lambda *all_of_it: told.append(all_of_it))(1, 2, "x", FIT)
    assert told == [(1, 2, "x", FIT)] * 2


# ---- what a running fit reported, as a line and as a table


FIGURES = {
    "iteration": 10.0, "microseconds_per_atom": 118.4,
    "train_loss": 0.01234, "train_energy_loss": 0.002, "train_force_loss": 0.01,
    "train_energy_rmse_meV_per_atom": 3.21, "train_force_rmse_meV_per_A": 45.12, "train_force_mae_meV_per_A": 30.5,
    "validation_loss": 0.02, "validation_energy_rmse_meV_per_atom": 4.06, "validation_force_rmse_meV_per_A": 1234.5,
}  # fmt: skip


def test_the_line_of_a_fit_for_a_terminal() -> None:
    told = words(FIGURES)
    assert told == (
        "iteration 10: loss 1.23e-02 (forces 81 %), RMSE/MAE/worst: forces 45.1/30.5/– (validation 1,234/–/–) meV/Å,"
        " energy 3.21/–/– (4.06/–/–) meV/atom, 118 µs/atom"
    )
    train = {name: value for name, value in FIGURES.items() if name.startswith(("train", "iteration"))}
    assert words(train) == (
        "iteration 10: loss 1.23e-02 (forces 81 %), RMSE/MAE/worst: forces 45.1/30.5/– meV/Å, energy 3.21/–/– meV/atom"
    )
    assert words({"iteration": 3.0, "train_loss": 2.0}) == "iteration 3: loss 2.00e+00"


def test_the_table_has_each_figure_at_its_side() -> None:
    live = LiveFit()
    live.take(FIGURES)
    text = markdown(live, "pace_train attempt 1", "Iteration 10 of at most 150")
    assert "## pace\\_train attempt 1" in text
    assert "| loss | 0.01234 | 0.02 |" in text
    assert "| energy RMSE (meV/atom) | 3.21 | 4.06 |" in text
    assert "| force MAE (meV/Å) | 30.5 | – |" in text
    assert "118.4 µs an atom" in text
    assert "energy, largest error" not in text, "nobody told it"
    assert "Running." in text
    live = LiveFit()
    live.take(FIGURES)
    text = markdown(live, "fit", "Iteration 10", "failed (Crashed): <b>*x*</b>\n| y")
    assert "**Ended: failed (Crashed): &lt;b&gt;\\*x\\*&lt;/b&gt; \\| y**" in text
    assert "Running." not in text
    live = LiveFit()
    live.take({**FIGURES, "validation_force_mae_meV_per_A": 33.0})
    live.take({"iteration": 20.0, "train_loss": 0.01, "validation_loss": 0.015})
    text = markdown(live, "fit", "Iteration 20")
    assert "| loss | 0.01 | 0.015 |" in text
    assert "| force MAE (meV/Å) | 30.5 (at 10) | 33 (at 10) |" in text
    live.take(
        {"iteration": 21.0, "train_loss": 0.009, "validation_loss": 0.015, "validation_force_mae_meV_per_A": 29.0}
    )
    assert "| loss | 0.009 | 0.015 |" in markdown(live, "fit", ""), "the validation is the newest there is"
    assert "| 30.5 (at 10) | 29 |" in markdown(live, "fit", "")


def test_curves_grow_by_new_figures_and_known_ones_stay() -> None:
    live = LiveFit()
    for iteration in range(10, 20):
        live.take({**FIGURES, "iteration": float(iteration), "train_loss": 1 / iteration})
    live.take({**FIGURES, "iteration": 20.0, "train_loss": 0.05, "validation_loss": 0.01})
    curves = live.curves()
    assert [iteration for iteration, _ in curves["train", "loss"]] == list(range(10, 21))
    assert curves["validation", "loss"] == ((10, 0.02), (20, 0.01))
    assert live.validated_at == 20
    live = LiveFit()
    live.take(FIGURES)
    live.take({"iteration": 11.0, "train_loss": 0.01})
    assert live.known["validation_loss"] == 0.02
    assert live.validated_at == 10
    live = LiveFit()
    for iteration in range(100):
        live.take({**FIGURES, "iteration": float(iteration), f"new {iteration}": 1.0})
    assert set(live.known) == set(FIGURES)


def test_how_far_a_fit_is_and_how_it_ended() -> None:
    assert course(40, 40, 150, 200.0, 0.2, False) == (
        "Iteration 40 of at most 150, 3 min 20 s, at most 9 min 10 s left"
    )
    assert course(240, 40, 150, 2.0, None, False) == "Iteration 40 of at most 150 (240 in all), 2 s"
    assert course(150, 150, 150, 20.0, 1.0, True) == "Iteration 150 of at most 150, 20 s"
    metrics = {
        "stop_reason": "converged",
        "stop_criterion": "gradient below 1e-5",
        "best_iteration": 140,
        "validation_energy_mae_meV_per_atom": 2.26,
        "validation_force_mae_meV_per_A": 45.0,
    }
    assert ended_words(metrics) == (
        "converged: gradient below 1e-5; best at iteration 140; validation energy MAE 2.26 meV/atom;"
        " validation force MAE 45 meV/Å"
    )
    assert ended_words({}) == "–"
