"""Where a structure belongs in the data set: its side, or why it may not come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow.parquet as pq

from containers.contract import BadInput
from containers.origin import Origin
from containers.split import Side, Split, side
from containers.tensorpot.dataset_base import AT_ONCE, Base

Leaks = Literal["refuse", "set_aside"]


class Place(NamedTuple):
    """One row of a table of structures."""

    key: bytes  # content id
    source: str
    row: int
    family: str

    def __str__(self) -> str:
        return f"{self.source}: frame {self.row} (from 0)"


def places(files: Sequence[Path]) -> Iterator[Place]:
    """Every row of the tables."""
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(AT_ONCE, columns=["id", "source", "row", "family"]):
            columns = (batch[name].to_pylist() for name in ("id", "source", "row", "family"))
            yield from (Place(bytes.fromhex(one), *rest) for one, *rest in zip(*columns, strict=True))


class Reserved:
    """The DFT test set: nothing like it may be trained on."""

    def __init__(self, rows: Iterator[Place]) -> None:
        self._ids: dict[bytes, Place] = {}
        self._families: dict[str, Place] = {}
        for row in rows:
            self._ids.setdefault(row.key, row)
            self._families.setdefault(row.family, row)

    def like(self, row: Place) -> str | None:
        """What `row` has in common with the test set; None for nothing."""
        if row.key in self._ids:
            return f"is {self._ids[row.key]} of the DFT test files"
        if row.family in self._families:
            return f"is of the family {row.family!r} of {self._families[row.family]} of the DFT test files"
        return None


@dataclass(frozen=True)
class Sides:
    """Decides the side of each structure.

    Attributes:
        split: decides about families that are new.
        base: its structures and families keep their sides.
        pool: family of each structure of the pool that DFT labelled too; both rows are on one side.
    """

    split: Split
    base: Base
    pool: Mapping[bytes, str]

    def of(self, row: Place) -> Side:
        """The side of a row."""
        if row.key in self.base.sides:
            return self.base.sides[row.key]
        family = self.pool.get(row.key, row.family)
        return self.base.families.get(family) or side(family, self.split)


def kept_out(row: Place, origin: Origin, wanted: Side, reserved: Reserved, leaks: Leaks) -> str | None:
    """Why a new row is set aside; None when it comes in.

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
