"""Memory that this process may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from containers.contract import Resources

SHARE = 0.5
"""Of what there is, where no limit is given: other steps and the page cache want some too."""


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """The smallest of the host's memory and every limit of the control groups (v1 and v2) that this process is in."""
    return min([_host_bytes(proc), *_group_limits(proc, cgroups)])


def _host_bytes(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{proc / 'meminfo'} has no MemTotal")


def _group_limits(proc: Path, cgroups: Path) -> Iterator[int]:
    membership = proc / "self" / "cgroup"
    if not membership.is_file():
        return
    for line in membership.read_text().splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0" and not controllers:
            roots, file = [cgroups, cgroups / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            roots, file = [cgroups / "memory"], "memory.limit_in_bytes"
        else:
            continue
        for root in roots:
            yield from _limits_up(root, group, file)


def _limits_up(root: Path, group: str, file: str) -> Iterator[int]:
    """Limits of a group and of all above it; inside a container the group's own folder may be the root itself."""
    here = root / group.lstrip("/")
    for folder in [here, *here.parents]:
        if (folder / file).is_file():
            text = (folder / file).read_text().strip()
            if text.isdigit() and int(text) > 0:  # v2 says `max` for none, v1 a number beyond any host's memory
                yield int(text)
        if folder == root:
            return


def memory_limit(resources: Resources) -> int:
    """Bytes that a step and its processes may take together."""
    return resources.memory_bytes or int(SHARE * available_bytes())
