"""No container outlives its step, however the step or its process ends; and what it says arrives while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
from docker.models.containers import Container

from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.runners.container_owner import RUN, this_process
from tasks.runners.docker import HARDENED, DockerRunner
from tasks.settings import Settings

if TYPE_CHECKING:
    Obedient = Any  # of conftest.py, which cannot be imported

pytestmark = [pytest.mark.engine, pytest.mark.e2e]
REPOSITORY = Path(__file__).parents[3]
LONG = "import time\nprint('it begins', flush=True)\ntime.sleep(600)"
PARENT = """
import signal, sys
from pathlib import Path
from tasks.artefact import StepCall
from tasks.run_step import run_step
from tasks.workspace import Workspace

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as flows/distill/__main__.py has it
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell would ignore it
call, workspace = (Path(name).read_text() for name in sys.argv[1:])
run_step(StepCall.model_validate_json(call), Workspace.model_validate_json(workspace))
"""


def containers_of(client: docker.DockerClient, run_id: str) -> list[Container]:
    return client.containers.list(all=True, filters={"label": f"{RUN}={run_id}"})


def until(done: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "code", ["done(outputs)", "1 / 0", "import os; os._exit(7)"], ids=["success", "failure", "death"]
)
def test_nothing_is_left_of_a_step_that_ended(code: str, obedient: Obedient, client: docker.DockerClient) -> None:
    workspace = obedient.workspace()
    with suppress(StepFailed):
        run_step(obedient.call(code), workspace)
    assert containers_of(client, workspace.run_id) == []


def test_what_a_step_says_arrives_while_it_runs(obedient: Obedient, client: docker.DockerClient) -> None:
    """The step waits for a file that is made when its line of progress has arrived: a late line would end it."""
    code = """
import time
print("a line for the log", flush=True)
machine.progress(1, 2, "half")
end = time.monotonic() + 30
while not (folder / "heard").exists():
    assert time.monotonic() < end, "nobody heard"
    time.sleep(0.05)
done(outputs)
"""
    workspace = obedient.workspace()
    seen: list[tuple[float, float, str, str]] = []

    def hear(done: float, total: float, text: str = "", figures: object = None) -> None:
        (folder,) = (workspace.store.root / "work").iterdir()
        seen.append((done, total, text, (folder / "log.txt").read_text()))
        (folder / "heard").touch()

    run_step(obedient.call(code), workspace, hear)
    assert seen == [(1, 2, "half", "a line for the log\n")]


class Parent:
    """A process that runs a long step."""

    def __init__(self, obedient: Obedient, client: docker.DockerClient) -> None:
        self.client, self.workspace = client, obedient.workspace()
        words = {"parent.py": PARENT, "call": obedient.call(LONG).model_dump_json()}
        words["workspace"] = self.workspace.model_dump_json()
        for name, text in words.items():
            (obedient.place / name).write_text(text)
        command = [sys.executable, *(str(obedient.place / name) for name in words)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    def logs(self) -> list[str]:
        return [path.read_text() for path in self.workspace.store.root.glob("work/*/log.txt")]

    def containers(self) -> list[Container]:
        return containers_of(self.client, self.workspace.run_id)

    def started(self) -> Parent:
        """Itself, when its step has said that it begins."""
        until(lambda: self.logs() == ["it begins\n"] or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]
        assert [container.status for container in self.containers()] == ["running"]
        return self


@pytest.fixture
def parent(obedient: Obedient, client: docker.DockerClient) -> Iterator[Parent]:
    made = Parent(obedient, client)
    try:
        yield made.started()
    finally:
        made.process.kill()
        made.process.communicate()
        DockerRunner(made.workspace.settings, made.workspace.run_id).close()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_nothing_is_left_of_an_interrupted_process(sent: signal.Signals, code: int, parent: Parent) -> None:
    parent.process.send_signal(sent)
    assert parent.process.wait(30) == code
    assert parent.containers() == []


def test_the_next_start_removes_what_a_killed_process_left(parent: Parent) -> None:
    parent.process.kill()
    parent.process.wait()
    (container,) = parent.containers()
    assert container.status == "running"
    assert DockerRunner(parent.workspace.settings).reap() >= 1
    assert parent.containers() == []


def test_the_step_of_a_living_process_is_left_alone(parent: Parent) -> None:
    DockerRunner(parent.workspace.settings).reap()
    assert [container.status for container in parent.containers()] == ["running"]


@pytest.fixture
def labelled(client: docker.DockerClient) -> Iterator[Callable[..., Container]]:
    """Makes containers, never started, with the labels of an owner that is gone but for the changes."""
    made: list[Container] = []

    def make(**changes: object) -> Container:
        gone = this_process().model_copy(update={"started": 1, **changes})
        labels = {RUN: f"leak-{os.getpid()}", **gone.labels()}
        made.append(client.containers.create(**{**HARDENED, "image": "mace-to-ace/tensorpot:cpu", "labels": labels}))
        return made[-1]

    yield make
    for container in made:
        with suppress(docker.errors.NotFound):
            container.remove(force=True)


def exists(client: docker.DockerClient, container: Container) -> bool:
    return bool(client.containers.list(all=True, filters={"id": container.id}))


def test_the_reaper_takes_only_what_is_surely_an_orphan(
    labelled: Callable[..., Container], client: docker.DockerClient
) -> None:
    orphan = labelled()
    before_restart = labelled(boot="another boot")
    spared = {
        "another host": labelled(host="elsewhere", boot="another boot"),
        "a worker in a container": labelled(namespace="pid:[1]"),
        "ours": labelled(**this_process().model_dump()),
    }
    foreign = client.containers.create("mace-to-ace/tensorpot:cpu", labels={RUN: "no owner"}, network_mode="none")
    try:
        assert DockerRunner(Settings(runner="docker")).reap() >= 2
        assert not exists(client, orphan)
        assert not exists(client, before_restart)
        assert [why for why, container in spared.items() if not exists(client, container)] == []
        assert exists(client, foreign)
    finally:
        foreign.remove(force=True)


def test_a_run_removes_its_own_containers_only(
    obedient: Obedient, labelled: Callable[..., Container], client: docker.DockerClient
) -> None:
    other = labelled(**this_process().model_dump())
    assert DockerRunner(Settings(runner="docker"), "a run that has none").close() == 0
    assert exists(client, other)
    assert DockerRunner(Settings(runner="docker"), f"leak-{os.getpid()}").close() == 1
    assert not exists(client, other)
