"""The exact packages of an image, and whether the running environment has them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from containers.contract import Image, StepError

FOLDER = Path(__file__).parent
SAME_PACKAGE = {"tensorflow-cpu": "tensorflow"}  # the CUDA build goes by another name
MISSING = "missing"


class EnvironmentDiffers(StepError):
    """The environment does not have the packages that its lock names."""


@cache
def locked(image: Image) -> dict[str, str]:
    """Package name -> exact version, from the image's `requirements.lock`."""
    lines = (FOLDER / image / "requirements.lock").read_text().splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return dict(pin.split("==") for pin in pins if pin)


@cache
def lock_digest(image: Image) -> str:
    """sha256 of the pins, in any order and whatever the comments; an image's label `mace-to-ace.lock`."""
    pins = "\n".join(f"{name}=={pin}" for name, pin in sorted(locked(image).items()))
    return hashlib.sha256(pins.encode()).hexdigest()


@cache
def sources_digest() -> str:
    """sha256 of the steps' sources and locks; an image's label `mace-to-ace.sources` (`deployments/images.sh`)."""
    files = sorted(
        path.relative_to(FOLDER.parent).as_posix() for kind in ("py", "lock") for path in FOLDER.rglob(f"*.{kind}")
    )
    lines = (f"{hashlib.sha256((FOLDER.parent / file).read_bytes()).hexdigest()}  {file}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_environment(image: Image, in_part: bool = False) -> dict[str, str]:
    """The installed versions of the locked packages; raises `EnvironmentDiffers` when one is another.

    A local build label (`2.13.0+cpu`) does not count as a difference. With `in_part` a package may be missing: a step
    of the flow's own process finds its Arrow there, but no torch.
    """
    found = {name: _installed(name) for name in locked(image)}
    versions = {name: found[name] for name in found if not (in_part and found[name] == MISSING)}
    wrong = [
        f"{name} is {installed}, locked {locked(image)[name]}"
        for name, installed in versions.items()
        if installed.split("+")[0] != locked(image)[name]
    ]
    if wrong:
        raise EnvironmentDiffers(
            f"the environment differs from containers/{image}/requirements.lock: {'; '.join(wrong)}."
            " Run `make setup` (results are cached by the lock, so they must come from it)."
        )
    return versions


def _installed(name: str) -> str:
    for distribution in (name, SAME_PACKAGE.get(name, name)):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return MISSING
