"""Rounds of extension as rows and as a sentence."""

from __future__ import annotations

from typing import Any

from tasks.report.summary import Extensions, Round, RunSummary, Size
from tasks.report.training import extensions

BEFORE = Size(structures=12, functions=30, validation={"force_mae_meV_per_A": 69.0, "energy_mae_meV_per_atom": 20.5})


def rows(finished: RunSummary, *rounds: Round) -> list[tuple[str, ...]]:
    made = Extensions(rounds=rounds, why="rounds", stopped_because="all are made")
    table = extensions(finished.model_copy(update={"extensions": made})).parts[-1]
    assert {len(row) for row in table.rows} == {len(table.head)}
    return list(table.rows)


def told(**changes: Any) -> Round:
    given = {"number": 1, "kind": "functions", "reason": "the basis is the limit", "before": BEFORE, "helped": True}
    after = BEFORE.model_copy(update={"functions": 45})
    return Round.model_validate({**given, "after": after, **changes})


def test_a_round_tells_what_changed_and_what_did_not(finished: RunSummary) -> None:
    (row,) = rows(finished, told())
    assert row == (
        "1",
        "more functions: the basis is the limit",
        "12",
        "30 → 45",
        "69, 20.5 → 69, 20.5",
        "–, – → –, –",
        "yes",
    )


def test_a_failed_round_tells_why(finished: RunSummary) -> None:
    (row,) = rows(finished, told(after=None, helped=False, failure="pace_train: out of memory"))
    assert row[-1] == "failed: pace_train: out of memory"
    assert row[3] == "30"


def test_no_number_is_a_dash(finished: RunSummary) -> None:
    after = BEFORE.model_copy(update={"validation": {"force_mae_meV_per_A": None}})
    assert rows(finished, told(after=after))[0][4] == "69, 20.5 → –, –"


def test_the_sentence_says_why_it_ended() -> None:
    none = Extensions(why="reached", stopped_because="validation and test errors are within the limits")
    assert none.sentence() == "Nothing was extended: validation and test errors are within the limits."
    two = Extensions(rounds=(told(), told(helped=False)), why="rounds", stopped_because="extend.rounds (2) are used up")
    assert two.sentence() == "2 rounds of extension; 1 helped. No further round: extend.rounds (2) are used up."
