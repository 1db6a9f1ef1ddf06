from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from containers.labels.rows import LabelRows
from tasks.label_store import files
from tasks.label_store.files import MOST_FRESH, small_files
from tasks.label_store.store import LabelStore, TeacherKey

TEACHER = TeacherKey(model="ab" * 32, head="Default", dtype="float32", version=2, stub=False)
SHARD = 10
SHARDS = MOST_FRESH + 1
ALL = range(SHARD * SHARDS)


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small files would otherwise wait for the disk, each."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def fill(store: LabelStore, answers: Any, first: int = 0, shards: int = SHARDS) -> None:
    for start in range(first, first + shards * SHARD, SHARD):
        commit(store, answers, range(start, start + SHARD))


def commit(store: LabelStore, answers: Any, numbers: Any) -> None:
    store.commit(answers.file(numbers), answers.ids(numbers), answers.atoms(numbers))


def fresh(store: LabelStore) -> list[Path]:
    return sorted((store.folder / "fresh").glob("*.arrow"))


def rows_in(paths: list[Path]) -> int:
    return sum(pa.ipc.open_file(pa.memory_map(str(path))).count_rows() for path in paths)


def all_there(store: LabelStore, answers: Any, numbers: Any = ALL) -> bool:
    with LabelStore(store.folder.parent, TEACHER, verify=True).reading() as paths:
        return bool(LabelRows(paths).take(answers.ids(numbers)).equals(answers.rows(numbers)))


def test_few_files_are_left_alone_and_many_become_one(store, answers, monkeypatch) -> None:
    store.compact()
    assert not store.folder.exists()
    fill(store, answers, shards=MOST_FRESH)
    store.compact()
    assert len(fresh(store)) == MOST_FRESH
    monkeypatch.setattr(files, "BATCH_ROWS", 4 * SHARD)  # whatever the shards were, batches are of a good size
    fill(store, answers)
    store.compact()
    (joined,) = fresh(store)
    reader = pa.ipc.open_file(pa.memory_map(str(joined)))
    assert [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)] == [40, 40, 40, 40, 10]
    assert all_there(store, answers)


@pytest.mark.parametrize(
    ("rows", "small"),
    [
        ([], 0),
        ([5], 0),
        ([5, 5], 2),
        ([1, 5], 0),
        ([1, 1, 5], 2),
        ([1, 1, 1, 1, 5], 4),
        ([1, 5, 5, 20], 3),
        ([0, 3], 0),
    ],
)
def test_which_files_are_small(rows: list[int], small: int) -> None:
    assert small_files(rows) == small


def test_rows_are_written_again_a_few_times_only_and_files_stay_few() -> None:
    stored, written = [], 0
    for _ in range(4000):
        stored = sorted([*stored, 1])
        if len(stored) > MOST_FRESH:
            joined = sum(stored[: small_files(stored)])
            stored, written = sorted([joined, *stored[small_files(stored) :]]), written + joined
        assert len(stored) <= MOST_FRESH
    assert sum(stored) == 4000
    assert written < 4000 * np.log2(4000)


def test_rows_that_are_there_twice_are_dropped(store, answers) -> None:
    fill(store, answers)
    store.compact()
    fill(store, answers)  # as after a crash between renaming and deleting
    for start in range(0, len(ALL), SHARD):
        commit(store, answers, range(start, start + 3))
    store.compact()
    assert rows_in(fresh(store)) == len(ALL)
    assert all_there(store, answers)


def test_nobody_s_files_are_moved_while_they_read(store, answers) -> None:
    fill(store, answers)
    with store.reading() as paths:
        LabelStore(store.folder.parent, TEACHER).compact()
        store.compact()
        assert all(path.exists() for path in paths)
    store.compact()
    assert not any(path.exists() for path in paths)


def test_a_damaged_file_does_not_end_the_compaction(store, answers) -> None:
    fill(store, answers)
    fresh(store)[0].write_bytes(b"nothing")
    store.compact()
    assert rows_in(fresh(store)) == len(ALL) - SHARD
    assert len(list((store.folder / "damaged").iterdir())) == 1
    assert store.missing(answers.ids(ALL)).sum() == SHARD


def test_what_a_killed_process_began_to_write_goes_after_a_day(store, answers) -> None:
    fill(store, answers)
    old, young = store.folder / "fresh" / ".old", store.folder / "fresh" / ".young"
    for path in (old, young):
        path.write_bytes(b"ARROW1")
    os.utime(old, (0, 0))
    (store.folder / "fresh" / ".finished").symlink_to("gone")  # another run renames its file after it was listed
    store.compact()
    assert (old.exists(), young.exists()) == (False, True)


DYING = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path

from tasks.label_store import files
from tasks.label_store.store import LabelStore, TeacherKey

full, copies, key = Path(sys.argv[1]), Path(sys.argv[2]), TeacherKey.model_validate_json(sys.argv[3])
files.MOST_FRESH = 1
os.fsync = lambda descriptor: None

def compact_and_die(root, nth, after):
    left = nth

    def dying(call):
        def until_then(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*arguments, **options)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return until_then

    for name in ("replace", "rename", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    LabelStore(root, key).compact()
    os._exit(0)

for after in (False, True):
    for nth in count(1):
        root = copies / f"{nth}-{after}"
        shutil.copytree(full, root)
        if (child := os.fork()) == 0:
            compact_and_die(root, nth, after)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break
"""


def test_killed_at_any_rename_or_delete_no_row_is_lost(store, answers, tmp_path, monkeypatch) -> None:
    """Before and after each of its steps; the next compaction tidies up."""
    numbers = range(4 * SHARD)
    fill(store, answers, shards=4)
    (copies := tmp_path / "copies").mkdir()
    command = [sys.executable, "-c", DYING, str(store.folder.parent), str(copies), TEACHER.model_dump_json()]
    subprocess.run(command, check=True)
    found = [LabelStore(root, TEACHER) for root in copies.iterdir()]
    assert len(found) > 2 * (1 + 4)  # the rename, and four deleted shards
    assert {len(fresh(killed)) for killed in found} == {1, 2, 3, 4, 5}
    monkeypatch.setattr(files, "MOST_FRESH", 1)
    for killed in found:
        assert all_there(killed, answers, numbers)
        fill(killed, answers, first=4 * SHARD, shards=4)
        killed.compact()
        assert rows_in(fresh(killed)) == 8 * SHARD
        assert all_there(killed, answers, range(8 * SHARD))


def test_a_full_disk_loses_nothing(store, answers, monkeypatch) -> None:
    fill(store, answers)

    @contextmanager
    def full(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(write_table=Mock(side_effect=OSError(28, "No space left on device")))

    with monkeypatch.context() as patched:
        patched.setattr(pa.ipc, "new_file", full)
        with pytest.raises(OSError, match="No space left"):
            store.compact()
    assert len(list((store.folder / "fresh").iterdir())) == SHARDS
    assert all_there(store, answers)
    store.compact()
    assert len(fresh(store)) == 1
    assert all_there(store, answers)


def test_a_flipped_byte_is_not_written_again_under_a_new_digest(store, answers, monkeypatch) -> None:
    """Even when its stamp still fits, as after an error of the disk."""
    monkeypatch.setattr("tasks.store.stamps.stamp_of", lambda path: [1])
    monkeypatch.setattr(files, "stamp_of", lambda path: [1])
    fill(store, answers)
    path = fresh(store)[0]
    lost = pa.ipc.open_file(path.read_bytes()).read_all().column("id")
    data = bytearray(path.read_bytes())
    data[data.index(lost[0].as_py()) + 3] ^= 1
    path.write_bytes(data)
    store.compact()
    assert store.missing(answers.ids(ALL)).sum() == SHARD
