"""Reading a config file: YAML, overrides from the command line, and messages that name key and mend."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from containers.mace.fetch import FOUNDATION_MODELS
from flows.config import DistillConfig, Pool
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
        raise UserError("\n".join(f"{where}: {line}" for line in _told(error))) from None


def with_absolute_paths(config: DistillConfig, place: Path) -> DistillConfig:
    """The same config with its files relative to `place` made absolute; the name of a foundation model stays a name."""

    def absolute(names: list[str]) -> list[str]:
        return [str(place / name) for name in names]

    def model(name: str) -> str:
        return name if name in FOUNDATION_MODELS else str(place / name)

    committee = [model(name) for name in config.teacher.committee]
    teacher = config.teacher.model_copy(update={"model": model(config.teacher.model), "committee": committee})
    pool = Pool(files=absolute(config.pool.files))
    dft = config.dft.model_copy(
        update={"files": absolute(config.dft.files), "test_files": absolute(config.dft.test_files)}
    )
    base = config.dataset.base
    dataset = config.dataset.model_copy(update={"base": str(place / base) if base else None})
    fitted = config.selection.potential
    selection = config.selection.model_copy(update={"potential": str(place / fitted) if fitted else None})
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
    match = re.fullmatch(r"([A-Za-z_][\w.]*)=(.*)", override, flags=re.DOTALL)
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


def _told(error: ValidationError) -> list[str]:
    """One line a key; the alternatives of a union are joined."""
    lines: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for problem in error.errors():
        place = _key(problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines[f"unknown key {place}{_suggestion(problem['loc'])}"] = []
            continue
        lines.setdefault(place, []).append(problem["msg"].removeprefix("Value error, "))
        if problem["type"] != "missing":
            given[place] = f", not {problem['input']!r}"
    whole = lines.pop("", [])  # between sections: the message has the keys, and the whole config would not help
    return [
        *whole,
        *(f"{key}: {' or '.join(told)}{given.get(key, '')}" if told else key for key, told in lines.items()),
    ]


def _key(location: tuple[int | str, ...]) -> str:
    """The dotted key as the user wrote it, without pydantic's names of the alternatives."""
    return ".".join(str(part) for part in location if isinstance(part, int) or re.fullmatch(r"\w+", part))


def _suggestion(location: tuple[int | str, ...]) -> str:
    section: Any = DistillConfig
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation
    names = list(section.model_fields) if issubclass(section, BaseModel) else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f": did you mean {close[0]}?" if close else f"; known here: {', '.join(names)}"
