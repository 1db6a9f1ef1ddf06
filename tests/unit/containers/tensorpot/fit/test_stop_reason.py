"""Why a fit ended, and what its log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from containers.tensorpot.fit.history import MetricsFile, MetricsRow
from containers.tensorpot.fit.log import TAIL_LINES, Closing, FitLog
from containers.tensorpot.fit.stop_reason import FLAT, RISE, RISING, Ending, StopReason, lost, stop

USED_UP = Closing(False, 1, "Maximum number of iterations has been exceeded.", 9)


TITLE = "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp\n"
SHAPE = "I - Total number of functions: 12 / number of parameters: 60\n"
CLOSED = "I - Optimization result(success={}, status={}, message={}, nfev=9, njev=9)\n"
AT_TOLERANCE = SHAPE + CLOSED.format(True, 0, "Optimization terminated successfully.")
AT_LIMIT = SHAPE + CLOSED.format(False, 1, "Maximum number of iterations has been exceeded.")
NO_WAY_DOWN = SHAPE + CLOSED.format(False, 2, "Desired error not necessarily achieved due to precision loss.")
UNSAID = SHAPE + CLOSED.format(False, 99, "`callback` raised `StopIteration`.")
SLOW = "I - EARLY STOPPING: Too small or even positive TRAIN loss change (best=-1.0e-05 / iter) . Stopping\n" + UNSAID
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
    ("stalled", "StopIteration", DOWN, UNSAID, 0, {"maxiter": 99}),
    ("diverged", "no number", [9.0, float("nan")], AT_TOLERANCE, 0, {}),
    ("diverged", "no number", [float("inf")], SHAPE, -9, {}),
    ("diverged", "all above", RISEN, AT_LIMIT, 0, {}),
    ("diverged", "above the first", [9.0, 8.0, 9.5], AT_TOLERANCE, 0, {}),
    ("out_of_memory", "refused", DOWN, REFUSED, 1, {}),
    ("out_of_memory", "exit code -6", DOWN, REFUSED, -6, {}),
    ("out_of_memory", "kernel", DOWN, SHAPE, -9, {"kernel_killed": True}),
    ("out_of_memory", "kernel", DOWN, SHAPE, -9, {"kernel_killed": None}),
    ("out_of_memory", "kernel", DOWN, SHAPE, 137, {"kernel_killed": True}),
    ("crashed", "exit code 1", DOWN, SHAPE, 1, {}),
    ("crashed", "exit code 1", DOWN, TOO_LATE, 1, {"functions": 30}),  # the ladder had further steps to go
    ("crashed", "exit code 1", DOWN, TOO_LATE, 1, {"cycles": 2}),  # the second was not begun
    ("crashed", "exit code 1", DOWN, AT_TOLERANCE, 1, {}),
    ("crashed", "exit code -11", DOWN, SHAPE, -11, {}),
    ("crashed", "no closing line", DOWN, SHAPE, 0, {}),
    ("crashed", "no iteration", [], AT_TOLERANCE, 0, {}),
    ("killed", "signal", DOWN, SHAPE, -15, {}),
    ("killed", "signal", DOWN, SHAPE, -15, {"kernel_killed": True}),
    ("killed", "signal", DOWN, SHAPE, -9, {}),
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
    # a new step of a ladder may begin higher
    rows = [MetricsRow(0, number, loss, 0, 0, 0, 0, 0) for number, loss in enumerate(DOWN)]
    rows += [MetricsRow(1, number, 8.0 - number, 0, 0, 0, 0, 0) for number in range(RISING + 1)]
    assert not lost(rows)
    assert stop(Ending(0, tuple(rows), FitLog(closing=USED_UP), RISING)).reason == "max_iterations"
    # the iterations of the last step count
    rows = tuple(
        MetricsRow(step, number, 4.0 - step - number / 10, 0, 0, 0, 0, 0) for step in (0, 1) for number in range(4)
    )
    log = FitLog(closing=USED_UP)
    assert stop(Ending(0, rows, log, 3)).reason == "max_iterations"
    assert stop(Ending(0, rows, log, 6)).reason == "stalled"


# ---- what a fit says


LINES = """\
2026 I - Fitting dataset size: 60 structures / 3710 atoms
2026 I - Test dataset size: 15 structures / 957 atoms
2026 I - Total number of functions: 100 / number of parameters: 464
2026 I - Initial state:#0    (1 evals):        Loss: 1.0470e+00 | Time/eval: 4107.93 mcs/at
2026 I - Initial(TEST):#0    (1 evals):        Loss: 1.0197e+00 | Time/eval:   0.00 mcs/at
2026 I - Iteration   #1    (4 evals):        Loss: 5.6078e-01 | Time/eval: 206.75 mcs/at
2026 I - Optimization result(success=False, status=1, message=Maximum number of iterations has been exceeded., \
nfev=38, njev=38)
"""


def fed(text: str) -> FitLog:
    log = FitLog()
    for line in text.splitlines(keepends=True):
        log.feed(line)
    return log


def test_what_a_fit_says() -> None:
    log = fed(LINES)
    assert log.structures == {"Fitting": 60, "Test": 15}
    assert log.shapes == [(100, 464)]
    assert log.closing == Closing(False, 1, "Maximum number of iterations has been exceeded.", 38)
    assert log.evaluations == 38
    assert [log.memory_refused, log.early_stop, log.new_reference] == [False] * 3
    assert fed(LINES + "Total number of functions: 150 / number of parameters: 700\n").closing is None
    assert fed("tensorflow ResourceExhaustedError: OOM when allocating tensor").memory_refused
    assert fed("numpy MemoryError: Unable to allocate").memory_refused
    assert fed("EARLY STOPPING: Too small").early_stop
    assert fed("`reference_energy` will be computed automatically.").new_reference
    assert fed("Loss function specification: LossFunctionSpecification(kappa=0.3, L1=1e-08, L2=1e-08)").kappa == 0.3
    log = fed("\n".join(str(number) for number in range(100)))
    assert list(log.tail) == [str(number) for number in range(100 - TAIL_LINES, 100)]
    assert fed("x.so: failed to map segment from shared object").memory_refused
    assert not fed("x.so: failed to map segment from shared object: Operation not permitted").memory_refused
