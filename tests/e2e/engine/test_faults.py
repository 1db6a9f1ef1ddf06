"""What is in the way before a step computes: each is told with its place and the next command."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from containers.environment import sources_digest
from containers.step import NO_REPORT
from tasks.artefact import StepCall, external
from tasks.errors import StepFailed, StoreError, UserError
from tasks.run_step import request_of, run_step
from tasks.runners.container_owner import RUN
from tasks.runners.docker import DockerRunner
from tasks.runners.readiness import ready
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.engine, pytest.mark.e2e]
TENSORPOT = "mace-to-ace/tensorpot:cpu"
STRANGER = 54321
CLONE_NEWNS = 0x20000  # linux/sched.h
ZEROS = f"sha256:{'0' * 64}"


def ingest(pool: Path) -> StepCall:
    return StepCall(step="ingest", params={"file_names": [pool.name]}, inputs={"files": (external(pool),)})


def with_settings(workspace: Workspace, **changes: object) -> Workspace:
    return workspace.model_copy(update={"settings": workspace.settings.model_copy(update=changes)})


def failure(call: StepCall, workspace: Workspace) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        run_step(call, workspace)
    return caught.value


def refusal(workspace: Workspace) -> str:
    """What a run says before its first step."""
    with pytest.raises(UserError) as caught, ready(workspace):
        pass
    return str(caught.value)


def containers_of(client: docker.DockerClient, workspace: Workspace) -> list[object]:
    return client.containers.list(all=True, filters={"label": f"{RUN}={workspace.run_id}"})


def test_a_missing_image_names_the_target_that_builds_it(docker_workspace: Workspace, pool: Path) -> None:
    failed = failure(ingest(pool), with_settings(docker_workspace, tensorpot_image="mace-to-ace-test/nowhere:cpu"))
    assert "the engine has no image mace-to-ace-test/nowhere:cpu" in failed.message
    assert "make images (or set DISTILL_TENSORPOT_IMAGE)" in failed.message
    assert failed.kind == "ProgramMissing"  # no plan mends it
    assert failed.folder.is_dir()


def test_a_missing_cuda_image_names_the_variant(docker_workspace: Workspace) -> None:
    told = refusal(with_settings(docker_workspace, mace_image="mace-to-ace-test/nowhere:cuda"))
    assert "make images VARIANT=cuda (or set DISTILL_MACE_IMAGE)" in told


def test_an_engine_that_does_not_run_is_told(docker_workspace: Workspace, pool: Path, tmp_path: Path) -> None:
    silent = with_settings(docker_workspace, engine_url=f"unix://{tmp_path}/none.sock")
    for told in (failure(ingest(pool), silent).message, refusal(silent)):
        assert f"no container engine answers at unix://{tmp_path}/none.sock" in told
        assert "systemctl start docker" in told
        assert "DISTILL_ENGINE_URL" in told


@pytest.mark.root
def test_a_user_that_the_engine_does_not_know_is_told(
    pool: Path, open_folder: Path, in_child: Callable[..., str], as_user: Callable[..., Callable[[], None]]
) -> None:
    workspace = Workspace(root=open_folder / "root", settings=Settings(runner="docker"))
    os.chown(open_folder, STRANGER, STRANGER)
    call = ingest(Path(shutil.copy(pool, open_folder)))
    told = in_child(lambda: run_step(call, workspace), as_user(STRANGER))
    assert told.startswith("StepFailed: ")
    assert f"this user may not use the container engine at {workspace.settings.engine_url}" in told
    assert "usermod -aG docker" in told


def test_the_image_that_a_digest_names_is_used(
    docker_workspace: Workspace, pool: Path, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = client.images.get(TENSORPOT)
    monkeypatch.setenv("DISTILL_TENSORPOT_IMAGE", f"{TENSORPOT}@{image.id}")
    named = docker_workspace.model_copy(update={"settings": Settings(runner="docker")})
    assert run_step(ingest(pool), named).metrics["structures"] == 8


def test_another_digest_than_asked_for_is_refused(
    docker_workspace: Workspace, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_MACE_IMAGE", f"mace-to-ace/mace:cpu@{ZEROS}")
    told = refusal(docker_workspace.model_copy(update={"settings": Settings(runner="docker")}))
    found = client.images.get("mace-to-ace/mace:cpu").id
    assert f"the image mace-to-ace/mace:cpu is {found}, not {ZEROS} as set" in told
    assert "Set DISTILL_MACE_IMAGE to the digest that you want, or build again: make images" in told


@pytest.mark.parametrize(("label", "what"), [("lock", "packages"), ("sources", "step sources")])
def test_an_image_of_other_packages_or_sources_is_refused(
    label: str, what: str, docker_workspace: Workspace, pool: Path, derive: Callable[..., str]
) -> None:
    tag = derive(f"other-{label}", f"LABEL mace-to-ace.{label}={sources_digest()[::-1]}")
    workspace = with_settings(docker_workspace, tensorpot_image=tag)
    failed = failure(ingest(pool), workspace)
    assert failed.kind == "EnvironmentDiffers"
    for told in (failed.message, refusal(workspace)):
        assert f"{tag}'] was built from other {what} than these" in told
        assert "Build it again: make images" in told


def test_an_input_that_went_away_is_named(docker_workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "gone.xyz"
    path.write_text("1\n\nSi 0 0 0\n")
    call = ingest(path)
    path.unlink()
    failed = failure(call, docker_workspace)
    assert (failed.kind, failed.exit_code) == ("BadInput", 2)
    assert str(failed) == f"ingest: input files of ingest does not exist: {path}"


def test_an_input_that_changed_is_refused_by_the_step(docker_workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "changed.xyz"
    path.write_text("1\n\nSi 0 0 0\n")
    call = ingest(path)
    path.write_text("1\n\nSi 0 0 1\n")
    failed = failure(call, docker_workspace)
    assert failed.exit_code == 2
    assert f"changed since it was digested: {path}. Run again." in failed.message


def in_a_place_of_its_own(folder: Path) -> Callable[[], None]:
    """Mount an empty file system over `folder` that this process sees and the engine does not."""

    def mount() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)

    return mount


@pytest.mark.root
def test_a_work_root_that_the_engine_does_not_see_is_told(
    docker_workspace: Workspace, pool: Path, in_child: Callable[..., str], client: docker.DockerClient
) -> None:
    """As in a worker's container whose work root is not mounted at the host's path."""
    docker_workspace.root.mkdir()
    call = ingest(pool)
    told = in_child(lambda: run_step(call, docker_workspace), in_a_place_of_its_own(docker_workspace.root))
    assert "the engine does not see a path that this process sees" in told
    assert f"{docker_workspace.root}/store/work/ingest-" in told
    assert "must have the work root and the inputs mounted at the same paths as the host" in told
    assert list(docker_workspace.root.iterdir()) == []  # the engine made no folder of that name for us
    assert containers_of(client, docker_workspace) == []


@pytest.mark.root
def test_an_input_that_the_engine_does_not_see_is_told(
    docker_workspace: Workspace, tmp_path: Path, in_child: Callable[..., str]
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()

    def act() -> object:
        (hidden / "pool.xyz").write_text("1\n\nSi 0 0 0\n")
        return run_step(ingest(hidden / "pool.xyz"), docker_workspace)

    told = in_child(act, in_a_place_of_its_own(hidden))
    assert "the engine does not see a path that this process sees (invalid mount config" in told
    assert f"{hidden}/pool.xyz" in told


@pytest.mark.root
def test_a_work_root_of_another_user_is_told(
    pool: Path,
    open_folder: Path,
    in_child: Callable[..., str],
    as_user: Callable[..., Callable[[], None]],
) -> None:
    workspace = Workspace(root=open_folder, settings=Settings(runner="docker"))
    call = ingest(pool)
    told = in_child(lambda: run_step(call, workspace), as_user(STRANGER))
    assert told == (
        f"{StoreError.__name__}: cannot make {open_folder}/store/locks: Permission denied. Choose another --work-root."
    )


@pytest.mark.root
def test_a_folder_that_the_step_cannot_write_is_told(docker_workspace: Workspace, pool: Path) -> None:
    """Our root may write everywhere, the container's root (without capabilities) only where its user may."""
    request = request_of(ingest(pool), docker_workspace)
    folder = docker_workspace.store.stage(request)
    os.chown(folder, STRANGER, STRANGER)
    runner = DockerRunner(docker_workspace.settings, docker_workspace.run_id)
    ended = runner.run(folder, "tensorpot", request, lambda *_: None)
    assert ended.exit_code == NO_REPORT
    assert (
        f"{folder}: Permission denied: no request read or no report written (as user 0, group 0)"
        in (folder / "log.txt").read_text()
    )
