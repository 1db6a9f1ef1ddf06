from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.label_store.store import LabelStore, TeacherKey

TEACHER = TeacherKey(model="ab" * 32, head="Default", dtype="float32", version=2, stub=False)


def another(store: LabelStore) -> LabelStore:
    return LabelStore(store.folder.parent, TEACHER)


def claims_left(store: LabelStore) -> list[Path]:
    return list((store.folder / "claims").iterdir())


def test_what_one_has_claimed_is_not_another_s(store, answers) -> None:
    other = another(store)
    with store.claim(answers.ids(range(10))) as claim:
        assert (claim.mine.all(), claim.elsewhere) == (True, 0)
        with other.claim(answers.ids(range(5, 15))) as overlapping:
            np.testing.assert_array_equal(overlapping.mine, np.arange(5, 15) >= 10)
            assert overlapping.elsewhere == 5
            with store.claim(answers.ids(range(20))) as third:
                assert (int(third.mine.sum()), third.elsewhere) == (5, 15)
    with other.claim(answers.ids(range(20))) as all_of_them:
        assert (all_of_them.mine.all(), all_of_them.elsewhere) == (True, 0)


def test_what_is_stored_is_nobody_s_and_what_comes_twice_is_claimed_once(store, answers) -> None:
    store.commit(answers.file([1, 2]), answers.ids([1, 2]), answers.atoms([1, 2]))
    with store.claim(answers.ids([0, 1, 2, 3])) as claim:
        assert claim.mine.tolist() == [True, False, False, True]
        store.commit(answers.file([0]), answers.ids([0]), answers.atoms([0]))
        with another(store).claim(answers.ids([0, 1, 3])) as other:
            assert (other.mine.any(), other.elsewhere) == (False, 1)
    with store.claim(answers.ids([11, 12, 11, 11])) as claim, another(store).claim(answers.ids([12, 11, 11])) as other:
        assert claim.mine.tolist() == [True, True, False, False]
        assert other.elsewhere == 2
    with store.claim(answers.ids([])) as claim:
        assert (claim.mine.tolist(), claim.elsewhere) == ([], 0)


def test_the_folder_is_there_for_the_block_and_nothing_stays(store, answers) -> None:
    with store.claim(answers.ids([1])) as claim:
        (claim.folder / "shard-0.parquet").write_text("input")
    assert claims_left(store) == []
    with pytest.raises(KeyError), store.claim(answers.ids([1])):
        raise KeyError
    assert claims_left(store) == []
    block = store.claim(answers.ids([1]))
    block.__enter__()
    leaving = threading.Thread(target=block.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join()
    with another(store).claim(answers.ids([1])) as claim:
        assert claim.mine.all()
    with store.claim(answers.ids([1])) as claim:
        shutil.copytree(claim.folder, claim.folder.with_name("dead"))
    with store.claim(answers.ids([1])) as claim:
        assert claim.mine.all()
        assert {path.stem for path in claims_left(store)} == {claim.folder.name}


def test_a_full_disk_while_claiming_leaves_nothing(store, answers, monkeypatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"), store.claim(answers.ids([1])):
        pytest.fail("nothing was claimed")
    monkeypatch.undo()
    assert claims_left(store) == []
    with store.claim(answers.ids([1])) as claim:
        assert claim.mine.all()


def test_waiting_ends_with_the_claim_or_in_time(store, answers) -> None:
    other, begun, end = another(store), threading.Event(), threading.Event()

    def hold() -> None:
        with other.claim(answers.ids([1, 2])):
            begun.set()
            end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert begun.wait(10)
    started = time.monotonic()
    store.wait(answers.ids([3]), 10)  # nobody has it
    assert time.monotonic() - started < 5
    store.wait(answers.ids([2, 3]), 0.3)
    assert 0.3 <= time.monotonic() - started < 5
    threading.Timer(0.5, end.set).start()
    store.wait(answers.ids([2, 3]), 20)
    assert time.monotonic() - started < 10
    assert end.is_set()
    holder.join()
    started = time.monotonic()
    with store.claim(answers.ids([1])):
        store.wait(answers.ids([1]), 20)
    assert time.monotonic() - started < 10


LABELLER = """
import sys, time
from pathlib import Path
import hashlib, numpy as np, pyarrow as pa
from containers.labels.rows import ROWS
from containers.structures.table import write_table
from tasks.label_store.store import LabelStore, TeacherKey

root, log, first, last, pause = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[4:6]), float(sys.argv[6])
store = LabelStore(root, TeacherKey.model_validate_json(sys.argv[3]))
numbers = np.arange(first, last)
ids = pa.array([hashlib.sha256(str(n).encode()).digest() for n in numbers], pa.binary(32))

def label(shard, folder):
    how = {"energy": -1.0, "forces": [0.0] * 3, "device": "cpu", "acceleration": "none", "mace_version": "stub"}
    rows = [{"id": ids[int(i)].as_py(), **how} for i in shard]
    time.sleep(pause)
    with log.open("a") as file:
        file.write("".join(f"{numbers[i]}\\n" for i in shard))
    write_table(folder / f"{shard[0]}.parquet", pa.Table.from_pylist(rows, schema=ROWS))
    store.commit(folder / f"{shard[0]}.parquet", ids.take(pa.array(shard)), np.ones(len(shard), dtype=int))
    store.compact()

while store.missing(ids).any():
    with store.claim(ids) as claim:
        mine = np.flatnonzero(claim.mine)
        print("claimed", len(mine), flush=True)
        for start in range(0, len(mine), 5):
            label(mine[start : start + 5], claim.folder)
    store.wait(ids, 30)
"""


@pytest.fixture
def labeller(store, tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a run that labels the numbers from `first` to `last`, five at a time, and logs each."""

    def start(first: int, last: int, pause: float = 0.02) -> subprocess.Popen[str]:
        arguments = [store.folder.parent, tmp_path / "labelled.txt", TEACHER.model_dump_json(), first, last, pause]
        command = [sys.executable, "-c", LABELLER, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


def labelled(folder: Path) -> list[int]:
    return sorted(map(int, (folder / "labelled.txt").read_text().split()))


def test_runs_with_overlapping_pools_label_each_structure_once(store, answers, labeller, tmp_path) -> None:
    """More than the shards after which files are compacted, so that this happens meanwhile, too."""
    runs = [labeller(0, 150), labeller(100, 250), labeller(50, 200)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert labelled(tmp_path) == list(range(250))
    assert not another(store).missing(answers.ids(range(250))).any()
    assert claims_left(store) == []


def test_what_a_killed_run_had_claimed_is_taken_over(store, answers, labeller, tmp_path) -> None:
    killed = labeller(0, 100, 0.2)
    assert killed.stdout.readline() == "claimed 100\n"
    other = labeller(50, 150)
    assert other.stdout.readline() == "claimed 50\n"
    while store.missing(answers.ids(range(100))).all():
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    before = set(labelled(tmp_path))
    assert other.wait(60) == 0  # its own, and what the killed one had claimed of its pool
    assert labeller(0, 100).wait(60) == 0
    done = labelled(tmp_path)
    assert set(done) == set(range(150))
    assert len(done) - 150 <= 5  # at most the shard in flight, logged but not committed
    assert before <= set(done)
    assert claims_left(store) == []
