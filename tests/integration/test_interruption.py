"""Ctrl-C, SIGTERM and SIGKILL of the command: no process and no container is left, nothing is half-published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.runners.container_owner import this_process

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def as_on_a_terminal() -> None:
    """A background job of a shell ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def processes_with(word: str) -> list[int]:
    """Processes whose environment or command names `word`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
        except OSError:
            continue
        if word.encode() in text and int(place.name) != os.getpid():
            found.append(int(place.name))
    return [pid for pid in found if alive(pid)]


SLEEPER = """#!/bin/bash
case "$*" in
    */work/{step}-*) echo $$ > {started}; sleep 600 & wait ;;
    *) exec {python} "$@" ;;
esac
"""


@pytest.mark.parametrize("step", [pytest.param("ingest", marks=pytest.mark.long), "mace_label"])
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_command_leaves_nothing_running(
    tmp_path: Path, sent: signal.Signals, code: int, step: str
) -> None:
    """While a step of the flow runs, and while a shard of the labelling does: the step has a child of its own."""
    started = tmp_path / "started"
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(SLEEPER.format(step=step, started=started, python=sys.executable))
    sleeper.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "DISTILL_MACE_PYTHON": str(sleeper),
        "DISTILL_TENSORPOT_PYTHON": str(sleeper),
    }
    command = [sys.executable, "-m", "flows.distill", "--work-root", str(tmp_path / "root")]
    log = tmp_path / "log"
    with log.open("w") as out:
        flow = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=out, preexec_fn=as_on_a_terminal)
    try:
        until(lambda: started.is_file() or flow.poll() is not None, 120)
        assert flow.poll() is None, log.read_text()
        flow.send_signal(sent)
        until(lambda: not processes_with(f"{tmp_path}/root/store/work/{step}-"), 10)
        flow.wait(timeout=60)
    finally:
        flow.kill()
    told = log.read_text()
    assert flow.returncode == code, told
    assert "Traceback" not in told
    until(lambda: not processes_with(str(tmp_path)), 30)  # of a killed command the guard ends the server
    root = tmp_path / "root"
    assert not (root / "store" / "ingest").exists() or step != "ingest"
    assert nothing_of_the_labelling(root)
    assert not (root / "runs" / "silicon").exists()
    if sent != signal.SIGKILL:
        assert claims(root) == []


def claims(root: Path) -> list[Path]:
    """Who labels something, or did when it was killed."""
    return [path for path in root.glob("store/labels/*/claims/*") if path.is_dir()]


def nothing_of_the_labelling(root: Path) -> bool:
    """No label, no table of the pool's."""
    return not [*root.glob("store/labels/*/fresh/*"), *root.glob("store/pool_labels")]


@pytest.fixture(scope="module")
def bench(slow: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A work root whose config `slow.yaml` labels for minutes; what runs before that is computed once."""
    folder = tmp_path_factory.mktemp("slow-root")
    (folder / "slow.yaml").write_text(yaml.safe_dump(slow))
    yield folder
    for pid in processes_with(str(folder)):
        os.kill(pid, signal.SIGKILL)


def in_containers(bench: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a run in containers."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(bench / "prefect"),
        "DISTILL_RUNNER": "docker",
        "DISTILL_CORES": "1",
    }
    config = str(bench / "slow.yaml")
    return [sys.executable, "-m", "flows.distill", config, "--work-root", str(bench), *options], environment


@contextmanager
def labelling(bench: Path, containers: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A command that labels in a container just now, and the run's id."""
    command, environment = in_containers(bench)
    with (bench / "log").open("w") as out:
        flow = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=out, preexec_fn=as_on_a_terminal)

    def step() -> str | None:
        return next((one.labels["mace-to-ace.step"] for one in containers.started_by(flow.pid)), None)

    try:
        until(lambda: step() == "mace_label" or flow.poll() is not None, 300)
        assert flow.poll() is None, (bench / "log").read_text()
        yield flow, containers.started_by(flow.pid)[0].labels["mace-to-ace.run"]
    finally:
        flow.kill()
        flow.wait()


def nothing_half_published(bench: Path) -> bool:
    return nothing_of_the_labelling(bench) and not (bench / "runs" / "slow" / "report.html").exists()


@pytest.mark.engine
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_no_container(
    bench: Path, containers: Any, sent: signal.Signals, code: int
) -> None:
    with containers.bystander({"mace-to-ace.run": "another"}) as other, labelling(bench, containers) as (flow, run):
        flow.send_signal(sent)
        until(lambda: not containers.of(run), 10)
        assert flow.wait(timeout=60) == code
        other.reload()
        assert other.status == "running"
    assert "Traceback" not in (bench / "log").read_text()
    assert nothing_half_published(bench)


@pytest.mark.engine
def test_the_next_start_removes_the_container_of_a_killed_command(bench: Path, containers: Any) -> None:
    alive = {"mace-to-ace.run": "another", **this_process().labels()}
    with containers.bystander(alive) as other, labelling(bench, containers) as (flow, run):
        flow.kill()
        flow.wait()
        (left,) = containers.of(run)
        assert left.status == "running", "the control: nobody removes it before the next start"
        command, environment = in_containers(bench, "--dry-run")
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "removed 1 containers of runs that were killed" in done.stdout + done.stderr
        assert not containers.of(run)
        other.reload()
        assert other.status == "running"
    assert nothing_half_published(bench)
