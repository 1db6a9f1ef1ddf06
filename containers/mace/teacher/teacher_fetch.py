"""Step `teacher_fetch`: a published MACE foundation model by name, with mace-torch's own download.

The only step with a network; so it does not open the model, which is a pickle: `teacher_info` does, without a network.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from pydantic import Field, field_validator

from containers.contract import Closed, Image, Inputs, Machine, StepError

IMAGE: Image = "mace"
VERSION = 1
INPUTS: dict[str, str] = {}
OUTPUTS = {"model": "teacher.model"}

MATERIALS_MODELS = (
    "small",
    "medium",
    "large",
    "small-0b",
    "medium-0b",
    "small-0b2",
    "medium-0b2",
    "large-0b2",
    "medium-0b3",
    "medium-mpa-0",
    "small-omat-0",
    "medium-omat-0",
    "mace-matpes-pbe-0",
    "mace-matpes-r2scan-0",
    "mh-0",
    "mh-1",
)
MOLECULE_MODELS = ("small_off", "medium_off", "large_off")
FOUNDATION_MODELS = (*MATERIALS_MODELS, *MOLECULE_MODELS)
"""The names that mace-torch's own training command takes. Some have a licence of their own: the log shows it."""


class Params(Closed):
    """The model by name."""

    name: str = Field(description=f"one of {', '.join(FOUNDATION_MODELS)}")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FOUNDATION_MODELS:
            raise ValueError(f"{name!r} is not a MACE foundation model; the names are {', '.join(FOUNDATION_MODELS)}")
        return name


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Download the model, or take it from mace-torch's cache folder, and check that it is whole.

    Raises:
        StepError: no network, or the address answers with something else than a file as torch saves it.
    """
    machine.progress(0, 1, f"fetching {params.name}")
    return fetch(params.name, address(params.name), outputs / OUTPUTS["model"])


def address(name: str) -> str:
    """Return the address at which mace-torch has the model called `name`."""
    from mace.calculators.foundations_models import mace_mp_urls, mace_off_urls

    urls: dict[str, str] = mace_mp_urls if name in MATERIALS_MODELS else mace_off_urls
    return urls[name.removesuffix("_off")]


def fetch(name: str, url: str, model: Path) -> dict[str, Any]:
    """Copy what mace-torch downloads from `url` to the file `model`; see `run`."""
    from mace.calculators.foundations_models import download_mace_mp_checkpoint

    try:
        cached = Path(download_mace_mp_checkpoint(url))
    except (OSError, RuntimeError) as error:
        raise StepError(
            f"the MACE model {name!r} could not be downloaded ({error}). Download it where there is a network"
            " and give the path of the file as teacher.model."
        ) from error
    if damage := _damage(cached):
        fix = f"Delete {cached} (in a container it is gone), then run again."
        raise StepError(f"the download of {name} is damaged: {damage}. {fix}")
    shutil.copyfile(cached, model)
    return {"size_MB": round(model.stat().st_size / 1e6, 3)}


def _damage(model: Path) -> str | None:
    """Return what is wrong with a file that should be as `torch.save` writes it: a ZIP archive with checksums."""
    try:
        with ZipFile(model) as archive:
            bad = archive.testzip()
    except BadZipFile as error:
        return f"it is not a file as torch saves it ({error})"
    return f"its part {bad} differs from its checksum" if bad else None


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a file that says it is no model; the stubs of the other steps do not open it."""
    content = f"stub of the MACE model {params.name}\n".encode()
    (outputs / OUTPUTS["model"]).write_bytes(content)
    return {"size_MB": len(content) / 1e6}
