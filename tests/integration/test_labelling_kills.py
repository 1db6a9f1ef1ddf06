"""Labelling that is killed, meets damage or a full disk, loses its teacher, or has company: no label is lost or made
twice.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import StoreError

pytestmark = pytest.mark.integration
CHILD_S = 300
SLOW = """
import time
from containers.mace.labelling import mace_label as label
made_up = label.stub
def slow(inputs, outputs, params, machine):
    time.sleep(0.5)
    return made_up(inputs, outputs, params, machine)
label.stub = slow
"""
KILLED_BEFORE_ITS_THIRD_RENAME = """
import os, signal
from tasks.label_store import files as label_files
digest, written = label_files.file_digest, []
def killing(path):
    if path.name.startswith('.'):
        written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return digest(path)
label_files.file_digest = killing
"""


@contextmanager
def ended(child: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Whatever the test does to it, it is gone afterwards."""
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def code(child: subprocess.Popen[str]) -> int:
    child.communicate(timeout=CHILD_S)
    return child.returncode


def steps(bench: Any) -> list[int]:
    """The processes of labelling steps below a work root, their forked workers too."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{bench.root}/store/work/mace_label-".encode() in command:
            found.append(int(place.name))
    return sorted(found)


def committed(bench: Any) -> int:
    return sum(bench.rows().values())


def claims(bench: Any) -> list[Path]:
    folder = bench.store().folder / "claims"
    return list(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def in_the_middle(bench: Any, pool: Path, labelled: int, until: Callable[..., None]) -> Iterator[subprocess.Popen[str]]:
    """A run that has committed at least so many labels, and whose next shard is at work."""
    with ended(bench.start(pool)) as child:
        until(lambda: committed(bench) >= labelled or child.poll() is not None, CHILD_S)
        until(lambda: steps(bench) or child.poll() is not None, CHILD_S)
        assert child.poll() is None, bench.log.read_text()
        yield child


def labels(done: dict[str, Any]) -> int:
    return len(set(pq.read_table(done["labels"], columns=["id"])["id"].to_pylist()))


def once_each(bench: Any, structures: int) -> bool:
    return sorted(bench.rows().values()) == [1] * structures


def test_a_killed_flow_loses_no_more_than_its_shard_in_flight(
    labelling_bench: Any, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setenv("DISTILL_RUNNER", "subprocess")
    pool = labelling_bench.pool(range(80), atoms=4)
    labelling_bench.expect(pool, shards=10)
    with in_the_middle(labelling_bench, pool, 16, until) as child:
        child.kill()
        assert code(child) == -signal.SIGKILL
    until(lambda: not steps(labelling_bench), 15)
    kept = committed(labelling_bench)
    assert 16 <= kept < 80
    assert claims(labelling_bench), "the control: nobody removes them before the next run"
    monkeypatch.setenv("DISTILL_SHARD_S", "3600")
    done = labelling_bench.run(pool)
    assert done["computed"] == 80 - kept
    assert labels(done) == 80
    assert once_each(labelling_bench, 80)
    assert claims(labelling_bench) == []


@pytest.mark.long
def test_a_killed_step_is_mended_by_the_run_itself(
    labelling_bench: Any, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setenv("DISTILL_RUNNER", "subprocess")
    pool = labelling_bench.pool(range(24), atoms=8)
    labelling_bench.expect(pool, shards=3)
    with in_the_middle(labelling_bench, pool, 1, until) as child:
        os.kill(steps(labelling_bench)[0], signal.SIGKILL)
        assert code(child) == 0, labelling_bench.log.read_text()
    assert "a shard ended early (mace_label failed (Killed)" in labelling_bench.log.read_text()
    assert once_each(labelling_bench, 24)
    assert labelling_bench.run(pool)["cached"]


def test_a_kill_between_writing_and_renaming_loses_that_shard_only(labelling_bench: Any) -> None:
    pool = labelling_bench.pool(range(80))
    labelling_bench.expect(pool, shards=8)
    with ended(labelling_bench.start(pool, KILLED_BEFORE_ITS_THIRD_RENAME)) as child:
        assert code(child) == -signal.SIGKILL, labelling_bench.log.read_text()
    half = [path for path in (labelling_bench.store().folder / "fresh").iterdir() if path.name.startswith(".")]
    assert len(half) == 1, "the control: the file that was not renamed"
    kept = committed(labelling_bench)
    assert 0 < kept < 40
    done = labelling_bench.run(pool)
    assert (done["computed"], labels(done)) == (80 - kept, 80)
    assert once_each(labelling_bench, 80)


def test_damaged_files_cost_their_labels_again(labelling_bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    pool = labelling_bench.pool(range(80))
    labelling_bench.expect(pool, shards=8)
    labelling_bench.run(pool)
    truncated, flipped, *whole = sorted((labelling_bench.store().folder / "fresh").glob("*.arrow"))
    assert len(whole) == 6
    truncated.write_bytes(truncated.read_bytes()[:-100])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        done = labelling_bench.run(pool, labels={"max_force_eV_per_A": 9.0})  # another table from the same labels
    assert labels(done) == 80
    assert 0 < done["computed"] == 80 - sum(rows_in(path) for path in whole) < 40
    assert once_each(labelling_bench, 80)
    kept_aside = sorted(path.name.partition("-")[2] for path in (labelling_bench.store().folder / "damaged").iterdir())
    assert kept_aside == sorted([truncated.name, flipped.name])
    for path in (truncated, flipped):
        assert f"{path} is not what was written: moved to" in caplog.text


def rows_in(path: Path) -> int:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).count_rows()


@pytest.fixture
def small_disk(labelling_bench: Any) -> Iterator[Callable[[int], None]]:
    """The work root on a disk of its own, whose room (kB) can be set."""
    root = labelling_bench.root
    root.mkdir()

    def leave(room_kB: int) -> None:
        disk = os.statvfs(root)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        subprocess.run(["mount", "-o", f"remount,size={used + room_kB}k", root], check=True)

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", root], check=True)
    try:
        yield leave
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


@pytest.mark.root
@pytest.mark.parametrize(("room_kB", "when", "kept"), [(500, "labelling", 0), (4000, "pool_labels", 1000)])
def test_a_full_disk_is_told_and_the_next_run_goes_on(
    labelling_bench: Any, small_disk: Callable[[int], None], room_kB: int, when: str, kept: int
) -> None:
    """Full when the shards are written (1600 kB), and when the pool's labels are."""
    pool = labelling_bench.pool(range(1000), atoms=64)
    other = labelling_bench.model.with_name("other.model")
    other.write_bytes(b"another teacher")
    labelling_bench.run(pool, model=other)
    labelling_bench.expect(pool, shards=8)
    small_disk(room_kB)
    root = labelling_bench.root
    with pytest.raises(StoreError, match=rf"^{when}: {root}.*: No space left on device\. Free or change the work root"):
        labelling_bench.run(pool)
    assert claims(labelling_bench) == []
    assert committed(labelling_bench) == kept
    small_disk(50_000)
    done = labelling_bench.run(pool)
    assert (done["computed"], labels(done)) == (1000 - kept, 1000)
    assert once_each(labelling_bench, 1000)


@pytest.mark.root
def test_a_disk_that_others_fill_meanwhile(
    labelling_bench: Any, small_disk: Callable[[int], None], until: Callable[..., None]
) -> None:
    pool = labelling_bench.pool(range(80))
    labelling_bench.expect(pool, shards=8)
    small_disk(5000)
    filler = labelling_bench.root / "filler"
    with ended(labelling_bench.start(pool, SLOW)) as child:
        until(lambda: committed(labelling_bench) > 0 or child.poll() is not None, CHILD_S)
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert code(child) == 1, labelling_bench.log.read_text()
    told = labelling_bench.log.read_text().splitlines()[-1]
    assert told.startswith("error: mace_label")
    assert "No space left on device" in told
    filler.unlink()
    kept = committed(labelling_bench)
    assert 0 < kept < 80
    done = labelling_bench.run(pool)
    assert (done["computed"], labels(done)) == (80 - kept, 80)
    assert once_each(labelling_bench, 80)


def test_a_model_that_changes_meanwhile_ends_the_run_and_mixes_nothing(
    labelling_bench: Any, until: Callable[..., None]
) -> None:
    pool = labelling_bench.pool(range(80))
    labelling_bench.expect(pool, shards=8)
    old, before = labelling_bench.model.read_bytes(), labelling_bench.store()
    with ended(labelling_bench.start(pool, SLOW)) as child:
        until(lambda: committed(labelling_bench) > 0 or child.poll() is not None, CHILD_S)
        kept_aside = labelling_bench.folder / "old.model"
        kept_aside.write_bytes(old)
        labelling_bench.model.write_bytes(old + b"changed")
        assert code(child) == 2, labelling_bench.log.read_text()
    told = "input model of mace_label changed since it was digested"
    assert told in labelling_bench.log.read_text()
    kept = sum(labelling_bench.rows(kept_aside).values())
    assert 0 < kept < 80
    done = labelling_bench.run(pool)
    assert done["computed"] == 80
    assert done["stores"] != [str(before.folder)]
    labelling_bench.model.write_bytes(old)
    done = labelling_bench.run(pool)
    assert (done["computed"], labels(done)) == (80 - kept, 80)
    assert done["stores"] == [str(before.folder)]


@pytest.mark.parametrize("killed", [False, True])
def test_two_flows_at_once_label_each_structure_once(
    labelling_bench: Any, until: Callable[..., None], killed: bool
) -> None:
    """And when one of them is killed, the other takes over what it had claimed."""
    pools = [labelling_bench.pool(range(80), "one.extxyz"), labelling_bench.pool(range(40, 120), "two.extxyz")]
    labelling_bench.expect(pools[0], shards=8)
    one, two = (labelling_bench.start(pool, SLOW) for pool in pools)
    with ended(one), ended(two):
        if killed:
            until(lambda: committed(labelling_bench) > 0 and len(claims(labelling_bench)) == 4, CHILD_S)
            one.kill()
        ends = [child.communicate(timeout=CHILD_S)[0] for child in (one, two)]
    assert (one.returncode, two.returncode) == (-signal.SIGKILL if killed else 0, 0), labelling_bench.log.read_text()
    assert once_each(labelling_bench, len(labelling_bench.rows()))
    assert claims(labelling_bench) == []
    if not killed:
        assert sum(json.loads(told)["computed"] for told in ends) == len(labelling_bench.rows()) == 120
    for pool in pools:
        assert labels(labelling_bench.run(pool)) == 80
    assert once_each(labelling_bench, 120)
