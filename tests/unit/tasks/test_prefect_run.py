from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED

from tasks.errors import StepFailed, UserError
from tasks.prefect_run import ToldErrors, command_line_run

FAILED = StepFailed("pace_train", "Crashed", "it fell", Path("kept"), "  the last line")


def record(error: BaseException | None) -> logging.LogRecord:
    told = (type(error), error, None) if error else None
    return logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "Finished: %s", ("badly",), told)


def written(shortened: logging.LogRecord) -> str:
    return logging.Formatter("%(message)s").format(shortened)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FAILED, "pace_train failed (Crashed): it fell"),
        (UserError("the pool is empty\nand more"), "the pool is empty"),
        (UserError("100 % of %s"), "100 % of %s"),
    ],
)
def test_a_told_error_is_one_line(error: Exception, line: str) -> None:
    shortened = record(error)
    assert ToldErrors().filter(shortened)
    assert written(shortened) == line


def test_another_error_keeps_its_traceback() -> None:
    kept = record(ZeroDivisionError("a bug"))
    assert ToldErrors().filter(kept)
    assert "ZeroDivisionError: a bug" in written(kept)


def test_a_record_without_an_error_stays() -> None:
    kept = record(None)
    assert ToldErrors().filter(kept)
    assert written(kept) == "Finished: badly"


def filters() -> list[list[object]]:
    return [list(logging.getLogger(name).filters) for name in ("prefect.flow_runs", "prefect.task_runs")]


def test_settings_and_filters_hold_in_the_block_and_are_put_back() -> None:
    before, analytics = filters(), PREFECT_SERVER_ANALYTICS_ENABLED.value()
    with command_line_run():
        assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is False
        assert all(any(isinstance(one, ToldErrors) for one in group) for group in filters())
    assert filters() == before
    assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is analytics


def test_they_are_put_back_after_an_error() -> None:
    before, analytics = filters(), PREFECT_SERVER_ANALYTICS_ENABLED.value()
    with pytest.raises(UserError), command_line_run():
        raise UserError("no")
    assert filters() == before
    assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is analytics
