"""How a flow runs from the command line: quiet Prefect defaults, and no traceback for a told error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from tasks.errors import DistillError

SERVER_START_S = 120  # of the temporary server; Prefect's own 20 s are too few on a busy machine


class ToldErrors(logging.Filter):
    """Takes the traceback from a log record whose exception already says what failed, where and the mend."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record; never drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DistillError):
            record.exc_info, record.exc_text = None, None
            record.msg, record.args = str(error).splitlines()[0], ()
        return True


@contextmanager
def command_line_run() -> Iterator[None]:
    """Prefect's settings and logs while a command runs a flow in this process."""
    told = ToldErrors()
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(told)
    try:
        with temporary_settings(
            updates={PREFECT_SERVER_ANALYTICS_ENABLED: False},
            set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SERVER_START_S},
        ):
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(told)


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The log of the run that calls, which the UI shows; outside of one, Prefect's on the terminal."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger()
