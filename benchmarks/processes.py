"""What this process and all below it take: CPU time, memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def peak_MB() -> float:
    """Largest resident size of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def cpu_seconds() -> float:
    """Of this process, of those that it has waited for, and of those that run below it."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent) + sum(map(_cpu_seconds, children(os.getpid())))


def pss_below() -> int:
    """Bytes (proportional set size) of all processes below this one."""
    return sum(map(_pss, children(os.getpid())))


def children(pid: int) -> list[int]:
    """Those that run; none when it has just ended."""
    try:
        found = [file.read_text() for file in Path(f"/proc/{pid}").glob("task/*/children")]
    except OSError:
        return []
    return [int(child) for text in found for child in text.split()]


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # it has just ended, and counts among those waited for
    return sum(map(int, fields[11:15])) / TICKS + sum(map(_cpu_seconds, children(pid)))


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has just ended
    own = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(map(_pss, children(pid)))
