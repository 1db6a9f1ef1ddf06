"""Ctrl-C, SIGTERM and SIGKILL of the command: no process is left, nothing is half-published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def as_on_a_terminal() -> None:
    """A background job of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def processes_with(word: str) -> list[int]:
    """Processes whose environment or command names `word`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in text and int(place.name) != os.getpid():
            found.append(int(place.name))
    return [pid for pid in found if alive(pid)]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_command_leaves_nothing_running(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    started = tmp_path / "started"
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(f"#!/bin/bash\necho $$ > {started}\nexec sleep 600\n")
    sleeper.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "DISTILL_TENSORPOT_PYTHON": str(sleeper),
    }
    command = [sys.executable, "-m", "flows.distill", "--work-root", str(tmp_path / "root")]
    log = tmp_path / "log"  # not a pipe: the server of a killed command would hold it open
    with log.open("w") as out:
        flow = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=out, preexec_fn=as_on_a_terminal)
    try:
        until(started.is_file, 120)
        flow.send_signal(sent)
        flow.wait(timeout=60)
    finally:
        flow.kill()
    told = log.read_text()
    assert flow.returncode == code, told
    assert "Traceback" not in told
    until(lambda: not alive(int(started.read_text())), 10)
    if sent != signal.SIGKILL:  # a killed command cannot end its server
        until(lambda: not processes_with(str(tmp_path)), 30)
    for pid in processes_with(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    assert not (tmp_path / "root" / "store" / "ingest").exists()
    assert not (tmp_path / "root" / "runs" / "silicon").exists()
