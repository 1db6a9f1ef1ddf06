"""A guard that ends the processes of a command when the command itself is killed.

The guard is a process of its own. It waits at a pipe whose other end only the command holds, so that it learns of the
command's end, also of one by SIGKILL. Then it kills every process that carries the command's mark. The mark is an
environment variable: children of children inherit it, whatever session they open. Linux only; elsewhere nothing
is guarded. This file is also the guard's program, so it imports the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from uuid import uuid4

MARK = "MACE_TO_ACE_MARK"
_held: list[int] = []
"""Ends of pipes that close with this process."""


@cache
def guard() -> str:
    """Start the guard of this process, once; returns the value of MARK that children must have in their environment."""
    mark = uuid4().hex
    if not Path("/proc/self/environ").exists():
        return mark
    reading, writing = os.pipe()
    try:
        # it forks and returns: nobody has to wait for the guard, and no terminal's signal reaches it
        command = [sys.executable, "-I", "-S", __file__, mark]
        subprocess.run(command, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    finally:
        os.close(reading)
    _held.append(writing)
    return mark


def marked(mark: str) -> dict[int, dict[str, str]]:
    """The processes that carry `mark`, or one that begins with it -> the environment they started with."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = os.fsdecode((folder / "environ").read_bytes()).split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        environment = dict(variable.partition("=")[::2] for variable in variables)
        if environment.get(MARK, "").startswith(mark):
            found[int(folder.name)] = environment
    return found


def send(number: signal.Signals, processes: Iterable[int]) -> None:
    """Send a signal to processes; those that have ended are passed over."""
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end_marked(mark: str, seconds: float) -> None:
    """Send SIGTERM to all that carry `mark`; returns when they have ended, or after `seconds`."""
    send(signal.SIGTERM, marked(mark))
    deadline = time.monotonic() + seconds
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_marked(mark: str, seconds: float = 5.0) -> None:
    """Kill all that carry `mark`, and what they start meanwhile; returns when there is none, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        send(signal.SIGKILL, left)
        time.sleep(0.05)


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        sys.stdin.buffer.read()  # ends when the guarded process has ended
        kill_marked(sys.argv[1])
