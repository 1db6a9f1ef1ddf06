"""How steps die in containers: memory, disk, time. Each is told as what it is, and leaves its log and no container."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import numpy as np
import pytest
from ase.build import bulk

from containers.contract import OutputFile, file_digest
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from flows.config.schema import DistillConfig
from flows.config.training import Limits
from flows.data.recipe import resolve
from flows.fit.attempts import fit
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import StepFailed, StoreError
from tasks.run_step import run_step
from tasks.runners.container_owner import RUN
from tasks.workspace import Workspace
from tests.e2e.copper import effective_medium, strained, teacher_of

if TYPE_CHECKING:
    Obedient = Any  # of conftest.py, which cannot be imported

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

EAT = "data = b'x' * 400_000_000"


def test_a_step_beyond_its_memory_is_told_as_such(obedient: Obedient) -> None:
    failed = obedient.failure(f"print('still here', flush=True)\n{EAT}\ndone(outputs)", step_memory_GB=0.3)
    assert failed.kind == "OutOfMemory"
    assert "the process ended without a report (killed at its memory limit, exit code 137)" in failed.message
    assert "still here" in failed.log_tail


def test_the_same_step_within_its_memory_ends_well(obedient: Obedient) -> None:
    """The control of the test above."""
    assert obedient.run(f"{EAT}\ndone(outputs)", step_memory_GB=1).outputs


def test_a_child_killed_for_memory_need_not_end_its_step(obedient: Obedient) -> None:
    code = f"""
import subprocess
from containers.processes import kernel_kills
before = kernel_kills()
child = subprocess.run([sys.executable, "-c", {EAT!r}])
metrics.update(child=child.returncode, kills=kernel_kills() - before)
done(outputs)
"""
    metrics = obedient.run(code, step_memory_GB=0.3).metrics
    assert metrics["child"] == -9
    assert metrics["kills"] >= 1  # the kernel's count, from which pace_train knows why its program died


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


FLOOD = """
spare = folder / "spare"
spare.write_bytes(b"x" * {spare})
try:
    (outputs / "structures.parquet").write_bytes(b"x" * 4_000_000)
finally:
    spare.unlink()
"""


@pytest.mark.root
def test_a_full_disk_is_told_by_the_step(obedient: Obedient, small_disk: Path) -> None:
    workspace = obedient.workspace().model_copy(update={"root": small_disk})
    with pytest.raises(StepFailed) as caught:
        run_step(obedient.call(FLOOD.format(spare=100_000)), workspace)
    assert caught.value.kind == "DiskFull"
    assert caught.value.message == "no space left for the outputs. Free some, then run again."


@pytest.mark.root
def test_a_disk_so_full_that_no_report_fits_is_told_by_us(
    obedient: Obedient, small_disk: Path, client: docker.DockerClient
) -> None:
    workspace = obedient.workspace().model_copy(update={"root": small_disk})
    with pytest.raises(StoreError) as caught:
        run_step(obedient.call(FLOOD.format(spare=0)), workspace)
    assert str(caught.value) == (
        f"ingest: {small_disk}: No space left on device. Free or change the work root, then run again."
    )
    assert client.containers.list(all=True, filters={"label": f"{RUN}={workspace.run_id}"}) == []


def test_a_deadline_ends_the_container_and_keeps_the_log(obedient: Obedient, client: docker.DockerClient) -> None:
    code = "import time\nprint('it begins', flush=True)\ntime.sleep(600)"
    workspace = obedient.workspace(step_timeout_s=4)
    with pytest.raises(StepFailed) as caught:
        run_step(obedient.call(code), workspace)
    failed = caught.value
    assert (failed.kind, failed.message) == ("TimeLimit", "ended after 4 s (DISTILL_STEP_TIMEOUT_S)")
    assert failed.log_tail.strip() == "it begins"
    assert client.containers.list(all=True, filters={"label": f"{RUN}={workspace.run_id}"}) == []


def copper(count: int, seed: int) -> list[Labelled]:
    """Strained and rattled cells of 256 atoms."""
    random = np.random.default_rng(seed)
    cells = [strained(bulk("Cu", cubic=True) * (4, 4, 4), random) for _ in range(count)]
    return [effective_medium(f"{seed}-{number}", atoms) for number, atoms in enumerate(cells)]


@pytest.fixture
def data(docker_workspace: Workspace) -> Artefact:
    """Frames, where a store would have them."""
    key, outputs = "made", {}
    folder = docker_workspace.store.root / "frames" / key / "outputs"
    folder.mkdir(parents=True)
    for side, rows in (("train", copper(40, 1)), ("validation", copper(2, 2))):
        path = folder / f"{side}.pckl.gzip"
        write_frame(path, frame(rows))
        outputs[side] = OutputFile(name=path.name, sha256=file_digest(path), size=path.stat().st_size)
    return Artefact(
        step="frames",
        key=key,
        outputs=outputs,
        metrics={"train_structures": 40, "train_atoms": 40 * 256},
        versions={},
        seconds=0,
        peak_memory_MB=0,
        cached=True,
    )


def test_a_fit_that_runs_out_of_memory_is_tried_with_half_the_batch(
    docker_workspace: Workspace, data: Artefact
) -> None:
    """Its program is what the kernel kills; the step lives on and reports it, and the next plan is smaller.

    One batch of all 10,240 atoms died at limits up to 1.6 GB and lived at 1.9; half of it died at 1.2 and lived at 1.4.
    """
    config = {
        "name": "memory",
        "teacher": {"model": "teacher.model"},
        "pool": {"files": ["pool.extxyz"]},
        "pacemaker": {"functions_per_element": 10, "b_basis": "small"},
        "train": {"maxiter": 1, "batch_size": 40, "max_attempts": 2, "threads": 1},
    }
    recipe = resolve(DistillConfig.model_validate(config), [teacher_of("Cu", 6.0)], {"Cu"}, set())
    limited = docker_workspace.settings.model_copy(update={"step_memory_GB": 1.5})
    workspace = docker_workspace.model_copy(update={"settings": limited})
    attempts, best = fit(
        recipe,
        data,
        Limits(force_mae_meV_per_A=120, energy_mae_meV_per_atom=20),
        Run(workspace, step=lambda call, workspace, name: run_step(call, workspace)),
    )
    first, second = attempts
    assert isinstance(first.result, StepFailed)
    assert first.result.kind == "OutOfMemory"
    assert "pacemaker ended with exit code -9" in first.result.message
    assert (first.plan.batch_size, first.verdict) == (40, "out_of_memory")
    assert (second.plan.batch_size, second.plan.reason) == (20, "out of memory: batch 40 -> 20")
    assert best is second.result
    assert best.metrics["batch_size"] == 20
