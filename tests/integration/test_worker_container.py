"""Server and worker in containers (`deployments/worker.sh`): the steps' containers start beside the worker's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.engine]
REPOSITORY = Path(__file__).parents[2]
UID = 12345 if os.getuid() == 0 else os.getuid()  # nobody's here, so that who owns the results is seen
START_S, RUN_S, CANCEL_S = 240, 300, 60


def owned(folder: Path) -> None:
    """Give all of a folder to the worker's user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work root of the worker's user."""
    made = tmp_path_factory.mktemp("work-root")
    owned(made)
    return made


@pytest.fixture(scope="module")
def project() -> str:
    """The name that the containers and the network of this session begin with."""
    return f"test-{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def composed(root: Path, project: str, prefect_at: Any, containers: Any, until: Any) -> Iterator[Any]:
    """Server and worker, started by the one command of the documentation; nothing is left of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_PORT": str(port),
        "WORKER_USER": f"{UID}:{UID}",
        "PROJECT": project,
        "DISTILL_CORES": "1",
    }

    def command(*words: str) -> str:
        line = [str(REPOSITORY / "deployments/worker.sh"), str(root), *words]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=START_S)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    try:
        command("up", "--detach")
        until(lambda: "Ready: http" in command("logs", "worker") or len(services(containers, project)) < 2, START_S)
        assert len(services(containers, project)) == 2, command("logs")
        yield prefect_at(f"http://127.0.0.1:{port}/api", environment)
    finally:
        command("down", "--timeout", "3")
        assert not services(containers, project)


def services(containers: Any, project: str) -> dict[str, Any]:
    """The running services by their names."""
    running = containers.client.containers.list(filters={"label": f"com.docker.compose.project={project}"})
    return {one.labels["com.docker.compose.service"]: one for one in running}


def test_the_services_are_hardened_and_seen_on_this_machine_only(composed: Any, containers: Any, project: str) -> None:
    for service in services(containers, project).values():
        host = service.attrs["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert service.attrs["Config"]["User"] == f"{UID}:{UID}"
        assert {port["HostIp"] for ports in host["PortBindings"].values() for port in ports} <= {"127.0.0.1"}


def test_a_run_starts_sibling_containers_and_its_results_are_the_users(
    composed: Any, containers: Any, project: str, root: Path, tiny: Any, until: Callable[..., None]
) -> None:
    config = tiny(root)
    owned(root)
    run = composed.start(config, root)
    seen: dict[str, str] = {}

    def ended() -> bool:
        seen.update({one.labels["mace-to-ace.step"]: one.labels["mace-to-ace.host"] for one in containers.of(run)})
        return composed.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED")

    until(ended, RUN_S)
    assert composed.state(run)["type"] == "COMPLETED", composed.log(run)
    assert "pace_train" in seen
    assert set(seen.values()) == {services(containers, project)["worker"].attrs["Config"]["Hostname"]}
    results = root / "runs" / "tiny"
    assert not json.loads((results / "report.json").read_text())["stub"]
    assert {path.stat().st_uid for path in (results, *results.iterdir())} == {UID}
    assert not containers.of(run)


def test_a_pool_that_only_the_worker_sees_is_told(composed: Any, root: Path, until: Callable[..., None]) -> None:
    hidden = {"files": ["/opt/distill/examples/silicon/pool.extxyz"]}
    run = composed.start({"name": "hidden", "pool": hidden}, root)
    assert composed.end(run, RUN_S)["type"] == "FAILED"
    told = "the engine does not see a path that this process sees"
    until(lambda: told in composed.log(run), 60)  # a run's log reaches the server after its end
    assert "/opt/distill/examples/silicon/pool.extxyz" in composed.log(run)


def test_the_deployments_own_example_runs_until_it_is_cancelled(
    composed: Any, containers: Any, until: Callable[..., None]
) -> None:
    run = composed.start({}, Path())
    until(lambda: labels(containers, run) or composed.state(run)["type"] == "FAILED", RUN_S)
    assert composed.state(run)["type"] == "RUNNING", composed.log(run)
    composed.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: not containers.of(run), CANCEL_S)
    assert composed.end(run, CANCEL_S)["type"] == "CANCELLED"


def labels(containers: Any, run: str) -> bool:
    """Whether a run's labelling has a container."""
    return any(one.labels["mace-to-ace.step"] == "mace_label" for one in containers.of(run))


def test_a_restarted_worker_removes_the_containers_of_a_killed_one(
    composed: Any, containers: Any, project: str, root: Path, slow: Any, slow_pool: Path, until: Callable[..., None]
) -> None:
    (root / "slow.extxyz").write_bytes(slow_pool.read_bytes())
    config = {**slow, "teacher": {"model": "examples/silicon/teacher.model"}, "pool": {"files": ["slow.extxyz"]}}
    run = composed.start(config, Path())
    until(lambda: labels(containers, run), RUN_S)
    worker = services(containers, project)["worker"]
    worker.kill()
    worker.wait(timeout=60)
    assert containers.of(run), "the control: nobody removes it before the next start"
    worker.start()
    until(lambda: not containers.of(run), CANCEL_S)


@pytest.mark.parametrize(
    ("missing", "told"),
    [("DISTILL_WORK_ROOT", "an absolute folder that gets store/"), ("DOCKER_GID", "the group of the engine's socket")],
)
def test_a_missing_variable_is_named(missing: str, told: str, tmp_path: Path) -> None:
    whole = {"DISTILL_WORK_ROOT": str(tmp_path), "DOCKER_GID": "1", "WORKER_USER": "1:1"}
    environment = {**os.environ, **{name: value for name, value in whole.items() if name != missing}}
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    line = [*compose, "--file", str(REPOSITORY / "deployments/compose.yaml"), "config"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert told in done.stderr
