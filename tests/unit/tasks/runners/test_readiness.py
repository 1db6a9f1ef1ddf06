"""Where a run computes, by runner and setting; the containers of it are in tests/e2e/engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest

from tasks.errors import UserError
from tasks.runners.base import CannotStart, Runner, runner_class
from tasks.runners.readiness import ready, settled_device
from tasks.settings import RunnerName, Settings
from tasks.workspace import Workspace

MEND = "Set DISTILL_DEVICE=cpu, or auto to use a GPU when there is one."


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def ends_with(program: Path, exit_code: int) -> Path:
    """A program that does nothing and ends with this exit code."""
    program.write_text(f"#!{sys.executable}\nraise SystemExit({exit_code})\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("runner", ["subprocess", "docker", "apptainer", "in_process", "stub"])
def test_the_cpu_needs_no_look(runner: str, programs: Path) -> None:
    assert settled_device(Settings(runner=runner, device="cpu", engine_url="unix:///none.sock")) == "cpu"


@pytest.mark.parametrize("runner", ["in_process", "stub"])
def test_without_a_process_of_its_own_auto_is_the_cpu(runner: str, programs: Path) -> None:
    ends_with(programs / "nvidia-smi", 0)
    assert settled_device(Settings(runner=runner, device="auto")) == "cpu"


@pytest.mark.parametrize("runner", ["subprocess", "apptainer"])
@pytest.mark.parametrize("exit_code", [None, 9], ids=["no driver", "no GPU"])
def test_without_a_gpu(runner: str, exit_code: int | None, programs: Path) -> None:
    if exit_code is not None:
        ends_with(programs / "nvidia-smi", exit_code)
    assert settled_device(Settings(runner=runner, device="auto")) == "cpu"
    with pytest.raises(CannotStart) as caught:
        settled_device(Settings(runner=runner, device="cuda"))
    assert str(caught.value) == f"there is no GPU (nvidia-smi lists none). {MEND}"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_is_used_where_the_libraries_see_it(device: str, programs: Path) -> None:
    ends_with(programs / "nvidia-smi", 0)
    python = ends_with(programs / "python", 0)
    assert settled_device(Settings(device=device, mace_python=python, tensorpot_python=python)) == "cuda"
    assert settled_device(Settings(runner="apptainer", device=device)) == "cuda"  # the images are looked at later


@pytest.mark.parametrize("blind", ["mace", "tensorpot"])
def test_libraries_that_do_not_see_the_gpu_are_named(blind: str, programs: Path) -> None:
    ends_with(programs / "nvidia-smi", 0)
    good, bad = ends_with(programs / "good", 0), ends_with(programs / "bad", 1)
    pythons = {"mace_python": good, "tensorpot_python": good} | {f"{blind}_python": bad}
    with pytest.raises(CannotStart) as caught:
        settled_device(Settings.model_validate({**pythons, "device": "cuda"}))
    assert str(caught.value) == f"there is a GPU, but the libraries of {bad} ({blind}) do not see it. {MEND}"
    assert settled_device(Settings.model_validate({**pythons, "device": "auto"})) == "cpu"


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda"])
def test_an_engine_that_does_not_answer_is_reported_before_the_first_step(device: str, tmp_path: Path) -> None:
    settings = Settings(runner="docker", device=device, engine_url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(UserError, match="no container engine answers at unix"), ready(workspace(tmp_path, settings)):
        pass


def test_image_files_that_are_missing_are_reported_before_the_first_step(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no image file mace-to-ace/mace:cpu for Apptainer"),
        ready(workspace(tmp_path, Settings(runner="apptainer"))),
    ):
        pass


def test_a_run_gets_the_device_that_was_found_once(tmp_path: Path, programs: Path) -> None:
    with ready(workspace(tmp_path, Settings(device="auto"))) as machine:
        assert machine.settings.device == "cpu"
    ends_with(programs / "nvidia-smi", 0)
    python = ends_with(programs / "python", 0)
    place = workspace(tmp_path, Settings(device="auto", mace_python=python, tensorpot_python=python))
    with ready(place):
        (programs / "nvidia-smi").unlink()
        with ready(place) as again:
            assert again.settings.device == "cuda"
    with ready(place) as later:
        assert later.settings.device == "cpu"


@pytest.mark.parametrize("name", get_args(RunnerName))
def test_every_runner_has_its_class(name: RunnerName) -> None:
    assert issubclass(runner_class(name), Runner)


def workspace(tmp_path: Path, settings: Settings) -> Workspace:
    return Workspace(root=tmp_path, settings=settings)
