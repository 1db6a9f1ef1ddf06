"""Reading a config file: YAML, overrides from the command line, and messages that name key and mend.

The user's files: found and digested before anything starts, so that a missing one is told at once.
"""

from __future__ import annotations

import difflib
import os.path
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from flows.config.schema import DistillConfig, Pool
from tasks.artefact import External, FileRef, external
from tasks.errors import UserError


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> DistillConfig:
    """The config in a YAML file, changed by `key.key=value` overrides; paths become absolute.

    Raises:
        UserError: naming file and key, and the mend.
    """
    values = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    return with_absolute_paths(validated(values, str(path)), path.absolute().parent)


def validated(values: dict[str, Any], where: str) -> DistillConfig:
    """The config of these values; `UserError` names `where`, every wrong key, and the mend."""
    try:
        return DistillConfig.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {line}" for line in _told(error, values))) from None


def with_absolute_paths(config: DistillConfig, place: Path) -> DistillConfig:
    """The same config with its files relative to `place` made absolute, `~` expanded.

    The name of a foundation model stays a name. Variables such as `$HOME` are not expanded.
    """

    def path(name: str) -> str:
        return str(place / os.path.expanduser(name))  # noqa: PTH111  that of pathlib raises for an unknown user

    def absolute(names: list[str]) -> list[str]:
        return [path(name) for name in names]

    def model(name: str) -> str:
        return name if name in FOUNDATION_MODELS else path(name)

    committee = [model(name) for name in config.teacher.committee]
    teacher = config.teacher.model_copy(update={"model": model(config.teacher.model), "committee": committee})
    pool = Pool(files=absolute(config.pool.files))
    dft = config.dft.model_copy(
        update={"files": absolute(config.dft.files), "test_files": absolute(config.dft.test_files)}
    )
    base = config.dataset.base
    dataset = config.dataset.model_copy(update={"base": path(base) if base else None})
    fitted = config.selection.potential
    selection = config.selection.model_copy(update={"potential": path(fitted) if fitted else None})
    changed = {"teacher": teacher, "pool": pool, "dft": dft, "dataset": dataset, "selection": selection}
    return config.model_copy(update=changed)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise UserError(f"the config {path} is not a file.")
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text())  # refuses a key that is there twice
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}.") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(
            f"{path} must hold keys and values, such as `name: silicon`; see examples/silicon/distill.yaml."
        )
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    match = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.*)", override, flags=re.DOTALL)
    if match is None:
        raise UserError(f"--set {override}: write it as key.key=value, for example --set train.maxiter=50")
    try:
        value = YAML(typ="safe", pure=True).load(match[2])
    except YAMLError:
        raise UserError(f"--set {override}: {match[2]!r} is not a YAML value") from None
    put(values, match[1], value, f"--set {override}")


def put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the value of a dotted key; `UserError` names `where` when there can be no such key."""
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise UserError(f"{where}: {parent} has no keys below it")
    place[last] = value


def _told(error: ValidationError, values: dict[str, Any]) -> list[str]:
    """One line a key; the alternatives of a union are joined.

    Args:
        values: what the user wrote.
    """
    lines: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for problem in error.errors():
        written = _written(problem["loc"], values)
        place = ".".join(str(part) or '""' for part in written)
        if problem["type"] == "extra_forbidden":
            lines[f"unknown key {place}{_suggestion(written)}"] = []
            continue
        lines.setdefault(place, []).append(problem["msg"].removeprefix("Value error, "))
        if problem["type"] != "missing":
            given[place] = f", not {problem['input']!r}"
    for key in [key for key in lines if any(other.startswith(f"{key}.") for other in lines)]:
        del lines[key]  # another alternative of a union: what is wrong inside says more
    whole = lines.pop("", [])  # between sections: the message has the keys, and the whole config would not help
    return [
        *whole,
        *(f"{key}: {' or '.join(told)}{given.get(key, '')}" if told else key for key, told in lines.items()),
    ]


def _written(location: tuple[int | str, ...], place: Any) -> list[int | str]:
    """The parts of a key as the user wrote them, without pydantic's names of the alternatives of a union."""
    kept: list[int | str] = []
    for part in location:
        if (isinstance(place, dict) and part in place) or (isinstance(place, list) and isinstance(part, int)):
            kept.append(part)
            place = place[part]  # type: ignore[index]  # an int where it is a list
        elif isinstance(place, dict) and re.fullmatch(r"\w+", str(part)):  # a key that is missing, or a preset's
            kept.append(part)
            place = {}
    return kept


def _suggestion(key: Sequence[int | str]) -> str:
    section: type[BaseModel] = DistillConfig
    for part in key[:-1]:
        if str(part) in section.model_fields:  # else a place in a list, or a name that the user chose
            section = next(_sections(section.model_fields[str(part)].annotation), section)
    close = difflib.get_close_matches(str(key[-1]).replace("-", "_"), section.model_fields, n=1)
    return f": did you mean {close[0]}?" if close else f"; known here: {', '.join(section.model_fields)}"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections in a type, such as those in a list of sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


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
