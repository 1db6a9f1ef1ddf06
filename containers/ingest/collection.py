"""Structures on their way into one table: each once, sorted by id, waiting on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.ingest.checks import check_one_label
from containers.structures.external_sort import Spool, blocks
from containers.structures.table import LABELS, STRUCTURES, labels_table, structures_table, write_table

DUPLICATES = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int32()),
        ("kept_source", pa.string()),
        ("kept_row", pa.int32()),
    ]
)
CHUNK = 2_000  # structures held as Atoms before they become a table
CHUNK_ATOMS = 200_000  # or so many atoms
FARTHEST = 4.0  # Å; a shortest distance beyond it is of no interest to a potential


class Collection:
    """Structures so far, each once; the first by file order is kept. Labels of the others are compared at the end.

    Args:
        names: the user's names of the files, by number.
        labelled: whether structures have energy and forces.
        folder: an empty one on disk, for what waits.
    """

    def __init__(self, names: Sequence[str], labelled: bool, folder: Path) -> None:
        self._names, self._labelled = names, labelled
        self._kept: dict[bytes, tuple[int, int]] = {}  # id -> number of its file, row
        self._duplicates: list[tuple[bytes, int, int]] = []
        self._atoms = 0
        self._elements: set[str] = set()
        self._shortest = FARTHEST
        self._waiting: list[Atoms] = []
        self._waiting_atoms = 0
        self._frames = np.zeros((len(names), 2), dtype=int)  # of each file: with several atoms, with a cell
        self._without_cell: dict[str, list[int]] = {}  # by file: rows of frames with several atoms
        self._spool = Spool(folder, LABELS if labelled else STRUCTURES)
        self._folder = folder

    def add(self, structure: Atoms, file: int, shortest: float) -> None:
        """Keep a structure with the info of a table row and its shortest distance (Å), or note it as a duplicate."""
        self._frames[file] += [len(structure) > 1, structure.cell.rank > 0]
        if len(structure) > 1 and structure.cell.rank == 0:
            self._without_cell.setdefault(self._names[file], []).append(structure.info["row"])
        identity, row = bytes.fromhex(structure.info["id"]), structure.info["row"]
        new = identity not in self._kept
        if new:
            self._kept[identity] = (file, row)
            self._atoms += len(structure)
            self._elements.update(structure.symbols.species())
            self._shortest = min(self._shortest, shortest)
        else:
            self._duplicates.append((identity, file, row))
        if new or self._labelled:
            self._waiting.append(structure)
            self._waiting_atoms += len(structure)
        if len(self._waiting) >= CHUNK or self._waiting_atoms >= CHUNK_ATOMS:
            self._pack()

    @property
    def reach(self) -> float:
        """Å; a distance beyond it changes nothing."""
        return self._shortest

    def _pack(self) -> None:
        if self._waiting:
            self._spool.add((labels_table if self._labelled else structures_table)(self._waiting))
        self._waiting, self._waiting_atoms = [], 0

    def write(self, structures: Path, duplicates: Path) -> None:
        """Write both tables; raises `BadInput` for a structure with two labels, before anything is written there."""
        self._pack()
        made = self._folder / structures.name
        with self._spool, pq.ParquetWriter(made, self._spool.schema, compression="zstd") as writer:
            for block in blocks(_each_once(part) for part in self._spool.parts()):
                writer.write_table(block)
        made.replace(structures)
        kept = [self._kept[identity] for identity, _, _ in self._duplicates]
        columns = {
            "id": [identity.hex() for identity, _, _ in self._duplicates],
            "source": [self._names[file] for _, file, _ in self._duplicates],
            "row": [row for _, _, row in self._duplicates],
            "kept_source": [self._names[file] for file, _ in kept],
            "kept_row": [row for _, row in kept],
        }
        write_table(duplicates, pa.Table.from_pydict(columns, schema=DUPLICATES))

    def metrics(self) -> dict[str, Any]:
        """Return the figures of the collection."""
        return {
            "structures": len(self._kept),
            "atoms": self._atoms,
            "duplicates": len(self._duplicates),
            "files": len(self._names),
            "elements": sorted(self._elements),
            "files_without_cell": {
                name: int(frames)
                for name, (frames, with_cell) in zip(self._names, self._frames, strict=True)
                if frames and not with_cell
            },
            "some_without_cell": {
                name: [len(self._without_cell[name]), self._without_cell[name][0]]
                for name, (_, with_cell) in zip(self._names, self._frames, strict=True)
                if with_cell and name in self._without_cell
            },
            "shortest_distance_A": round(self._shortest, 6) if self._shortest < FARTHEST else None,
        }


def _each_once(rows: pa.Table) -> pa.Table:
    """Return the first row of each id, of rows sorted by id; raises `BadInput` where a later one has another label."""
    ids = rows["id"].to_numpy(zero_copy_only=False)
    again = np.concatenate([[False], ids[1:] == ids[:-1]]) if len(ids) else np.empty(0, dtype=bool)
    for place in np.flatnonzero(again).tolist():
        first = int(np.flatnonzero(~again[:place])[-1])
        check_one_label(*rows.take([first, place]).select(["source", "row", "energy", "forces"]).to_pylist())
    return rows.filter(pa.array(~again))
