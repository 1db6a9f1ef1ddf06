"""A step by the real Apptainer on an image made from the Docker archive, against the same step on Docker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.artefact import Artefact, StepCall, external
from tasks.errors import StepFailed
from tasks.run import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.apptainer, pytest.mark.engine, pytest.mark.e2e]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a .sif file of an image of the Docker engine, by the commands that the runner's message gives."""
    folder = tmp_path_factory.mktemp("sif")

    def convert(image: str) -> Path:
        name = image.replace("/", "-").replace(":", "-")
        subprocess.run(["docker", "save", image, "-o", f"{name}.tar"], cwd=folder, check=True)
        subprocess.run(["apptainer", "build", f"{name}.sif", f"docker-archive:{name}.tar"], cwd=folder, check=True)
        (folder / f"{name}.tar").unlink()
        return folder / f"{name}.sif"

    return convert


def ingested(pool: Path, root: Path, settings: Settings) -> Artefact:
    step = StepCall(step="ingest", params={"file_names": [pool.name]}, inputs={"files": (external(pool),)})
    return run_step(step, Workspace(root=root, settings=settings))


def test_a_step_gives_the_key_and_the_bytes_that_it_gives_on_docker(
    converted: Callable[[str], Path], pool: Path, tmp_path: Path
) -> None:
    image = str(converted("mace-to-ace/tensorpot:cpu"))
    here = ingested(pool, tmp_path / "a, b: c", Settings(runner="apptainer", tensorpot_image=image))
    there = ingested(pool, tmp_path / "docker", Settings(runner="docker"))
    assert (here.key, here.outputs) == (there.key, there.outputs)


def test_the_container_is_closed_and_a_failure_is_told(
    converted: Callable[[str], Path], obedient_image: str, tmp_path: Path
) -> None:
    """The image's entry point is not used by `apptainer exec`: the step itself is put in the place of `ingest`."""
    image = str(converted(obedient_image))
    pool = tmp_path / "pool.xyz"
    pool.write_text("no structure")
    with pytest.raises(StepFailed) as caught:
        ingested(pool, tmp_path / "root", Settings(runner="apptainer", tensorpot_image=image))
    assert caught.value.kind == "BadInput"
    assert not (tmp_path / "root" / "store" / "ingest").exists()
