"""The whole label phase with the real teacher on Dask: a killed worker, a cluster made for the run, a queue's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prefect import flow

from containers.structures import list_lengths
from flows import calls
from flows.config import DistillConfig
from flows.distill import elements_in, read_teacher
from flows.label import label
from flows.recipe import resolve
from tasks.artefact import Artefact, external
from tasks.label_store import Calibration, LabelStore
from tasks.settings import Settings
from tasks.steps import step
from tasks.task_runner import task_runner
from tasks.workspace import open_workspace

pytestmark = [pytest.mark.integration, pytest.mark.e2e]
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
LOCAL = {"dask_cluster": "distributed.LocalCluster", "dask_cluster_options": {"n_workers": 2}}
SPEED = Calibration(edges_per_batch=8000, edges_per_s=1000.0, edges_per_atom=50.0)
"""Of a machine so slow that a small pool makes many shards."""
STRUCTURES, SHARDS = 120, 10


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.extxyz"
    ase.io.write(path, ase.io.read(EXAMPLE / "pool.extxyz", f":{STRUCTURES}"))
    return path


class Run:
    """One label phase in a work root of its own."""

    def __init__(self, pool: Path, root: Path, **settings: Any) -> None:
        self.pool, self.root = pool, root
        self.settings = Settings(runner="subprocess", cores=1, **settings)
        self.store: LabelStore | None = None
        self.workspace = open_workspace(root, self.settings)

    def label(self, known: Calibration | None = None) -> tuple[Artefact, int]:
        """The labels of the pool, and how many were computed. `known` is what is believed of the cluster's speed."""

        @flow(name="labelling", persist_result=False)
        def labelling() -> tuple[Artefact, int]:
            teacher = {"model": str(EXAMPLE / "teacher.model"), "dtype": "float64"}
            pool = {"files": [str(self.pool)]}
            config = DistillConfig.model_validate({"name": "dask", "teacher": teacher, "pool": pool})
            model = external(EXAMPLE / "teacher.model")
            structures = step(calls.ingest_call((external(self.pool),)), self.workspace)
            found = read_teacher(step(calls.teacher_call(model), self.workspace), self.workspace)
            recipe = resolve(config, [found], elements_in(structures), set())
            asked = calls.asked(recipe, model, found)
            self.store = asked.store(self.workspace)
            if known:
                self.store.keep_calibration(self.settings.dask_address or self.settings.dask_cluster or "", known)
            labels, work = label(recipe, structures, [asked], self.workspace)
            return labels, work.computed

        return labelling()

    def stored_ids(self) -> list[bytes]:
        """The id of every row in every file of the label store."""
        rows: list[bytes] = []
        for path in sorted((self.root / "store" / "labels").glob("*/*/*.arrow")):
            with pa.memory_map(str(path)) as source:
                rows += pa.ipc.open_file(source).read_all()["id"].to_pylist()
        return rows

    def committed(self) -> int:
        """Shards whose labels are in the store."""
        return len(list((self.root / "store" / "labels").glob("*/fresh/*.arrow")))

    def read(self, labels: Artefact) -> pa.Table:
        return pq.read_table(self.workspace.store.path(labels.file("labels")))


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Artefact, int]:
    """A run on a cluster that is made for it."""
    run = Run(pool, tmp_path_factory.mktemp("undisturbed"), **LOCAL)
    return (run, *run.label())


def test_a_cluster_made_for_the_run_labels_the_pool(undisturbed: tuple[Run, Artefact, int]) -> None:
    run, labels, computed = undisturbed
    assert computed == STRUCTURES
    assert len(run.read(labels)) == STRUCTURES
    assert len(set(run.stored_ids())) == len(run.stored_ids()) == STRUCTURES


def test_the_speed_of_a_cluster_is_kept_for_the_next_run(undisturbed: tuple[Run, Artefact, int]) -> None:
    run, *_ = undisturbed
    assert run.store
    kept = run.store.calibration("distributed.LocalCluster")
    assert kept is not None
    assert kept.edges_per_s > 0


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
    """Kills the first worker while it labels, when two shards are in the store; `killed` are its children."""

    def __init__(self, run: Run, cluster: Cluster, until: Callable[..., None]) -> None:
        super().__init__()
        self.cluster, self.until = cluster, until
        self.run_ = run
        self.killed: list[int] = []
        self.committed = 0

    def run(self) -> None:
        worker = self.cluster.workers[0]

        def labelling() -> bool:
            self.killed = crew(worker.pid) if self.run_.committed() >= 2 else []
            return bool(self.killed)

        self.until(labelling, 300)
        self.committed = self.run_.committed()
        worker.send_signal(signal.SIGKILL)


def test_a_killed_worker_loses_nothing_and_nothing_is_labelled_twice(
    pool: Path,
    undisturbed: tuple[Run, Artefact, int],
    cluster: Cluster,
    tmp_path: Path,
    until: Callable[..., None],
) -> None:
    atoms = sum(len(one) for one in ase.io.read(pool, ":"))
    shard_s = atoms * SPEED.edges_per_atom / SPEED.edges_per_s / SHARDS
    run = Run(pool, tmp_path / "root", dask_address=cluster.address, shard_s=shard_s)
    killer = Killer(run, cluster, until)
    killer.start()
    labels, computed = run.label(SPEED)
    killer.join()
    assert cluster.workers[0].wait(5) == -signal.SIGKILL
    assert 2 <= killer.committed < SHARDS, "the control: it was killed in the middle"
    assert cluster.workers[1].poll() is None
    for pid in killer.killed:
        until(lambda pid=pid: not alive(pid), 10)
    ids = run.stored_ids()
    assert len(ids) == len(set(ids)) == computed == STRUCTURES, "each labelled once, none lost"
    assert run.committed() == SHARDS
    other, reference, _ = undisturbed
    assert_same(run.read(labels), other.read(reference))


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """The same structures in the same order, energies within 1e-6 eV/atom, forces within 1e-5 eV/Å."""
    assert found["id"].to_pylist() == expected["id"].to_pylist()
    atoms = list_lengths(expected["numbers"])
    assert np.abs((found["energy"].to_numpy() - expected["energy"].to_numpy()) / atoms).max() <= 1e-6
    forces = [table["forces"].combine_chunks().flatten().to_numpy() for table in (found, expected)]
    np.testing.assert_allclose(*forces, rtol=0, atol=1e-5)


def test_a_queue_s_class_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that would be submitted; nothing is."""
    options = {
        "queue": "night",
        "cores": 4,
        "processes": 1,
        "memory": "16GB",
        "walltime": "02:00:00",
        "job_extra_directives": ["--gres=gpu:1"],
        "interface": "lo",
    }
    monkeypatch.setenv("DISTILL_DASK_CLUSTER", "dask_jobqueue.SLURMCluster")
    monkeypatch.setenv("DISTILL_DASK_CLUSTER_OPTIONS", json.dumps(options))
    runner: Any = task_runner(Settings())
    with runner.cluster_class(**runner.cluster_kwargs) as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p night", "#SBATCH --cpus-per-task=4", "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:1"):
        assert line in script
    assert "--nthreads 4" in script
