from __future__ import annotations

import json
import logging
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from containers.labels.rows import LabelRows
from tasks.errors import StoreError
from tasks.label_store import files as label_files
from tasks.label_store.store import LabelStore, MachineSpeed, TeacherKey
from tasks.store import stamps

TEACHER = TeacherKey(model="ab" * 32, head="Default", dtype="float32", version=2, stub=False)


def again(store: LabelStore, verify: bool = False) -> LabelStore:
    """The same store as another run sees it."""
    return LabelStore(store.folder.parent, TEACHER, verify)


def commit(store: LabelStore, answers: Any, numbers: Any) -> int:
    return store.commit(answers.file(numbers), answers.ids(numbers), answers.atoms(numbers))


def fresh(store: LabelStore) -> list[Path]:
    return sorted((store.folder / "fresh").iterdir())


def test_what_is_committed_is_no_longer_missing(store: LabelStore, answers) -> None:
    assert store.missing(answers.ids(range(20))).all()
    assert not store.folder.exists()  # to ask changes nothing
    assert commit(store, answers, range(15)) == 15
    np.testing.assert_array_equal(store.missing(answers.ids(range(20))), np.arange(20) >= 15)
    assert store.missing(pa.array(answers.ids([14, 15, 16])).slice(1)).tolist() == [True, True]
    commit(store, answers, [*range(5, 15), *range(5)])
    assert len(fresh(store)) == 1, "another order of the same rows is the same file"
    with again(store).reading() as paths:
        assert LabelRows(paths).take(answers.ids([8, 7, 3])).equals(answers.rows([8, 7, 3]))


def test_rows_that_the_step_set_aside_stay_missing(store: LabelStore, answers) -> None:
    aside = dict.fromkeys((i.hex() for i in answers.ids([0, 3, 4]).to_pylist()), "too large")
    assert store.commit(answers.file([1, 2]), answers.ids(range(5)), answers.atoms(range(5)), aside) == 2
    assert store.missing(answers.ids(range(5))).tolist() == [True, False, False, True, True]
    first = dict(list(aside.items())[:1])
    assert store.commit(answers.file([]), answers.ids([0]), answers.atoms([0]), first) == 0
    assert len(fresh(store)) == 1


def test_a_spoilt_shard_and_a_work_root_that_cannot_be_written(store: LabelStore, answers, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"row 0 \(from 0\)"):
        store.commit(answers.file([1]), answers.ids([2]), answers.atoms([2]))
    assert not store.folder.exists()
    (tmp_path / "labels").write_text("in the way")
    with pytest.raises(StoreError, match="--work-root"):
        commit(LabelStore(tmp_path / "labels", TEACHER), answers, [1])


@pytest.mark.parametrize(("answered", "aside"), [([1, 2], []), ([1, 2], [2]), ([1], [0, 1]), ([], [])])
def test_nothing_is_kept_where_a_structure_has_two_answers_or_none(store, answers, answered, aside) -> None:
    """Even where the sums fit."""
    reasons = dict.fromkeys((i.hex() for i in answers.ids(aside).to_pylist()), "too large")
    with pytest.raises(StoreError, match=r"structure [0-9a-f]{64} has"):
        store.commit(answers.file(answered), answers.ids(range(3)), answers.atoms(range(3)), reasons)
    assert not store.folder.exists()


def test_every_part_of_the_teacher_is_another_store(tmp_path: Path, store: LabelStore, answers) -> None:
    commit(store, answers, [1])
    others = [{"model": "cd" * 32}, {"head": "PBE"}, {"dtype": "float64"}, {"version": 3}, {"stub": True}]
    for change in others:
        other = LabelStore(tmp_path / "labels", TEACHER.model_copy(update=change))
        assert other.missing(answers.ids([1])).all()
    assert json.loads((store.folder / "teacher.json").read_text()) == TEACHER.model_dump()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_kept_aside_and_its_structures_are_missing(store, answers, caplog, damage) -> None:
    commit(store, answers, [1, 2])
    kept = fresh(store)
    commit(store, answers, [3, 4])
    (path,) = set(fresh(store)) - set(kept)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert again(store).missing(answers.ids([1, 2, 3, 4])).tolist() == [False, False, True, True]
    assert path.name in caplog.text
    assert "labelled again" in caplog.text
    assert [aside.name.split("-")[-1] for aside in (store.folder / "damaged").iterdir()] == [path.name]
    commit(store, answers, [3, 4])
    assert not store.missing(answers.ids([1, 2, 3, 4])).any()


def test_a_file_of_the_same_size_and_times_is_found_out_with_verify(store, answers, monkeypatch) -> None:
    commit(store, answers, [1])
    monkeypatch.setattr(stamps, "stamp_of", lambda path: [1])  # as after a bit that flipped on the disk
    monkeypatch.setattr(label_files, "stamp_of", lambda path: [1])
    assert not again(store, verify=True).missing(answers.ids([1])).any()  # stamps it
    path = fresh(store)[0]
    path.write_bytes(path.read_bytes().replace(struct.pack("d", 1 / 3), struct.pack("d", 0.33)))
    assert not again(store).missing(answers.ids([1])).any()
    assert again(store, verify=True).missing(answers.ids([1])).all()
    # a trusted file that cannot be opened is kept aside
    commit(store, answers, [1])
    truncate(fresh(store)[0])
    assert again(store).missing(answers.ids([1])).all()
    assert fresh(store) == []


def test_digests_are_compared_once(store, answers, monkeypatch) -> None:
    digests: list[Path] = []
    whole = label_files.file_digest
    monkeypatch.setattr(label_files, "file_digest", lambda path: [digests.append(path), whole(path)][1])
    commit(store, answers, [1])
    digests.clear()
    assert not again(store).missing(answers.ids([1])).any()
    assert digests == []  # the commit left its stamp
    (store.folder / "stamps.json").write_text("lost")
    assert not again(store).missing(answers.ids([1])).any()
    assert not again(store).missing(answers.ids([1])).any()
    assert digests == fresh(store)
    verifying = again(store, verify=True)
    verifying.missing(answers.ids([1]))
    verifying.missing(answers.ids([1]))
    assert digests == 2 * fresh(store)


def test_a_copied_store_is_valid_and_what_a_killed_commit_had_begun_is_no_label(store, answers, tmp_path) -> None:
    commit(store, answers, [1])
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    assert not LabelStore(tmp_path / "elsewhere", TEACHER).missing(answers.ids([1])).any()
    store = LabelStore(tmp_path / "elsewhere", TEACHER)
    (store.folder / "fresh" / ".begun").write_bytes(fresh(store)[0].read_bytes()[:500])
    assert store.missing(answers.ids([1, 2])).tolist() == [False, True]


def test_commits_of_many_threads_all_arrive(store, answers) -> None:
    shards = [range(10 * n, 10 * n + 10) for n in range(12)]
    files = [answers.file(shard) for shard in shards]
    work = [
        threading.Thread(target=store.commit, args=(file, answers.ids(shard), answers.atoms(shard)))
        for file, shard in zip(files, shards, strict=True)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert not again(store).missing(answers.ids(range(120))).any()


def test_a_commit_whose_rows_another_run_moves_at_once_is_done(store, answers, monkeypatch) -> None:
    """As a compaction does as soon as the file has its name, which no lock keeps it from."""
    named = Path.replace

    def named_and_moved(path: Path, to: Path) -> Path:
        moved = named(path, to)
        if to.parent.name == "fresh":
            (store.folder / "buckets").mkdir()
            to.rename(store.folder / "buckets" / f"a-{to.name}")
        return moved

    monkeypatch.setattr(Path, "replace", named_and_moved)
    assert commit(store, answers, [1, 2]) == 2
    assert fresh(store) == []
    assert not again(store).missing(answers.ids([1, 2])).any()


def test_a_file_gets_its_name_when_the_disk_has_its_content(store, answers, monkeypatch) -> None:
    done: list[str] = []
    synced, named = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(f"synced {place.relative_to(store.folder).parts[0]} {'whole' if place.is_dir() else 'file'}")
        synced(descriptor)

    def noted_name(path: Path, to: Path) -> Path:
        done.append(f"named {to.relative_to(store.folder).parts[0]}")
        return named(path, to)

    store.make()
    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_name)
    commit(store, answers, [1, 2])
    assert done[:3] == ["synced fresh file", "named fresh", "synced fresh whole"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from tasks.label_store.store import LabelStore, TeacherKey

root, parquet, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
store = LabelStore(root, TeacherKey.model_validate_json(sys.argv[4]))
table = pq.read_table(parquet)
ids = pa.concat_arrays(table.column("id").chunks)
atoms = np.array([len(forces or ()) // 3 or 1 for forces in table.column("forces").to_pylist()])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    store.commit(parquet, ids, atoms)
except OSError as error:
    sys.exit(f"told: {error.strerror}")
"""


def test_a_full_disk_ends_the_commit_and_leaves_nothing_half_written(store, answers, tmp_path) -> None:
    commit(store, answers, [1, 2])
    before = fresh(store)
    parquet, numbers = answers.file(range(100, 900)), range(100, 900)
    command = [sys.executable, "-c", FULL_DISK, str(store.folder.parent), str(parquet)]
    full = subprocess.run([*command, "20000", TEACHER.model_dump_json()], capture_output=True, text=True)
    assert "told: File too large" in full.stderr
    assert fresh(store) == before
    assert again(store).missing(answers.ids(numbers)).all()
    assert not again(store).missing(answers.ids([1, 2])).any()
    subprocess.run([*command, "10000000", TEACHER.model_dump_json()], check=True)
    assert not again(store).missing(answers.ids(numbers)).any()


def test_a_calibration_is_kept_for_each_machine(store: LabelStore) -> None:
    assert store.calibration("here") is None
    here = MachineSpeed(edges_per_batch=8000, edges_per_s=1e5, throughput={"8000": 1e5})
    there = here.model_copy(update={"edges_per_batch": 64_000})
    store.keep_calibration("here", there)
    store.keep_calibration("there", there)
    store.keep_calibration("here", here)
    assert (again(store).calibration("here"), again(store).calibration("there")) == (here, there)
    (store.folder / "calibration.json").write_text('{"here": {"edges_per_batch": -1}}')
    assert store.calibration("here") is None
    store.keep_calibration("here", here)
    assert store.calibration("here") == here
