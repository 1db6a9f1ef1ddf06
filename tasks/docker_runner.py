"""Steps in containers of a Docker engine. The only file that imports the `docker` SDK.

A container has no network, a read-only root, no capabilities and the caller's user; it sees its inputs (read-only)
and its own folder, both at the paths they have here, and nothing else of this machine.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.models.images import Image as EngineImage
from docker.types import DeviceRequest, LogConfig, Mount
from pydantic import ValidationError

from containers.contract import Device, Image, Progress, Request
from containers.lock import lock_digest, sources_digest
from tasks.owner import PREFIX, RUN, Owner, is_gone, this_process
from tasks.runners import CannotStart, Ended, deadline, follow, open_log
from tasks.settings import Settings, thread_environment

ENGINE_TIMEOUT_S = 120  # for one answer of a busy engine
MEMORY_SHARE = 0.9  # of the engine's memory, where no limit is set
PIDS = 256
SIGKILLED = 137
ENGINE_LOST = (APIError, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)


class DockerRunner:
    """One hardened container a step; removed when the step has ended in any way."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.settings, self.run_id = settings, run_id

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        for name, files in request.inputs.items():
            if missing := [file.path for file in files if not file.path.is_file()]:
                raise CannotStart(f"input {name} of {request.step} does not exist: {missing[0]}", kind="BadInput")
        with engine(self.settings) as client:
            found = find_image(client, image, self.settings.image(image, request.resources.device))
            check_image(found, image, request.lock, request.resources.device)
            options = self._options(client, found, folder, request)
            with created(client, options) as container:
                return self._followed(container, folder, progress)

    def _options(
        self, client: docker.DockerClient, image: EngineImage, folder: Path, request: Request
    ) -> dict[str, Any]:
        limit_GB = self.settings.step_memory_GB
        memory = round(limit_GB * 1e9) if limit_GB else int(client.info()["MemTotal"] * MEMORY_SHARE)
        inputs = {file.path for files in request.inputs.values() for file in files}
        return {
            **HARDENED,
            "image": image.id,
            "name": f"mace-to-ace-{folder.name}",
            "command": [str(folder)],
            "user": f"{os.getuid()}:{os.getgid()}",
            "environment": thread_environment(request.resources.threads),
            "mem_limit": memory,
            "memswap_limit": memory,
            "mounts": [_bind(folder), *(_bind(path, read_only=True) for path in sorted(inputs))],
            "labels": {RUN: self.run_id, f"{PREFIX}step": request.step, **this_process().labels()},
            "device_requests": [GPUS] if request.resources.device == "cuda" else [],
        }

    def _followed(self, container: Container, folder: Path, progress: Progress) -> Ended:
        with open_log(folder) as log, deadline(self.settings.step_timeout_s, lambda: kill(container)):
            try:
                container.start()
                for line in lines(container.logs(stream=True, follow=True)):
                    follow(line, log.write, progress)
                exit_code = int(container.wait(timeout=ENGINE_TIMEOUT_S)["StatusCode"])
                container.reload()
            except ENGINE_LOST as error:
                raise _cannot(error, container.attrs) from error
        return how_it_ended(exit_code, container.attrs["State"])


HARDENED = {
    "network_mode": "none",
    "read_only": True,
    "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": PIDS,
    "init": True,
    "log_config": LogConfig(type="json-file", config={"max-size": "100m"}),
}
GPUS = DeviceRequest(count=-1, capabilities=[["gpu"]])


def how_it_ended(exit_code: int, state: dict[str, Any]) -> Ended:
    """From the exit code and the engine's record; a child that was killed for memory need not end its step."""
    if exit_code != 0 and state["OOMKilled"]:
        return Ended(f"killed at its memory limit, exit code {exit_code}", exit_code, "OutOfMemory")
    kind = "Killed" if exit_code == SIGKILLED else "Died"
    return Ended(f"exit code {exit_code}", exit_code, kind)


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of text, whatever the borders of the chunks; the last one may lack its end."""
    pending = ""
    for piece in codecs.iterdecode(chunks, "utf-8", errors="replace"):
        *whole, pending = (pending + piece).split("\n")
        yield from (f"{line}\n" for line in whole)
    if pending:
        yield pending


@contextlib.contextmanager
def engine(settings: Settings) -> Iterator[docker.DockerClient]:
    """A connection to an engine that answers; `CannotStart` says why there is none."""
    client = None
    try:
        client = docker.DockerClient(base_url=settings.engine_url, version="auto", timeout=ENGINE_TIMEOUT_S)
    except DockerException as error:
        raise CannotStart(_no_engine(settings.engine_url, str(error))) from None
    try:
        yield client
    finally:
        client.close()


def _no_engine(url: str, reason: str) -> str:
    if "Permission denied" in reason:
        mend = "Join the group that may (`sudo usermod -aG docker $USER`, then log in again)."
        return f"this user may not use the container engine at {url}. {mend}"
    mend = "Start it (`sudo systemctl start docker`), or set DISTILL_ENGINE_URL or DISTILL_RUNNER=subprocess."
    return f"no container engine answers at {url}. {mend}"


def find_image(client: docker.DockerClient, image: Image, reference: str) -> EngineImage:
    """The image that `reference` names; a digest in it must be the image's."""
    name, _, digest = reference.partition("@")
    for candidate in (reference, name):
        with contextlib.suppress(ImageNotFound, NotFound):
            found = client.images.get(candidate)
            break
    else:
        variant = " VARIANT=cuda" if name.endswith(":cuda") else ""
        mend = f"Build it: make images{variant} (or set DISTILL_{image.upper()}_IMAGE)."
        raise CannotStart(f"the engine has no image {reference}. {mend}")
    known = {found.id, *(repository.partition("@")[2] for repository in found.attrs["RepoDigests"] or [])}
    if digest and digest not in known:
        mend = f"Set DISTILL_{image.upper()}_IMAGE to the digest that you want, or build again: make images."
        raise CannotStart(f"the image {name} is {found.id}, not {digest} as asked. {mend}")
    return found


def check_image(found: EngineImage, image: Image, lock: str, device: Device) -> None:
    """Refuse an image that was built from other packages or other steps than these, or for another device."""
    labels = found.labels
    for what, label, wanted in (("packages", "lock", lock), ("step sources", "sources", sources_digest())):
        if labels.get(f"{PREFIX}{label}") != wanted:
            revision = labels.get("org.opencontainers.image.revision", "unknown")
            told = f"the image {found.tags or found.id} was built from other {what} than these (revision {revision})"
            raise CannotStart(f"{told}. Build it again: make images.", kind="EnvironmentDiffers")
    if device == "cuda" and labels.get(f"{PREFIX}variant") != "cuda":
        mend = f"Build the other: make images VARIANT=cuda, and unset DISTILL_{image.upper()}_IMAGE."
        raise CannotStart(f"the image {found.tags or found.id} is the CPU variant, the device is cuda. {mend}")


def check_images(settings: Settings, device: Device) -> None:
    """Refuse images that cannot run this checkout's steps."""
    images: tuple[Image, ...] = ("mace", "tensorpot")
    with engine(settings) as client:
        for image in images:
            check_image(find_image(client, image, settings.image(image, device)), image, lock_digest(image), device)


def has_gpu(settings: Settings, image: Image = "mace") -> bool:
    """Whether the engine can give a container a GPU: asked by starting one that lists them."""
    with engine(settings) as client:
        found = find_image(client, image, settings.image(image, "cuda"))
        labels = {RUN: "probe", **this_process().labels()}
        options = {**HARDENED, "image": found.id, "labels": labels, "device_requests": [GPUS]}
        with created(client, {**options, "entrypoint": ["nvidia-smi", "-L"]}) as container:
            try:
                container.start()
                return int(container.wait(timeout=ENGINE_TIMEOUT_S)["StatusCode"]) == 0
            except APIError:  # no GPU runtime in the engine, or no nvidia-smi from it
                return False


@contextlib.contextmanager
def created(client: docker.DockerClient, options: dict[str, Any]) -> Iterator[Container]:
    """A container that is gone when the block is left."""
    try:
        container = client.containers.create(**options)
    except ENGINE_LOST as error:
        raise _cannot(error, {}) from error
    try:
        yield container
    finally:
        remove(container)


def _bind(path: Path, read_only: bool = False) -> Mount:
    """The same path inside; unlike a volume, a mount of a missing path is an error."""
    return Mount(target=str(path), source=str(path), type="bind", read_only=read_only)


UNSEEN = ("bind source path does not exist", "no such file or directory")


def _cannot(error: Exception, attributes: dict[str, Any]) -> CannotStart:
    """What the engine's refusal means; its own words are kept."""
    words = str(getattr(error, "explanation", None) or error)
    if any(part in words for part in UNSEEN):
        mend = "A worker in a container must have the work root and the inputs mounted at the same paths as the host."
        return CannotStart(f"the engine does not see a path that this process sees ({words}). {mend}", "Unseen")
    return CannotStart(f"the container engine failed: {words}", "EngineFailed")


def kill(container: Container) -> None:
    """SIGKILL to all that runs in it; nothing when it runs no more."""
    with contextlib.suppress(APIError):
        container.kill()


def remove(container: Container) -> None:
    """Kill and remove; nothing when another was faster."""
    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != requests.codes.conflict:  # its removal is already in progress
                raise


def remove_run(settings: Settings, run_id: str) -> int:
    """Remove the containers of a run; how many there were."""
    with engine(settings) as client:
        found = client.containers.list(all=True, filters={"label": f"{RUN}={run_id}"}, ignore_removed=True)
        for container in found:
            remove(container)
        return len(found)


def reap(settings: Settings) -> int:
    """Remove the containers whose process is surely gone (kill -9, a power cut); how many there were."""
    with engine(settings) as client:
        found = client.containers.list(all=True, filters={"label": RUN}, ignore_removed=True)
        orphans = [container for container in found if _is_orphan(container)]
        for container in orphans:
            remove(container)
        return len(orphans)


def _is_orphan(container: Container) -> bool:
    try:
        return is_gone(Owner.of(container.labels))
    except ValidationError:
        return False
