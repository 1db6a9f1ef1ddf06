"""The user's files: found and digested before anything starts, so that a missing one is told at once."""

from __future__ import annotations

from pathlib import Path

from containers.mace.fetch import FOUNDATION_MODELS
from flows.config import DistillConfig
from tasks.artefact import External, FileRef, external
from tasks.errors import UserError

Files = dict[str, tuple[External, ...]]
"""What a config calls a group of files -> the files."""
Models = dict[str, External | None]
"""What a config calls a model -> its file; None for a foundation model."""
BASE = ("dataset.parquet", "selection.parquet", "baseline.json")


def user_files(config: DistillConfig) -> Files:
    """The files of `pool`, `dft`, `dft_test`, of the earlier run `base` (as BASE) and the `potential` whose
    coefficients the selection uses; empty where there is none.

    Raises:
        UserError: names the first that is missing.
    """
    groups = {"pool": config.pool.files, "dft": config.dft.files, "dft_test": config.dft.test_files}
    files = {name: tuple(external(Path(path)) for path in paths) for name, paths in groups.items()}
    fitted = config.selection.potential
    return files | {
        "base": _base_files(config.dataset.base),
        "potential": (external(Path(fitted)),) if fitted else (),
    }


def _base_files(folder: str | None) -> tuple[External, ...]:
    if folder is None:
        return ()
    try:
        return tuple(external(Path(folder) / name) for name in BASE)
    except UserError as error:
        raise UserError(f"dataset.base: {error} It is the folder of an earlier run (runs/NAME).") from None


def teacher_files(config: DistillConfig) -> Models:
    """The models of teacher and committee by what the config calls them; None: a foundation model, to be fetched."""
    names = (config.teacher.model, *config.teacher.committee)
    return {name: None if name in FOUNDATION_MODELS else _model_file(name) for name in names}


def _model_file(name: str) -> External:
    try:
        return external(Path(name))
    except UserError as error:
        known = ", ".join(FOUNDATION_MODELS)
        raise UserError(f"teacher.model: {error} Or name a foundation model: {known}.") from None


def digests(files: Files, models: dict[str, FileRef]) -> dict[str, str]:
    """The user's files and the teachers -> sha256."""
    given = {str(file.path): file.sha256 for group in files.values() for file in group}
    return given | {name: model.sha256 for name, model in models.items()}
