"""What is seen to before a container starts, whatever engine starts it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from containers.contract import Device, Image, Request
from containers.lock import sources_digest
from tasks.owner import PREFIX
from tasks.runners import CannotStart


class Wanted(NamedTuple):
    """What an image must be for."""

    image: Image
    lock: str  # sha256 of its packages
    device: Device


def check_labels(labels: Mapping[str, str], name: str, wanted: Wanted) -> None:
    """Refuse an image that was built from other packages or other steps than these, or for another device."""
    for what, label, value in (("packages", "lock", wanted.lock), ("step sources", "sources", sources_digest())):
        if labels.get(f"{PREFIX}{label}") != value:
            revision = labels.get("org.opencontainers.image.revision", "unknown")
            told = f"the image {name} was built from other {what} than these (revision {revision})"
            raise CannotStart(f"{told}. Build it again: make images.", kind="EnvironmentDiffers")
    if wanted.device == "cuda" and labels.get(f"{PREFIX}variant") != "cuda":
        mend = f"Build the other: make images VARIANT=cuda, and unset or change DISTILL_{wanted.image.upper()}_IMAGE."
        raise CannotStart(f"the image {name} is the CPU variant, the device is cuda. {mend}")


def check_inputs(request: Request) -> None:
    """Refuse a request with an input that is not there: an engine would tell it less plainly."""
    for name, files in request.inputs.items():
        if missing := [file.path for file in files if not file.path.is_file()]:
            raise CannotStart(f"input {name} of {request.step} does not exist: {missing[0]}", kind="BadInput")
