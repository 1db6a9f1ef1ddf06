"""One name, one experiment: results of another config are replaced only when the user says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flows.config.loading import Files, Models, digests
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
    if not replace and (other := difference(config, files, models, folder, results)):
        raise UserError(
            f"{other}\nNothing was computed. Give this run another name (--set name=...), or add --replace (in the"
            " Prefect UI: replace) to replace what is there. What is in the store stays either way."
        )


def difference(config: DistillConfig, files: Files, models: Models, folder: Path, results: Results) -> str | None:
    """Return how the config of the results in `folder` differs; None when there are none or they are of this one.

    Keys that are newer than those results count as their defaults. Keys that are gone do not count.
    """
    place = (folder / results).parent
    try:
        found = json.loads((folder / results).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        return None  # a file that is none of ours
    before = _readable(found["config"])
    if before is None:
        return f"{place} has results of a config that this version cannot read."
    old, new = _keys(before, results), _keys(config, results)
    was, now = found.get("inputs", {}), digests(files, models)
    changed = [
        f"  {key}: {_short(old.get(key))} there, {_short(new.get(key))} here"
        for key in sorted(old | new)
        if _content(old.get(key), was) != _content(new.get(key), now) and old.get(key) != new.get(key)
    ]
    if not changed:
        return None
    more = [f"  and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return "\n".join([f"{place} has results of another config:", *changed[:SHOWN], *more])


def _readable(values: dict[str, Any]) -> DistillConfig | None:
    """Return the config of an earlier version without the keys that are gone; None when it is none of today's."""
    values = deepcopy(values)
    while True:
        try:
            return DistillConfig.model_validate(values)
        except ValidationError as error:
            gone = [problem["loc"] for problem in error.errors() if problem["type"] == "extra_forbidden"]
            if not gone or not all(_dropped(values, place) for place in gone):
                return None


def _dropped(values: Any, place: tuple[int | str, ...]) -> bool:
    try:
        for part in place[:-1]:
            values = values[part]
        del values[place[-1]]
    except (KeyError, IndexError, TypeError):  # the place has pydantic's name of an alternative of a union
        return False
    return True


def _keys(config: DistillConfig, results: Results) -> dict[str, Any]:
    """Values by dotted key, for the keys that decide these results; only those of a sweep depend on sweep.vary."""
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


def _content(value: Any, sha256: Mapping[str, str]) -> Any:
    """Return the value with names of files replaced by their sha256."""
    if isinstance(value, list):
        return [_content(one, sha256) for one in value]
    return sha256.get(value, value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
