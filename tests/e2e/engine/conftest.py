"""Tiny real inputs under the real engine, and an image whose step does what a test tells it to."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import docker
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from tasks.artefact import Artefact, StepCall, external
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace

REPOSITORY = Path(__file__).parents[3]
TENSORPOT = "mace-to-ace/tensorpot:cpu"


@pytest.fixture
def docker_workspace(tmp_path: Path) -> Workspace:
    """A workspace whose steps run in containers."""
    return Workspace(root=tmp_path / "root", settings=Settings(runner="docker", cores=1))


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight strained and rattled silicon cells of two and eight atoms, in extended XYZ."""
    random = np.random.default_rng(1)
    structures = [bulk("Si", cubic=number % 2 == 0) for number in range(8)]
    for atoms in structures:
        atoms.set_cell(atoms.cell.array * (1 + random.uniform(-0.04, 0.04)), scale_atoms=True)
        atoms.rattle(0.05, rng=random)
    path = tmp_path_factory.mktemp("pool") / "pool.extxyz"
    write(path, structures)
    return path


@pytest.fixture(scope="session")
def teacher() -> Path:
    """The bundled silicon model."""
    return REPOSITORY / "examples" / "silicon" / "teacher.model"


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """The engine that the settings name."""
    connected = docker.DockerClient(base_url=Settings().engine_url)
    yield connected
    connected.close()


def derived(client: docker.DockerClient, tag: str, lines: str, files: dict[str, str] | None = None) -> str:
    """Build an image from `lines` of a Dockerfile on top of the image `tensorpot`; its tag."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in {"Dockerfile": f"FROM {TENSORPOT}\n{lines}\n", **(files or {})}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True)
    return tag


OBEDIENT = '''
"""Runs the step `ingest`, which here does what the Python text in its input says."""
import sys
from pathlib import Path

from containers.ingest import ingest; from containers import step


def run(inputs, outputs, params, machine):
    folder = outputs.parent
    metrics = {}
    exec(inputs.one("files").read_text(), {**globals(), **locals()})
    return metrics


def done(outputs):
    for name in ingest.OUTPUTS.values():
        (outputs / name).write_bytes(b"done")


ingest.run = run
del ingest.Metrics  # it reports none
sys.exit(step.main(sys.argv[1:]))
'''


OBEDIENT_LINES = 'COPY obedient.py /opt/\nENTRYPOINT ["python", "/opt/obedient.py"]'


@pytest.fixture(scope="session")
def derive(client: docker.DockerClient) -> Iterator[Callable[..., str]]:
    """Builds images on top of `tensorpot`, which are gone when the session ends."""
    tags: list[str] = []

    def build(name: str, lines: str, files: dict[str, str] | None = None) -> str:
        tags.append(f"mace-to-ace-test/{name}:{os.getpid()}")
        return derived(client, tags[-1], lines, files)

    yield build
    for tag in tags:
        client.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def obedient_image(derive: Callable[..., str]) -> str:
    """The image `tensorpot` with a step `ingest` that runs its input as Python; labels and packages are the same."""
    return derive("obedient", OBEDIENT_LINES, {"obedient.py": OBEDIENT})


@pytest.fixture(scope="session")
def obedient_on() -> Callable[[docker.DockerClient, str], str]:
    """Builds the same image on another engine, under this tag."""
    return lambda client, tag: derived(client, tag, OBEDIENT_LINES, {"obedient.py": OBEDIENT})


@dataclass(frozen=True)
class Obedient:
    """A step in a container that does what it is told: `folder`, `outputs`, `machine` and `done` are its to use."""

    image: str
    place: Path

    def workspace(self, **settings: object) -> Workspace:
        """Where it runs."""
        fixed = {"runner": "docker", "cores": 1, "tensorpot_image": self.image}
        return Workspace(root=self.place / "root", settings=Settings.model_validate({**fixed, **settings}))

    def call(self, code: str) -> StepCall:
        """The step with this text as its input."""
        path = self.place / "code.py"
        path.write_text(code)
        return StepCall(step="ingest", params={"file_names": ["code.py"]}, inputs={"files": (external(path),)})

    def run(self, code: str, **settings: object) -> Artefact:
        """Do it, as a flow would."""
        return run_step(self.call(code), self.workspace(**settings))

    def failure(self, code: str, **settings: object) -> StepFailed:
        """Do it; how it failed."""
        with pytest.raises(StepFailed) as caught:
            self.run(code, **settings)
        return caught.value


@pytest.fixture(scope="session")
def make_obedient(obedient_image: str) -> Callable[[Path], Obedient]:
    """The obedient step in a folder, for fixtures of a whole module."""
    return lambda place: Obedient(obedient_image, place)


@pytest.fixture
def obedient(make_obedient: Callable[[Path], Obedient], tmp_path: Path) -> Obedient:
    """The obedient step, with a work root of its own."""
    return make_obedient(tmp_path)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def in_child() -> Callable[..., str]:
    """Calls a function in a forked process after others have changed who or where it is; what it returned or raised.

    Forked, not started anew: another user need not be able to read this checkout.
    """

    def call(act: Callable[[], object], *before: Callable[[], object]) -> str:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            _tell(write_end, act, before)
        os.close(write_end)
        with os.fdopen(read_end) as told:
            text = told.read()
        os.waitpid(child, 0)
        return text

    return call


def _tell(write_end: int, act: Callable[[], object], before: tuple[Callable[[], object], ...]) -> NoReturn:
    try:
        for change in before:
            change()
        text = str(act())
    except BaseException as error:  # noqa: BLE001  told to the parent
        text = f"{type(error).__name__}: {error}"
    os.write(write_end, text.encode())
    os._exit(0)


@pytest.fixture(scope="session")
def as_user() -> Callable[..., Callable[[], None]]:
    """Makes a change for `in_child`: become this user, with these further groups."""

    def change(uid: int, *groups: int) -> Callable[[], None]:
        def become() -> None:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)

        return become

    return change


PODMAN_IMAGES = ("mace-to-ace/mace:cpu", "mace-to-ace/tensorpot:cpu")
PODMAN_S = 60
# By default Podman asks for a million open files, which a root without CAP_SYS_RESOURCE (CI in a container) may not set
PODMAN_LIMITS = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Podman service that has the images; they stay in Podman's store for the next time."""
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(PODMAN_LIMITS)
    environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    _load(*PODMAN_IMAGES)
    socket = folder / "podman.sock"
    with (folder / "log.txt").open("w") as log:
        words = ["podman", "--cgroup-manager=cgroupfs", "system", "service", "--time=0", f"unix://{socket}"]
        service = subprocess.Popen(words, env=environment, cwd=folder, stdout=log, stderr=log)  # it leaves files there
        try:
            deadline = time.monotonic() + PODMAN_S
            while not socket.exists() and service.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            assert service.poll() is None, (folder / "log.txt").read_text()
            assert socket.exists(), f"Podman's service made no socket within {PODMAN_S} s"
            yield f"unix://{socket}"
        finally:
            service.terminate()
            service.wait(PODMAN_S)


def _load(*images: str) -> None:
    """Copy those images from the Docker engine that Podman does not have, in the place of those they follow."""
    had = {image: _image_id("podman", image) for image in images}
    missing = [image for image in images if had[image] != _image_id("docker", image)]
    if not missing:
        return
    with subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE) as save:  # shared layers go once
        subprocess.run(["podman", "load", "--quiet"], stdin=save.stdout, check=True)
    assert save.returncode == 0
    if followed := [had[image] for image in missing if had[image]]:
        subprocess.run(["podman", "rmi", *followed], check=False, stdout=subprocess.DEVNULL)


def _image_id(program: str, image: str) -> str:
    done = subprocess.run([program, "image", "inspect", "--format={{.Id}}", image], capture_output=True, text=True)
    return done.stdout.strip().removeprefix("sha256:")
