from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings

from tasks.errors import DistillError, StepFailed, UserError
from tasks.prefect_logging import ShortErrors, check_server, command_line_run

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
def test_an_error_of_ours_is_one_line(error: Exception, line: str) -> None:
    shortened = record(error)
    assert ShortErrors().filter(shortened)
    assert written(shortened) == line


def test_another_error_keeps_its_traceback_and_a_plain_record_stays() -> None:
    kept = record(ZeroDivisionError("a bug"))
    assert ShortErrors().filter(kept)
    assert "ZeroDivisionError: a bug" in written(kept)
    kept = record(None)
    assert ShortErrors().filter(kept)
    assert written(kept) == "Finished: badly"


def filters() -> list[list[object]]:
    return [list(logging.getLogger(name).filters) for name in ("prefect.flow_runs", "prefect.task_runs")]


def test_settings_and_filters_hold_in_the_block_and_are_put_back() -> None:
    before, analytics = filters(), PREFECT_SERVER_ANALYTICS_ENABLED.value()
    with command_line_run():
        assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is False
        assert all(any(isinstance(one, ShortErrors) for one in group) for group in filters())
    assert filters() == before
    assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is analytics
    with pytest.raises(UserError), command_line_run():
        raise UserError("no")
    assert filters() == before
    assert PREFECT_SERVER_ANALYTICS_ENABLED.value() is analytics


def test_commands_at_once_have_servers_of_their_own_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server binds its port seconds after it was chosen; meanwhile nobody else may."""
    ports = list[int]()
    with temporary_settings(restore_defaults={PREFECT_API_URL}), ExitStack() as stack:
        for _ in range(2):
            monkeypatch.setattr(SubprocessASGIServer, "_instances", {})  # as in another process
            stack.enter_context(command_line_run())
            port = SubprocessASGIServer().port
            assert port is not None
            assert not SubprocessASGIServer.is_port_available(port)
            with socket.socket() as of_the_server:
                of_the_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
                of_the_server.bind(("127.0.0.1", port))
                of_the_server.listen()
            ports.append(port)
    assert len(set(ports)) == 2


def test_a_folder_of_prefect_s_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        temporary_settings({PREFECT_HOME: tmp_path / "file" / "home"}),
        pytest.raises(UserError, match=r"cannot write to .*file/home.*Set PREFECT_HOME"),
        command_line_run(),
    ):
        pass


def test_a_server_that_does_not_answer_is_refused_soon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
        began = time.monotonic()
        with (
            temporary_settings({PREFECT_API_URL: url}),
            pytest.raises(UserError, match=rf"{url} \(PREFECT_API_URL\) does not answer .*unset PREFECT_API_URL"),
            command_line_run(),
        ):
            pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["nonsense", "ftp://there/api"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(UserError, match="PREFECT_API_URL"):
        check_server()


def test_a_server_that_does_not_start_or_answer_is_one_sentence() -> None:
    said = RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server.")
    with pytest.raises(DistillError, match="did not start within 120 s"), command_line_run():
        raise said
    with pytest.raises(RuntimeError, match="another"), command_line_run():
        raise RuntimeError("another")
    with pytest.raises(DistillError, match=r"did not answer \(timed out\).*Run again"), command_line_run():
        raise httpx.ReadTimeout("timed out")
