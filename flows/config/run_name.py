"""One name, one experiment: results of another config are replaced only when the user says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flows.config.loading import Files, Models
from flows.config.schema import DistillConfig
from tasks.errors import UserError

Results = Literal["manifest.json", "sweep/sweep.json", "committee/committee.json", "value_curve/value_curve.json"]
"""The file of a run folder that holds the config of what is published beside it."""
SHOWN = 8


def refuse_other(
    config: DistillConfig, files: Files, models: Models, folder: Path, results: Results, replace: bool
) -> None:
    """Refuse a config whose run folder has the results of another one.

    Args:
        config: with absolute paths.
        files, models: the user's files; where the results have digests, a file that only moved is the same.
        folder: runs/NAME.
        results: which results of the folder would be replaced.
        replace: the user wants them to be replaced.

    Raises:
        UserError: names the keys that differ.
    """
    if not replace and (told := difference(config, files, models, folder, results)):
        raise UserError(
            f"{told}\nNothing was computed. Give this run another name (--set name=...), or add --replace (in the"
            " Prefect UI: replace) to replace what is there. What is in the store stays either way."
        )


def difference(config: DistillConfig, files: Files, models: Models, folder: Path, results: Results) -> str | None:
    """How the config of the results in `folder` differs, in words; None when there are none or they are of this one.

    Keys that are newer than those results count as their defaults. Keys that are gone do not count.
    """
    found = _published(folder / results)
    if found is None:
        return None
    place = (folder / results).parent
    before = _readable(found["config"])
    if before is None:
        return f"{place} has results of a config that this version cannot read."
    old, new = _keys(before, results), _keys(config, results)
    was, now = found.get("inputs", {}), _digests(files, models)
    changed = [
        f"  {key}: {_short(old.get(key))} there, {_short(new.get(key))} here"
        for key in sorted(old | new)
        if _content(old.get(key), was) != _content(new.get(key), now) and old.get(key) != new.get(key)
    ]
    if not changed:
        return None
    more = [f"  and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return "\n".join([f"{place} has results of another config:", *changed[:SHOWN], *more])


def _published(path: Path) -> dict[str, Any] | None:
    """What a run wrote there; None for no file, or one that is none of ours."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("config"), dict) else None


def _readable(values: dict[str, Any]) -> DistillConfig | None:
    """The config of an earlier version, without the keys that are gone; None when it is none of today's."""
    values = deepcopy(values)
    while True:
        try:
            return DistillConfig.model_validate(values)
        except ValidationError as error:
            gone = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
            if not gone or not all(_dropped(values, place) for place in gone):
                return None


def _dropped(values: Any, place: tuple[int | str, ...]) -> bool:
    for part in place[:-1]:
        known = (isinstance(values, dict) and part in values) or (isinstance(values, list) and isinstance(part, int))
        if not known:
            return False
        values = values[part]
    if not isinstance(values, dict) or place[-1] not in values:
        return False
    del values[place[-1]]
    return True


def _keys(config: DistillConfig, results: Results) -> dict[str, Any]:
    """Dotted key -> value, for the keys that decide these results; only the results of a sweep depend on sweep.vary."""
    values = config.model_dump(mode="json", exclude={"sweep": True, "train": {"threads"}})
    if results == "sweep/sweep.json":
        values["sweep"] = {"vary": config.sweep.vary}
    return dict(_flat(values))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _content(value: Any, digests: Mapping[str, str]) -> Any:
    """The value with names of files replaced by their sha256."""
    if isinstance(value, list):
        return [_content(one, digests) for one in value]
    return digests.get(value, value) if isinstance(value, str) else value


def _digests(files: Files, models: Models) -> dict[str, str]:
    given = [file for group in files.values() for file in group] + [model for model in models.values() if model]
    return {str(file.path): file.sha256 for file in given}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
