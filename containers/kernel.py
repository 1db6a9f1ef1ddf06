"""What the Linux kernel does for us: children that die with their parent, and a count of kills for memory."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn`: the child asks for a SIGKILL when the thread that started it ends; None without such a call."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where it is safe
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kernel_kills() -> int | None:
    """How many processes the kernel has ended for memory since boot; None where it does not count them."""
    vmstat = Path("/proc/vmstat")
    if not vmstat.is_file():
        return None
    counts = dict(line.split() for line in vmstat.read_text().splitlines())
    return int(counts["oom_kill"]) if "oom_kill" in counts else None
