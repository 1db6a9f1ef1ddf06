"""`make images` without an engine: its digests, its words when it cannot build, and what it would give to a build.

Where it would build, a program in the place of `docker` keeps what it is given.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from containers.contract import Image
from containers.environment import lock_digest, locked, sources_digest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "deployments" / "images.sh"
IMAGES = ("mace", "tensorpot", "worker")
WHEEL = f"torch-{locked('mace')['torch']}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
KEEPING = """#!/bin/bash
case "$1 $2" in
  "buildx version" | "info ") ;;
  "image inspect") echo 1500000000 sha256:0123 ;;
  *)
    number=$(find "$KEPT" -name '*.tar' | wc -l)
    printf '%s\\n' "$@" >"$KEPT/$number.arguments"
    for word in "$@"; do
      case $word in id=*) secret="${word#*src=}"; cp "$secret" "$KEPT/$number.${secret##*/}" ;; esac
    done
    cat >"$KEPT/$number.tar"
    echo "${SAYS:-}"; [ -z "${SAYS:-}" ] ;;
esac
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def program(folder: Path, text: str) -> Path:
    """A folder with a program `docker`."""
    folder.mkdir(exist_ok=True)
    path = folder / "docker"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return folder


def images(*arguments: str, docker: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script, as `make images` runs it, with that docker first on the PATH."""
    leading = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    path = os.pathsep.join(filter(None, [str(docker) if docker else "", os.environ["PATH"]]))
    environment = {**leading, "PATH": path, **variables}
    return subprocess.run([str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=60)


def test_the_labels_are_what_the_steps_compute() -> None:
    done = images("labels")
    expected = [f"{image}.lock {lock_digest(cast(Image, image))}" for image in IMAGES]
    assert done.stdout.splitlines() == [*expected, f"sources {sources_digest()}"], done.stderr


def only_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a failure says, which must be one line."""
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_another_variant_is_refused() -> None:
    assert "VARIANT is cpu or cuda, not rocm" in only_sentence(images(VARIANT="rocm"))


def test_without_an_engine_it_says_where_to_get_one(tmp_path: Path) -> None:
    silent = program(tmp_path / "bin", '#!/bin/sh\n[ "$1" = buildx ]\n')
    assert "no Docker engine answers" in only_sentence(images(docker=silent))


@pytest.mark.engine
def test_the_real_client_without_an_engine(tmp_path: Path) -> None:
    sentence = only_sentence(images(DOCKER_HOST=f"unix://{tmp_path}/missing.sock"))
    assert "no Docker engine answers" in sentence


def test_without_a_client_that_can_build_it_says_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "grep", "sed", "mktemp"):
        (tools / tool).symlink_to(cast(str, shutil.which(tool)))
    assert "there is no program docker" in only_sentence(images(PATH=str(tools)))
    new = program(tools, '#!/bin/sh\n[ "$1" != buildx ] || exit 1\necho 28.1.0\n')
    assert "install docker's buildx plugin" in only_sentence(images(PATH=str(new)))


@pytest.fixture
def build(tmp_path: Path) -> Run:
    """Runs the script with the program that keeps what it is given; temporary files in a folder with a space."""
    kept, scratch, wheels = (tmp_path / name for name in ("kept", "with a space", "wheels"))
    for folder in (kept, scratch, wheels):
        folder.mkdir()
    for name in (WHEEL, WHEEL.replace("cp311", "cp312"), "torch-1.0.0+cpu-cp311-cp311-linux_x86_64.whl", "other.whl"):
        (wheels / name).write_text("a wheel")
    docker = program(tmp_path / "bin", KEEPING)

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        fixed = {"KEPT": str(kept), "TMPDIR": str(scratch), "WHEELS": str(wheels)}
        done = images(docker=docker, **{**fixed, **variables})
        assert list(scratch.iterdir()) == [], "it leaves nothing"
        return done

    return run


def context(kept: Path, number: int) -> dict[str, tarfile.TarInfo]:
    """The files that the build of an image got."""
    with tarfile.open(kept / f"{number}.tar") as archive:
        return {member.name: member for member in archive if member.isfile()}


def test_names_sizes_and_digests_are_printed(build: Run) -> None:
    assert [line.split() for line in build().stdout.splitlines()] == [
        [f"mace-to-ace/{image}:cpu", "1.50", "GB", "sha256:0123"] for image in IMAGES
    ]


def test_a_step_image_gets_the_steps_and_one_wheel(build: Run, tmp_path: Path) -> None:
    build()
    for number, image in enumerate(IMAGES[:2]):
        files = context(tmp_path / "kept", number)
        kinds = {Path(name).suffix for name in files}
        assert {name.split("/")[0] for name in files} == {"containers", "wheels"}
        assert kinds == {".py", ".lock", ".whl", ""}
        assert [name for name in files if not Path(name).suffix] == [f"containers/{image}/Dockerfile"]
        assert [name for name in files if name.endswith(".whl")] == [f"wheels/{WHEEL}"]
        assert {(member.uid, member.gid, member.mode & 0o77) for member in files.values()} <= {
            (0, 0, 0o44),
            (0, 0, 0o55),
        }


def test_the_worker_gets_the_flows_and_nothing_hidden(build: Run, tmp_path: Path) -> None:
    build()
    files = context(tmp_path / "kept", 2)
    assert {
        "flows/distill/flow.py",
        "tasks/runners/docker.py",
        "prefect.yaml",
        "examples/silicon/teacher.model",
    } <= set(files)
    assert [name for name in files if "/." in name or name.endswith((".pyc", ".whl"))] == []


def test_a_cuda_build_gets_no_cpu_wheel(build: Run, tmp_path: Path) -> None:
    assert "mace-to-ace/mace:cuda" in build(VARIANT="cuda").stdout
    assert [name for name in context(tmp_path / "kept", 0) if name.endswith(".whl")] == []


def test_addresses_and_certificates_are_secrets_alone(build: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("the certificates")
    addresses = {
        "PIP_INDEX_URL": "https://name:password@index.invalid/simple",
        "PIP_EXTRA_INDEX_URL": "https://extra.invalid/simple",
        "PIP_FIND_LINKS": "/some/folder https://links.invalid/wheels",
        "HTTPS_PROXY": "http://name:password@proxy.invalid:3128",
    }
    build(**addresses, PIP_CERT=str(tmp_path / "ca.pem"))
    kept = tmp_path / "kept"
    assert (kept / "0.ca.pem").read_text() == "the certificates"
    conf = (kept / "0.pip.conf").read_text()
    arguments = (kept / "0.arguments").read_text()
    for address in ("index.invalid", "extra.invalid", "links.invalid", "proxy.invalid"):
        assert address in conf
        assert address not in arguments
    assert "/some/folder" not in conf


def test_wheels_come_from_the_folders_of_find_links_too(build: Run, tmp_path: Path) -> None:
    build(WHEELS="", PIP_FIND_LINKS=f"{tmp_path}/missing {tmp_path}/wheels https://links.invalid")
    assert f"wheels/{WHEEL}" in context(tmp_path / "kept", 0)


def test_a_missing_folder_of_wheels_is_told(build: Run, tmp_path: Path) -> None:
    missing = f"{tmp_path}/no such folder"
    assert f"WHEELS is not a folder: {missing}" in only_sentence(build(WHEELS=missing))


def test_a_folder_without_the_wheel_is_told(build: Run, tmp_path: Path) -> None:
    (tmp_path / "wheels" / WHEEL).unlink()
    assert "there is no torch-" in only_sentence(build())


def test_no_cpu_build_of_torch_is_told_with_what_to_do(build: Run) -> None:
    done = build(WHEELS="", SAYS="ERROR: No matching distribution found for torch==2.13.0+cpu")
    *_, last = done.stderr.splitlines()
    assert "no CPU build of torch was found" in last
    assert "WHEELS=DIR" in last
    assert "PIP_EXTRA_INDEX_URL" in last
    assert "No matching" not in done.stderr


def test_another_failure_shows_the_end_of_its_log(build: Run) -> None:
    done = build(SAYS="ERROR: the disk is full")
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "the image mace was not built" in done.stderr


@pytest.mark.parametrize("image", ["mace", "tensorpot"])
def test_the_cuda_lock_adds_exact_pins_of_other_packages(image: str) -> None:
    lines = (REPOSITORY / "containers" / image / "cuda.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(pin[0].isdigit() and "*" not in pin for pin in pins.values())
    assert len(pins) == sum(not line.startswith("#") for line in lines)
    assert not set(pins) & set(locked(cast(Image, image)))
    assert any(name.startswith("nvidia-cudnn") for name in pins)
