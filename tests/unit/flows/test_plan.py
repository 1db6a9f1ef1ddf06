from __future__ import annotations

from typing import Any

import pytest

from containers.contract import BadInput, OutOfMemory, ProgramMissing
from containers.tensorpot import core_repulsion, fit_following, pace_train
from containers.tensorpot.stop_reason import StopReason
from flows.plan import (
    OF_FAILURE,
    OF_STOP_REASON,
    VERDICTS,
    Convergence,
    FitPlan,
    Outcome,
    best,
    first_plan,
    next_plan,
    resume_from,
    verdict,
)

LIMITS = Convergence(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
PLAN = FitPlan(maxiter=50, batch_size=20)
CONTINUED = FitPlan(maxiter=50, batch_size=20, start="continue")
LADDER = FitPlan(maxiter=50, batch_size=20, ladder_step=30)


def fitted(stop_reason: str, force: float = 200.0, energy: float = 5.0) -> Outcome:
    errors = {"validation_force_mae_meV_per_A": force, "validation_energy_mae_meV_per_atom": energy}
    return Outcome(metrics={"stop_reason": stop_reason, **errors})


@pytest.mark.parametrize(
    ("stop_reason", "judged"),
    [
        ("max_iterations", "iterations_used_up"),
        ("stalled", "stalled"),
        ("early_stop", "early_stop"),
        ("converged", "not_accurate"),
        ("out_of_memory", "out_of_memory"),
        ("diverged", "diverged"),
        ("crashed", "crashed"),
        ("killed", "killed"),
    ],
)
def test_an_inaccurate_fit_is_judged_by_its_end(stop_reason: str, judged: str) -> None:
    assert verdict(fitted(stop_reason), LIMITS) == judged


@pytest.mark.parametrize("stop_reason", ["max_iterations", "stalled", "early_stop", "converged"])
def test_an_accurate_fit_that_ended_has_converged(stop_reason: str) -> None:
    assert verdict(fitted(stop_reason, 100.0, 10.0), LIMITS) == "converged"
    assert verdict(fitted(stop_reason, 100.1, 1.0), LIMITS) != "converged"
    assert verdict(fitted(stop_reason, 1.0, 10.1), LIMITS) != "converged"


@pytest.mark.parametrize("stop_reason", ["killed", "crashed", "out_of_memory", "diverged"])
def test_a_fit_that_was_broken_off_has_not_converged(stop_reason: str) -> None:
    assert verdict(fitted(stop_reason, 1.0, 1.0), LIMITS) == stop_reason


@pytest.mark.parametrize(
    ("kind", "judged"),
    [
        (OutOfMemory, "out_of_memory"),
        (pace_train.Diverged, "diverged"),
        (pace_train.Crashed, "crashed"),
        (pace_train.Killed, "killed"),
        (pace_train.NoIteration, "no_iteration"),
        (ProgramMissing, "program_missing"),
        (BadInput, "bad_data"),
        (fit_following.RowsDiffer, "bad_data"),
        (core_repulsion.NoCoreRepulsion, "bad_data"),
        (ZeroDivisionError, "failed"),
    ],
)
def test_a_failure_is_judged_by_its_class(kind: type[Exception], judged: str) -> None:
    assert verdict(Outcome(failure=kind.__name__), LIMITS) == judged


def test_every_stop_reason_has_a_verdict() -> None:
    assert set(OF_STOP_REASON) == set(StopReason.__args__)  # type: ignore[attr-defined]
    assert {*OF_FAILURE.values(), *OF_STOP_REASON.values(), "converged", "failed"} == set(VERDICTS)


@pytest.mark.parametrize(
    ("plan", "judged", "resumable", "changes"),
    [
        (PLAN, "iterations_used_up", True, {"start": "continue"}),
        (LADDER, "iterations_used_up", True, {"start": "continue", "ladder_step": None}),
        (CONTINUED, "iterations_used_up", True, {}),
        (PLAN, "stalled", True, {"start": "continue"}),
        (PLAN, "out_of_memory", False, {"batch_size": 10}),
        (PLAN, "out_of_memory", True, {"batch_size": 10, "start": "continue"}),
        (CONTINUED, "out_of_memory", False, {"batch_size": 10}),
        (PLAN, "diverged", False, {"l1": 1e-6, "l2": 1e-6, "ladder_step": 50}),
        (CONTINUED, "diverged", True, {"l1": 1e-6, "l2": 1e-6, "ladder_step": 50, "start": "fresh"}),
        (PLAN, "crashed", True, {"start": "continue"}),
        (LADDER, "crashed", False, {"ladder_step": None}),
        (CONTINUED, "crashed", False, {"start": "fresh"}),
        (PLAN, "crashed", False, {"batch_size": 10}),
        (LADDER, "no_iteration", False, {"ladder_step": None}),
        (CONTINUED, "no_iteration", False, {"start": "fresh"}),
        (PLAN, "no_iteration", False, {"batch_size": 10}),
        (PLAN, "killed", True, {"start": "continue"}),
        (LADDER, "killed", False, {}),
    ],
)
def test_the_next_plan_changes_this_and_nothing_else(
    plan: FitPlan, judged: Any, resumable: bool, changes: dict[str, Any]
) -> None:
    coming = next_plan(plan, judged, resumable)
    assert coming is not None
    assert coming.model_dump(exclude={"reason"}) == {**plan.model_dump(exclude={"reason"}), **changes}
    assert coming.reason != plan.reason


@pytest.mark.parametrize("judged", ["converged", "not_accurate", "early_stop", "program_missing", "bad_data", "failed"])
@pytest.mark.parametrize("resumable", [True, False])
def test_no_other_plan_helps(judged: Any, resumable: bool) -> None:
    assert next_plan(PLAN, judged, resumable) is None


def test_a_batch_of_one_cannot_be_halved() -> None:
    assert next_plan(FitPlan(maxiter=5, batch_size=1), "out_of_memory") is None


def test_regularisation_does_not_grow_for_ever() -> None:
    plans = [PLAN]
    while (coming := next_plan(plans[-1], "diverged")) is not None:
        plans.append(coming)
    assert [plan.l2 for plan in plans] == pytest.approx([1e-8, 1e-6, 1e-4, 1e-2])
    assert next_plan(FitPlan(maxiter=5, batch_size=1, l1=0, l2=0), "diverged").l1 == 1e-6  # type: ignore[union-attr]


def test_the_first_plan_resolves_the_batch() -> None:
    assert first_plan(9, "auto", 60, 3710) == FitPlan(maxiter=9, batch_size=24)
    assert first_plan(9, 7, 60, 3710).batch_size == 7


def test_a_fit_goes_on_from_the_newest_that_left_something_good() -> None:
    failed = Outcome(failure="Crashed")
    assert resume_from([fitted("stalled"), fitted("killed"), fitted("diverged"), failed]) == 1
    assert resume_from([failed]) is None
    assert resume_from([]) is None


def test_the_best_has_the_smallest_worst_error_in_units_of_its_limit() -> None:
    attempts = [
        Outcome(failure="Crashed"),
        fitted("stalled", force=90, energy=30),
        fitted("max_iterations", force=150, energy=9),
        fitted("killed", force=150, energy=8),
    ]
    assert best(attempts, LIMITS) == 2
    assert best(attempts[:1], LIMITS) is None
