"""The label phase in containers: a process of the step that is killed, and a structure that memory does not hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import docker
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from docker.models.containers import Container

from containers.structures.table import structure_id
from tasks.settings import Settings

pytestmark = [pytest.mark.e2e, pytest.mark.engine]
REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests" / "integration" / "labelling_run.py"
WITHIN_S = 300
LIMIT_GB = 1.0
LARGE = 13  # cubic cells along each edge, of eight atoms


def cells(count: int, repeat: int) -> list[Atoms]:
    """Rattled silicon; other numbers are other structures."""
    made = [bulk("Si", cubic=True).repeat(repeat) for _ in range(count)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
    return made


class Bench:
    """A work root in which pools are labelled in containers."""

    def __init__(self, folder: Path, client: docker.DockerClient) -> None:
        self.folder, self.client = folder, client

    def start(self, structures: list[Atoms], **settings: str) -> subprocess.Popen[str]:
        """Label a pool in a process of its own; its log is `log`."""
        ase.io.write(self.folder / "pool.extxyz", structures)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PYTHONPATH": str(REPOSITORY),
            "DISTILL_RUNNER": "docker",
            "DISTILL_CORES": "2",
            "DISTILL_EDGES_PER_BATCH": "4000",
            **settings,
        }
        command = [sys.executable, str(SCRIPT), str(self.folder / "pool.extxyz"), str(self.folder / "root")]
        with self.log.open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def end(self, run: subprocess.Popen[str]) -> dict[str, Any]:
        """What it tells when it has ended."""
        told, _ = run.communicate(timeout=WITHIN_S)
        assert run.returncode == 0, self.log.read_text()
        return json.loads(told.splitlines()[-1])

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def crew(
        self, run: subprocess.Popen[str], without: int | None = None, after: str | None = None
    ) -> tuple[str, set[int]]:
        """The container that labels for a run, and the two processes that its step has forked; waits for both.

        Args:
            without: a process that shall be gone.
            after: a container that is not meant.
        """
        end = time.monotonic() + WITHIN_S
        while time.monotonic() < end:
            assert run.poll() is None, self.log.read_text()
            only = {"label": ["mace-to-ace.step=mace_label", f"mace-to-ace.pid={run.pid}"], "status": "running"}
            for container in self.client.containers.list(filters=only, ignore_removed=True):
                forked = _forked(container)
                if len(forked) == 2 and without not in forked and container.id != after:
                    return container.id, forked
            time.sleep(0.1)
        raise AssertionError(f"nothing labels within {WITHIN_S} s")


def _forked(container: Container) -> set[int]:
    """The children of the step's process, which is a child of the container's init; by this machine's numbers."""
    try:
        rows = container.top(ps_args="-eo pid,ppid,args")["Processes"] or []
    except docker.errors.APIError:  # it has just ended
        return set()
    steps = {pid for pid, _, words in rows if words.startswith("python")}  # not the init, whose words end so
    return {int(pid) for pid, parent, _ in rows if parent in steps}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    client = docker.DockerClient(base_url=Settings().engine_url)
    yield Bench(tmp_path, client)
    client.close()


def test_a_killed_process_of_a_container_s_crew_costs_no_label(bench: Bench) -> None:
    run = bench.start(cells(1500, 2))
    first, _ = bench.crew(run)  # labels a few, to find the speed: it may end before its process is replaced
    container, (victim, other) = bench.crew(run, after=first)
    os.kill(victim, signal.SIGKILL)
    again, forked = bench.crew(run, without=victim)
    done = bench.end(run)
    assert again == container, "the step goes on"
    assert other in forked, "with a new process beside the other"
    assert (done["computed"], done["metrics"]["labels"], done["set_aside"]) == (1500, 1500, {})
    assert "ended early" not in bench.log.read_text()


def test_a_structure_that_memory_does_not_hold_is_set_aside_and_labelled_where_there_is_more(bench: Bench) -> None:
    large = cells(1, LARGE)[0]
    structures = [*cells(20, 1), large, *cells(12, 2)]
    done = bench.end(bench.start(structures, DISTILL_STEP_MEMORY_GB=str(LIMIT_GB)))
    assert (done["computed"], done["metrics"]["labels"]) == (32, 32)
    (rejected,) = pq.read_table(done["rejected"]).to_pylist()
    read = ase.io.read(bench.folder / "pool.extxyz", ":")
    assert (rejected["id"], rejected["row"]) == (structure_id(read[20]), 20)
    assert "memory" in rejected["reason"]
    assert done["metrics"]["rejected_by"] == {"memory": 1}

    again = bench.end(bench.start(structures))
    assert (again["computed"], again["metrics"]["labels"]) == (1, 33)
    assert pq.read_table(again["rejected"]).num_rows == 0
