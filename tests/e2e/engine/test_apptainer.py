"""Steps by the real Apptainer, on an image made by the commands that the runner's message gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tasks.artefact import Artefact, StepCall, external
from tasks.errors import StepFailed
from tasks.run_step import request_of, run_step
from tasks.runners.apptainer import command, environment
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.apptainer, pytest.mark.engine, pytest.mark.e2e]
IMAGE = "mace-to-ace/tensorpot:cpu"


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image `tensorpot` as a file."""
    folder = tmp_path_factory.mktemp("sif")
    subprocess.run(["docker", "save", IMAGE, "-o", "tensorpot.tar"], cwd=folder, check=True)
    subprocess.run(["apptainer", "build", "tensorpot.sif", "docker-archive:tensorpot.tar"], cwd=folder, check=True)
    (folder / "tensorpot.tar").unlink()
    return folder / "tensorpot.sif"


def ingest(pool: Path) -> StepCall:
    return StepCall(step="ingest", params={"file_names": [pool.name]}, inputs={"files": (external(pool),)})


def result(pool: Path, root: Path, settings: Settings) -> Artefact:
    return run_step(ingest(pool), Workspace(root=root, settings=settings))


def test_a_step_gives_the_key_and_the_bytes_that_it_gives_on_docker(sif: Path, pool: Path, tmp_path: Path) -> None:
    here = result(pool, tmp_path / "a, b: c", Settings(runner="apptainer", tensorpot_image=str(sif)))
    there = result(pool, tmp_path / "docker", Settings(runner="docker"))
    assert (here.key, here.outputs) == (there.key, there.outputs)


def test_a_failure_is_the_steps_own(sif: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.extxyz"
    pool.write_text("no structure")
    with pytest.raises(StepFailed) as caught:
        result(pool, tmp_path / "root", Settings(runner="apptainer", tensorpot_image=str(sif)))
    assert caught.value.kind == "BadInput"


PROBE = """
import json, os, sys
def writes(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
folder, pool, secret = sys.argv[1:]
print(json.dumps({
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "writes": [writes(path) for path in (f"{folder}/outputs/x", f"{folder}/request.json", pool, "/opt/x")],
    "secret": os.path.exists(secret),
    "environment": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "XDG_CACHE_HOME", "THEIRS")},
}))
"""


def test_the_container_is_closed(sif: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIRS", "seen")
    workspace = Workspace(root=tmp_path, settings=Settings(runner="apptainer"))
    (secret := tmp_path / "secret").write_text("")
    request = request_of(ingest(pool), workspace)
    folder = workspace.store.stage(request)
    own_words = command(sif, folder, request)[: -len(("python", "-m", "containers.step", "FOLDER"))]
    words = [*own_words, "python", "-c", PROBE, str(folder), str(pool), str(secret)]
    done = subprocess.run(words, env=environment(request), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["interfaces"] == ["lo"]
    assert told["writes"] == [None, *["Read-only file system"] * 3]
    assert not told["secret"]
    assert told["environment"] == {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": "/tmp/.cache", "THEIRS": None}
