"""The structures to label as files of one shard each, so that a step reads no more than it labels.

What a structure costs the teacher: its neighbour pairs within the cutoff, which are the edges of its graph.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from containers.contract import Closed, Progress, file_digest, write_atomic
from containers.labels.rows import binary_ids, firsts
from containers.structures.cells import lattice
from containers.structures.distances import surroundings
from containers.structures.table import STRUCTURES, atoms_from_table

ROWS_AT_ONCE = 10_000
Places = NDArray[np.int64]


class ShardFile(Closed):
    """Structures that are labelled together, in a file that exists until their labels are in the store."""

    file: Path
    sha256: str
    structures: int = Field(ge=1)
    atoms: int = Field(ge=0)

    @property
    def progress(self) -> Path:
        """Where `write_progress` says how far its labelling is."""
        return self.file.with_suffix(".progress")


WRITE_EVERY_S = 1.0
ATOMS = re.compile(r"([\d,]+) atoms")


def write_progress(path: Path, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A progress function of a shard: `path` gets the structures and atoms done, at most once a second."""
    written = clock() - WRITE_EVERY_S

    def write(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        nonlocal written
        if clock() - written < WRITE_EVERY_S and done < total:
            return
        written = clock()
        atoms = ATOMS.search(text)
        number = int(atoms[1].replace(",", "")) if atoms else None
        write_atomic(path, json.dumps({"done": done, "atoms": number, "total": total}).encode())

    return write


class StructurePool:
    """The structures of an ingested table, each id once. A place is a structure's number among them, from 0."""

    def __init__(self, table: Path) -> None:
        self.table = table
        every = binary_ids(pq.read_table(table, columns=["id"])["id"])
        self.rows = np.flatnonzero(firsts(every))
        self.ids: pa.Array = every.take(pa.array(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def atoms(self) -> NDArray[np.int64]:
        """Atoms of each structure."""
        column = pq.read_table(self.table, columns=["numbers"])["numbers"]
        sizes = [chunk.value_lengths().to_numpy() for chunk in column.chunks]
        return np.concatenate([np.zeros(0, np.int64), *sizes]).astype(np.int64)[self.rows]

    def edges(self, places: Places, cutoff: float) -> NDArray[np.int64]:
        """Neighbour pairs within `cutoff` (Å) of the structures at `places` (ascending)."""
        counted = [count_edges(atoms_from_table(part), cutoff) for part in self._parts(places)]
        return np.concatenate([np.zeros(0, np.int64), *counted])

    def write(self, places: Places, cuts: Sequence[range], folder: Path) -> list[ShardFile]:
        """One file in `folder` for each of `cuts`, which together cover `places` (ascending) in order."""
        shards, parts, left = [], self._parts(places), STRUCTURES.empty_table()
        for number, cut in enumerate(cuts, start=1):
            file, room = folder / f"{number:05}.parquet", len(cut)
            with pq.ParquetWriter(file, STRUCTURES, compression="zstd") as writer:
                while room:
                    left = left if len(left) else next(parts)
                    writer.write_table(left.slice(0, room))
                    room, left = max(room - len(left), 0), left.slice(room)
            atoms = int(self.atoms[places[cut]].sum())
            shards.append(ShardFile(file=file, sha256=file_digest(file), structures=len(cut), atoms=atoms))
        return shards

    def _parts(self, places: Places) -> Iterator[pa.Table]:
        """The structures at `places`, in tables of at most ROWS_AT_ONCE rows."""
        wanted, start = self.rows[places], 0
        with pq.ParquetFile(self.table) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=STRUCTURES.names):
                first, last = np.searchsorted(wanted, [start, start + len(batch)])
                if first < last:
                    yield pa.Table.from_batches([batch]).take(pa.array(wanted[first:last] - start))
                start += len(batch)


MOST_IMAGES = 1e6
"""Beyond so many atoms in reach, pairs are estimated from the density: to list them would take gigabytes."""


def count_edges(structures: Sequence[Atoms], cutoff: float) -> NDArray[np.int64]:
    """Directed neighbour pairs within `cutoff` (Å) of each structure, periodic images included; [structures].

    A structure that has no neighbour list (positions or cell not finite or degenerate) counts as its atoms.
    """

    def edges(atoms: Atoms) -> int:
        volume = abs(np.linalg.det(lattice(atoms))) if np.isfinite(atoms.cell.array).all() else 0.0
        if not (volume > 0 and math.isfinite(volume) and np.isfinite(atoms.positions).all()):
            return len(atoms)
        if atoms.pbc.any():
            reach = cutoff * np.linalg.norm(np.linalg.inv(lattice(atoms)), axis=0)
            in_reach = float(len(atoms) * np.prod(np.where(atoms.pbc, 2 * np.ceil(reach) + 1, 1.0)))
            if in_reach > MOST_IMAGES:
                return int(min(in_reach * len(atoms), np.iinfo(np.int32).max))
        around = surroundings(atoms, cutoff)
        centres, points = cKDTree(around.points[: around.atoms]), cKDTree(around.points)
        return int(centres.count_neighbors(points, cutoff)) - len(atoms)

    return np.array([edges(atoms) for atoms in structures], dtype=np.int64)
