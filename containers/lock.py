"""The exact packages of an image, and whether the running environment has them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from containers.contract import Image, StepError

FOLDER = Path(__file__).parent


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
    """sha256 of the pins, in any order and whatever the comments."""
    pins = "\n".join(f"{name}=={pin}" for name, pin in sorted(locked(image).items()))
    return hashlib.sha256(pins.encode()).hexdigest()


def check_environment(image: Image) -> dict[str, str]:
    """The installed versions of the locked packages; raises `EnvironmentDiffers` when one is another.

    A local build label (`2.13.0+cpu`) does not count as a difference.
    """
    versions = {name: _installed(name) for name in locked(image)}
    wrong = [
        f"{name} is {versions[name]}, locked {pin}"
        for name, pin in locked(image).items()
        if versions[name].split("+")[0] != pin
    ]
    if wrong:
        raise EnvironmentDiffers(
            f"the environment differs from containers/{image}/requirements.lock: {'; '.join(wrong)}."
            " Run `make setup` (results are cached by the lock, so they must come from it)."
        )
    return versions


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
