"""Rounds of exploration on stub steps under a real Prefect server: cached, killed in every phase, approved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ase.build
import pyarrow.parquet as pq
import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.config.loading import load_config
from flows.distill.flow import distill
from tasks.errors import UserError
from tests.integration.test_flow import artifacts, flow_run, task_runs

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]
CONDITIONS = [
    {"temperature_K": 300, "picoseconds": 0.02, "starts": ["bulk", "slab"]},
    {"temperature_K": 300, "end_temperature_K": 900, "pressure_GPa": 5, "picoseconds": 0.02},
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One POSCAR and two conditions: of the stub's runs, every second round has frames that extrapolate."""
    folder = tmp_path_factory.mktemp("exploration")
    ase.build.bulk("Si").write(folder / "POSCAR")
    teacher = {"model": str(REPOSITORY / "examples" / "silicon" / "teacher.model")}
    explore = {"seeds": ["POSCAR"], "structures": 40, "levels": 2, "rounds": 6, "conditions": CONDITIONS}
    values = {"name": "explored", "teacher": teacher, "explore": explore, "stability": {"picoseconds": 0}}
    (folder / "explored.yaml").write_text(yaml.safe_dump(values))
    return folder / "explored.yaml"


@pytest.fixture(scope="module")
def whole(config: Path) -> dict[str, Any]:
    """report.json of a run that nothing disturbed."""
    outcome = distill.with_options(flow_run_name="explored")(load_config(config), config.parent / "whole")
    report: dict[str, Any] = json.loads((outcome.folder / "report.json").read_text())
    return report


def test_rounds_label_what_extrapolates_until_the_finished_student_is_settled(whole: dict[str, Any]) -> None:
    found = whole["exploration"]
    rounds = found["rounds"]
    assert [(one["level"], one["finished"], one["chosen"] > 0) for one in rounds] == [
        (1, False, True), (2, False, False), (2, True, True), (2, True, False),
    ]  # fmt: skip
    assert found["settled"]
    assert whole["converged"]
    assert [len(one["runs"]) for one in rounds] == [3] * 4
    assert [one["labels"] for one in rounds] == [40, 80, 120, 160], "the stub of ingest makes forty of any frames"
    assert [sum(run["chosen"] for run in one["runs"]) for one in rounds] == [one["chosen"] for one in rounds]
    assert "exploration" in artifacts("explored")


def test_the_same_command_again_computes_nothing(config: Path, whole: dict[str, Any]) -> None:
    distill.with_options(flow_run_name="explored again")(load_config(config), config.parent / "whole")
    states = {run.state_name for name, run in task_runs("explored again").items() if name.startswith("explore ")}
    assert states == {"Cached"}
    assert not [name for name in task_runs("explored again") if name.startswith("label shard")]


def test_another_teacher_labels_rounds_first_and_the_teacher_labels_its_structures(
    config: Path, tmp_path: Path
) -> None:
    softer = tmp_path / "softer.model"
    softer.write_bytes((REPOSITORY / "examples" / "silicon" / "teacher.model").read_bytes() + b" ")
    outcome = distill.with_options(flow_run_name="two teachers")(
        load_config(config, (f"explore.teacher={softer}", "name=two")), tmp_path
    )
    names = list(task_runs("two teachers"))
    first = [name for name in names if "other teacher" in name]
    assert "pace_train other teacher before exploration attempt 1" in first
    assert not [name for name in first if "finished" in name]
    read = [
        json.loads(path.read_text())["params"]["file_names"] for path in tmp_path.glob("store/ingest/*/request.json")
    ]
    assert ["explored.parquet", "seed_pool.parquet"] in read
    assert outcome.converged


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))}
    return kept | {"PREFECT_HOME": str(home), "DISTILL_RUNNER": "stub"}


@pytest.mark.long
def test_a_run_that_is_killed_in_every_phase_ends_as_one_that_was_not(
    config: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """Exploring, choosing, labelling, fitting: each next command continues, and no structure is labelled twice."""
    root = tmp_path / "root"
    command = [sys.executable, "-m", "flows.explore", str(config), "--work-root", str(root)]
    for phase in (
        "'explore 1 from", "'choose_frames exploration 1'", "'ingest exploration 1'", "'pace_train exploration 1",
        "'explore 2 from", "'pool_labels check exploration 2'",
    ):  # fmt: skip
        log = tmp_path / "log"
        with log.open("w") as out:
            flow = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment(tmp_path / "prefect"), stderr=out, stdout=out
            )
        deadline = time.monotonic() + 180
        while phase not in log.read_text() and flow.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        assert flow.poll() is None, log.read_text()
        flow.send_signal(signal.SIGKILL)
        flow.wait(timeout=30)
        assert not (root / "runs" / "explored").exists()
    last = subprocess.run(
        command, cwd=REPOSITORY, env=environment(tmp_path / "prefect"), capture_output=True, text=True
    )
    assert last.returncode == 0, last.stderr
    report = json.loads((root / "runs" / "explored" / "report.json").read_text())
    assert report["exploration"] == whole["exploration"]
    rows = pq.read_table(root / "runs" / "explored" / "dataset.parquet", columns=["id"])["id"].to_pylist()
    assert len(rows) == len(set(rows))


def test_a_command_needs_a_flag_to_label_more_than_a_config_allows(config: Path, tmp_path: Path) -> None:
    limited = load_config(config, ("explore.ask_above=0",))
    with pytest.raises(UserError, match=r"must be labelled to learn what extrapolates .* with --approve-labels"):
        distill(limited, tmp_path)
    assert distill(limited, tmp_path, approve_labels=True).converged


def test_a_run_of_a_deployment_pauses_until_its_user_approves(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect reads the id of the deployment from the environment where a test sets it."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "8b4b37ac-3a4f-4a54-a7a4-6d0a2b6d1c11")
    seen: list[str] = []

    def answer() -> None:
        deadline = time.monotonic() + 120
        with get_client(sync_client=True) as client:
            while time.monotonic() < deadline:
                try:
                    paused = flow_run("asks")
                except ValueError:
                    paused = None
                if paused and paused.state_name == "Paused":
                    seen.append("paused")
                    client.resume_flow_run(paused.id, run_input={"approved": len(seen) < 2})
                    if len(seen) == 2:
                        return
                time.sleep(0.2)

    thread = threading.Thread(target=answer)
    thread.start()
    limited = load_config(config, ("explore.ask_above=2",))
    outcome = distill.with_options(flow_run_name="asks")(limited, tmp_path)
    thread.join()
    assert seen == ["paused"] * 2
    assert "the answer was no" in (outcome.not_converged_because or "")
