"""Steps under Apptainer, for clusters without a daemon: the same contract, a child process instead of an engine.

The images are .sif files made from those of `make images`. What the step does not get of Docker's protection, because
Apptainer has no option for it or only root may use it, is in docs/operate/containers.md.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path
from typing import get_args

from containers.contract import NETWORK, Device, Image, Progress, Request
from containers.environment import lock_digest
from tasks.runners.base import CannotStart, Ended, Runner, check_inputs, check_labels, run_process
from tasks.settings import step_environment, thread_environment

PROGRAM = "apptainer"
INSTALL = "Install Apptainer (many clusters have it as a module), or set DISTILL_RUNNER to another runner."
OURS = ("APPTAINER", "SINGULARITY")  # variables that would mount, set or change what the command line does not say
PLACES = ("_TMPDIR", "_CACHEDIR")  # but for these
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class ApptainerRunner(Runner):
    """`apptainer exec` on an image made from the Docker archive, as the user who calls it."""

    limits_memory = True

    def prepare(self, device: Device) -> None:
        """Refuse image files that are missing or cannot run this checkout's steps."""
        for image in get_args(Image):
            self._sif(image, lock_digest(image), device)

    def run(self, folder: Path, image: Image, request: Request, progress: Progress) -> Ended:
        check_inputs(request)
        sif = self._sif(image, request.lock, request.resources.device)
        words = command(sif, folder, request, self.settings.step_memory_GB)
        return run_process(words, environment(request), folder, progress, self.settings.step_timeout_s, INSTALL)

    def _sif(self, image: Image, lock: str, device: Device) -> Path:
        """The image file that the settings name, if it has the labels of the right Docker image."""
        named = self.settings.image(image, device)
        sif = Path(named).absolute()
        save = f"docker save mace-to-ace/{image}:{device} -o {image}.tar"
        build = f"apptainer build {image}.sif docker-archive:{image}.tar; set DISTILL_{image.upper()}_IMAGE to it"
        if not sif.is_file():
            raise CannotStart(f"there is no image file {named} for Apptainer. Make one: {save}; {build}.")
        try:
            check_labels(_labels(sif), str(sif), image, lock, device)
        except CannotStart as error:
            if error.kind != "EnvironmentDiffers":
                raise
            raise CannotStart(f"{error} Then: {save}; {build}.", error.kind) from None
        return sif


def command(sif: Path, folder: Path, request: Request, memory_GB: float | None = None) -> list[str]:
    """The words of `apptainer exec`: no network, home, environment or file of this machine but those named here.

    Args:
        memory_GB: needs cgroups that the system has given to the user; without it there is no limit.
    """
    inputs = {file.path for files in request.inputs.values() for file in files}
    read_only = sorted({folder / "request.json", *inputs})  # a hostile step must not change what a repeat would do
    mounts = [_mount(folder), *(_mount(path, read_only=True) for path in read_only)]
    return [
        *(PROGRAM, "exec", "--containall", "--no-home", "--cleanenv"),
        *(() if request.step in NETWORK else ("--net", "--network", "none")),
        *(("--no-privs",) if os.geteuid() == 0 else ()),  # for root only; others have none
        *(("--nv",) if request.resources.device == "cuda" else ()),
        *(("--memory", str(round(memory_GB * 1e9))) if memory_GB else ()),
        *(word for mount in mounts for word in ("--mount", mount)),
        *("--pwd", "/tmp"),  # noqa: S108  the container's own
        *(str(sif), "python", "-m", "containers.step", str(folder)),
    ]


def _mount(path: Path, read_only: bool = False) -> str:
    """The same path inside, as a line of CSV: unlike `--bind` it can say paths with commas and colons."""
    if "\n" in str(path) or "\r" in str(path):
        raise CannotStart(f"Apptainer cannot mount a path with a line break: {str(path)!r}. Rename it.", "BadInput")
    line = io.StringIO()
    fields = ["type=bind", f"source={path}", f"destination={path}", *(["ro"] if read_only else [])]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def environment(request: Request) -> dict[str, str]:
    """Variables that `apptainer` sees and, with the prefix APPTAINERENV_, the step: `--env` splits values at commas."""
    ours = step_environment(request.resources.threads)
    kept = {name: value for name, value in ours.items() if not name.startswith(OURS) or name.endswith(PLACES)}
    proxies = {name: ours[name] for name in PROXIES if name in ours and request.step in NETWORK}
    inside = {**thread_environment(request.resources.threads), **proxies}
    return {**kept, **{f"APPTAINERENV_{name}": value for name, value in inside.items()}}


def _labels(sif: Path) -> dict[str, str]:
    words = [PROGRAM, "inspect", "--labels", "--json", str(sif)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CannotStart(f"cannot start {PROGRAM}: {error.strerror}. {INSTALL}") from None
    if done.returncode != 0:
        raise CannotStart(f"{PROGRAM} cannot read {sif}: {done.stderr.strip()}", kind="EngineFailed")
    try:
        return dict(json.loads(done.stdout)["data"]["attributes"]["labels"])
    except (ValueError, KeyError, TypeError):
        raise CannotStart(f"{PROGRAM} tells no labels of {sif}: is it made by `make images`?", "EngineFailed") from None
