"""The section on exploration, and why a student does not count as settled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.report.card import judge
from tasks.report.exploration import ConditionErrors, Exploration, ExplorationRound, ExplorationRun, exploration
from tasks.report.markup import Table
from tasks.report.summary import RunSummary


def ran(result: Any, name: str = "explore 1", **changes: Any) -> ExplorationRun:
    values = {
        "name": name, "condition": 1, "composition": "Si64", "atoms": 64, "survived_ps": 5.0, "wanted_ps": 5.0,
        "ended_because": None, "gamma_max": 1.5, "share_above_select": 0.002, "mean_temperature_K": 900.0,
        "mean_pressure_GPa": 10.0, "density_g_per_cm3": 2.4, "frames": 3,
    }  # fmt: skip
    return ExplorationRun(result=result, **values | changes)


def erred(over: float | None, frames: int = 6) -> ConditionErrors:
    known = 50.0 * over if over else None
    return ConditionErrors(
        condition=1, frames=frames, set_aside=6 - frames, set_aside_because=None if frames else "a force of 200 eV/Å",
        force_mae_meV_per_A=known, energy_mae_meV_per_atom=known, over=over,
    )  # fmt: skip


def found(*runs: ExplorationRun, errors: tuple[ConditionErrors, ...] = (), why: str = "the budget") -> Exploration:
    limits = {"share": 0.01, "force_limit_meV_per_A": 50.0, "energy_limit_meV_per_atom": 50.0}
    first = ExplorationRound(number=1, level=1, labels=120, runs=runs, chosen=7, **limits)
    last = ExplorationRound(
        number=2, level=3, finished=True, labels=127, runs=runs, errors=errors, wanted_errors=True, **limits
    )
    return Exploration(rounds=(first, last), settled=last.settled, stopped_because=why)


@pytest.mark.parametrize(
    ("changes", "errors", "because"),
    [
        (
            {"survived_ps": 1.0, "ended_because": "atoms fused, 2 of them"},
            (),
            "1 of 1 runs ended early, explore 1: atoms",
        ),
        ({"share_above_select": 0.2}, (), "20 % of the steps extrapolate, explore 1"),
        ({"share_above_select": None}, (), "100 % of the steps extrapolate"),
        ({}, (erred(1.4),), "errors on frames of its own runs are 1.4 times their limit, condition 1"),
        ({}, (erred(None, 0),), "its errors on frames of its own runs are not known"),
        ({}, (), "its errors on frames of its own runs are not known"),
        ({}, (erred(0.9),), None),
    ],
)
def test_the_reason_is_the_first_thing_that_does_not_hold(
    finished: RunSummary, changes: dict[str, Any], errors: tuple[ConditionErrors, ...], because: str | None
) -> None:
    one = found(ran(finished.steps["ingest"], **changes), errors=errors)
    assert one.settled == (because is None)
    if because:
        assert because in str(one.unsettled_because)
        assert str(one.unsettled_because).endswith("; the budget")
    json.dumps(one.model_dump(mode="json"), allow_nan=False)
    verdict = next(
        each for each in judge(finished.model_copy(update={"exploration": one})) if each.section == "exploration"
    )
    assert verdict.grade == ("fails" if because else "good")


def test_the_section_has_rounds_runs_errors_and_where_frames_came_from(finished: RunSummary) -> None:
    one = found(ran(finished.steps["ingest"], chosen=7), errors=(erred(0.9),))
    rounds, runs, errors, origins = (part for part in exploration(one).parts if isinstance(part, Table))
    assert [row[:3] for row in rounds.rows] == [("1", "1", "120"), ("2", "finished student", "127")]
    assert runs.rows[0][0] == "explore 1"
    assert errors.rows[0][:3] == ("1", "6", "45")
    assert origins.rows[0] == ("1", "explore 1", "Si64", "7", "900", "10", "2.4")
