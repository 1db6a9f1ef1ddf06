"""The labels that a baseline is found on: those of an earlier data set and the new ones, each structure once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from containers.structures.split import Split
from containers.structures.table import LABELS, STATE, Origin, with_state
from containers.tensorpot.dataset.admission import PLACE, Sides, places_in
from containers.tensorpot.dataset.history import known_places

ROWS = 5000
"""Structures that are held at a time."""


@dataclass(frozen=True)
class BaselineLabels:
    """Labelled structures in the order of their files, ROWS at a time; those of the earlier set come first.

    Attributes:
        new: the teacher's labels of the pool (Parquet, LABELS).
        base: the data set of an earlier run (Parquet, DATASET); None: there is none.
        split: places families that are not in the earlier set.
    """

    new: Path
    base: Path | None
    split: Split

    def of_teacher(self, columns: Sequence[str] = LABELS.names) -> Iterator[pa.Table]:
        """Yield the teacher's labels of every side; a new row of a structure that the earlier set has is left out."""
        for table in self.of_base("teacher", columns):
            yield table.select(columns)
        for table in self._new(columns):
            yield table.select(columns)

    def training(self, columns: Sequence[str] = LABELS.names) -> Iterator[pa.Table]:
        """Yield the training side, also structures that the data set leaves out as near duplicates of DFT test ones."""
        for table in self.of_base("teacher", columns):
            yield table.filter(pc.equal(table["side"], "train")).select(columns)
        for table in self._new(columns):
            train = [self._sides.of(place) == "train" for place in places_in(table)]
            yield table.filter(pa.array(train, pa.bool_())).select(columns)

    def of_base(self, origin: Origin, columns: Sequence[str] = LABELS.names) -> Iterator[pa.Table]:
        """Yield the earlier set's rows of one origin, with `origin` and `side`."""
        for table in tables(self.base, [*columns, "origin", "side"]) if self.base else ():
            yield table.filter(pc.equal(table["origin"], origin))

    def _new(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows that the earlier set does not have, with the columns of PLACE."""
        known = self._sides.base.keys
        for table in tables(self.new, sorted({*columns, *PLACE})):
            fresh = [(place.key, "teacher") not in known for place in places_in(table)]
            yield table.filter(pa.array(fresh, pa.bool_()))

    @cached_property
    def _sides(self) -> Sides:
        """Sides of structures and families in the earlier set."""
        return Sides(self.split, known_places(self.base), pool={})


def tables(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file in its order, ROWS at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:  # buffered, it would hold all that was read until the end
        there = [name for name in columns if name in file.schema_arrow.names] if columns else None
        for batch in file.iter_batches(ROWS, columns=there):
            table = pa.Table.from_batches([batch])
            yield with_state(table) if columns is None or STATE in columns else table
