"""What a running container may do: asked of the engine, and of the container itself."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest

from containers.contract import Resources
from tasks.artefact import Artefact, StepCall, external
from tasks.run_step import run_step
from tasks.runners.container_owner import PREFIX, RUN, Owner, this_process
from tasks.settings import Settings, thread_environment
from tasks.workspace import Workspace

if TYPE_CHECKING:
    Obedient = Any  # of conftest.py, which cannot be imported

pytestmark = [pytest.mark.engine, pytest.mark.e2e]
MEMORY_GB, THREADS, STRANGER = 1.5, 3, 54321
LOOK = """
import json, os, time

def tried(act):
    try:
        act()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
places = ["/", "/opt/distill/containers", "/opt/venv", "/usr/bin", "/etc", "/tmp",
          str(folder), str(outputs), str(folder.parent), str(folder.parent.parent)]
model = inputs.one("files")
facts = {
    "beside the input": sorted(os.listdir(model.parent)),
    "beside the folder": sorted(os.listdir(folder.parent)),
    "status": {name: value.strip() for name, value in status.items()},
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "environment": dict(os.environ),
    "devices": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
    "writable": [place for place in places if tried((Path(place) / "probe").touch) == "done"],
    "input": tried(lambda: model.open("ab")),
    "chmod": tried(lambda: model.chmod(0o777)),
    "chown": tried(lambda: os.chown(outputs, 1, 1)),
    "sockets": [str(path) for place in ("/run", "/var/run") for path in Path(place).rglob("*") if path.is_socket()],
    "first process": Path("/proc/1/cmdline").read_text(),
    "disks": [str(path) for path in Path("/dev").iterdir() if path.is_block_device()],
}
(folder / "facts.partial").write_text(json.dumps(facts))
(folder / "facts.partial").rename(folder / "facts.json")
while not (folder / "go").exists():
    time.sleep(0.05)
(outputs / "probe").unlink()
done(outputs)
"""


@dataclass(frozen=True)
class Running:
    """A container at work: what the engine says of it, what it found itself, and its folder."""

    attributes: dict[str, Any]
    facts: dict[str, Any]
    folder: Path
    run_id: str

    @property
    def host(self) -> dict[str, Any]:
        """The engine's settings of it."""
        return self.attributes["HostConfig"]


def facts_in(work: Path, run: Future[Artefact]) -> Path:
    """The file of facts, as soon as the step has written it; raises what the run raised instead."""
    end = time.monotonic() + 120
    while not (found := list(work.glob("*/facts.json"))):
        if run.done() or time.monotonic() > end:
            raise AssertionError("the step ended before it was looked at") from run.exception(timeout=0)
        time.sleep(0.05)
    return found[0]


@pytest.fixture(scope="module")
def running(
    make_obedient: Callable[[Path], Obedient], client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    obedient = make_obedient(tmp_path_factory.mktemp("hardening"))
    workspace = obedient.workspace(step_memory_GB=MEMORY_GB)
    (obedient.place / "secret").write_text("beside the input")
    call = obedient.call(LOOK).model_copy(update={"resources": Resources(threads=THREADS)})
    work = workspace.store.root / "work"
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_step, call, workspace)
        try:
            facts = facts_in(work, run)
            (container,) = client.containers.list(filters={"label": f"{RUN}={workspace.run_id}"})
            yield Running(container.attrs, json.loads(facts.read_text()), facts.parent, workspace.run_id)
        finally:
            for folder in work.iterdir():
                (folder / "go").touch()
        assert run.result(60).outputs


def test_it_has_no_network(running: Running) -> None:
    assert running.host["NetworkMode"] == "none"
    assert running.facts["devices"] == ["lo"]


def test_it_has_no_capabilities_and_gets_none(running: Running) -> None:
    status = running.facts["status"]
    assert running.host["CapDrop"] == ["ALL"]
    assert not running.host["CapAdd"]
    assert not running.host["Privileged"]
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert running.facts["chown"] == "Operation not permitted"


def test_it_gets_no_new_privileges_and_keeps_the_filter_of_calls(running: Running) -> None:
    assert running.host["SecurityOpt"] == ["no-new-privileges"]  # and not "seccomp=unconfined"
    assert running.facts["status"]["NoNewPrivs"] == "1"
    assert running.facts["status"]["Seccomp"] == "2"


def test_it_is_the_caller(running: Running) -> None:
    assert running.facts["ids"][:2] == [os.getuid(), os.getgid()]
    assert set(running.facts["ids"][2]) <= {os.getgid()}


def test_its_memory_and_its_processes_are_limited(running: Running) -> None:
    assert running.host["Memory"] == running.host["MemorySwap"] == MEMORY_GB * 1e9
    assert running.host["PidsLimit"] == 256 + 8 * THREADS
    assert not running.host["OomKillDisable"]


def test_it_has_an_init_process(running: Running) -> None:
    assert running.host["Init"]
    assert "docker-init" in running.facts["first process"]


def test_its_libraries_are_told_their_threads(running: Running) -> None:
    told = {name: value for name, value in running.facts["environment"].items() if name.endswith("_THREADS")}
    assert told.pop("TF_NUM_INTEROP_THREADS") == "1"
    assert set(told.values()) == {str(THREADS)}
    assert {"OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"} <= set(told)


def test_only_its_own_folder_can_be_written(running: Running) -> None:
    """And its own /tmp, which is memory under its limit: what it writes to a path of ours there is not there for us."""
    assert running.host["ReadonlyRootfs"]
    folder = running.folder
    assert {str(folder), str(folder / "outputs"), "/tmp"} <= set(running.facts["writable"])
    assert not {"/", "/etc", "/usr/bin", "/opt/venv", "/opt/distill/containers"} & set(running.facts["writable"])
    assert not [place for place in (folder.parent, folder.parent.parent) if (place / "probe").exists()]


def test_its_inputs_can_only_be_read(running: Running) -> None:
    assert running.facts["input"] == running.facts["chmod"] == "Read-only file system"


def test_it_sees_nothing_beside_its_inputs_and_its_folder(running: Running) -> None:
    assert running.facts["beside the input"] == ["code.py", "root"]
    assert running.facts["beside the folder"] == [running.folder.name]
    writable = [mount["Target"] for mount in running.host["Mounts"] if not mount.get("ReadOnly")]
    assert writable == [str(running.folder)]
    assert {mount["Type"] for mount in running.host["Mounts"]} == {"bind"}


def test_it_sees_no_engine_and_no_disk(running: Running) -> None:
    assert running.facts["sockets"] == []
    assert running.facts["disks"] == []
    assert not running.host["Devices"]
    assert not running.host["DeviceRequests"]
    assert (running.host["PidMode"], running.host["IpcMode"]) == ("", "private")


def test_its_environment_is_the_images_and_the_threads(running: Running, client: docker.DockerClient) -> None:
    image = client.images.get(running.attributes["Image"])
    known = {line.partition("=")[0] for line in image.attrs["Config"]["Env"]} | set(thread_environment(THREADS))
    assert set(running.facts["environment"]) - known <= {"HOSTNAME", "LC_CTYPE", "PWD"}


def test_the_image_is_named_by_its_id(running: Running, client: docker.DockerClient, obedient_image: str) -> None:
    assert running.attributes["Config"]["Image"] == client.images.get(obedient_image).id


def test_its_labels_say_whose_it_is(running: Running) -> None:
    labels = running.attributes["Config"]["Labels"]
    assert labels[RUN] == running.run_id
    assert labels[f"{PREFIX}step"] == "ingest"
    assert Owner.of(labels) == this_process()


@pytest.mark.root
def test_what_another_user_runs_belongs_to_that_user(
    pool: Path, open_folder: Path, in_child: Callable[..., str], as_user: Callable[..., Callable[[], None]]
) -> None:
    workspace = Workspace(root=open_folder / "root", settings=Settings(runner="docker"))
    os.chown(open_folder, STRANGER, STRANGER)
    path = Path(shutil.copy(pool, open_folder))
    call = StepCall(step="ingest", params={"file_names": [path.name]}, inputs={"files": (external(path),)})
    engine = Path(workspace.settings.engine_url.removeprefix("unix://"))
    told = in_child(lambda: run_step(call, workspace).key, as_user(STRANGER, engine.stat().st_gid))
    entry = workspace.store.root / "ingest" / told
    written = [entry, *entry.rglob("*")]
    assert entry / "outputs" / "structures.parquet" in written, told
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(STRANGER, STRANGER)}
