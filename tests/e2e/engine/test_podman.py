"""The same runner on Podman's service, which speaks Docker's protocol; differences: docs/operate/containers.md."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

from containers.contract import load_step
from containers.mace.labelling.mace_label import Params
from tasks.artefact import Artefact, StepCall, external
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.runners.base import CannotStart
from tasks.runners.container_owner import RUN
from tasks.runners.docker import DockerRunner
from tasks.runners.readiness import settled_device
from tasks.settings import Settings
from tasks.workspace import Workspace

if TYPE_CHECKING:
    Obedient = Any  # of conftest.py, which cannot be imported

pytestmark = [pytest.mark.podman, pytest.mark.engine, pytest.mark.e2e, pytest.mark.root]
REPOSITORY = Path(__file__).parents[3]
CLONE_NEWNS = 0x20000  # linux/sched.h
START_S = 60


def until(done: Callable[[], object], seconds: float = START_S) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def engine(podman: str) -> Iterator[docker.DockerClient]:
    connected = docker.DockerClient(base_url=podman)
    yield connected
    assert connected.containers.list(all=True, filters={"label": RUN}) == []  # whatever the tests did
    connected.close()


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, obedient_on: Callable[..., str]) -> Iterator[str]:
    tag = obedient_on(engine, f"localhost/mace-to-ace-test/obedient:{os.getpid()}")
    yield tag
    engine.images.remove(tag, force=True)


@pytest.fixture
def on_podman(obedient: Obedient, image: str, podman: str, monkeypatch: pytest.MonkeyPatch) -> Obedient:
    """The obedient step on Podman."""
    monkeypatch.setenv("DISTILL_ENGINE_URL", podman)
    return dataclasses.replace(obedient, image=image)


def workspace(folder: Path, **settings: object) -> Workspace:
    fixed = {"runner": "docker", "cores": 1}
    return Workspace(root=folder, settings=Settings.model_validate({**fixed, **settings}))


def labelled(pool: Path, teacher: Path, where: Workspace) -> list[Artefact]:
    """A cheap step and a heavy one, each in another image."""
    ingest = StepCall(step="ingest", params={"file_names": [pool.name]}, inputs={"files": (external(pool),)})
    structures = run_step(ingest, where)
    inputs = {"structures": (structures.file("structures"),), "model": (external(teacher),)}
    label = StepCall(step="mace_label", params=Params(head="Default").model_dump(mode="json"), inputs=inputs)
    return [structures, run_step(label, where)]


def test_steps_give_the_keys_and_bytes_that_they_give_on_docker(
    podman: str, pool: Path, teacher: Path, tmp_path: Path
) -> None:
    here = labelled(pool, teacher, workspace(tmp_path / "podman", engine_url=podman))
    there = labelled(pool, teacher, workspace(tmp_path / "docker"))
    for ours, theirs in zip(here, there, strict=True):
        assert ours.key == theirs.key
        assert ours.outputs == theirs.outputs
        assert set(ours.outputs) == set(load_step(ours.step).OUTPUTS)


def test_the_container_is_as_closed_as_on_docker(on_podman: Obedient) -> None:
    code = """
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
metrics.update({name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")})
metrics.update(interfaces=[line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]])
for name, place in {"root": "/opt/x", "code": "/opt/obedient.py", "request": str(folder / "request.json")}.items():
    try:
        Path(place).write_text("x")
    except OSError as error:
        metrics[name] = error.strerror
machine.progress(1, 2, "half")
done(outputs)
"""
    metrics = on_podman.run(code).metrics
    assert metrics["CapEff"] == metrics["CapBnd"] == "0" * 16
    assert (metrics["NoNewPrivs"], metrics["Seccomp"]) == ("1", "2")
    assert metrics["interfaces"] == ["lo"]
    assert {metrics.get(name) for name in ("root", "code", "request")} == {"Read-only file system"}


def test_progress_and_log_come_while_the_step_runs(on_podman: Obedient) -> None:
    code = "import time\nprint('begun', flush=True)\nmachine.progress(1, 2, 'half')\ntime.sleep(3)\ndone(outputs)"
    told: list[float] = []
    run_step(on_podman.call(code), on_podman.workspace(), lambda *_: told.append(time.monotonic()))
    assert len(told) == 1
    assert time.monotonic() - told[0] > 2


def test_a_step_beyond_its_memory_is_told_as_such(on_podman: Obedient) -> None:
    failed = on_podman.failure("data = b'x' * 400_000_000\ndone(outputs)", step_memory_GB=0.3)
    assert failed.kind == "OutOfMemory"
    assert "killed at its memory limit, exit code 137" in failed.message


def test_a_step_that_is_killed_otherwise_is_no_case_of_memory(on_podman: Obedient) -> None:
    assert on_podman.failure("import os\nos.kill(os.getpid(), 9)").kind == "Killed"


def test_a_deadline_removes_the_container_and_keeps_the_log(on_podman: Obedient, engine: docker.DockerClient) -> None:
    failed = on_podman.failure("import time\nprint('begun', flush=True)\ntime.sleep(600)", step_timeout_s=6)
    assert failed.kind == "TimeLimit"
    assert failed.log_tail.strip() == "begun"
    assert engine.containers.list(all=True, filters={"label": RUN}) == []


def test_a_missing_image_names_the_target_that_builds_it(on_podman: Obedient) -> None:
    failed = on_podman.failure("done(outputs)", tensorpot_image="mace-to-ace-test/nowhere:cpu")
    assert "the engine has no image mace-to-ace-test/nowhere:cpu. Build it: make images" in failed.message


def test_a_digest_other_than_asked_for_is_refused(on_podman: Obedient) -> None:
    failed = on_podman.failure("done(outputs)", tensorpot_image=f"{on_podman.image}@sha256:{'0' * 64}")
    assert f"not sha256:{'0' * 64} as set" in failed.message


def test_a_work_root_that_the_engine_does_not_see_is_told(on_podman: Obedient, in_child: Callable[..., str]) -> None:
    """Podman makes a folder where Docker refuses: the step, which finds no request in it, must not be blamed."""
    call, where = on_podman.call("done(outputs)"), on_podman.workspace()
    where.root.mkdir()

    def hide() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(where.root)], check=True)

    told = in_child(lambda: run_step(call, where), hide)
    assert told.startswith(f"{StepFailed.__name__}: ingest failed (Unseen): the engine does not see a path")
    assert f"in its container there is no request.json in {where.root}/store/work/ingest-" in told


def test_a_gpu_that_it_cannot_give_is_told(podman: str) -> None:
    with pytest.raises(CannotStart, match="the container engine cannot give a container a GPU"):
        settled_device(Settings(runner="docker", engine_url=podman, device="cuda"))


PARENT = """
import json, sys
from tasks.artefact import StepCall
from tasks.run_step import run_step
from tasks.workspace import Workspace
run_step(StepCall.model_validate_json(sys.argv[1]), Workspace.model_validate_json(sys.argv[2]))
"""


def test_what_a_killed_parent_leaves_is_reaped_and_nothing_else(
    on_podman: Obedient, engine: docker.DockerClient
) -> None:
    where = on_podman.workspace()
    call = on_podman.call("import time\ntime.sleep(600)")
    words = [sys.executable, "-c", textwrap.dedent(PARENT), call.model_dump_json(), where.model_dump_json()]
    parent = subprocess.Popen(words, cwd=REPOSITORY)
    try:
        until(lambda: [one for one in mine(engine, where) if one.status == "running"])
        assert DockerRunner(where.settings).reap() == 0  # its parent lives
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert len(mine(engine, where)) == 1
        assert DockerRunner(where.settings).reap() == 1
        assert mine(engine, where) == []
    finally:
        parent.kill()
        DockerRunner(where.settings, where.run_id).close()


def mine(engine: docker.DockerClient, where: Workspace) -> list[Any]:
    return engine.containers.list(all=True, filters={"label": f"{RUN}={where.run_id}"})
