"""One Prefect test server for these tests with a home of its own, and one `make ui` for the tests of deployments."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ase.io
import docker
import httpx
import pytest
from docker.models.containers import Container

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
TEACHER = {"model": str(EXAMPLE / "teacher.model"), "dtype": "float64"}
RUN = "mace-to-ace.run"  # label of a step's container
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
START_S = 240
BUSY_S = 60


@pytest.fixture(scope="package", autouse=True)
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prefect's own harness; its home is set here so that nothing of the user's is touched."""
    home = tmp_path_factory.mktemp("prefect")
    before = dict(os.environ)
    os.environ.update(PREFECT_HOME=str(home), PREFECT_SERVER_ANALYTICS_ENABLED="false", DISTILL_RUNNER="stub")
    from prefect.testing.utilities import prefect_test_harness

    try:
        with prefect_test_harness(server_startup_timeout=120):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def example() -> Path:
    """The bundled example's config."""
    return EXAMPLE / "distill.yaml"


def wait_until(done: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.3)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], float], None]:
    """Wait for something, for so many seconds at most."""
    return wait_until


class Containers:
    """What the engine holds of ours."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    def of(self, run: str) -> list[Container]:
        """The step containers of a run, running or not."""
        return self.client.containers.list(all=True, filters={"label": f"{RUN}={run}"}, ignore_removed=True)

    def started_by(self, pid: int) -> list[Container]:
        """The running step containers of a process of this machine."""
        only = {"label": [RUN, f"mace-to-ace.pid={pid}"], "status": "running"}
        return self.client.containers.list(filters=only, ignore_removed=True)

    @contextlib.contextmanager
    def bystander(self, labels: dict[str, str]) -> Iterator[Container]:
        """A container that is none of the tested run's and must outlive it."""
        made = self.client.containers.create("mace-to-ace/worker:cpu", ["sleep", "600"], labels=labels, init=True)
        try:
            made.start()
            yield made
        finally:
            made.remove(force=True)


@pytest.fixture(scope="session")
def containers() -> Iterator[Containers]:
    """The engine's containers; an error when there is no engine."""
    client = docker.from_env()
    yield Containers(client)
    client.close()


class Prefect:
    """A server's API, as the UI uses it."""

    def __init__(self, url: str, environment: dict[str, str], console: Path | None = None) -> None:
        self.url = url
        self.console = console  # what server, worker and runs print
        self.environment = {**environment, "PREFECT_API_URL": url}
        self.client = httpx.Client(base_url=url, timeout=30)

    def get(self, path: str) -> Any:
        return self._answer("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **more: Any) -> Any:
        """Asked again while the server says 503: its word for a database that is busy just now, which took nothing."""
        deadline = time.monotonic() + BUSY_S
        while (response := self.client.request(method, path, **more)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            if time.monotonic() > deadline:
                break
            time.sleep(0.3)
        return response.raise_for_status().json()

    def deployment(self, name: str) -> dict[str, Any]:
        return self.get(f"/deployments/name/distill/{name}")

    def start(self, config: dict[str, Any], root: Path, **job_variables: object) -> str:
        """A run of the deployment `manual` with keys of its config changed; its id."""
        deployment = self.deployment("manual")
        parameters = {"config": {**deployment["parameters"]["config"], **config}, "work_root": str(root)}
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "job_variables": job_variables}
        return self.post(f"/deployments/{deployment['id']}/create_flow_run", body)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.get(f"/flow_runs/{run}")["state"]

    def end(self, run: str, seconds: float) -> dict[str, Any]:
        """The state that a run ended in."""
        wait_until(lambda: self.state(run)["type"] in ENDED, seconds)
        return self.state(run)

    def log(self, run: str) -> str:
        logs = self.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
        return "\n".join(line["message"] for line in logs)


@pytest.fixture(scope="session")
def prefect_at() -> type[Prefect]:
    """To speak with a server that a test started itself."""
    return Prefect


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server that `deployments/ui.py` started, with its worker and deployments."""
    home = tmp_path_factory.mktemp("ui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DISTILL_CORES": "1",
    }
    log = home / "ui.log"
    with log.open("w") as out:
        command = [sys.executable, "deployments/ui.py", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_until(lambda: "Ready: http://127.0.0.1" in log.read_text() or process.poll() is not None, START_S)
            assert process.poll() is None, log.read_text()
            yield Prefect(f"http://127.0.0.1:{port}/api", environment, log)
        finally:
            process.terminate()
            process.wait(timeout=90)
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server outlived `make ui`"


@pytest.fixture(scope="session")
def slow_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool that takes minutes to label: 400 rattled cells of silicon with 216 atoms."""
    from ase.build import bulk

    folder = tmp_path_factory.mktemp("slow")
    cells = []
    for seed in range(400):
        cells.append(bulk("Si", cubic=True) * (3, 3, 3))
        cells[-1].rattle(0.05, seed=seed)
        cells[-1].info["family"] = f"cell {seed}"  # else all would be copies of one, on one side
    ase.io.write(folder / "slow.extxyz", cells)
    return folder / "slow.extxyz"


@pytest.fixture(scope="session")
def slow(slow_pool: Path) -> dict[str, Any]:
    """Config keys of a run whose labelling takes minutes."""
    return {"name": "slow", "teacher": TEACHER, "pool": {"files": [str(slow_pool)]}}


@pytest.fixture(scope="session")
def tiny() -> Callable[[Path], dict[str, Any]]:
    """Config keys of a run of seconds with the real tools, its inputs put into a folder."""

    def written(folder: Path) -> dict[str, Any]:
        ase.io.write(folder / "pool.extxyz", ase.io.read(EXAMPLE / "pool.extxyz", ":90"))
        (folder / "teacher.model").write_bytes((EXAMPLE / "teacher.model").read_bytes())
        return {
            "name": "tiny",
            "teacher": {"model": str(folder / "teacher.model"), "head": None, "dtype": "float32"},
            "pool": {"files": [str(folder / "pool.extxyz")]},
            "pacemaker": {"functions_per_element": 15, "b_basis": "small"},
            "selection": {"max_structures": 40},
            "train": {"maxiter": 8, "max_attempts": 1, "threads": 1},
            "properties": {"from_pool": 0},
            "trajectory": {"picoseconds": 0},
            "convergence": {"force_mae_meV_per_A": 100000, "energy_mae_meV_per_atom": 100000},
        }

    return written


@pytest.fixture(scope="session")
def labelling_module() -> ModuleType:
    """labelling_run.py, imported."""
    spec = importlib.util.spec_from_file_location("labelling_run", Path(__file__).with_name("labelling_run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def labelling_bench(labelling_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A work root to label in, on one core: `Bench` of labelling_run.py."""
    monkeypatch.setenv("DISTILL_CORES", "1")
    monkeypatch.setenv("DISTILL_SHARD_S", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return labelling_module.Bench(tmp_path)
