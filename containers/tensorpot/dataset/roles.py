"""Use of each row of a data set: selection, strained copies, weak spots and frames share this answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.structures.split import Side
from containers.structures.table import Origin, atoms_from_table

AT_ONCE = 250
"""Structures read at a time."""
REPLACED = "its DFT label is used instead of the teacher's"


class Role(NamedTuple):
    """Use of one row of a data set.

    Attributes:
        replaced: True for a teacher's label where DFT labelled the same structure for training or validation.
    """

    id: str
    origin: Origin
    side: Side
    replaced: bool

    @property
    def of_pool(self) -> bool:
        """True for the teacher's structures of the training side, from which a selection is made."""
        return self.origin == "teacher" and self.side == "train"


def read_roles(path: Path) -> list[Role]:
    """Return the use of every row of a data set (Parquet, DATASET), in its order."""
    columns = pq.read_table(path, columns=["id", "origin", "side"]).columns
    rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
    by_dft = {key for key, origin, side in rows if origin == "dft" and side != "test"}
    return [
        Role(key, origin, side, origin == "teacher" and side != "test" and key in by_dft) for key, origin, side in rows
    ]


def read_rows(path: Path, wanted: Sequence[bool] | None = None) -> Iterator[Atoms]:
    """Yield the labelled structures of a data set in its order; `wanted` has a flag for each row, None means all."""
    first = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=AT_ONCE, use_threads=False):  # no threads: processes are forked
            table = pa.Table.from_batches([batch])
            here = slice(first, first := first + table.num_rows)
            yield from atoms_from_table(table if wanted is None else table.filter(pa.array(wanted[here], pa.bool_())))
