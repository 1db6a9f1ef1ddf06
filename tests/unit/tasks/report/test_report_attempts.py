"""The tables of the attempts: what each changed, how it ended, what its potentials are worth."""

from __future__ import annotations

from tasks.report.summary import AttemptSummary, RunSummary
from tasks.report.training import attempts, plan_text


def tables(run: RunSummary) -> list[list[dict[str, str]]]:
    """Rows of attempts, and rows of errors, by the names of their columns."""
    return [[dict(zip(part.head, row, strict=True)) for row in part.rows] for part in attempts(run).parts[1:]]


def test_a_plan_ends_with_its_reason() -> None:
    assert plan_text({"reason": "stalled", "maxiter": 5, "ladder_step": None}) == "maxiter 5 (stalled)"


def test_a_later_plan_tells_only_what_changed() -> None:
    before = {"stage": 1, "batch_size": 100, "ladder_step": 50, "l1": 1e-8, "tried": [], "reason": "the first attempt"}
    after = {**before, "batch_size": 50, "ladder_step": None, "tried": ["batch"], "reason": "out of memory"}
    assert plan_text(after, before) == "batch_size 100 → 50, ladder_step 50 → – (out of memory)"
    assert plan_text({**before, "reason": "it was killed"}, before) == "as before (it was killed)"


def test_early_stopping_is_told_by_its_keys() -> None:
    stop = {"min_relative_train_loss_change": 1e-4, "patience": None}
    assert plan_text({"early_stop": stop}) == "early_stop min_relative_train_loss_change 0.0001"


def test_each_attempt_says_how_it_ended(finished: RunSummary) -> None:
    first, second = tables(finished)[0]
    assert (first["stage"], first["attempt"], first["chosen"]) == ("1", "train 1", "")
    assert (first["stopped because"], first["iterations"], first["best at"]) == (
        "its 40 iterations are used up",
        "40",
        "30",
    )
    assert (second["stage"], second["iterations"], second["chosen"]) == ("2", "40, resumed at 12", "yes")
    assert second["plan"] == "start fresh → continue (used up)"


def test_errors_of_the_best_and_of_the_last_potential_are_told(finished: RunSummary) -> None:
    rows = tables(finished)[1]
    assert [(row["attempt"], row["potential"]) for row in rows[:3]] == [
        ("train 1", "best, training"),
        ("train 1", "best, validation"),
        ("train 1", "last, validation"),
    ]
    assert [row["force MAE (meV/Å)"] for row in rows[:3]] == ["44", "44", "46.5"]
    assert len(rows) == 6


def test_an_attempt_that_failed_has_dashes_and_no_errors(finished: RunSummary) -> None:
    failed = AttemptSummary(name="train 1", plan={}, verdict="bad_data", seconds=1.0, message="row 3 of it is wrong")
    run = finished.model_copy(update={"attempts": (failed, finished.attempts[1])})
    row = tables(run)[0][0]
    assert row["verdict"] == "bad_data: row 3 of it is wrong"
    assert (row["stopped because"], row["iterations"], row["best at"]) == ("–", "–", "–")
    assert {row["attempt"] for row in tables(run)[1]} == {"train 2"}
