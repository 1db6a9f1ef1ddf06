"""The guard, with real processes: what a killed command started ends, whatever session it opened; nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.guard import MARK, end_marked, kill_marked, marked

REPOSITORY = Path(__file__).parents[3]
COMMAND = """
import os, subprocess, sys, time
from tasks.guard import MARK, guard
mark = guard()
assert mark == guard()
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
ignores = [sys.executable, "-S", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
ours = {**os.environ, MARK: mark}
for command, environment in ((sleep, ours), (ignores, {**ours, MARK: mark + ".part"}), (sleep, dict(os.environ))):
    subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
print(mark, flush=True)
time.sleep(60)
"""


def until(done: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def without_mark(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (other,) = [
        pid for pid in map(int, children) if f"{MARK}=".encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    return other


@pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")
def test_a_killed_command_takes_its_children_with_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    )
    mark = command.stdout.readline().strip()
    until(lambda: len(marked(mark)) == 2)
    other = without_mark(command.pid)
    try:
        assert len(marked(f"{mark}.part")) == 1
        end_marked(f"{mark}.none", 5)
        assert len(marked(mark)) == 2
        command.kill()
        command.wait()
        until(lambda: not marked(mark))
        assert Path(f"/proc/{other}").exists()
    finally:
        kill_marked(mark)
        os.kill(other, signal.SIGKILL)
