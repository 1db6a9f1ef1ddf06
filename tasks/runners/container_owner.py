"""The process that started a container, and a test later that it still runs. Linux only."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from containers.contract import Closed

PREFIX = "mace-to-ace."
RUN = f"{PREFIX}run"


class Owner(Closed):
    """A process, and the place where its number means something."""

    host: str
    boot: str  # of the kernel: after a restart no process of before runs
    namespace: str  # of process numbers: a worker in a container has its own
    pid: int
    started: int  # clock ticks after boot: another process may get the number later

    def labels(self) -> dict[str, str]:
        """The owner as labels of a container."""
        return {f"{PREFIX}{name}": str(value) for name, value in self.model_dump().items()}

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Owner:
        """From the labels of a container; raises `ValidationError` when they are not ours."""
        return cls.model_validate({name: labels.get(f"{PREFIX}{name}") for name in cls.model_fields})


def this_process() -> Owner:
    """The owner of what this process starts."""
    return Owner(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=str(Path("/proc/self/ns/pid").readlink()),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
    )


def is_gone(owner: Owner, running: bool = True) -> bool:
    """Return True if `owner` surely runs no more. False for one on another host or among other process numbers.

    A name is no proof of a host: of another boot only what no longer runs is taken to be a leftover.
    """
    here = this_process()
    if owner.boot != here.boot:
        return owner.host == here.host and not running
    if owner.namespace != here.namespace:
        return False
    started = _started(owner.pid)
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, whom /proc may hide from us
        return started not in (owner.started, None)
    return started != owner.started


def _started(pid: int) -> int | None:
    """Start of a process in clock ticks after boot; None when there is none, or one that only waits to be reaped."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else int(after_name[19])
