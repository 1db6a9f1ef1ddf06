"""A flow run from the command line: quiet Prefect defaults, and no traceback for an error that says enough."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_HOME,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from tasks.errors import DistillError, UserError

ANSWER_S = 10.0  # of a server that PREFECT_API_URL names, to a question about its health
SERVER_START_S = 120  # of the temporary server; Prefect's own 20 s are too few on a busy machine


class ShortErrors(logging.Filter):
    """Takes the traceback from a log record whose exception already says what failed, where and what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record; never drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DistillError):
            record.exc_info, record.exc_text = None, None
            record.msg, record.args = str(error).splitlines()[0], ()
        return True


@contextmanager
def command_line_run() -> Iterator[None]:
    """Prefect's settings and logs while a command runs a flow in this process.

    Raises:
        UserError: Prefect's folder cannot be written, or the server that PREFECT_API_URL names does not answer.
        DistillError: the temporary server does not start, or a server does not answer in time.
    """
    check_home()
    check_server()
    short = ShortErrors()
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(short)
    try:
        with (
            temporary_settings(
                updates={PREFECT_SERVER_ANALYTICS_ENABLED: False},
                set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SERVER_START_S},
            ),
            own_port(),
        ):
            yield
    except RuntimeError as error:
        if "ephemeral Prefect API server" not in str(error):
            raise
        raise DistillError(
            f"Prefect's temporary server did not start within {SERVER_START_S} s (its files: {PREFECT_HOME.value()})."
            " Run again, set PREFECT_HOME to a new folder on a local disk, or start a server (prefect server start) and"
            " set PREFECT_API_URL to its address."
        ) from None
    except httpx.TransportError as error:  # Prefect's client gives up after five seconds while its server starts
        raise DistillError(
            f"Prefect's server did not answer ({str(error) or type(error).__name__}); a machine busy with other work is"
            " the usual reason. Run again: finished steps are kept."
        ) from None
    finally:
        for logger in loggers:
            logger.removeFilter(short)


@contextmanager
def own_port() -> Iterator[None]:
    """Give the temporary server of this command a port that no other command takes.

    Prefect draws one of a thousand ports and looks whether it is free. Its server binds it seconds later, so two
    commands may draw the same port: then both talk to one server, and lose it when the command of that server ends.
    """
    if PREFECT_API_URL.value():
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer  # a second to import

    server = SubprocessASGIServer()
    with socket.socket() as held:  # bound and not listening: the server may bind it too, and nobody else does
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        if not server.running:
            server.port = held.getsockname()[1]
        yield


def check_home() -> None:
    """Refuse a folder of Prefect's own files that cannot be made or written."""
    home = PREFECT_HOME.value()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {home}, where Prefect keeps its files: {error.strerror}. Set PREFECT_HOME to a folder"
            " that you can write."
        ) from None


def check_server() -> None:
    """Refuse a server that PREFECT_API_URL names and that does not answer; without one there is nothing to check."""
    url = PREFECT_API_URL.value()
    if not url:
        return
    error: Exception | None
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ANSWER_S}):
        try:
            error = get_client(sync_client=True).api_healthcheck()
        except (httpx.InvalidURL, ValueError) as refused:
            error = refused
    if error is None:
        return
    if isinstance(error, httpx.HTTPStatusError):
        code = error.response.status_code
        if code == httpx.codes.SERVICE_UNAVAILABLE:  # its database is busy just now
            return
        why = f"answers {code}. Does it end in /api, and does it need PREFECT_API_KEY or PREFECT_API_AUTH_STRING?"
    else:
        why = f"does not answer ({str(error) or type(error).__name__}). Start that server,"
        why += " or unset PREFECT_API_URL (also: prefect config unset PREFECT_API_URL) to run with a temporary one."
    raise UserError(f"the Prefect server {url} (PREFECT_API_URL) {why}")


def run_log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """The log of the run that calls, which the UI shows; outside of one, Prefect's on the terminal."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger()
