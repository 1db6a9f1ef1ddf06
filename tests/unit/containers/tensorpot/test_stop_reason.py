from __future__ import annotations

from typing import Any

import pytest

from containers.tensorpot.fit_history import Row
from containers.tensorpot.fit_log import Closing, FitLog
from containers.tensorpot.stop_reason import Ending, stop_reason

SUCCESS = Closing(True, 0, "Optimization terminated successfully.", 9)
USED_UP = Closing(False, 1, "Maximum number of iterations has been exceeded.", 9)
PRECISION = Closing(False, 2, "Desired error not necessarily achieved due to precision loss.", 9)
STOPPED = Closing(False, 99, "`callback` raised `StopIteration`.", 9)


def ending(
    losses: list[float], exit_code: int = 0, maxiter: int = 10, kernel_killed: bool | None = False, **log: Any
) -> Ending:
    rows = tuple(Row(0, number, loss, 0, 0, 0, 0, 0) for number, loss in enumerate(losses))
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
    assert stop_reason(given) == reason


def test_the_iterations_of_the_last_ladder_step_count() -> None:
    rows = tuple(Row(step, number, 4.0 - step - number / 10, 0, 0, 0, 0, 0) for step in (0, 1) for number in range(4))
    log = FitLog(closing=USED_UP)
    assert stop_reason(Ending(0, rows, log, 3)) == "max_iterations"
    assert stop_reason(Ending(0, rows, log, 6)) == "stalled"
