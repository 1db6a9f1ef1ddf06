"""`make ui` for real: server, process worker, deployments; a run with changed parameters and a schedule that fires."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
START_S, RUN_S = 150, 180


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The API of a server that `deployments/ui.py` started, with its worker and deployments."""
    home = tmp_path_factory.mktemp("ui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DISTILL_RUNNER": "stub",
    }
    log = home / "ui.log"
    with log.open("w") as out:
        command = [sys.executable, "deployments/ui.py", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _until(lambda: "Ready: http://127.0.0.1" in log.read_text() or process.poll() is not None, START_S)
            assert process.poll() is None, log.read_text()
            yield httpx.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30)
        finally:
            process.terminate()
            process.wait(timeout=90)
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server outlived `make ui`"


def _until(done: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(1)


def _deployment(api: httpx.Client, name: str) -> dict[str, object]:
    return api.get(f"/deployments/name/distill/{name}").raise_for_status().json()


def _taken(response: httpx.Response) -> bool:
    """Whether the server took it; 503 is its word for a database that is busy just now."""
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return False
    response.raise_for_status()
    return True


def _state(api: httpx.Client, run: str) -> str:
    return str(api.get(f"/flow_runs/{run}").raise_for_status().json()["state"]["type"])


def _ended(api: httpx.Client, run: str) -> bool:
    return _state(api, run) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def test_both_deployments_are_there_and_one_has_a_cron_schedule(api: httpx.Client) -> None:
    assert _deployment(api, "manual")["schedules"] == []
    (schedule,) = _deployment(api, "nightly")["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *"


def test_the_form_describes_nested_settings(api: httpx.Client) -> None:
    schema = str(_deployment(api, "manual")["parameter_openapi_schema"])
    assert "highest correlation order" in schema


def test_a_run_with_changed_parameters_completes(api: httpx.Client, tmp_path: Path) -> None:
    deployment = _deployment(api, "manual")
    config = {**deployment["parameters"]["config"], "name": "changed"}
    body = {"parameters": {"config": config, "work_root": str(tmp_path)}, "state": {"type": "SCHEDULED"}}
    run = api.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).raise_for_status().json()["id"]
    _until(lambda: _ended(api, run), RUN_S)
    assert _state(api, run) == "COMPLETED"
    assert (tmp_path / "runs" / "changed" / "report.html").is_file()


def test_a_schedule_fires(api: httpx.Client, tmp_path: Path) -> None:
    deployment = _deployment(api, "nightly")
    parameters = {**deployment["parameters"], "work_root": str(tmp_path)}
    schedules = [{"active": True, "schedule": {"interval": timedelta(seconds=15).total_seconds()}}]
    change = {"parameters": parameters, "schedules": schedules}
    _until(lambda: _taken(api.patch(f"/deployments/{deployment['id']}", json=change)), 60)
    only = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
    }
    found: list[dict[str, object]] = []

    def fired() -> bool:
        found[:] = api.post("/flow_runs/filter", json=only).raise_for_status().json()
        return bool(found)

    _until(fired, RUN_S)
    assert found[0]["auto_scheduled"]
    assert found[0]["state"]["type"] == "COMPLETED"
    assert (tmp_path / "runs" / "silicon" / "report.html").is_file()
