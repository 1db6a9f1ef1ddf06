"""The memory that a step may use, read from trees as kernels lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from containers.contract import BadInput, Resources
from containers.memory import available_bytes, memory_limit
from containers.tensorpot.active_set.piece_sizes import BLOCK_ROWS, ONE_SHOT_BYTES, features_bytes, sizes_for

GB = 2**30
HOST = 16 * GB


def tree(folder: Path, cgroup: str, files: dict[str, str]) -> int:
    """What is found with these groups and limits on a host of 16 GB."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal:       {HOST // 1024} kB\nMemFree:        1 kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    groups.mkdir()
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return available_bytes(proc, groups)


V1 = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n"
V2 = "0::/a/b\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (V2, {"a/b/memory.max": f"{2 * GB}\n"}, 2 * GB),
        (V2, {"a/b/memory.max": "max\n", "a/memory.max": f"{3 * GB}\n"}, 3 * GB),
        (V2, {"a/b/memory.max": f"{5 * GB}\n", "a/memory.max": f"{3 * GB}\n"}, 3 * GB),
        (V2, {"a/b/memory.max": "max\n"}, HOST),
        ("0::/\n", {"memory.max": f"{GB}\n"}, GB),
        (V2, {"memory.max": f"{GB}\n"}, GB),  # the container's own group is mounted as the root
        (V1, {"memory/a/b/memory.limit_in_bytes": f"{4 * GB}\n"}, 4 * GB),
        (V1, {"memory/a/b/memory.limit_in_bytes": "9223372036854771712\n"}, HOST),
        (V1, {"memory/a/memory.limit_in_bytes": f"{GB}\n", "memory/a/b/memory.limit_in_bytes": f"{2 * GB}\n"}, GB),
        (V1, {"memory/memory.limit_in_bytes": f"{6 * GB}\n"}, 6 * GB),
        (V1 + "0::/x\n", {"unified/x/memory.max": f"{GB}\n"}, GB),  # both at once
        (V2, {"a/b/memory.max": "0\n"}, HOST),
        (V2, {"a/b/memory.max": "-1\n"}, HOST),
        (V2, {}, HOST),
    ],
)
def test_the_smallest_limit_of_the_groups_and_the_host_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], expected: int
) -> None:
    assert tree(tmp_path, cgroup, files) == expected


def test_a_given_limit_rules_the_default_is_half_and_without_groups_the_host_counts(tmp_path: Path) -> None:
    assert memory_limit(Resources(memory_bytes=12345)) == 12345
    assert memory_limit(Resources()) == available_bytes() // 2
    (tmp_path / "meminfo").write_text("MemTotal: 1024 kB\n")
    assert available_bytes(tmp_path, tmp_path / "none") == 2**20


def test_sizes_are_the_same_until_memory_is_short_and_then_smaller() -> None:
    enough = sizes_for(Resources(memory_bytes=2 * GB, threads=2), 250)
    assert enough == sizes_for(Resources(memory_bytes=64 * GB, threads=8), 250)
    assert (enough.block_rows, enough.one_shot_bytes) == (BLOCK_ROWS, ONE_SHOT_BYTES)
    short = sizes_for(Resources(memory_bytes=700 * 2**20, threads=2), 1000)
    assert 0 < short.block_rows < BLOCK_ROWS
    assert short.one_shot_bytes <= ONE_SHOT_BYTES
    with pytest.raises(
        BadInput, match=r"100 MB are too little .* \d+ MB are needed.* fewer threads or a smaller basis"
    ):
        sizes_for(Resources(memory_bytes=100 * 2**20), 250)
    # what stays beside the pieces makes them smaller
    limit = Resources(memory_bytes=700 * 2**20, threads=2)
    assert sizes_for(limit, 250, held=300 * 2**20).one_shot_bytes < sizes_for(limit, 250).one_shot_bytes
    with pytest.raises(BadInput, match="too little"):
        sizes_for(limit, 250, held=GB)


def test_too_many_structures_to_compare_are_refused_with_what_they_need_and_what_to_do() -> None:
    with pytest.raises(
        BadInput,
        match=r"100,000 structures by 500 functions in memory: 1\.\d\d GB are needed, and the limit is 1\.00 GB"
        r".*DISTILL_SELECT_MEMORY_GB=1\.\d\d.* d_optimal, .* or fewer structures",
    ) as refused:
        features_bytes(Resources(memory_bytes=10**9), 100_000, 500)
    enough = float(str(refused.value).partition("GB=")[2].partition(")")[0])
    assert features_bytes(Resources(memory_bytes=round(enough * 1e9)), 100_000, 500) == 8 * 100_000 * 500
