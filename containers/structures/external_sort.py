"""Many rows sorted by id without holding them: they wait on disk, parted by the beginning of their ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from containers.structures.table import list_lengths

PARTS = 64
"""Ids are digests, so each part holds about as many rows; one part at a time is in memory."""
ROWS = 10_000  # of a block that is given back, at most
ATOMS = 1_000_000  # of a block, at most, unless one structure has more


class Spool:
    """Rows on disk until they are read in the order of their ids. A context: the files close with it.

    Attributes:
        schema: of the rows.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self.schema = folder, schema
        self._open = ExitStack()
        self._files: dict[int, pa.RecordBatchStreamWriter] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, rows: pa.Table) -> None:
        """Put rows (of the schema, with an `id` in hex) behind those that are there."""
        parts = np.array([int(one[:2], 16) * PARTS // 256 for one in rows["id"].to_pylist()], dtype=np.int64)
        order = np.argsort(parts, kind="stable")
        starts = np.searchsorted(parts[order], np.arange(PARTS + 1))
        rows = rows.take(pa.array(order))
        for part in np.flatnonzero(np.diff(starts)).tolist():
            self._file(part).write_table(rows.slice(starts[part], starts[part + 1] - starts[part]))

    def _file(self, part: int) -> pa.RecordBatchStreamWriter:
        if part not in self._files:
            sink = self._open.enter_context(pa.OSFile(str(self._path(part)), "wb"))
            self._files[part] = self._open.enter_context(pa.ipc.new_stream(sink, self.schema))
        return self._files[part]

    def _path(self, part: int) -> Path:
        return self._folder / f"part{part:02}.arrow"

    def parts(self) -> Iterator[pa.Table]:
        """Yield all rows, sorted by id, those of one id in the order in which they came; each id in one table only."""
        self._open.close()
        for part in sorted(self._files):
            with pa.OSFile(str(self._path(part))) as source:
                rows = pa.ipc.open_stream(source).read_all()
            order = pc.sort_indices(rows["id"])  # stable
            yield rows.take(order)
            self._path(part).unlink()


def blocks(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in blocks whose borders depend on the rows alone, not on how the tables part them."""
    waiting: list[pa.Table] = []
    atoms = np.empty(0, dtype=np.int64)
    for table in tables:
        waiting.append(table)
        atoms = np.concatenate([atoms, list_lengths(table["numbers"])])
        while len(atoms):
            most = max(1, int(np.searchsorted(np.cumsum(atoms[: ROWS + 1]), ATOMS, side="right")))
            if (rows := min(most, ROWS)) >= len(atoms):
                break  # they do not fill a block yet
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, rows).combine_chunks()
            waiting, atoms = [joined.slice(rows)], atoms[rows:]
    if len(atoms):
        yield pa.concat_tables(waiting).combine_chunks()
