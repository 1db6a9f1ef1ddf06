"""The students of a sweep: the keys of the config that each one changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from containers.contract import canonical_json
from flows.config.loading import put, validated, with_absolute_paths
from flows.config.schema import DistillConfig
from tasks.errors import UserError

AFTER_DATA = ("train", "convergence", "stability")
"""Sections that are read after the data set is made: where only they differ, the data are prepared once."""


@dataclass(frozen=True)
class Variant:
    """One student of a sweep.

    Attributes:
        name: of its own, such as `cutoff=5.0 order=3`.
        changes: dotted key of the config -> value.
        config: the whole config, without a sweep of its own.
    """

    name: str
    changes: dict[str, Any]
    config: DistillConfig

    @property
    def data_key(self) -> bytes:
        """Equal for students of the same labelled data."""
        left_out = {*AFTER_DATA, "sweep", "extend", "trajectory"}
        return canonical_json(self.config.model_dump(mode="json", exclude=left_out))


def variants(config: DistillConfig) -> list[Variant]:
    """Return every combination of the values to vary, the last key changing fastest; one that is there already (a value
    given twice, 5 and 5.0) counts once.

    Args:
        config: with absolute paths.

    Raises:
        UserError: a combination is no valid config; names it and the key.
    """
    vary = config.sweep.vary
    last = [key.rpartition(".")[2] for key in vary]
    names = [key if last.count(word) > 1 else word for key, word in zip(vary, last, strict=True)]
    found: list[Variant] = []
    for chosen in product(*(enumerate(values, 1) for values in vary.values())):
        changes = {key: value for key, (_, value) in zip(vary, chosen, strict=True)}
        name = " ".join(  # a value of several parts by its place
            f"{word} {place}" if isinstance(value, dict | list) else f"{word}={value}"
            for word, (place, value) in zip(names, chosen, strict=True)
        )
        made = Variant(name, changes, varied(config, changes, f"sweep.vary: {name}"))
        if useless := [line for line in made.config.without_effect if line.partition(" ")[0] in vary]:
            raise UserError(f"sweep.vary: {name}: {useless[0]}")
        if all(made.config != one.config for one in found):
            found.append(made)
    return found


def varied(config: DistillConfig, changes: Mapping[str, Any], where: str) -> DistillConfig:
    """Return the config of one student: keys changed, no sweep, no extension; `UserError` names `where`."""
    values = config.model_dump(exclude={"sweep"})
    for key, value in changes.items():
        put(values, key, value, where)
    values["extend"]["rounds"] = 0
    found = validated(values, where)
    if with_absolute_paths(found, Path("/")) != found:
        raise UserError(f"{where}: give files by their absolute paths here")
    return found


def refuse_too_many(config: DistillConfig, cores: int) -> None:
    """Raise `UserError` when fits side by side would take more threads than this machine has cores."""
    at_once = config.sweep.at_once
    threads = 1 if config.train.threads == "auto" else config.train.threads
    if at_once * threads > max(cores, threads):
        raise UserError(
            f"sweep.at_once: {at_once} fits of {threads} thread(s) each, but there are {cores} cores, and threads that"
            " share a core wait for one another. Lower sweep.at_once or train.threads."
        )
