"""Shards in threads and on a real Dask cluster: a worker that is killed, a run that is interrupted, the GPU limit."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName

from tasks.errors import DistillError, UserError
from tasks.labelling import gpu_limit
from tasks.labelling.gpu_limit import GPU_LIMIT, ensure_gpu_limit, gpu_slot
from tasks.labelling.task_runner import run_shards, started
from tasks.progress.labelling import LabelProgress
from tasks.runners.cancellation import end_running
from tasks.settings import Settings

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]

SHARDS = '''
import os
import time
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from containers.processes import child_process
from tasks.errors import UserError
from tasks.labelling.gpu_limit import gpu_slot
from tasks.runners.cancellation import endable, of_run


def note(folder, what, number):
    with (Path(folder) / what).open("a") as file:
        file.write(f"{number} {os.getpid()}\\n")


@task(name="label", cache_policy=NO_CACHE, persist_result=False)
def shard(number, folder, seconds, run_id):
    """A child process that sleeps, as a step that labels."""
    note(folder, "begun", number)
    if seconds < 0:
        raise UserError(f"shard {number} is bad")
    with (
        of_run(run_id),
        child_process(["sleep", str(seconds)], os.environ) as child,
        endable(child.end),
    ):
        note(folder, f"child-{child.pid}", number)
        child.wait()
    note(folder, "ended", number)
    return number


@task(name="label on a GPU", cache_policy=NO_CACHE, persist_result=False)
def gpu_shard(number, folder, seconds, settings):
    with gpu_slot(settings, "cuda"):
        inside = Path(folder) / f"inside-{number}"
        inside.touch()
        note(folder, f"together-{len(list(Path(folder).glob('inside-*')))}", number)
        time.sleep(seconds)
        inside.unlink()
    return number
'''


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module with tasks that workers can import as well."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "shards_under_test.py").write_text(SHARDS)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("shards_under_test")
    sys.path.remove(str(folder))


class Cluster:
    """A Dask scheduler and two workers of one thread each, as processes of their own."""

    def __init__(self, modules: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        places = os.pathsep.join([str(REPOSITORY), str(modules)])
        self._environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        self._log = log
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard")
        self.workers = [self._start("worker", self.address, *options) for _ in range(2)]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with self._log.open("a") as out:
            command = [sys.executable, "-m", "dask", *words]
            return subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(shards: ModuleType, tmp_path: Path) -> Iterator[Cluster]:
    assert shards.__file__
    made = Cluster(Path(shards.__file__).parent, tmp_path / "dask.log")
    yield made
    made.close()


def noted(folder: Path, what: str) -> list[int]:
    """The numbers of the shards that noted this, in order."""
    path = folder / what
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def labelled(
    task: Any,
    given: list[dict[str, Any]],
    settings: Settings,
    tick: Callable[[], object] = lambda: None,
    name: str = "labelling",
) -> list[Any]:
    """What `run_shards` returns inside of a flow run of that name."""
    run_id = next((str(one["run_id"]) for one in given if "run_id" in one), "")

    @flow(flow_run_name=name, persist_result=False)
    def labelling() -> list[Any]:
        names = [f"shard {one['number']}" for one in given]
        end = partial(end_running, run_id)
        with started(settings) as runner:
            return run_shards(
                runner, task, given, names, tick=tick, fatal=lambda error: isinstance(error, UserError), end=end
            )

    return labelling()


def sleepers(count: int, folder: Path, seconds: float) -> list[dict[str, Any]]:
    run_id = uuid4().hex
    return [{"number": number, "folder": str(folder), "seconds": seconds, "run_id": run_id} for number in range(count)]


def on(cluster: Cluster | None, at_once: int = 2) -> Settings:
    return Settings(shards_at_once=at_once, dask_address=cluster.address if cluster else None)


@pytest.fixture(params=["threads", "dask"])
def place(request: pytest.FixtureRequest) -> Cluster | None:
    """Both ways to run shards."""
    return request.getfixturevalue("cluster") if request.param == "dask" else None


def test_results_come_in_order_with_the_errors_among_them(
    shards: ModuleType, place: Cluster | None, tmp_path: Path
) -> None:
    given = sleepers(4, tmp_path, 0.1)
    given[3]["seconds"] = -1
    *results, error = labelled(shards.shard, given, on(place))
    assert results == [0, 1, 2]
    assert isinstance(error, UserError)
    assert str(error) == "shard 3 is bad"


def test_after_a_fatal_error_no_other_shard_begins(shards: ModuleType, place: Cluster | None, tmp_path: Path) -> None:
    given = sleepers(20, tmp_path, 0.5)
    given[0]["seconds"] = -1
    results = labelled(shards.shard, given, on(place))
    begun = set(noted(tmp_path, "begun"))
    assert isinstance(results[0], UserError)
    assert len(begun) < 8
    assert results[1:] == [number if number in begun else None for number in range(1, 20)]


def test_the_waiting_thread_ticks_once_a_second(shards: ModuleType, tmp_path: Path) -> None:
    ticks: list[float] = []
    started = time.monotonic()
    labelled(shards.shard, sleepers(6, tmp_path, 0.5), on(None, 1), lambda: ticks.append(time.monotonic()))
    assert 2 <= len(ticks) <= time.monotonic() - started


def test_a_killed_worker_s_shard_runs_again_and_no_other(
    shards: ModuleType, cluster: Cluster, tmp_path: Path, until: Callable[..., None]
) -> None:
    def kill_one() -> None:
        """When both workers have given a result and are at their next shard."""
        until(lambda: len(noted(tmp_path, "ended")) >= 2 and len(noted(tmp_path, "begun")) >= 4, 120)
        cluster.workers[0].kill()

    killer, name = threading.Thread(target=kill_one), f"killed-{uuid4().hex}"
    killer.start()
    assert labelled(shards.shard, sleepers(8, tmp_path, 2.0), on(cluster), name=name) == list(range(8))
    killer.join()
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert sorted(noted(tmp_path, "ended")) == list(range(8)), "labelled once, none lost"
    again = Counter(noted(tmp_path, "begun"))
    assert sorted(again.values()) == [1] * 7 + [2], again
    until(lambda: states(name) == [(f"shard {number}", "Completed") for number in range(8)], 60)


def states(flow_run: str) -> list[tuple[str, str | None]]:
    """The task runs that Prefect shows under a flow run."""
    with get_client(sync_client=True) as client:
        mine = FlowRunFilter(name=FlowRunFilterName(any_=[flow_run]))
        return sorted((run.name, run.state_name) for run in client.read_task_runs(flow_run_filter=mine))


def test_a_lost_scheduler_is_told_and_nothing_hangs(
    shards: ModuleType, cluster: Cluster, tmp_path: Path, until: Callable[..., None]
) -> None:
    killer = threading.Thread(target=lambda: (until(lambda: noted(tmp_path, "begun"), 120), cluster.scheduler.kill()))
    killer.start()
    results = labelled(shards.shard, sleepers(3, tmp_path, 3.0), on(cluster))
    assert [type(result) for result in results] == [DistillError] * 3
    assert "the Dask cluster was lost" in str(results[0])


def test_options_that_a_cluster_does_not_take_are_the_user_s_error(shards: ModuleType, tmp_path: Path) -> None:
    settings = Settings(dask_cluster="distributed.LocalCluster", dask_cluster_options={"wrokers": 2})
    with pytest.raises(UserError, match=r"DISTILL_DASK_CLUSTER_OPTIONS.*wrokers"):
        labelled(shards.shard, sleepers(1, tmp_path, 0.1), settings)


def test_a_server_that_workers_do_not_see_is_told(
    shards: ModuleType, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of the flow's host alone is, for the workers of others, an address where nobody answers."""
    monkeypatch.setattr(SyncPrefectClient, "api_url", "http://127.0.0.1:9/api")
    (error,) = labelled(shards.shard, sleepers(1, tmp_path, 0.1), on(cluster))
    assert isinstance(error, UserError)
    assert "set PREFECT_API_URL" in str(error)


def test_an_interrupted_run_ends_its_shards_at_once(
    shards: ModuleType, place: Cluster | None, tmp_path: Path, until: Callable[..., None]
) -> None:
    interrupted: list[float] = []

    def interrupt() -> None:
        until(lambda: len(list(tmp_path.glob("child-*"))) == 2, 120)
        interrupted.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = threading.Thread(target=interrupt)
    waiting.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            labelled(shards.shard, sleepers(6, tmp_path, 60), on(place))
    finally:
        signal.signal(signal.SIGINT, before)
        waiting.join()
    assert time.monotonic() - interrupted[0] < 10
    assert noted(tmp_path, "ended") == []
    for child in tmp_path.glob("child-*"):
        until(lambda pid=child.name[6:]: not Path(f"/proc/{pid}").exists(), 15)
    assert len(noted(tmp_path, "begun")) == 2, "those that waited did not begin"


def gpu_shards(count: int, folder: Path, settings: Settings) -> list[dict[str, Any]]:
    return [{"number": number, "folder": str(folder), "seconds": 1.0, "settings": settings} for number in range(count)]


def test_no_more_shards_than_allowed_are_on_gpus(shards: ModuleType, tmp_path: Path) -> None:
    settings = Settings(shards_at_once=4, gpu_shards=2)
    ensure_gpu_limit(settings, "cuda")
    assert labelled(shards.gpu_shard, gpu_shards(6, tmp_path, settings), settings) == list(range(6))
    assert {path.name for path in tmp_path.glob("together-*")} == {"together-1", "together-2"}
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots == 0


def test_the_limit_follows_the_settings() -> None:
    for number in (3, 1):
        ensure_gpu_limit(Settings(gpu_shards=number), "cuda")
        ensure_gpu_limit(Settings(), "cuda")
        ensure_gpu_limit(Settings(gpu_shards=9), "cpu")
        with get_client(sync_client=True) as client:
            assert client.read_global_concurrency_limit_by_name(GPU_LIMIT).limit == number


@pytest.fixture
def temporary_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows see the session's server as one of a single command; such servers share a database as runs do here."""

    def client_of_a_temporary_server(**options: Any) -> SyncPrefectClient:
        client: SyncPrefectClient = get_client(sync_client=True)
        client.server_type = ServerType.EPHEMERAL
        return client

    monkeypatch.setattr(gpu_limit, "get_client", client_of_a_temporary_server)


def slots_held() -> list[tuple[int, int]]:
    """Held slots and limit of every GPU limit of which a slot is held."""
    with get_client(sync_client=True) as client:
        limits = client.read_global_concurrency_limits(limit=200)
    ours = [limit for limit in limits if limit.name.startswith(GPU_LIMIT) and limit.active_slots]
    return sorted((limit.active_slots, limit.limit) for limit in ours)


def test_runs_with_servers_of_their_own_leave_one_another_s_limit_alone(temporary_servers: None) -> None:
    held = []

    @flow(persist_result=False)
    def run(limit: int, then: Callable[[], object]) -> None:
        settings = Settings(gpu_shards=limit)
        ensure_gpu_limit(settings, "cuda")
        with gpu_slot(settings, "cuda"):
            then()
            held.append(slots_held())

    run(1, lambda: run(2, lambda: None))
    assert held == [[(1, 1), (1, 2)], [(1, 1)]]
    assert slots_held() == []


def test_workers_keep_the_limit_of_a_server_of_the_run_s_own(
    shards: ModuleType, cluster: Cluster, tmp_path: Path, temporary_servers: None
) -> None:
    """For a worker it is a server like any other."""
    settings = Settings(shards_at_once=2, gpu_shards=1, dask_address=cluster.address)
    given = gpu_shards(4, tmp_path, settings)

    @flow(persist_result=False)
    def labelling() -> list[Any]:
        ensure_gpu_limit(settings, "cuda")
        with started(settings) as runner:
            names = [f"shard {one['number']}" for one in given]
            return run_shards(
                runner, shards.gpu_shard, given, names, tick=bool, fatal=lambda error: True, end=partial(bool)
            )

    assert labelling() == list(range(4))
    assert {path.name for path in tmp_path.glob("together-*")} == {"together-1"}


def test_progress_is_an_artifact_of_the_run(shards: ModuleType, tmp_path: Path) -> None:
    class Shard:
        progress, structures, atoms = tmp_path / "1.progress", 10, 100

    @flow(persist_result=False)
    def labelling() -> str:
        from prefect.runtime import flow_run

        with LabelProgress([Shard()]) as progress:
            progress.tick()
            progress.ended(Shard())
        return str(flow_run.id)

    run = labelling()
    with get_client(sync_client=True) as client:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        (artifact,) = client.read_artifacts(artifact_filter=mine)
    assert (artifact.key, artifact.type, artifact.data) == ("labelling", "progress", 100.0)
    assert artifact.description == "10 structures, 100 atoms"
