"""The whole label phase with the real teacher on Dask: a killed worker, a cluster made for the run, a queue's."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from prefect.settings import PREFECT_API_URL

from containers.contract import file_digest
from containers.mace.labelling import mace_label
from containers.structures.table import list_lengths
from tasks.label_store.store import LabelStore, MachineSpeed, TeacherKey
from tasks.labelling.shards import count_edges
from tasks.labelling.task_runner import task_runner
from tasks.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.long]
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
MODEL = EXAMPLE / "teacher.model"
SCRIPT = Path(__file__).with_name("labelling_run.py")
LOCAL = "distributed.LocalCluster"
SPEED = MachineSpeed(edges_per_batch=8000, edges_per_s=1000.0)
"""Of a machine so slow that a small pool makes many shards."""
STRUCTURES, ATOMS, SHARDS = 96, 64, 8
CUTOFF_A = 5.0  # of the teacher
KILLED_WITHIN_S = 300


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, cells = tmp_path_factory.mktemp("pool") / "pool.extxyz", []
    for seed in range(STRUCTURES):
        cells.append(bulk("Si", cubic=True).repeat(2))
        cells[-1].rattle(0.1, seed=seed)
    ase.io.write(path, cells)
    return path


class Run:
    """One label phase in a work root of its own, by a process of its own: workers cannot import a test's modules."""

    def __init__(self, pool: Path, root: Path, **settings: str) -> None:
        self.pool, self.root, self.settings = pool, root, settings
        key = TeacherKey(
            model=file_digest(MODEL),
            head="Default",
            dtype="float64",
            version=mace_label.LABEL_VERSIONS["float64"],
            stub=False,
        )
        self.store = LabelStore(root / "store" / "labels", key)

    def label(self, cluster: str) -> dict[str, Any]:
        """What `labelling_run.py` tells; what is believed of the cluster's speed makes SHARDS."""
        self.store.keep_calibration(cluster, SPEED)
        seconds = float(count_edges(ase.io.read(self.pool, ":"), CUTOFF_A).sum()) / SPEED.edges_per_s
        self.settings["DISTILL_SHARD_S"] = str(seconds / SHARDS)
        settings = {"DISTILL_RUNNER": "subprocess", "DISTILL_CORES": "1", "PYTHONPATH": str(REPOSITORY)}
        server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        config = json.dumps({"teacher": {"dtype": "float64"}})
        command = [sys.executable, str(SCRIPT), str(self.pool), str(self.root), "--config", config]
        with (self.root.parent / "log").open("w") as log:
            environment = {**os.environ, **server, **settings, **self.settings}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, timeout=600)
        assert done.returncode == 0, (self.root.parent / "log").read_text()
        return json.loads(done.stdout.splitlines()[-1])

    def stored_ids(self) -> list[bytes]:
        """The id of every row in every file of the label store."""
        rows: list[bytes] = []
        for path in sorted(self.store.folder.glob("*/*.arrow")):
            with pa.memory_map(str(path)) as source:
                rows += pa.ipc.open_file(source).read_all()["id"].to_pylist()
        return rows

    def committed(self) -> int:
        """Shards whose labels are in the store."""
        return len(list(self.store.folder.glob("fresh/*.arrow")))


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """A run on a cluster that is made for it."""
    cluster = {"DISTILL_DASK_CLUSTER": LOCAL, "DISTILL_DASK_CLUSTER_OPTIONS": '{"n_workers": 2}'}
    run = Run(pool, tmp_path_factory.mktemp("undisturbed") / "root", **cluster)
    return run, run.label(LOCAL)


def test_a_cluster_made_for_the_run_labels_the_pool(undisturbed: tuple[Run, dict[str, Any]]) -> None:
    run, done = undisturbed
    assert done["computed"] == done["metrics"]["labels"] == STRUCTURES
    assert len(set(run.stored_ids())) == len(run.stored_ids()) == STRUCTURES
    assert run.committed() == SHARDS


def test_the_speed_of_a_cluster_is_kept_for_the_next_run(undisturbed: tuple[Run, dict[str, Any]]) -> None:
    """Without it every run would begin with a shard alone, and cut the rest into the fewest shards."""
    kept = undisturbed[0].store.calibration(LOCAL)
    assert kept is not None
    assert kept.edges_per_s not in (0, SPEED.edges_per_s)


class Cluster:
    """A Dask scheduler and two workers of one thread each, as processes of their own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.address = f"tcp://127.0.0.1:{port}"
        self._log = folder / "dask.log"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        options = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers = [self._start("worker", self.address, *options) for _ in range(2)]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        with self._log.open("a") as out:
            return subprocess.Popen([sys.executable, "-m", "dask", *words], env=environment, stdout=out, stderr=out)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def children(pid: int) -> list[int]:
    """Of any of its threads."""
    found: list[int] = []
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, place.read_text().split())
    return found


def crew(worker: int) -> list[int]:
    """The step that a worker runs and the processes that label for it; none before they are there."""
    for child in children(worker):
        if "containers.step" in Path(f"/proc/{child}/cmdline").read_text() and (forked := children(child)):
            return [child, *forked]
    return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Killer(threading.Thread):
    """Kills a worker while it labels, when two shards are in the store.

    Attributes:
        killed: the step that it ran and the processes that labelled.
        committed: shards in the store when it was killed.
    """

    def __init__(self, worker: subprocess.Popen[bytes], run: Run) -> None:
        super().__init__()
        self.worker, self.labelling = worker, run
        self.killed: list[int] = []
        self.committed = 0

    def run(self) -> None:
        end = time.monotonic() + KILLED_WITHIN_S
        while not self.killed and time.monotonic() < end:
            time.sleep(0.02)  # a crew lives for a second
            self.committed = self.labelling.committed()
            self.killed = crew(self.worker.pid) if self.committed >= 2 else []
        self.worker.kill()


def test_a_killed_worker_loses_nothing_and_nothing_is_labelled_twice(
    pool: Path,
    undisturbed: tuple[Run, dict[str, Any]],
    cluster: Cluster,
    tmp_path: Path,
    until: Callable[..., None],
) -> None:
    run = Run(pool, tmp_path / "root", DISTILL_DASK_ADDRESS=cluster.address)
    killer = Killer(cluster.workers[0], run)
    killer.start()
    done = run.label(cluster.address)
    killer.join()
    assert cluster.workers[0].wait(5) == -signal.SIGKILL
    assert killer.killed, "the control: it was labelling"
    assert 2 <= killer.committed < SHARDS - 1, "the control: in the middle of the run"
    assert cluster.workers[1].poll() is None
    for pid in killer.killed:
        until(lambda pid=pid: not alive(pid), 10)
    ids = run.stored_ids()
    assert len(ids) == len(set(ids)) == done["computed"] == STRUCTURES, "each labelled once, none lost"
    assert run.committed() == SHARDS
    assert_same(pq.read_table(done["labels"]), pq.read_table(undisturbed[1]["labels"]))


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """The same structures in the same order, energies within 1e-6 eV/atom, forces within 1e-5 eV/Å."""
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    atoms = list_lengths(expected["numbers"])
    assert np.abs((found["energy"].to_numpy() - expected["energy"].to_numpy()) / atoms).max() <= 1e-6
    forces = [table["forces"].combine_chunks().flatten().to_numpy() for table in (found, expected)]
    np.testing.assert_allclose(*forces, rtol=0, atol=1e-5)


def test_a_queue_s_class_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that would be submitted with the settings of docs/use/labelling.md; nothing is."""
    page = (REPOSITORY / "docs" / "use" / "labelling.md").read_text()
    block = page[page.index("export DISTILL_DASK_CLUSTER=") :].partition("python -m")[0]
    settings = dict(word.split("=", 1) for word in shlex.split(block) if word.startswith("DISTILL_"))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    runner: Any = task_runner(Settings())
    submitted = runner.cluster_kwargs.pop("n_workers")
    with runner.cluster_class(**runner.cluster_kwargs, interface="lo") as cluster:
        script = cluster.job_script()
    assert submitted == 4
    for line in ("#SBATCH -p gpu", "#SBATCH --cpus-per-task=8", "#SBATCH -t 04:00:00", "#SBATCH --gres=gpu:1"):
        assert line in script
    assert "--nthreads 1 " in script, "one shard at a time"
