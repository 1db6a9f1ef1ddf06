"""A GPU is asked for where there is none, or none that the libraries see: one sentence, or the CPU and a word on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from containers.contract import Resources
from containers.mace.labelling.mace_label import Params
from tasks.artefact import StepCall, external
from tasks.errors import UserError
from tasks.run_step import run_step
from tasks.runners.base import CannotStart
from tasks.runners.docker import DockerRunner
from tasks.runners.readiness import ready, settled_device
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.engine, pytest.mark.e2e]
REPOSITORY = Path(__file__).parents[3]
without_gpu = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this engine may have a GPU to give")


def command(folder: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`python -m flows.distill` on a pool without structures: it gets as far as the first step."""
    (folder / "pool.extxyz").write_text("")
    config = {
        "name": "none",
        "teacher": {"model": str(REPOSITORY / "examples/silicon/teacher.model")},
        "pool": {"files": ["pool.extxyz"]},
    }
    (folder / "none.yaml").write_text(yaml.safe_dump(config))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        **settings,
    }
    words = [sys.executable, "-m", "flows.distill", str(folder / "none.yaml"), "--work-root", str(folder), *options]
    return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that tells the error."""
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return told


def program(folder: Path, exit_code: int) -> str:
    """A PATH on which `nvidia-smi` ends with this exit code."""
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@without_gpu
def test_cuda_on_an_engine_without_a_gpu_is_one_sentence(tmp_path: Path) -> None:
    done = command(tmp_path, "--dry-run", DISTILL_RUNNER="docker", DISTILL_DEVICE="cuda")
    assert done.returncode == 2, done.stderr
    assert error_of(done).startswith("error: the container engine cannot give a container a GPU")
    assert error_of(done).endswith("Set DISTILL_DEVICE=cpu, or auto to use a GPU when there is one.")
    assert "Traceback" not in done.stderr


def test_cuda_on_a_machine_without_a_gpu_is_one_sentence(tmp_path: Path) -> None:
    done = command(tmp_path, "--dry-run", DISTILL_DEVICE="cuda", PATH=program(tmp_path / "bin", 9))
    assert done.returncode == 2, done.stderr
    assert error_of(done).startswith("error: there is no GPU (nvidia-smi lists none). Set DISTILL_DEVICE=cpu")
    assert "Traceback" not in done.stderr


@without_gpu
def test_auto_on_an_engine_without_a_gpu_says_that_it_takes_the_cpu(tmp_path: Path) -> None:
    done = command(tmp_path, DISTILL_RUNNER="docker", DISTILL_DEVICE="auto")
    assert "computing on the CPU (DISTILL_DEVICE=auto): the container engine cannot give" in done.stderr + done.stdout
    assert error_of(done) == "error: ingest: pool.extxyz: the file is empty", (
        "the device was in the way, not the empty pool"
    )


@without_gpu
def test_auto_labels_on_the_cpu(docker_workspace: Workspace, pool: Path, teacher: Path) -> None:
    settings = docker_workspace.settings.model_copy(update={"device": "auto"})
    with ready(docker_workspace.model_copy(update={"settings": settings})) as machine:
        assert machine.settings.device == "cpu"
        ingested = run_step(
            StepCall(step="ingest", params={"file_names": [pool.name]}, inputs={"files": (external(pool),)}), machine
        )
        call = StepCall(
            step="mace_label",
            params=Params(head="Default").model_dump(mode="json"),
            inputs={"structures": (ingested.file("structures"),), "model": (external(teacher),)},
            resources=Resources(device=machine.settings.device),
        )
        assert run_step(call, machine).metrics["labels"] == 8


def test_auto_takes_the_cpu_where_the_libraries_do_not_see_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make setup` installs CPU builds, also on a machine with a GPU."""
    monkeypatch.setenv("PATH", program(tmp_path / "bin", 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert settled_device(Settings(runner="subprocess", device="auto")) == "cpu"
    with pytest.raises(CannotStart, match=r"there is a GPU, but the libraries of .*python.* \(mace\) do not see it"):
        settled_device(Settings(runner="subprocess", device="cuda"))


def test_a_missing_cuda_image_is_told_with_the_target_that_builds_it() -> None:
    settings = Settings(runner="docker", device="cuda", mace_image="mace-to-ace-test/missing:cuda")
    with pytest.raises(
        CannotStart, match=r"no image mace-to-ace-test/missing:cuda\. Build it: make images VARIANT=cuda"
    ):
        DockerRunner(settings).check_images("cuda")


def test_a_cpu_image_is_refused_for_cuda() -> None:
    settings = Settings(runner="docker", mace_image="mace-to-ace/mace:cpu", tensorpot_image="mace-to-ace/tensorpot:cpu")
    with pytest.raises(CannotStart, match=r"is the CPU variant, the device is cuda.*make images VARIANT=cuda"):
        DockerRunner(settings).check_images("cuda")


def test_without_an_engine_auto_is_no_way_out(docker_workspace: Workspace, tmp_path: Path) -> None:
    settings = docker_workspace.settings.model_copy(
        update={"device": "auto", "engine_url": f"unix://{tmp_path}/none.sock"}
    )
    with (
        pytest.raises(UserError, match="no container engine answers"),
        ready(docker_workspace.model_copy(update={"settings": settings})),
    ):
        pass
