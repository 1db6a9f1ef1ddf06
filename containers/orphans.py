"""Children that die with their parent, also when the parent is killed with SIGKILL (Linux)."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn`: the child asks the kernel for a SIGKILL at its parent's death; None without such a call."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where it is safe
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
