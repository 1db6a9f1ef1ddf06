"""Steps in containers of a Docker engine. The only file that imports the `docker` SDK.

A container has no network (but for the steps in NETWORK), a read-only root, no capabilities and the caller's user; it
sees its inputs (read-only) and its own folder, both at the paths they have here, and nothing else of this machine.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.models.images import Image as EngineImage
from docker.types import DeviceRequest, LogConfig, Mount
from pydantic import ValidationError

from containers.contract import NETWORK, Device, Image, Progress, Request
from containers.environment import lock_digest
from containers.processes import kernel_kills
from tasks.prefect_logging import run_log
from tasks.runners.base import CannotStart, Ended, Runner, check_inputs, check_labels, follow, open_log
from tasks.runners.cancellation import endable
from tasks.runners.container_owner import PREFIX, RUN, Owner, is_gone, this_process
from tasks.settings import Settings, thread_environment

ENGINE_TIMEOUT_S = 120  # for one answer of a busy engine
MEMORY_SHARE = 0.9  # of the engine's memory, where no limit is set
PIDS, PIDS_PER_THREAD = 256, 8  # threads count as processes, and several libraries have a pool of them
LONGEST_LINE = 1 << 16
SIGKILLED = 137
NO_REQUEST = 2  # what containers/step.py ends with where it finds none
ENGINE_LOST = (APIError, requests.exceptions.RequestException, urllib3.exceptions.HTTPError)


class DockerRunner(Runner):
    """One hardened container a step; removed when the step has ended in any way."""

    limits_memory = True

    def why_no_gpu(self) -> str | None:
        """As of every runner; `CannotStart` when there is no engine, or no image of any variant.

        Either variant of an image will do to list GPUs: what it needs for that comes from the engine.
        """
        wanted: Device = "cuda" if self.settings.device == "cuda" else "cpu"
        other: Device = "cpu" if wanted == "cuda" else "cuda"
        with engine(self.settings) as client:
            try:
                image = find_image(client, "mace", self.settings.image("mace", other))
            except CannotStart:
                image = find_image(client, "mace", self.settings.image("mace", wanted))
            labels = {RUN: "probe", **this_process().labels()}
            options = {**HARDENED, "pids_limit": PIDS, "image": image.id, "labels": labels, "device_requests": [GPUS]}
            refusal = None
            with created(client, {**options, "entrypoint": ["nvidia-smi", "-L"]}) as container:
                try:
                    container.start()
                    if exit_code := int(container.wait(timeout=ENGINE_TIMEOUT_S)["StatusCode"]):
                        refusal = f"nvidia-smi -L: exit code {exit_code}"
                except APIError as error:  # no GPU runtime in the engine, or no nvidia-smi from it
                    refusal = str(error.explanation)
        if refusal:
            return f"the container engine cannot give a container a GPU ({refusal})"
        try:
            self.check_images("cuda")
        except CannotStart as error:
            return str(error).removesuffix(".")
        return None

    def prepare(self, device: Device) -> None:
        """Remove the containers of killed runs; refuse images that cannot run this checkout's steps."""
        if orphans := self.reap():
            run_log().info("removed %d containers of runs that were killed", orphans)
        self.check_images(device)

    def check_images(self, device: Device) -> None:
        """Refuse images that are missing or cannot run this checkout's steps."""
        with engine(self.settings) as client:
            for image in get_args(Image):
                found = find_image(client, image, self.settings.image(image, device))
                check_image(found, image, lock_digest(image), device)

    def reap(self) -> int:
        """Remove the containers whose process is surely gone (kill -9, a power cut); return how many there were."""
        return self._remove(RUN, is_orphan)

    def close(self) -> int:
        """Remove the containers of this run; return how many there were."""
        return self._remove(f"{RUN}={self.run_id}", lambda container: True)

    def _remove(self, label: str, condemned: Callable[[Container], bool]) -> int:
        with engine(self.settings) as client:
            found = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
            removed = [container for container in found if condemned(container)]
            for container in removed:
                remove(container)
            return len(removed)

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        check_inputs(request)
        with engine(self.settings) as client:
            found = find_image(client, image, self.settings.image(image, request.resources.device))
            check_image(found, image, request.lock, request.resources.device)
            with created(client, self._options(client, found, folder, request)) as container:
                kills = kernel_kills()
                with open_log(folder) as write, endable(lambda: end(container), self.settings.step_timeout_s):
                    try:
                        container.start()
                        for line in lines(container.logs(stream=True, follow=True)):
                            follow(line, write, progress)
                        exit_code = int(container.wait(timeout=ENGINE_TIMEOUT_S)["StatusCode"])
                        container.reload()
                    except ENGINE_LOST as error:
                        raise _cannot(error) from error
                if exit_code == NO_REQUEST and not (folder / "report.json").exists():  # Podman makes missing folders
                    raise _unseen(f"in its container there is no request.json in {folder}")
                return how_it_ended(exit_code, container.attrs["State"], kernel_kills() != kills)

    def _options(
        self, client: docker.DockerClient, image: EngineImage, folder: Path, request: Request
    ) -> dict[str, Any]:
        limit_GB = self.settings.step_memory_GB
        memory = round(limit_GB * 1e9) if limit_GB else int(client.info()["MemTotal"] * MEMORY_SHARE)
        inputs = {file.path for files in request.inputs.values() for file in files}
        request_file = folder / "request.json"  # a hostile step must not change what a repeat would do
        return {
            **HARDENED,
            **(NETWORKED if request.step in NETWORK else {}),
            "image": image.id,
            "name": f"mace-to-ace-{folder.name}",
            "command": [str(folder)],
            "user": f"{os.getuid()}:{os.getgid()}",
            "pids_limit": PIDS + PIDS_PER_THREAD * request.resources.threads,
            "environment": thread_environment(request.resources.threads),
            "mem_limit": memory,
            "memswap_limit": memory,
            "mounts": [_bind(folder), *(_bind(path, read_only=True) for path in sorted({request_file, *inputs}))],
            "labels": {RUN: self.run_id, f"{PREFIX}step": request.step, **this_process().labels()},
            "device_requests": [GPUS] if request.resources.device == "cuda" else [],
        }


HARDENED = {
    "network_mode": "none",
    "use_config_proxy": False,  # an address of a proxy may hold a password
    "read_only": True,
    "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108  the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "init": True,
    "log_config": LogConfig(type="json-file", config={"max-size": "100m"}),
}
NETWORKED = {"network_mode": "default", "use_config_proxy": True}
GPUS = DeviceRequest(count=-1, capabilities=[["gpu"]])


def how_it_ended(exit_code: int, state: dict[str, Any], kernel_killed: bool = False) -> Ended:
    """From the exit code and the engine's record; a child that was killed for memory need not end its step.

    Podman 4 never records a kill for memory: then a kill counts as one if `kernel_killed`, that is if our kernel has
    ended some process for memory meanwhile.
    """
    if (exit_code != 0 and state["OOMKilled"]) or (exit_code == SIGKILLED and kernel_killed):
        return Ended(f"killed at its memory limit, exit code {exit_code}", exit_code, "OutOfMemory")
    kind = "Killed" if exit_code == SIGKILLED else "Died"
    return Ended(f"exit code {exit_code}", exit_code, kind)


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines of text, whatever the borders of the chunks; one that is endless comes in parts."""
    pending = ""
    for piece in codecs.iterdecode(chunks, "utf-8", errors="replace"):
        *whole, pending = (pending + piece).split("\n")
        yield from (f"{line}\n" for line in whole)
        if len(pending) > LONGEST_LINE:
            yield f"{pending}\n"
            pending = ""
    if pending:
        yield pending


@contextlib.contextmanager
def engine(settings: Settings) -> Iterator[docker.DockerClient]:
    """A connection to an engine that answers; `CannotStart` says why there is none."""
    try:
        client = docker.DockerClient(base_url=settings.engine_url, version="auto", timeout=ENGINE_TIMEOUT_S)
    except DockerException as error:
        url = settings.engine_url
        if "Permission denied" in str(error):
            hint = "Join the group that may (`sudo usermod -aG docker $USER`, then log in again)."
            raise CannotStart(f"this user may not use the container engine at {url}. {hint}") from None
        hint = "Start it (`sudo systemctl start docker`), or set DISTILL_ENGINE_URL or DISTILL_RUNNER=subprocess."
        raise CannotStart(f"no container engine answers at {url}. {hint}") from None
    try:
        yield client
    except ENGINE_LOST as error:
        raise _cannot(error) from error
    finally:
        client.close()


def find_image(client: docker.DockerClient, image: Image, reference: str) -> EngineImage:
    """The image that `reference` names; a digest in it must be the image's."""
    name, _, digest = reference.partition("@")
    found = None
    for known_as in (reference, name):
        try:
            found = found or client.images.get(known_as)
        except (ImageNotFound, NotFound):
            continue
        except APIError as error:
            hint = f"Set DISTILL_{image.upper()}_IMAGE to NAME:TAG, or unset it."
            raise CannotStart(f"the engine takes no image name {known_as!r} ({error.explanation}). {hint}") from None
    if found is None:
        variant = " VARIANT=cuda" if name.endswith(":cuda") else ""
        hint = f"Build it: make images{variant} (or set DISTILL_{image.upper()}_IMAGE)."
        raise CannotStart(f"the engine has no image {reference}. {hint}")
    known = {found.id, *(repository.partition("@")[2] for repository in found.attrs["RepoDigests"] or [])}
    if digest and digest not in known:
        hint = f"Set DISTILL_{image.upper()}_IMAGE to the digest that you want, or build again: make images."
        raise CannotStart(f"the image {name} is {found.id}, not {digest} as set. {hint}")
    return found


def check_image(found: EngineImage, image: Image, lock: str, device: Device) -> None:
    """Refuse an image that was built from other packages or other steps than these, or for another device."""
    check_labels(found.labels, str(found.tags or found.id), image, lock, device)


@contextlib.contextmanager
def created(client: docker.DockerClient, options: dict[str, Any]) -> Iterator[Container]:
    """A container that is gone when the block is left."""
    try:
        container = client.containers.create(**options)
    except ENGINE_LOST as error:
        raise _cannot(error) from error
    try:
        yield container
    finally:
        remove(container)


def _bind(path: Path, read_only: bool = False) -> Mount:
    """The same path inside; unlike a volume, a mount of a missing path is an error."""
    return Mount(target=str(path), source=str(path), type="bind", read_only=read_only)


UNSEEN = ("bind source path does not exist", "no such file or directory")
NO_INIT = "container-init"  # Podman's word for its `catatonit`


def _cannot(error: Exception) -> CannotStart:
    """The error that the engine's refusal means; its own words are kept."""
    words = str(getattr(error, "explanation", None) or error)
    if NO_INIT in words:
        return CannotStart(f"the container engine has no init program ({words}). Install catatonit.", "EngineFailed")
    if any(part in words for part in UNSEEN):
        return _unseen(words)
    return CannotStart(f"the container engine failed: {words}", "EngineFailed")


def _unseen(words: str) -> CannotStart:
    hint = "A worker in a container must have the work root and the inputs mounted at the same paths as the host."
    return CannotStart(f"the engine does not see a path that this process sees ({words}). {hint}", "Unseen")


def end(container: Container) -> None:
    """Kill all that runs in it, so that its log can be read to the end; one that runs nothing is removed instead.

    One that has not begun never begins then. The thread that follows the log reports a lost engine.
    """
    with contextlib.suppress(*ENGINE_LOST):
        try:
            container.kill()
        except APIError:
            remove(container)


def remove(container: Container) -> None:
    """Kill and remove; nothing when another was faster."""
    with contextlib.suppress(NotFound):
        try:
            container.remove(force=True, v=True)
        except APIError as error:
            if error.status_code != requests.codes.conflict:  # its removal is already in progress
                raise


def is_orphan(container: Container) -> bool:
    """True when the process that started a container is surely gone."""
    try:
        return is_gone(Owner.of(container.labels), container.status == "running")
    except ValidationError:
        return False
