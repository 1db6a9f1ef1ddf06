"""The structures to label as files of one shard each, so that a step reads no more than it labels.

What a structure costs the teacher: its neighbour pairs within the cutoff, which are the edges of its graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from containers.contract import Closed, file_digest
from containers.labels.rows import binary_ids, firsts
from containers.structures.cells import lattice
from containers.structures.distances import surroundings
from containers.structures.table import STRUCTURES, atoms_from_table

ROWS_AT_ONCE = 10_000
Places = NDArray[np.int64]


class Shard(Closed):
    """Structures that are labelled together, in a file that exists until their labels are in the store."""

    file: Path
    sha256: str
    structures: int = Field(ge=1)
    atoms: int = Field(ge=0)

    @property
    def progress(self) -> Path:
        """Where the one who labels it says how far it is."""
        return self.file.with_suffix(".progress")


class Pool:
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

    def write(self, places: Places, cuts: Sequence[range], folder: Path) -> list[Shard]:
        """One file in `folder` for each of `cuts`, which together cover `places` (ascending) in order."""
        return [
            self._shard(pieces, places[cuts[number]], folder / f"{number + 1:05}.parquet")
            for number, pieces in groupby(_pieces(self._parts(places), cuts), key=lambda piece: piece[0])
        ]

    def _shard(self, pieces: Iterable[tuple[int, pa.Table]], places: Places, file: Path) -> Shard:
        with pq.ParquetWriter(file, STRUCTURES, compression="zstd") as writer:
            for _, piece in pieces:
                writer.write_table(piece)
        return Shard(file=file, sha256=file_digest(file), structures=len(places), atoms=int(self.atoms[places].sum()))

    def _parts(self, places: Places) -> Iterator[pa.Table]:
        """The structures at `places`, in tables of at most ROWS_AT_ONCE rows."""
        wanted, start = self.rows[places], 0
        with pq.ParquetFile(self.table) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=STRUCTURES.names):
                first, last = np.searchsorted(wanted, [start, start + len(batch)])
                if first < last:
                    yield pa.Table.from_batches([batch]).take(pa.array(wanted[first:last] - start))
                start += len(batch)


def _pieces(parts: Iterable[pa.Table], cuts: Sequence[range]) -> Iterator[tuple[int, pa.Table]]:
    """The parts again, cut where a range of `cuts` ends; each with the number of its range."""
    start, number = 0, 0
    for part in parts:
        while len(part):
            room = cuts[number].stop - start
            yield number, part.slice(0, room)
            start += min(room, len(part))
            part = part.slice(room)
            number += start == cuts[number].stop


MOST_IMAGES = 1e6
"""Beyond so many atoms in reach, pairs are estimated from the density: to list them would take gigabytes."""


def count_edges(structures: Sequence[Atoms], cutoff: float) -> NDArray[np.int64]:
    """Directed neighbour pairs within `cutoff` (Å) of each structure, periodic images included; [structures].

    A structure that has no neighbour list (positions or cell not finite or degenerate) counts as its atoms.
    """
    return np.array([_edges(atoms, cutoff) for atoms in structures], dtype=np.int64)


def _edges(atoms: Atoms, cutoff: float) -> int:
    volume = abs(np.linalg.det(lattice(atoms))) if np.isfinite(atoms.cell.array).all() else 0.0
    if not (volume > 0 and math.isfinite(volume) and np.isfinite(atoms.positions).all()):
        return len(atoms)
    if atoms.pbc.any() and (estimate := _in_reach(atoms, cutoff)) > MOST_IMAGES:
        return int(min(estimate * len(atoms), np.iinfo(np.int32).max))
    around = surroundings(atoms, cutoff)
    centres, points = cKDTree(around.points[: around.atoms]), cKDTree(around.points)
    return int(centres.count_neighbors(points, cutoff)) - len(atoms)


def _in_reach(atoms: Atoms, cutoff: float) -> float:
    """Atoms and images that `surroundings` would list, about."""
    reach = cutoff * np.linalg.norm(np.linalg.inv(lattice(atoms)), axis=0)
    return float(len(atoms) * np.prod(np.where(atoms.pbc, 2 * np.ceil(reach) + 1, 1.0)))
