from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from containers.labels.rows import LabelRows
from tasks.label_store import compaction
from tasks.label_store.compaction import MOST_FILES, MOST_FRESH
from tasks.label_store.store import LabelStore, TeacherKey

TEACHER = TeacherKey(model="ab" * 32, head="Default", dtype="float32", version=2, stub=False)
SHARD = 10
SHARDS = MOST_FRESH + 1
ALL = range(SHARD * SHARDS)


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of small files would otherwise wait for the disk, each."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels", TEACHER)


def fill(store: LabelStore, answers: Any, first: int = 0, shards: int = SHARDS) -> None:
    for start in range(first, first + shards * SHARD, SHARD):
        commit(store, answers, range(start, start + SHARD))


def commit(store: LabelStore, answers: Any, numbers: Any) -> None:
    store.commit(answers.file(numbers), answers.ids(numbers), answers.atoms(numbers))


def files(store: LabelStore, folder: str) -> list[Path]:
    return sorted((store.folder / folder).iterdir())


def rows_in(paths: list[Path]) -> int:
    return sum(pa.ipc.open_file(pa.memory_map(str(path))).count_rows() for path in paths)


def all_there(store: LabelStore, answers: Any, numbers: Any = ALL) -> bool:
    with LabelStore(store.folder.parent, TEACHER, verify=True).reading() as paths:
        return bool(LabelRows(paths).take(answers.ids(numbers)).equals(answers.rows(numbers)))


def test_few_files_are_left_alone(store, answers) -> None:
    fill(store, answers, shards=MOST_FRESH)
    store.compact()
    assert (len(files(store, "fresh")), len(files(store, "buckets"))) == (MOST_FRESH, 0)


def test_a_store_that_is_not_there_is_left_so(store) -> None:
    store.compact()
    assert not store.folder.exists()


def test_many_files_become_one_for_each_first_digit(store, answers) -> None:
    fill(store, answers)
    store.compact()
    buckets = files(store, "buckets")
    assert files(store, "fresh") == []
    assert [path.name[:2] for path in buckets] == [f"{digit:x}-" for digit in range(16)]
    assert rows_in(buckets) == len(ALL)
    for path in buckets:
        ids = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("id").to_pylist()
        assert ids == sorted(ids)
        assert {i.hex()[0] for i in ids} == {path.name[0]}
    assert all_there(store, answers)


def test_a_bucket_of_many_files_becomes_one_again(store, answers) -> None:
    for turn in range(MOST_FILES + 1):
        fill(store, answers, first=turn * len(ALL))
        store.compact()
        expected = 16 * (turn + 1) if turn < MOST_FILES else 16
        assert len(files(store, "buckets")) == expected
    everything = range(len(ALL) * (MOST_FILES + 1))
    assert rows_in(files(store, "buckets")) == len(everything)
    assert all_there(store, answers, everything)


def test_large_buckets_are_split(store, answers, monkeypatch) -> None:
    fill(store, answers)
    store.compact()
    monkeypatch.setattr(compaction, "BUCKET_ROWS", 5)
    monkeypatch.setattr(compaction, "WORTHWHILE_ROWS", 0)
    fill(store, answers, first=len(ALL))
    store.compact()
    assert {len(path.name.split("-")[0]) for path in files(store, "buckets")} == {2}
    assert all_there(store, answers, range(2 * len(ALL)))
    monkeypatch.undo()
    fill(store, answers, first=2 * len(ALL))
    store.compact()  # what is split stays split
    assert {len(path.name.split("-")[0]) for path in files(store, "buckets")} == {2}
    assert all_there(store, answers, range(3 * len(ALL)))


def test_few_rows_for_many_buckets_are_joined_first(store, answers, monkeypatch) -> None:
    """Or each shard would cost hundreds of files."""
    monkeypatch.setattr(compaction, "BUCKET_ROWS", 5)
    monkeypatch.setattr(compaction, "WORTHWHILE_ROWS", 1)
    monkeypatch.setattr(compaction, "MOST_FRESH", 4)
    counts = []
    for shard in range(36):
        fill(store, answers, first=SHARD * shard, shards=1)
        store.compact()
        counts.append((len(files(store, "fresh")), len(files(store, "buckets"))))
    assert counts[4] == (0, 16)  # one for each first digit
    assert {buckets for _, buckets in counts[5:28]} == {16}  # then there are too many rows for those
    assert counts[-1][1] > 150  # by two digits, once there are 256 rows for the 256 of them
    assert all(fresh <= 4 for fresh, _ in counts)
    assert {len(path.name.split("-")[0]) for path in files(store, "buckets")} == {2}
    assert all_there(store, answers, range(36 * SHARD))


def test_ids_are_read_a_few_times_however_many_buckets_there_are(store, answers, monkeypatch) -> None:
    """Not once for each of 4096."""
    counted, read = [], compaction.id_words

    def counting(ids: pa.Array) -> Any:
        counted.append(len(ids))
        return read(ids)

    fill(store, answers)
    monkeypatch.setattr(compaction, "BUCKET_ROWS", 0)
    monkeypatch.setattr(compaction, "WORTHWHILE_ROWS", 0)
    monkeypatch.setattr(compaction, "id_words", counting)
    monkeypatch.setattr("containers.labels.rows.id_words", counting)
    store.compact()
    assert {len(path.name.split("-")[0]) for path in files(store, "buckets")} == {3}
    assert sum(counted) < 10 * len(ALL)
    assert all_there(store, answers)


def test_rows_that_are_there_twice_are_dropped(store, answers) -> None:
    fill(store, answers)
    store.compact()
    fill(store, answers)  # as after a crash between renaming and deleting
    for start in range(0, len(ALL), SHARD):
        commit(store, answers, range(start, start + 3))
    store.compact()
    assert files(store, "fresh") == []
    assert rows_in(files(store, "buckets")) == len(ALL)
    assert all_there(store, answers)


def test_a_merged_file_that_is_one_of_its_own_sources_stays(store, answers, monkeypatch) -> None:
    fill(store, answers)
    store.compact()
    monkeypatch.setattr(compaction, "MOST_FILES", 1)  # every bucket is merged, with nothing new
    fill(store, answers)
    store.compact()
    assert rows_in(files(store, "buckets")) == len(ALL)
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
    files(store, "fresh")[0].write_bytes(b"nothing")
    store.compact()
    assert rows_in(files(store, "buckets")) == len(ALL) - SHARD
    assert len(files(store, "damaged")) == 1
    assert store.missing(answers.ids(ALL)).sum() == SHARD


DYING = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path

from tasks.label_store import compaction as label_compaction
from tasks.label_store.store import LabelStore, TeacherKey

full, copies, key = Path(sys.argv[1]), Path(sys.argv[2]), TeacherKey.model_validate_json(sys.argv[3])
label_compaction.MOST_FRESH, label_compaction.MOST_FILES = 2, 1
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
    """A compaction that moves and merges, killed before and after each of its steps; the next one tidies up."""
    monkeypatch.setattr(compaction, "MOST_FRESH", 2)
    numbers = [n for n in range(400) if answers.ids([n])[0].as_py()[0] < 0x20][:36]  # two buckets: fewer steps
    for start in range(0, 36, 6):
        commit(store, answers, numbers[start : start + 6])
        if start == 12:
            store.compact()  # so that the last three shards merge with the first
    monkeypatch.setattr(compaction, "MOST_FRESH", -1)
    assert (len(files(store, "fresh")), len(files(store, "buckets"))) == (3, 2)
    (copies := tmp_path / "copies").mkdir()
    command = [sys.executable, "-c", DYING, str(store.folder.parent), str(copies), TEACHER.model_dump_json()]
    subprocess.run(command, check=True)
    found = [LabelStore(root, TEACHER) for root in copies.iterdir()]
    assert len(found) > 2 * (2 + 3 + 2)  # renames, deleted shards, deleted buckets
    assert {len(files(killed, "fresh")) for killed in found} == {0, 1, 2, 3}
    monkeypatch.setattr(compaction, "MOST_FILES", 1)
    for killed in found:
        assert all_there(killed, answers, numbers)
        killed.compact()
        assert (files(killed, "fresh"), rows_in(files(killed, "buckets"))) == ([], len(numbers))
        assert all_there(killed, answers, numbers)


def test_a_full_disk_loses_nothing(store, answers, monkeypatch) -> None:
    fill(store, answers)
    whole = pa.ipc.new_file
    calls = iter(range(100))

    def full_after_five(*arguments: Any) -> Any:
        if next(calls) >= 5:
            raise OSError(28, "No space left on device")
        return whole(*arguments)

    monkeypatch.setattr(pa.ipc, "new_file", full_after_five)
    with pytest.raises(OSError, match="No space left"):
        store.compact()
    monkeypatch.undo()
    assert len(files(store, "fresh")) == SHARDS
    assert len(files(store, "buckets")) == 5
    assert all_there(store, answers)
    store.compact()
    assert rows_in(files(store, "buckets")) == len(ALL)
    assert all_there(store, answers)


def test_a_flipped_byte_is_not_written_again_under_a_new_digest(store, answers, monkeypatch) -> None:
    """Even when its stamp still fits, as after an error of the disk."""
    monkeypatch.setattr("tasks.store.stamps.stamp_of", lambda path: [1])
    monkeypatch.setattr("tasks.label_store.files.stamp_of", lambda path: [1])
    fill(store, answers)
    path = files(store, "fresh")[0]
    lost = pa.ipc.open_file(path.read_bytes()).read_all().column("id")
    data = bytearray(path.read_bytes())
    data[data.index(lost[0].as_py()) + 3] ^= 1
    path.write_bytes(data)
    store.compact()
    assert store.missing(answers.ids(ALL)).sum() == SHARD
