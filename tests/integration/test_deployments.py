"""`make ui` for real: server, process worker, deployments; runs in containers, and a schedule that fires."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.engine]
REPOSITORY = Path(__file__).parents[2]
RUN_S = 300
STUB = {"DISTILL_RUNNER": "stub"}  # figures are not real, and no container is started


def test_both_deployments_run_their_steps_in_containers_and_one_has_a_schedule(ui: Any) -> None:
    manual, nightly = ui.deployment("manual"), ui.deployment("nightly")
    assert manual["job_variables"]["env"] == nightly["job_variables"]["env"] == {"DISTILL_RUNNER": "docker"}
    assert manual["schedules"] == []
    (schedule,) = nightly["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *"


def test_the_form_describes_nested_settings(ui: Any) -> None:
    schema = str(ui.deployment("manual")["parameter_openapi_schema"])
    assert "highest correlation order" in schema


def test_a_run_with_changed_parameters_completes_in_containers(ui: Any, tiny: Any, tmp_path: Path) -> None:
    run = ui.start(tiny(tmp_path), tmp_path)
    assert ui.end(run, RUN_S)["type"] == "COMPLETED", ui.log(run)
    report = json.loads((tmp_path / "runs/tiny/report.json").read_text())
    assert not report["stub"]
    assert report["labels"]["computed"] == 90


def test_a_run_can_have_another_runner(ui: Any, tmp_path: Path) -> None:
    run = ui.start({"name": "changed"}, tmp_path, env=STUB)
    assert ui.end(run, RUN_S)["type"] == "COMPLETED", ui.log(run)
    assert json.loads((tmp_path / "runs/changed/report.json").read_text())["stub"]


def _taken(response: httpx.Response) -> bool:
    """Whether the server took it; 503 is its word for a database that is busy just now."""
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return False
    response.raise_for_status()
    return True


def test_a_schedule_fires(ui: Any, until: Callable[..., None], tmp_path: Path) -> None:
    deployment = ui.deployment("nightly")
    change = {
        "parameters": {**deployment["parameters"], "work_root": str(tmp_path)},
        "schedules": [{"active": True, "schedule": {"interval": timedelta(seconds=15).total_seconds()}}],
        "job_variables": {"env": STUB},
    }
    until(lambda: _taken(ui.client.patch(f"/deployments/{deployment['id']}", json=change)), 60)
    only = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
    }
    found: list[dict[str, Any]] = []

    def fired() -> bool:
        found[:] = ui.post("/flow_runs/filter", only)
        return bool(found)

    until(fired, RUN_S)
    quiet = {"schedules": [{"active": False, "schedule": {"cron": "0 3 * * *"}}]}
    until(lambda: _taken(ui.client.patch(f"/deployments/{deployment['id']}", json=quiet)), 60)
    assert found[0]["auto_scheduled"]
    assert found[0]["state"]["type"] == "COMPLETED"
    assert (tmp_path / "runs" / "silicon" / "report.html").is_file()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"DISTILL_ENGINE_URL": "unix:///nowhere.sock"}, "no container engine answers at unix:///nowhere.sock"),
        ({"DISTILL_MACE_IMAGE": "mace-to-ace/none:cpu"}, "Build it: make images"),
    ],
)
def test_a_missing_engine_or_image_is_told_before_anything_starts(setting: dict[str, str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "deployments/ui.py"],
        cwd=REPOSITORY, env={**os.environ, **setting}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
