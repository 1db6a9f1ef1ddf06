"""Read a config file: YAML, overrides from the command line, and messages that name the key and the fix.

The user's files are found and digested before anything starts, so that a missing one is reported at once.
"""

from __future__ import annotations

import difflib
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from flows.config.schema import DistillConfig
from tasks.artefact import External, FileRef, external
from tasks.errors import UserError


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> DistillConfig:
    """Return the config in a YAML file, changed by `key.key=value` overrides; paths become absolute.

    Raises:
        UserError: names file, key and fix.
    """
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
    for override in overrides:
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.*)", override, flags=re.DOTALL)
        if match is None:
            raise UserError(f"--set {override}: write it as key.key=value, for example --set train.maxiter=50")
        try:
            value = YAML(typ="safe", pure=True).load(match[2])
        except YAMLError:
            raise UserError(f"--set {override}: {match[2]!r} is not a YAML value") from None
        put(values, match[1], value, f"--set {override}")
    return with_absolute_paths(validated(values, str(path)), path.absolute().parent)


def with_absolute_paths(config: DistillConfig, place: Path) -> DistillConfig:
    """Return the same config with its files relative to `place` made absolute, `~` expanded.

    The name of a foundation model stays a name. Variables such as `$HOME` are not expanded.
    """

    def path(name: str) -> str:
        return str(place / os.path.expanduser(name))  # noqa: PTH111  that of pathlib raises for an unknown user

    def model(name: str) -> str:
        return name if name in FOUNDATION_MODELS else path(name)

    teacher, dft, base, fitted = config.teacher, config.dft, config.dataset.base, config.selection.potential
    changes = {
        "teacher": {"model": model(teacher.model), "committee": [model(name) for name in teacher.committee]},
        "pool": {"files": [path(name) for name in config.pool.files]},
        "explore": {
            "seeds": [path(name) for name in config.explore.seeds],
            "teacher": model(config.explore.teacher) if config.explore.teacher else None,
        },
        "dft": {name: [path(file) for file in getattr(dft, name)] for name in ("files", "test_files")},
        "dataset": {"base": path(base) if base else None},
        "selection": {"potential": path(fitted) if fitted else None},
        "properties": {"files": [path(name) for name in config.properties.files]},
    }
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in changes.items()}
    return config.model_copy(update=sections)


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


def validated(values: dict[str, Any], where: str) -> DistillConfig:
    """Return the config of these values; `UserError` names `where`, and every wrong key with its fix on a line."""
    try:
        return DistillConfig.model_validate(values)
    except ValidationError as wrong:
        error = wrong
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
    whole += [f"{key}: {' or '.join(text)}{given.get(key, '')}" if text else key for key, text in lines.items()]
    raise UserError("\n".join(f"{where}: {line}" for line in whole))


def _written(location: tuple[int | str, ...], place: Any) -> list[int | str]:
    """Parts of a key as the user wrote them, without pydantic's names of the alternatives of a union."""
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
    """Yield the sections in a type, such as those in a list of sections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


Files = dict[str, tuple[External, ...]]
"""Key of the config (see `user_files`) -> its files."""
Models = dict[str, External | None]
"""Model of the config -> its file; None for a foundation model."""


def refuse_exploration(config: DistillConfig, command: str) -> None:
    """Raise `UserError` where a command that compares fits of the same data has a config that makes other data."""
    if config.explore.conditions:
        raise UserError(
            f"{command} fits the same data many times, and the rounds of explore.conditions change them. Explore first"
            f" (flows.explore); then leave explore out and set pool.files: [runs/{config.name}/dataset.parquet]."
        )


BASE = ("dataset.parquet", "selection.parquet", "baseline.json")


def user_files(config: DistillConfig) -> Files:
    """Return the files of `pool`, `seeds`, `dft`, `dft_test` and `crystals`, of the earlier run `base` (as BASE), the
    `potential` whose coefficients the selection uses and the model `explorer`; empty where there is none.

    Raises:
        UserError: names the first that is missing.
    """
    base, fitted = config.dataset.base, config.selection.potential
    groups = {"pool": config.pool.files, "dft": config.dft.files, "dft_test": config.dft.test_files}
    groups |= {"seeds": config.explore.seeds, "crystals": config.properties.files}
    explorer = config.explore.teacher
    groups |= {"potential": [fitted] if fitted else []}
    groups |= {"explorer": [explorer] if explorer and explorer not in FOUNDATION_MODELS else []}
    files = {name: tuple(external(Path(path)) for path in paths) for name, paths in groups.items()}
    try:
        return files | {"base": tuple(external(Path(base) / name) for name in BASE) if base else ()}
    except UserError as error:
        raise UserError(f"dataset.base: {error} It is the folder of an earlier run (runs/NAME).") from None


def teacher_files(config: DistillConfig) -> Models:
    """Return the models of teacher and committee by their names in the config; a foundation model is fetched later."""
    try:
        names = (config.teacher.model, *config.teacher.committee)
        return {name: None if name in FOUNDATION_MODELS else external(Path(name)) for name in names}
    except UserError as error:
        known = ", ".join(FOUNDATION_MODELS)
        raise UserError(f"teacher.model: {error} Or name a foundation model: {known}.") from None


def digests(files: Files, models: Mapping[str, FileRef | None]) -> dict[str, str]:
    """Return the sha256 of the user's files and of the models that are there."""
    given = {str(file.path): file.sha256 for group in files.values() for file in group}
    return given | {name: model.sha256 for name, model in models.items() if model}
