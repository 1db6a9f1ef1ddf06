from __future__ import annotations

import math
from pathlib import Path

import pytest

from containers.contract import BadInput, OutOfMemory, ProgramMissing
from containers.tensorpot.fit import follow, pace_train
from containers.tensorpot.fit.follow import FitRun
from containers.tensorpot.fit.history import MetricsFile
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.stop_reason import Ending, StopReason, stop
from flows.config.training import Limits
from flows.fit.verdict import (
    ACCIDENTS,
    HINTS,
    OF_FAILURE,
    OF_STOP_REASON,
    SOUND,
    VERDICTS,
    FitOutcome,
    best_of,
    hint_for,
    judge,
)

LIMITS = Limits(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
OWN_MESSAGE = {"converged", "program_missing", "bad_data", "failed"}


def fitted(stop_reason: str, force: float = 200.0, energy: float = 5.0) -> FitOutcome:
    errors = {"validation_force_mae_meV_per_A": force, "validation_energy_mae_meV_per_atom": energy}
    return FitOutcome(metrics={"stop_reason": stop_reason, **errors})


ENDED = ["max_iterations", "stalled", "early_stop", "converged"]


@pytest.mark.parametrize("stop_reason", OF_STOP_REASON)
def test_a_fit_is_judged_by_its_end_and_converged_if_it_ended_accurate(stop_reason: str) -> None:
    end = {"max_iterations": "iterations_used_up", "converged": "not_accurate"}.get(stop_reason, stop_reason)
    accurate = "converged" if stop_reason in ENDED else end
    for force, energy in ((200.0, 5.0), (100.1, 1.0), (1.0, 10.1)):
        assert judge(fitted(stop_reason, force, energy), LIMITS) == end
    assert judge(fitted(stop_reason, 100.0, 10.0), LIMITS) == accurate


@pytest.mark.parametrize(
    ("kind", "judged"),
    [
        (OutOfMemory, "out_of_memory"),
        (pace_train.Diverged, "diverged"),
        (pace_train.Crashed, "crashed"),
        (pace_train.Killed, "killed"),
        (pace_train.NoIteration, "no_iteration"),
        (pace_train.TimeLimit, "time_limit"),
        (ProgramMissing, "program_missing"),
        (BadInput, "bad_data"),
        (follow.RowsDiffer, "bad_data"),
        (ZeroDivisionError, "failed"),
    ],
)
def test_a_failure_is_judged_by_its_class(kind: type[Exception], judged: str) -> None:
    assert judge(FitOutcome(failure=kind.__name__), LIMITS) == judged


REPLAYED = """\
ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp
0 0 0 9.0 1 1 0 .1 .2 .1
0 0 1 4.0 1 1 0 .1 .2 .1
"""
AT_TOLERANCE = "Optimization result(success=True, status=0, message=Optimization terminated, nfev=9, njev=9)\n"


def replayed(folder: Path, rows: int) -> Ending:
    """A fit at its tolerance, by its first so many lines of metrics."""
    (folder / "metrics.txt").write_text("".join(REPLAYED.splitlines(keepends=True)[: rows + 1]))
    metrics, log = MetricsFile(folder / "metrics.txt"), FitLog()
    metrics.follow()
    log.feed(AT_TOLERANCE)
    return Ending(0, tuple(metrics.rows), log, maxiter=99)


def test_a_replayed_fit_at_its_minimum_is_judged_by_its_errors(tmp_path: Path) -> None:
    reason = stop(replayed(tmp_path, 2)).reason
    assert [judge(fitted(reason, force), LIMITS) for force in (99.0, 101.0)] == ["converged", "not_accurate"]


def test_a_replayed_fit_without_an_iteration_is_none_for_any_log(tmp_path: Path) -> None:
    ending = replayed(tmp_path, 0)
    failure = pace_train.failure(FitRun(tmp_path, ending, stop(ending), list(ending.rows), []))
    assert judge(FitOutcome(failure=type(failure).__name__), LIMITS) == "no_iteration"


def test_every_stop_reason_has_a_verdict() -> None:
    assert set(OF_STOP_REASON) == set(StopReason.__args__)  # type: ignore[attr-defined]
    assert {*OF_FAILURE.values(), *OF_STOP_REASON.values(), "converged", "failed"} == set(VERDICTS)


def test_every_end_that_is_not_wanted_has_its_hint_here_or_in_its_own_message() -> None:
    assert set(HINTS) | OWN_MESSAGE == set(VERDICTS)
    assert not set(HINTS) & OWN_MESSAGE
    assert not set(SOUND) & set(ACCIDENTS)


def test_the_best_has_the_smallest_worst_error_in_units_of_its_limit() -> None:
    attempts = [
        FitOutcome(failure="Crashed"),
        fitted("stalled", force=90, energy=30),
        fitted("max_iterations", force=150, energy=9),
        fitted("killed", force=150, energy=8),
    ]
    assert best_of(attempts, LIMITS) == 2
    assert best_of(attempts[:1], LIMITS) is None
    for end in ("time_limit", "killed"):  # a converged attempt is better than any that was broken off
        assert best_of([fitted("stalled", force=99), fitted(end, force=50)], LIMITS) == 0
        assert best_of([fitted("stalled", force=101), fitted(end, force=50)], LIMITS) == 1


def test_an_attempt_that_left_nothing_is_not_said_to_have_kept_something() -> None:
    for verdict in ACCIDENTS:
        assert "kept" not in hint_for(verdict, failed=True)
    assert hint_for("time_limit", failed=False) == HINTS["time_limit"]
    assert hint_for("diverged", failed=True) == HINTS["diverged"]
    assert hint_for("converged", failed=False) == ""


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_an_error_that_is_no_number_is_the_worst(nothing: float | None) -> None:
    broken = fitted("stalled", force=nothing)  # type: ignore[arg-type]
    assert broken.errors.badness(LIMITS) == math.inf
    assert best_of([broken, fitted("killed", force=1e6)], LIMITS) == 1
