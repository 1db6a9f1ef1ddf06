"""Admission to the data set: the side of a structure, or why it may not come in; each structure once an origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from containers.arrays import Indices, Mask
from containers.contract import BadInput
from containers.ingest.checks import check_one_label
from containers.structures.split import Side, Split, side
from containers.structures.table import LABELS, Origin, flat
from containers.tensorpot.dataset.history import AT_ONCE, Base

Leaks = Literal["refuse", "set_aside"]


class Place(NamedTuple):
    """One row of a table of structures."""

    key: bytes  # content id
    source: str
    row: int
    family: str

    def __str__(self) -> str:
        return f"{self.source}: frame {self.row} (from 0)"


PLACE = ["id", "source", "row", "family"]
NEW = 0
"""`version` of a row that is not known to be in the set."""
SET_ASIDE = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("row", pa.int32()), ("side", pa.string()), ("reason", pa.string())]
)


def places_in(table: pa.Table | pa.RecordBatch) -> Iterator[Place]:
    """Yield every row of a table with the columns of PLACE."""
    columns = (table[name].to_pylist() for name in PLACE)
    yield from (Place(bytes.fromhex(one), *rest) for one, *rest in zip(*columns, strict=True))


def places(files: Sequence[Path]) -> Iterator[Place]:
    """Yield every row of the files."""
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(AT_ONCE, columns=PLACE):
            yield from places_in(batch)


def pool_families(labels: Sequence[Path], dft: Sequence[Path]) -> dict[bytes, str]:
    """Return the family of each structure of the pool that DFT labelled too, see `Sides`."""
    by_dft = {row.key for row in places(dft)}
    return {row.key: row.family for row in places(labels) if row.key in by_dft}


class Reserved:
    """The DFT test set: nothing like it may be trained on."""

    def __init__(self, rows: Iterator[Place]) -> None:
        self._ids: dict[bytes, Place] = {}
        self._families: dict[str, Place] = {}
        for row in rows:
            self._ids.setdefault(row.key, row)
            self._families.setdefault(row.family, row)

    def like(self, row: Place) -> str | None:
        """Return what `row` has in common with the test set; None for nothing."""
        if row.key in self._ids:
            return f"is {self._ids[row.key]} of the DFT test files"
        if row.family in self._families:
            return f"is of the family {row.family!r} of {self._families[row.family]} of the DFT test files"
        return None


@dataclass(frozen=True)
class Sides:
    """Rule for the side of each structure.

    Attributes:
        split: decides about families that are new.
        base: its structures and families keep their sides.
        pool: family of each structure of the pool that DFT labelled too; both rows are on one side.
    """

    split: Split
    base: Base
    pool: Mapping[bytes, str]

    def of(self, row: Place) -> Side:
        """Return the side of a row."""
        if row.key in self.base.sides:
            return self.base.sides[row.key]
        family = self.pool.get(row.key, row.family)
        return self.base.families.get(family) or side(family, self.split)


def kept_out(row: Place, origin: Origin, wanted: Side, reserved: Reserved, leaks: Leaks) -> str | None:
    """Return why a new row is set aside; None when it comes in.

    Raises:
        BadInput: a DFT structure that would be trained on is in the test set, or like one there.
    """
    if origin == "dft" and wanted == "test":
        return "a DFT structure on the test side of the split: kept from training"
    like = reserved.like(row) if wanted != "test" else None
    if like and origin == "dft" and leaks == "refuse":
        raise BadInput(
            f"{row}, which is DFT data to train on, {like}: errors on the test set would look too good. Take one of the"
            " two out of its files, give them families of their own (`family` of a frame), or lower likeness_A, up to"
            " which structures without one share a family"
        )
    return f"it {like}, so training must not see it" if like else None


def check_base(rows: Iterator[Place], base: Base, reserved: Reserved) -> None:
    """Raise `BadInput` when the earlier set trains on what is now in the DFT test set, or on its like."""
    for row in rows:
        if base.sides[row.key] != "test" and (like := reserved.like(row)):
            raise BadInput(
                f"{row}, on the {base.sides[row.key]} side of the base set, {like}, and rows never leave a set. Take"
                " that structure out of the DFT test files, or start a new set without a base"
            )


def checked(files: Iterable[Path]) -> Iterator[pa.Table]:
    """Yield the rows of tables in turns (schema LABELS).

    Raises:
        BadInput: a label does not fit its structure or is not finite; names file and frame.
    """
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(AT_ONCE, columns=LABELS.names):
                table = pa.Table.from_batches([batch]).cast(LABELS)
                atoms = _lengths(table["numbers"])
                energies = np.asarray(table["energy"].to_numpy(zero_copy_only=False), dtype=float)  # null becomes NaN
                stresses = 6 * np.asarray(table["stress"].is_valid(), dtype=np.int64)
                faults = {
                    "it has no atoms": atoms == 0,
                    "its energy is missing or not finite": ~np.isfinite(energies),
                    "it does not have one finite position (3 numbers) an atom": ~_fits(table["positions"], 3 * atoms),
                    "it does not have one finite force (3 numbers) an atom": ~_fits(table["forces"], 3 * atoms),
                    "its stress is not finite": ~_fits(table["stress"], stresses),
                }
                for fault, rows in faults.items():
                    if rows.any():
                        first = table.slice(int(np.argmax(rows)), 1).to_pylist()[0]
                        place = f"{first['source']}: frame {first['row']} (from 0)"
                        raise BadInput(f"{place}: {fault}; correct or remove it")
                yield table


def _fits(column: pa.ChunkedArray, lengths: Indices) -> Mask:
    """Return which rows of a column of lists have so many numbers, all finite."""
    found = _lengths(column)
    fits = found == lengths
    fits[np.searchsorted(np.cumsum(found), np.flatnonzero(~np.isfinite(flat(column))), side="right")] = False
    return np.asarray(fits)


def _lengths(column: pa.ChunkedArray) -> Indices:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int64)


def only_new(rows: pa.Table) -> pa.Table:
    """Return the rows that are not in the set, once, of rows of one origin with those of the set among them.

    Raises:
        BadInput: a structure has two labels; names both.
    """
    rows = rows.sort_by([("id", "ascending"), ("version", "descending"), ("source", "ascending"), ("row", "ascending")])
    ids = rows["id"].to_numpy(zero_copy_only=False)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    leaders = np.maximum.accumulate(np.where(first, np.arange(len(ids)), 0))
    for place in np.flatnonzero(~first).tolist():
        check_one_label(*rows.take([int(leaders[place]), place]).to_pylist())
    return rows.filter(pa.array(first & (rows["version"].to_numpy() == NEW)))


def aside_table(aside: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the records of what was set aside as a table, by id and reason."""
    ordered = sorted(aside, key=lambda one: (one["id"], one["reason"], one["source"], one["row"]))
    return pa.Table.from_pylist([dict(one) for one in ordered], schema=SET_ASIDE)


def why_aside(aside: Iterable[Mapping[str, Any]], sides: Iterable[Side], text: str = "set aside because") -> str:
    """Return a sentence with the commonest reason on some sides and its count; empty where nothing was set aside."""
    reasons = Counter(one["reason"] for one in aside if one["side"] in sides).most_common(1)
    return f" {reasons[0][1]} {text}: {reasons[0][0]}." if reasons else ""
