"""The parts of the docker runner that need no engine, and who owns a container; the rest is in tests/e2e/engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image as EngineImage
from pydantic import ValidationError

from containers.contract import InputFile, Request, Resources
from containers.environment import lock_digest, sources_digest
from tasks.runners.base import CannotStart, Ended, check_inputs
from tasks.runners.container_owner import PREFIX, RUN, Owner, is_gone, this_process
from tasks.runners.docker import (
    GPUS,
    DockerRunner,
    _cannot,
    check_image,
    end,
    engine,
    find_image,
    how_it_ended,
    is_orphan,
    lines,
    remove,
)
from tasks.settings import Settings

NOT_KILLED, KILLED = {"OOMKilled": False}, {"OOMKilled": True}
LOCK = lock_digest("mace")
LABELS = {f"{PREFIX}lock": LOCK, f"{PREFIX}sources": sources_digest(), f"{PREFIX}variant": "cpu"}
ID, DIGEST = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b"one\ntwo\n"], ["one\n", "two\n"]),
        ([b"o", b"ne\nt", b"wo"], ["one\n", "two"]),
        ([b"\n\n"], ["\n", "\n"]),
        (["Å\n".encode()[:1], "Å\n".encode()[1:]], ["Å\n"]),
        ([b"\xff\n"], ["\N{REPLACEMENT CHARACTER}\n"]),
        ([b"10 %\r20 %\r\n"], ["10 %\r20 %\r\n"]),
    ],
)
def test_lines_whatever_the_borders_of_the_chunks(chunks: list[bytes], expected: list[str]) -> None:
    assert list(lines(chunks)) == expected


def test_a_line_comes_before_the_next_chunk_and_an_endless_one_in_parts() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"first\nsec"
        raise AssertionError("not asked for yet")

    assert next(lines(chunks())) == "first\n"
    parts = list(lines([b"x" * 1000] * 1000))
    assert sum(len(part.rstrip("\n")) for part in parts) == 1_000_000
    assert max(map(len, parts)) < 70_000


@pytest.mark.parametrize(
    ("exit_code", "state", "kernel_killed", "kind"),
    [
        (0, NOT_KILLED, False, "Died"),
        (0, KILLED, True, "Died"),  # a child was killed and the step went on
        (1, NOT_KILLED, True, "Died"),  # the kernel killed another's process
        (1, KILLED, True, "OutOfMemory"),
        (137, KILLED, True, "OutOfMemory"),
        (137, KILLED, False, "OutOfMemory"),  # an engine elsewhere, with a kernel of its own
        (137, NOT_KILLED, True, "OutOfMemory"),  # Podman
        (137, NOT_KILLED, False, "Killed"),
    ],
)
def test_how_it_ended(exit_code: int, state: dict[str, bool], kernel_killed: bool, kind: str) -> None:
    ended = how_it_ended(exit_code, state, kernel_killed)
    assert (ended.exit_code, ended.kind) == (exit_code, kind)
    assert f"exit code {exit_code}" in ended.words
    assert ended == Ended(ended.words, exit_code, kind)


def refusal(words: str) -> APIError:
    return APIError("500 Server Error", explanation=words)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            refusal('invalid mount config for type "bind": bind source path does not exist: /a'),
            "Unseen",
            "does not see",
        ),
        (refusal("error mounting /a: no such file or directory"), "Unseen", "at the same paths as the host"),
        (refusal("container-init binary not found: stat /x: no such file or directory"), "EngineFailed", "catatonit"),
        (refusal('could not select device driver "" with capabilities: [[gpu]]'), "EngineFailed", "[[gpu]]"),
        (requests.exceptions.ReadTimeout("read timed out"), "EngineFailed", "read timed out"),
        (ConnectionResetError(104, "Connection reset by peer"), "EngineFailed", "Connection reset"),
    ],
)
def test_what_a_refusal_means(error: Exception, kind: str, told: str) -> None:
    meant = _cannot(error)
    assert meant.kind == kind
    assert told in str(meant)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("PermissionError(13, 'Permission denied')", "usermod -aG docker"),
        ("FileNotFoundError(2, 'No such file')", "systemctl start docker"),
    ],
)
def test_why_no_engine_answers(reason: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise DockerException(reason)

    monkeypatch.setattr("tasks.runners.docker.docker.DockerClient", refuse)
    with pytest.raises(CannotStart, match=hint), engine(Settings(engine_url="unix:///a.sock")):
        pass


class Images:
    """The images of an engine, by the names they go by."""

    def __init__(self, **known: EngineImage) -> None:
        self.known = {name.replace("_", "/"): image for name, image in known.items()}

    def get(self, name: str) -> EngineImage:
        if name not in self.known:
            raise ImageNotFound(name)
        return self.known[name]


def built(labels: dict[str, str] = LABELS, digests: tuple[str, ...] = ()) -> EngineImage:
    attributes = {"Id": ID, "Config": {"Labels": labels}, "RepoTags": ["ours/mace:cpu"], "RepoDigests": list(digests)}
    return EngineImage(attrs=attributes)


def found(reference: str, **known: EngineImage) -> EngineImage:
    client: Any = SimpleNamespace(images=Images(**known))
    return find_image(client, "mace", reference)


@pytest.mark.parametrize("reference", ["ours/mace", f"ours/mace@{ID}", f"ours/mace@{DIGEST}"])
def test_an_image_by_name_id_or_digest(reference: str) -> None:
    assert found(reference, ours_mace=built(digests=(f"ours/mace@{DIGEST}",))).id == ID


def test_another_digest_is_refused_and_an_image_of_this_state_taken() -> None:
    with pytest.raises(CannotStart, match=f"the image ours/mace is {ID}, not {DIGEST} as set"):
        found(f"ours/mace@{DIGEST}", ours_mace=built())
    check_image(built(), "mace", LOCK, "cpu")
    check_image(built({**LABELS, f"{PREFIX}variant": "cuda"}), "mace", LOCK, "cuda")
    check_image(built({**LABELS, f"{PREFIX}variant": "cuda"}), "mace", LOCK, "cpu")  # it has all that is needed


@pytest.mark.parametrize(("name", "target"), [("a:cpu", "make images (or"), ("a:cuda", "make images VARIANT=cuda (or")])
def test_a_missing_image_names_its_target(name: str, target: str) -> None:
    with pytest.raises(CannotStart) as caught:
        found(name)
    assert str(caught.value) == f"the engine has no image {name}. Build it: {target} set DISTILL_MACE_IMAGE)."


@pytest.mark.parametrize(
    ("labels", "kind", "told"),
    [
        ({}, "EnvironmentDiffers", "built from other packages than these (revision unknown)"),
        ({**LABELS, f"{PREFIX}lock": "other"}, "EnvironmentDiffers", "built from other packages than these"),
        ({**LABELS, f"{PREFIX}sources": "other"}, "EnvironmentDiffers", "built from other step sources than these"),
        (LABELS, "ProgramMissing", "is the CPU variant, the device is cuda. Build the other: make images VARIANT=cuda"),
    ],
)
def test_an_image_of_another_state_is_refused(labels: dict[str, str], kind: str, told: str) -> None:
    with pytest.raises(CannotStart) as caught:
        check_image(built(labels), "mace", LOCK, "cuda")
    assert caught.value.kind == kind
    assert told in str(caught.value)


def request(*paths: Path, **resources: Any) -> Request:
    files = tuple(InputFile(path=path, sha256="0") for path in paths)
    inputs = {"files": files}
    return Request(step="ingest", version=1, lock=LOCK, params={}, inputs=inputs, resources=Resources(**resources))


def test_an_input_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=f"input files of ingest does not exist: {tmp_path}/none") as caught:
        check_inputs(request(tmp_path / "none"))
    assert caught.value.kind == "BadInput"


def options(asked: Request, **settings: Any) -> dict[str, Any]:
    client: Any = SimpleNamespace(info=lambda: {"MemTotal": 1000})
    runner = DockerRunner(Settings.model_validate(settings), "the-run")
    return runner._options(client, built(), Path("/work/ingest-1"), asked)


def test_a_container_is_closed_limited_in_memory_and_has_a_gpu_on_request() -> None:
    made = options(request(Path("/data/pool.xyz"), threads=2))
    assert (made["network_mode"], made["read_only"], made["cap_drop"]) == ("none", True, ["ALL"])
    assert made["security_opt"] == ["no-new-privileges"]
    assert made["user"] == f"{os.getuid()}:{os.getgid()}"
    assert made["environment"]["OMP_NUM_THREADS"] == "2"
    assert made["device_requests"] == []
    assert made["labels"][RUN] == "the-run"
    assert Owner.of(made["labels"]) == this_process()
    seen = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in made["mounts"]}
    assert seen == {
        "/work/ingest-1": ("/work/ingest-1", False),
        "/work/ingest-1/request.json": ("/work/ingest-1/request.json", True),
        "/data/pool.xyz": ("/data/pool.xyz", True),
    }
    assert (options(request())["mem_limit"], options(request())["memswap_limit"]) == (900, 900)
    limited = options(request(), step_memory_GB=1.5)
    assert (limited["mem_limit"], limited["memswap_limit"]) == (1_500_000_000, 1_500_000_000)
    assert options(request(device="cuda"))["device_requests"] == [GPUS]


class FakeContainer:
    """A container whose removal ends as given."""

    def __init__(self, status_code: int | None = None, **labels: str) -> None:
        self.status_code, self.labels, self.removed = status_code, labels, False
        self.status = "running"

    def remove(self, force: bool, v: bool) -> None:
        self.removed = force and v
        if self.status_code:
            response = requests.Response()
            response.status_code = self.status_code
            raise APIError("no", response=response)


@pytest.mark.parametrize("lost", [requests.ConnectionError("gone"), urllib3.exceptions.ProtocolError("gone")])
def test_an_engine_that_is_lost_meanwhile_is_reported_as_such(lost: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("tasks.runners.docker.docker.DockerClient", lambda **options: client)
    with pytest.raises(CannotStart, match="the container engine failed: gone"), engine(Settings()):
        raise lost


def test_removal_that_is_in_progress_is_no_error_and_only_containers_of_ended_processes_are_orphans() -> None:
    container: Any = FakeContainer(409)
    remove(container)
    assert container.removed
    container: Any = FakeContainer(500)
    with pytest.raises(APIError):
        remove(container)
    ours = this_process()
    gone = ours.model_copy(update={"started": ours.started - 1})
    containers: list[Any] = [
        FakeContainer(**ours.labels()),
        FakeContainer(**gone.labels()),
        FakeContainer(**{RUN: "x"}),
    ]
    assert [is_orphan(container) for container in containers] == [False, True, False]


@pytest.mark.parametrize("running", [True, False])
def test_a_container_is_ended_once_its_time_is_over(running: bool) -> None:
    """Killed, so that its log is read to the end, or removed before it begins: it must not begin later."""
    calls: list[str] = []

    def kill() -> None:
        calls.append("kill")
        if not running:
            raise APIError("409 Client Error", explanation="container is not running")

    container: Any = SimpleNamespace(kill=kill, remove=lambda force, v: calls.append("remove"))
    end(container)
    assert calls == (["kill"] if running else ["kill", "remove"])


# ---- who started a container, and whether that process is gone


def owner(**changes: object) -> Owner:
    return this_process().model_copy(update=changes)


def test_a_process_is_gone_when_it_surely_has_ended() -> None:
    assert not is_gone(this_process())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = int(_stat(child.pid)[19])
    running = owner(pid=child.pid, started=started)
    assert not is_gone(running)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert _stat(child.pid)[0] == "Z"
    assert is_gone(running)
    child.communicate()
    assert is_gone(running)
    # another process that got the number later is not it
    assert is_gone(owner(started=this_process().started - 1))
    # among other process numbers, and on another host, nothing is sure
    assert not is_gone(owner(namespace="pid:[1]", pid=2**22 + 1))
    assert not is_gone(owner(host="elsewhere", boot="another", pid=2**22 + 1))
    # a restart ends all that ran on this host
    assert is_gone(owner(boot="before"), running=False)
    assert is_gone(owner(boot="before", namespace="pid:[1]"), running=False)
    # what runs under another boot is another machine of the same name
    assert not is_gone(owner(boot="before"), running=True)


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  as `man 5 proc` says
        return file.read().rpartition(")")[2].split()


def test_a_process_that_proc_hides_is_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("tasks.runners.container_owner.os.kill", refused)
    monkeypatch.setattr("tasks.runners.container_owner._started", lambda pid: None)
    assert not is_gone(owner())


def test_labels_of_an_owner_are_read_back_and_others_refused() -> None:
    assert Owner.of({**this_process().labels(), "other": "label"}) == this_process()
    labels = this_process().labels()
    for name in labels:
        with pytest.raises(ValidationError):
            Owner.of({other: value for other, value in labels.items() if other != name})
    with pytest.raises(ValidationError):
        Owner.of({**labels, "mace-to-ace.pid": "many"})
