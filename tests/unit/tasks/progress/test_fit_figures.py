"""What a running fit told, as a line and as a table."""

from __future__ import annotations

from tasks.progress.live_fit import LiveFit, course, ended_words, markdown, words

FIGURES = {
    "iteration": 10.0, "microseconds_per_atom": 118.4,
    "train_loss": 0.01234, "train_energy_loss": 0.002, "train_force_loss": 0.01,
    "train_energy_rmse_meV_per_atom": 3.21, "train_force_rmse_meV_per_A": 45.12, "train_force_mae_meV_per_A": 30.5,
    "validation_loss": 0.02, "validation_energy_rmse_meV_per_atom": 4.06, "validation_force_rmse_meV_per_A": 1234.5,
}  # fmt: skip


def test_the_line_for_a_terminal() -> None:
    told = words(FIGURES)
    assert told == (
        "iteration 10: loss 1.23e-02 (forces 81 %), RMSE/MAE/worst: forces 45.1/30.5/– (validation 1,234/–/–) meV/Å,"
        " energy 3.21/–/– (4.06/–/–) meV/atom, 118 µs/atom"
    )


def test_the_line_of_a_fit_that_tells_little() -> None:
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


def test_the_end_is_told_and_cannot_become_markup() -> None:
    live = LiveFit()
    live.take(FIGURES)
    text = markdown(live, "fit", "Iteration 10", "failed (Crashed): <b>*x*</b>\n| y")
    assert "**Ended: failed (Crashed): &lt;b&gt;\\*x\\*&lt;/b&gt; \\| y**" in text
    assert "Running." not in text


def test_a_validation_that_is_told_again_is_no_new_point() -> None:
    live = LiveFit()
    for iteration in range(10, 20):
        live.take({**FIGURES, "iteration": float(iteration), "train_loss": 1 / iteration})
    live.take({**FIGURES, "iteration": 20.0, "train_loss": 0.05, "validation_loss": 0.01})
    curves = live.curves()
    assert [iteration for iteration, _ in curves["train", "loss"]] == list(range(10, 21))
    assert curves["validation", "loss"] == ((10, 0.02), (20, 0.01))
    assert live.validated_at == 20


def test_figures_that_are_not_told_again_stay() -> None:
    live = LiveFit()
    live.take(FIGURES)
    live.take({"iteration": 11.0, "train_loss": 0.01})
    assert live.known["validation_loss"] == 0.02
    assert live.validated_at == 10


def test_a_figure_older_than_the_rest_of_its_side_says_so() -> None:
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


def test_figures_that_nobody_knows_are_not_gathered() -> None:
    live = LiveFit()
    for iteration in range(100):
        live.take({**FIGURES, "iteration": float(iteration), f"new {iteration}": 1.0})
    assert set(live.known) == set(FIGURES)


def test_how_far_it_is() -> None:
    assert course(40, 40, 150, 200.0, 0.2, False) == (
        "Iteration 40 of at most 150, 3 min 20 s, at most 9 min 10 s left"
    )
    assert course(240, 40, 150, 2.0, None, False) == "Iteration 40 of at most 150 (240 in all), 2 s"
    assert course(150, 150, 150, 20.0, 1.0, True) == "Iteration 150 of at most 150, 20 s"


def test_the_words_of_an_end() -> None:
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
