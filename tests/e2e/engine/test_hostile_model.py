"""A teacher is a pickle, and opening one runs its code: in a container that code reaches nothing of this machine."""

from __future__ import annotations

import ipaddress
import json
import pickle
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from tasks.artefact import StepCall, external
from tasks.errors import StepFailed
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace

pytestmark = [pytest.mark.engine, pytest.mark.e2e]
SECRET = "the password is swordfish"
ATTACK = """
import json, os, socket, sys
from pathlib import Path

def tried(act):
    try:
        return str(act())
    except OSError as error:
        return type(error).__name__

def call(place):
    kind = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
    with socket.socket(kind) as line:
        line.settimeout(5)
        line.connect(place if isinstance(place, str) else tuple(place))
        line.sendall(b"hello from the model")
    return "connected"

folder, aims = Path(sys.argv[1]), {aims}
loot = {{
    "read": tried(Path(aims["secret"]).read_text),
    "listed": tried(lambda: sorted(os.listdir(os.path.dirname(aims["secret"])))),
    "calls": [tried(lambda: call(place)) for place in aims["listeners"]],
    "writes": [tried(lambda: Path(path).write_text("planted")) for path in [*aims["plants"], folder.parent / "plant"]],
    "input": tried(lambda: open(aims["model"], "ab").close()),
    "docker": tried(lambda: os.stat(aims["engine"])),
}}
(folder / "loot.json").write_text(json.dumps(loot))
"""


class Bomb:
    """Pickled, it becomes a call of `exec`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code, {})


@pytest.fixture
def listeners(client: docker.DockerClient, tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Open doors of this machine: its own address, the one that the engine's bridge gives it, and a local socket."""
    ours = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    bridge = ours.get("Gateway") or str(ipaddress.ip_network(ours["Subnet"])[1])
    with ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server((address, 0))) for address in ("127.0.0.1", bridge)]
        doors.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
        doors[-1].bind(str(tmp_path / "door"))
        doors[-1].listen()
        for door in doors:
            door.settimeout(0.1)
        yield doors


def heard(door: socket.socket) -> bytes:
    """What somebody said at this door, if anybody came."""
    with suppress(TimeoutError):
        line, _ = door.accept()
        with line:
            return line.recv(100)
    return b""


def opened(model: Path, workspace: Workspace) -> dict[str, Any]:
    """Let the real step open the model; what the model's code then had."""
    call = StepCall(step="teacher_info", params={}, inputs={"model": (external(model),)})
    with pytest.raises(StepFailed, match="cannot be opened as a MACE model") as caught:
        run_step(call, workspace)
    return json.loads((caught.value.folder / "loot.json").read_text())


def test_a_hostile_model_reaches_nothing_from_a_container(tmp_path: Path, listeners: list[socket.socket]) -> None:
    secret, plant, model = tmp_path / "secret", tmp_path / "plant", tmp_path / "hostile.model"
    secret.write_text(SECRET)
    engine = Settings().engine_url.removeprefix("unix://")
    aims = {
        "secret": str(secret),
        "listeners": [door.getsockname() for door in listeners],
        "plants": [str(plant)],
        "model": str(model),
        "engine": engine,
    }
    model.write_bytes(pickle.dumps(Bomb(ATTACK.format(aims=repr(aims)))))

    contained = Workspace(root=tmp_path / "contained", settings=Settings(runner="docker"))
    loot = opened(model, contained)
    assert SECRET not in json.dumps(loot)
    assert loot["read"] == "FileNotFoundError"
    assert "secret" not in loot["listed"]
    assert "connected" not in loot["calls"]
    assert loot["input"] == "OSError"  # a read-only file system
    assert loot["docker"] == "FileNotFoundError"
    assert [heard(door) for door in listeners] == [b"", b"", b""]
    assert not plant.exists()  # a file of that name may be in the container's own /tmp
    assert not (contained.store.root / "work" / "plant").exists()

    free = Workspace(root=tmp_path / "free", settings=Settings(runner="subprocess"))
    loot = opened(model, free)  # the control: the same code, not contained, has its way
    assert loot["read"] == SECRET
    assert "secret" in loot["listed"]
    assert loot["calls"] == ["connected"] * 3
    assert loot["input"] == "None"
    assert [heard(door) for door in listeners] == [b"hello from the model"] * 3
    assert plant.read_text() == "planted"
    assert (free.store.root / "work" / "plant").read_text() == "planted"
