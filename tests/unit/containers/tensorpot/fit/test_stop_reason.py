from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from containers.tensorpot.fit.history import MetricsFile, MetricsRow
from containers.tensorpot.fit.log import Closing, FitLog
from containers.tensorpot.fit.stop_reason import FLAT, RISE, RISING, Ending, StopReason, lost, stop

SUCCESS = Closing(True, 0, "Optimization terminated successfully.", 9)
USED_UP = Closing(False, 1, "Maximum number of iterations has been exceeded.", 9)
PRECISION = Closing(False, 2, "Desired error not necessarily achieved due to precision loss.", 9)
STOPPED = Closing(False, 99, "`callback` raised `StopIteration`.", 9)


def ending(
    losses: list[float], exit_code: int = 0, maxiter: int = 10, kernel_killed: bool | None = False, **log: Any
) -> Ending:
    rows = tuple(MetricsRow(0, number, loss, 0, 0, 0, 0, 0) for number, loss in enumerate(losses))
    return Ending(exit_code, rows, FitLog(**log), maxiter, kernel_killed)


FALLING = [4.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (ending(FALLING, closing=SUCCESS), "converged"),
        (ending([4.0, 4.0], closing=SUCCESS), "stalled"),  # words of success without a lower loss
        (ending(FALLING, maxiter=2, closing=USED_UP), "max_iterations"),
        (ending(FALLING, maxiter=9, closing=USED_UP), "stalled"),  # it did not do the iterations it speaks of
        (ending(FALLING, closing=PRECISION), "stalled"),
        (ending(FALLING, closing=STOPPED, early_stop=True), "early_stop"),
        (ending(FALLING, closing=STOPPED), "stalled"),
        (ending([4.0, float("nan")], closing=SUCCESS), "diverged"),
        (ending([4.0, float("inf")], exit_code=-9), "diverged"),
        (ending(FALLING), "crashed"),  # exit 0 without a closing line
        (ending([], closing=SUCCESS), "crashed"),
        (ending(FALLING, exit_code=1), "crashed"),
        (ending(FALLING, exit_code=1, closing=SUCCESS), "crashed"),
        (ending(FALLING, exit_code=-11), "crashed"),
        (ending(FALLING, exit_code=1, memory_refused=True), "out_of_memory"),
        (ending(FALLING, exit_code=-6, memory_refused=True), "out_of_memory"),
        (ending(FALLING, exit_code=-9), "killed"),
        (ending(FALLING, exit_code=-15), "killed"),
        (ending(FALLING, exit_code=-9, kernel_killed=True), "out_of_memory"),
        (ending(FALLING, exit_code=-9, kernel_killed=None), "out_of_memory"),
        (ending(FALLING, exit_code=137, kernel_killed=True), "out_of_memory"),
        (ending(FALLING, exit_code=-15, kernel_killed=True), "killed"),
    ],
)
def test_reason(given: Ending, reason: str) -> None:
    assert stop(given).reason == reason


def test_the_iterations_of_the_last_ladder_step_count() -> None:
    rows = tuple(
        MetricsRow(step, number, 4.0 - step - number / 10, 0, 0, 0, 0, 0) for step in (0, 1) for number in range(4)
    )
    log = FitLog(closing=USED_UP)
    assert stop(Ending(0, rows, log, 3)).reason == "max_iterations"
    assert stop(Ending(0, rows, log, 6)).reason == "stalled"


TITLE = "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp\n"
SHAPE = "I - Total number of functions: 12 / number of parameters: 60\n"
CLOSED = "I - Optimization result(success={}, status={}, message={}, nfev=9, njev=9)\n"
AT_TOLERANCE = SHAPE + CLOSED.format(True, 0, "Optimization terminated successfully.")
AT_LIMIT = SHAPE + CLOSED.format(False, 1, "Maximum number of iterations has been exceeded.")
NO_WAY_DOWN = SHAPE + CLOSED.format(False, 2, "Desired error not necessarily achieved due to precision loss.")
SLOW = (
    SHAPE
    + "I - EARLY STOPPING: Too small or even positive TRAIN loss change (best=-1.0e-05 / iter) . Stopping\n"
    + CLOSED.format(False, 99, "`callback` raised `StopIteration`.")
)
TOO_LATE = (
    SHAPE + "Traceback (most recent call last):\n"
    "pyace.generalfit.TestLossChangeTooSmallException: EARLY STOPPING: Too small or even positive TEST loss change\n"
)
REFUSED = SHAPE + "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor\n"
DOWN = [9.0, 5.0, 3.0, 2.5, 2.2, 2.1, 2.05]


def replayed(folder: Path, losses: list[float], log: str, exit_code: int = 0, **more: Any) -> Ending:
    """The ending of a fit that left this metrics.txt and this log."""
    rows = [f"0 0 {number} {loss} 1 1 0 .1 .2 .1" for number, loss in enumerate(losses)]
    (folder / "metrics.txt").write_text(TITLE + "".join(f"{row}\n" for row in rows))
    file, read = MetricsFile(folder / "metrics.txt"), FitLog()
    file.follow()
    for line in log.splitlines(keepends=True):
        read.feed(line)
    return Ending(exit_code, tuple(file.rows), read, **{"maxiter": 6, "kernel_killed": False, **more})


FLAT_END = [*DOWN, *[2.0 + 1e-8 * n for n in range(FLAT + 1, 0, -1)]]
RISEN = [*DOWN, *[RISE * 2.5] * RISING]

REPLAYS: list[tuple[StopReason, str, list[float], str, int, dict[str, Any]]] = [
    ("converged", "tolerance", DOWN, AT_TOLERANCE, 0, {"maxiter": 99}),
    ("converged", "no way down", FLAT_END, NO_WAY_DOWN, 0, {"maxiter": 99}),
    ("early_stop", "slowly", [*DOWN, 2.0499], SLOW, 0, {"maxiter": 99, "min_fall": 1e-3}),
    ("max_iterations", "all iterations", DOWN, AT_LIMIT, 0, {}),
    ("max_iterations", "crashes", DOWN, TOO_LATE, 1, {}),
    ("early_stop", "crashes", DOWN, TOO_LATE, 1, {"maxiter": 99}),  # another end than the last iteration
    ("time_limit", "nearly over", DOWN, SHAPE, -9, {"out_of_time": True}),
    ("stalled", "has not fallen", [9.0, 9.0], AT_TOLERANCE, 0, {}),
    ("stalled", "precision loss", DOWN, NO_WAY_DOWN, 0, {"maxiter": 99}),
    ("stalled", "Maximum", DOWN, AT_LIMIT, 0, {"maxiter": 99}),
    ("stalled", "StopIteration", DOWN, SLOW, 0, {"maxiter": 99, "min_fall": 1e-3}),
    ("diverged", "no number", [9.0, float("nan")], AT_TOLERANCE, 0, {}),
    ("diverged", "no number", [float("inf")], SHAPE, -9, {}),
    ("diverged", "all above", RISEN, AT_LIMIT, 0, {}),
    ("diverged", "above the first", [9.0, 8.0, 9.5], AT_TOLERANCE, 0, {}),
    ("out_of_memory", "refused", DOWN, REFUSED, 1, {}),
    ("out_of_memory", "kernel", DOWN, SHAPE, -9, {"kernel_killed": True}),
    ("crashed", "exit code 1", DOWN, SHAPE, 1, {}),
    ("crashed", "exit code 1", DOWN, TOO_LATE, 1, {"functions": 30}),  # the ladder had further steps to go
    ("crashed", "exit code 1", DOWN, TOO_LATE, 1, {"cycles": 2}),  # the second was not begun
    ("crashed", "no closing line", DOWN, SHAPE, 0, {}),
    ("killed", "signal", DOWN, SHAPE, -15, {}),
]


@pytest.mark.parametrize(("reason", "word", "losses", "log", "exit_code", "more"), REPLAYS)
def test_a_replayed_fit(
    reason: str, word: str, losses: list[float], log: str, exit_code: int, more: dict[str, Any], tmp_path: Path
) -> None:
    found = stop(replayed(tmp_path, losses, log, exit_code, **more))
    assert (found.reason, word if word in found.criterion else found.criterion) == (reason, word)


def test_there_is_a_replay_of_every_reason() -> None:
    assert {replay[0] for replay in REPLAYS} == set(get_args(StopReason))


def test_a_running_fit_is_lost_when_its_losses_keep_high_and_not_at_one_step_up() -> None:
    rows = [MetricsRow(0, number, loss, 0, 0, 0, 0, 0) for number, loss in enumerate(RISEN)]
    assert lost(rows)
    assert not lost(rows[:-1])
    assert not lost([*rows[: len(DOWN)], MetricsRow(0, 7, 50.0, 0, 0, 0, 0, 0), MetricsRow(0, 8, 2.0, 0, 0, 0, 0, 0)])


def test_a_new_step_of_a_ladder_may_begin_higher() -> None:
    rows = [MetricsRow(0, number, loss, 0, 0, 0, 0, 0) for number, loss in enumerate(DOWN)]
    rows += [MetricsRow(1, number, 8.0 - number, 0, 0, 0, 0, 0) for number in range(RISING + 1)]
    assert not lost(rows)
    assert stop(Ending(0, tuple(rows), FitLog(closing=USED_UP), RISING)).reason == "max_iterations"
