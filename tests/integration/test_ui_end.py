"""What `make ui` leaves when it ends, with a real server and worker: nothing, whatever signals come, and soon."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.engine]
REPOSITORY = Path(__file__).parents[2]
ENDS_S = 10.0


def processes_of(home: Path) -> set[int]:
    """Those that have this Prefect home."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"PREFECT_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


@pytest.fixture
def started(tmp_path: Path, until: Callable[..., None]) -> Iterator[subprocess.Popen[bytes]]:
    """`make ui` with its server up and its worker about to be."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))}
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "deployments/ui.py", "--port", str(port)],
            cwd=REPOSITORY, env={**kept, "PREFECT_HOME": str(tmp_path)}, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "Worker 'this-machine' started!" in log.read_text() or process.poll() is not None, 240)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        for pid in processes_of(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    "sent", [(signal.SIGHUP, signal.SIGINT, signal.SIGTERM), (signal.SIGKILL,)], ids=["signals", "killed"]
)
def test_nothing_stays(started: subprocess.Popen[bytes], tmp_path: Path, until, sent: tuple[signal.Signals]) -> None:
    assert len(processes_of(tmp_path)) >= 3, "the control: command, server and worker"
    began = time.monotonic()
    for number in sent:
        started.send_signal(number)
        time.sleep(0.5)
    until(lambda: not processes_of(tmp_path), ENDS_S - (time.monotonic() - began))
    assert started.wait(timeout=1) == (-signal.SIGKILL if sent == (signal.SIGKILL,) else 0)
