"""`dataset`: all labelled structures in one table that only ever grows, each with its side, origin and provenance.

Rows of an earlier set come first and stay as they are, also their sides. Then come new rows, sorted by origin and id:
one a structure and origin, so that a structure may have a label of the teacher and one of DFT. A structure is on the
side of its family. The DFT test files, and all that shares a family with them, stay out of training and validation.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.structures.external_sort import Spool, blocks
from containers.structures.split import SIDES, Split, empty_sides_message, side
from containers.structures.table import Origin, flat, list_lengths, write_table
from containers.tensorpot.dataset.admission import (
    NEW,
    Leaks,
    Reserved,
    Sides,
    aside_table,
    check_base,
    checked,
    kept_out,
    only_new,
    places,
    places_in,
    pool_families,
    why_aside,
)
from containers.tensorpot.dataset.history import (
    DATASET,
    HISTORY,
    Base,
    History,
    Key,
    Version,
    digest_of,
    read_base,
    row_digests,
)
from containers.tensorpot.dataset.sizes import Sizes

IMAGE: Image = "tensorpot"
VERSION = 5
INPUTS = {
    "base": Optional("the data set of an earlier run that is to grow (Parquet, DATASET)"),
    "labels": "the pool with the teacher's labels (Parquet, containers.structures.table.LABELS)",
    "dft": Optional("DFT data to train on (Parquet, LABELS)"),
    "dft_test": Optional("DFT data kept for evaluation (Parquet, LABELS)"),
}
OUTPUTS = {"dataset": "dataset.parquet", "set_aside": "set_aside.parquet", "summary": "dataset.json"}
ORIGINS: dict[Origin, str] = {"dft": "dft", "teacher": "labels"}
"""Origin -> input with its rows, in the order of new rows."""


class Params(Closed):
    """Content and rules of the set."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    split: Split = Field(Split(), description="shares of the sides, for families that no earlier set has placed")
    teachers: tuple[str, ...] = Field(min_length=1, description="digests (TeacherKey) of whoever made the labels")
    test_leaks: Leaks = Field(
        "refuse",
        description="what becomes of DFT training data that share a structure or a family with the DFT test files:"
        " refuse: the run ends; set_aside: they are left out",
    )


@dataclass
class _Incoming:
    """New rows on their way in.

    Attributes:
        spools: rows by origin, in the order of their ids; with them the rows of the base that have the same id.
        aside: rows of SET_ASIDE.
        families: of every structure that was seen, also of those set aside.
    """

    spools: Mapping[Origin, Spool]
    aside: list[dict[str, Any]] = field(default_factory=list)
    families: set[str] = field(default_factory=set)


@dataclass
class _Tally:
    """Content of the set, counted while it is written."""

    sizes: Sizes
    digests: list[bytes] = field(default_factory=list)
    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # origin, side, group
    came: Counter[str] = field(default_factory=Counter)  # origin of new rows
    families: dict[str, str] = field(default_factory=dict)  # family -> side
    structures: dict[str, set[bytes]] = field(default_factory=lambda: {name: set() for name in SIDES})

    def count(self, table: pa.Table, version: int) -> None:
        """Take rows of the set; those of `version` are new."""
        self.sizes.add(table)
        self.digests.extend(row_digests(table))
        columns = (table[name].to_pylist() for name in ("id", "origin", "side", "group", "family", "version"))
        for identity, origin, on, group, family, came in zip(*columns, strict=True):
            self.rows[origin, on, group] += 1
            self.came[origin] += came == version
            self.families[family] = on
            self.structures[on].add(bytes.fromhex(identity))


class Metrics(StepMetrics):
    """Figures of the data set."""

    train_structures: int
    teacher_rows: int
    force_mean_meV_per_A: float  # of the teacher's labels, see `Sizes`
    energy_spread_meV_per_atom: float


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Merge what is new into the set; write it, what was set aside, and `dataset.json`.

    Raises:
        BadInput: a structure with two labels of one origin, a broken row, a leak between training and the DFT test
            files, a base of another teacher, or a side without structures. Nothing is written then.
    """
    work = outputs.parent / "work"
    work.mkdir(exist_ok=True)
    try:
        base = read_base(inputs.all("base"), params.teachers)
        with ExitStack() as stack:
            spools = {}
            for origin in ORIGINS:
                (work / origin).mkdir()
                spools[origin] = stack.enter_context(Spool(work / origin, DATASET))
            incoming = _Incoming(spools)
            _admit(inputs, base, params, incoming, machine)
            tally, history = _write(work / OUTPUTS["dataset"], base, incoming, Sizes(params.elements))
        if empty := [name for name in SIDES if not tally.structures[name]]:
            families = incoming.families | tally.families.keys()
            raise BadInput(empty_sides_message(empty, families, params.split) + why_aside(incoming.aside, empty))
        facts = _summary(tally, history, incoming, base, params)
        (work / OUTPUTS["dataset"]).replace(outputs / OUTPUTS["dataset"])
        write_table(outputs / OUTPUTS["set_aside"], aside_table(incoming.aside))
        (outputs / OUTPUTS["summary"]).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    finally:
        shutil.rmtree(work)
    counts: dict[str, Any] = {f"{name}_structures": len(tally.structures[name]) for name in SIDES}
    for origin in get_args(Origin):
        counts[f"{origin}_rows"] = sum(count for (of, _, _), count in tally.rows.items() if of == origin)
        counts[f"new_{origin}_rows"] = tally.came[origin]
    version = {"version": len(history.versions), "digest": history.versions[-1].digest}
    return (
        counts | tally.sizes.figures() | version | {"families": len(tally.families), "set_aside": len(incoming.aside)}
    )


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Do the same: the step needs no heavy package and takes milliseconds on little data."""
    return run(inputs, outputs, params, machine)


def _admit(inputs: Inputs, base: Base, params: Params, incoming: _Incoming, machine: Machine) -> None:
    """Spool the rows that may come in, and those of the base with the same id and origin, to compare the labels."""
    reserved = Reserved(places(inputs.all("dft_test")))
    check_base(places(inputs.all("base")), base, reserved)
    sides = Sides(params.split, base, pool_families(inputs.all("labels"), inputs.all("dft")))
    again: set[Key] = set()
    for origin, name in ORIGINS.items():
        done, total = 0, sum(pq.read_metadata(path).num_rows for path in inputs.all(name))
        for table in checked(inputs.all(name)):
            rows = _sifted(table, origin, sides, reserved, params, incoming)
            incoming.spools[origin].add(rows)
            again |= {(bytes.fromhex(one), origin) for one in rows["id"].to_pylist()} & base.keys
            done += table.num_rows
            machine.progress(done, total, f"{name}: structures")
    for table in base.tables():
        keys = list(zip(map(bytes.fromhex, table["id"].to_pylist()), table["origin"].to_pylist(), strict=True))
        for origin in ORIGINS:
            incoming.spools[origin].add(table.filter(pa.array([key in again and key[1] == origin for key in keys])))


def _sifted(
    table: pa.Table, origin: Origin, sides: Sides, reserved: Reserved, params: Params, incoming: _Incoming
) -> pa.Table:
    """Return the rows (schema DATASET) that come in; the others are set aside with the reason."""
    numbers = flat(table["numbers"])
    owners = np.repeat(np.arange(table.num_rows), list_lengths(table["numbers"]))
    unknown = ~np.isin(numbers, [atomic_numbers[element] for element in params.elements])
    alien: dict[int, set[str]] = {}  # elements that the potential does not have, by row
    for owner, atomic_number in set(zip(owners[unknown].tolist(), numbers[unknown].tolist(), strict=True)):
        alien.setdefault(owner, set()).add(chemical_symbols[atomic_number])
    kept, chosen = [], []
    for number, place in enumerate(places_in(table)):
        on = sides.of(place)
        incoming.families.add(place.family)
        if number in alien:
            reason: str | None = f"has {', '.join(sorted(alien[number]))}, which the potential does not"
        else:
            reason = kept_out(place, origin, on, reserved, params.test_leaks)
        if reason:
            found = {"id": place.key.hex(), "source": place.source, "row": place.row, "side": on, "reason": reason}
            incoming.aside.append(found)
        else:
            kept.append(number)
            chosen.append(on)
    rows = table.take(pa.array(kept, pa.int64()))
    for name, values in (("origin", [origin] * len(kept)), ("side", chosen), ("version", [NEW] * len(kept))):
        rows = rows.append_column(name, pa.array(values, DATASET.field(name).type))
    return rows.cast(DATASET)


def _write(path: Path, base: Base, incoming: _Incoming, sizes: Sizes) -> tuple[_Tally, History]:
    """Write base and new rows; their versions and digest go into the file's metadata."""
    tally, number = _Tally(sizes), len(base.history.versions) + 1
    with pq.ParquetWriter(path, DATASET, compression="zstd") as writer:
        new = (rows for spool in incoming.spools.values() for rows in map(only_new, spool.parts()))
        place = DATASET.get_field_index("version")
        numbered = (rows.set_column(place, "version", pa.array([number] * rows.num_rows, pa.int32())) for rows in new)
        for block in blocks(chain(base.tables(), numbered)):
            tally.count(block, number)
            writer.write_table(block)
        history = base.history
        if tally.came.total():
            version = Version(digest=digest_of(tally.digests), teacher=tally.came["teacher"], dft=tally.came["dft"])
            history = history.model_copy(update={"versions": (*history.versions, version)})
        writer.add_key_value_metadata({HISTORY: history.model_dump_json()})
    return tally, history


def _summary(tally: _Tally, history: History, incoming: _Incoming, base: Base, params: Params) -> dict[str, Any]:
    """Return the content of `dataset.json`. Counts are of rows; a structure with labels of both origins has two."""
    rows: dict[str, Any] = {origin: {name: {} for name in SIDES} for origin in get_args(Origin)}
    for (origin, on, group), count in tally.rows.items():
        rows[origin][on][group] = count
    elsewhere = sum(on != side(family, params.split) for family, on in base.families.items())
    return {
        "version": len(history.versions),
        "digest": history.versions[-1].digest,
        "history": [version.model_dump() for version in history.versions],
        "teachers": list(history.teachers),
        "rows": rows,
        "families": dict(sorted(Counter(tally.families.values()).items())),
        "came_in": {origin: tally.came[origin] for origin in sorted(get_args(Origin))},
        "set_aside": dict(sorted(Counter(one["side"] for one in incoming.aside).items())),
        "split": params.split.model_dump(),
        "families_on_another_side_than_split_says": elsewhere,  # an earlier set placed them, and they stay
    }
