"""Projections of many structures on disk, made in parallel processes and read again a piece at a time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.arrays import Floats, Indices, Mask
from containers.contract import Machine
from containers.processes import forked_map
from containers.tensorpot.active_set.piece_sizes import Sizes

if TYPE_CHECKING:
    from containers.tensorpot.active_set.projections import Projector


@dataclass(frozen=True)
class Rows:
    """The projections of one element.

    Attributes:
        functions: F, numbers in a row.
        files: one a piece, each an array (n, F).
        owners: for each piece the (n,) places of the structures that its rows belong to.
        wanted: by place of a structure, whether its rows are meant.
    """

    functions: int
    files: tuple[Path, ...]
    owners: tuple[Indices, ...]
    wanted: Mask

    def __len__(self) -> int:
        return sum(int(self.wanted[owners].sum()) for owners in self.owners)

    def of(self, structures: Mask) -> Rows:
        """Return the rows of some structures: a mask over all of them."""
        return replace(self, wanted=structures)

    def pieces(self) -> Iterator[tuple[Floats, Indices]]:
        """Yield rows and their owners, in the order of the structures."""
        for file, owners in zip(self.files, self.owners, strict=True):
            keep = self.wanted[owners]
            if keep.all():
                yield np.load(file), owners
            elif keep.any():
                yield np.load(file)[keep], owners[keep]

    def together(self) -> tuple[Floats, Indices]:
        """Return everything at once: only where that is little."""
        size, first = len(self), 0
        rows, owners = np.zeros((size, self.functions)), np.zeros(size, dtype=np.int64)
        for found, of in self.pieces():
            rows[first : first + len(found)], owners[first : first + len(found)] = found, of
            first += len(found)
        return rows, owners


@dataclass(frozen=True)
class Projected:
    """The projections of all structures by element (sorted), and one row of means for each structure (or none)."""

    elements: dict[str, Rows]
    features: Floats | None


Piece = tuple[int, int, list[Atoms]]
"""Number of a piece, place of its first structure, and its structures."""
Done = tuple[dict[str, Indices], Floats | None]
"""Owners by element, and means, of the structures of a piece."""


@dataclass(frozen=True)
class Work:
    """Projection of structures into `folder`, as a process does it."""

    projector: Projector
    folder: Path
    features: bool

    def __call__(self, piece: Piece) -> Done:
        """Write the rows of a piece; return their owners and, with `features`, the structures' means.

        Means are (structures, D) sums of the atoms' projections over the number of all atoms, each element in its own
        columns.
        """
        number, first, structures = piece
        rows, owners = self.projector.project(structures)
        for name, found in rows.items():
            if len(found):
                np.save(_file(self.folder, number, name), found)
        shifted = {name: places + first for name, places in owners.items()}
        if not self.features:
            return shifted, None
        atoms = sum(np.bincount(owners[name], minlength=len(structures)) for name in sorted(rows))
        means = np.zeros((len(structures), sum(rows[name].shape[1] for name in rows)))
        begin = 0
        for name in sorted(rows):
            end = begin + rows[name].shape[1]
            if len(rows[name]):  # rows of one structure follow each other
                places, starts = np.unique(owners[name], return_index=True)
                means[places, begin:end] = np.add.reduceat(rows[name], starts, axis=0)
            begin = end
        return shifted, np.asarray(means / np.reshape(atoms, (-1, 1)), dtype=float)


def projected(structures: Iterable[Atoms], work: Work, processes: int, block_rows: int) -> Projected:
    """Project structures as they come; files go to `work.folder`.

    Args:
        structures: ready for pyace (see `fit_ready`), of elements of the basis.
        processes: how many share the work.
        block_rows: atoms of a piece, at most (one structure alone may have more).

    Raises:
        OutOfMemory: a process was killed.
    """
    done = list(forked_map(work, _pieces(structures, block_rows), processes, "projects structures"))
    count = sum(len(np.unique(np.concatenate(list(owners.values())))) for owners, _ in done)
    elements = {}
    for name, functions in sorted(work.projector.functions.items()):
        here = {number: owners[name] for number, (owners, _) in enumerate(done) if len(owners[name])}
        files = tuple(_file(work.folder, number, name) for number in here)
        elements[name] = Rows(functions, files, tuple(here.values()), np.ones(count, dtype=bool))
    means = [features for _, features in done if features is not None]
    return Projected(elements, np.concatenate(means) if means else None)


@contextlib.contextmanager
def projections(
    structures: Iterable[Atoms],
    total: int,
    projector: Projector,
    outputs: Path,
    machine: Machine,
    sizes: Sizes,
    features: bool = False,
) -> Iterator[Projected]:
    """Project about `total` structures with progress; their files lie beside a step's outputs until the block ends."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    def counted() -> Iterator[Atoms]:
        for done, atoms in enumerate(structures, 1):
            yield atoms
            machine.progress(done, max(done, total), "projections")

    with scratch(outputs) as folder, threadpool_limits(1):  # processes share the work, not threads
        work = Work(projector, folder, features)
        yield projected(counted(), work, machine.resources.threads, sizes.block_rows)


@contextlib.contextmanager
def scratch(outputs: Path) -> Iterator[Path]:
    """Make a folder for the files beside a step's outputs, gone at the end."""
    folder = outputs.parent / "work" / "projections"
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _file(folder: Path, number: int, element: str) -> Path:
    return folder / f"{number:06d}-{element}.npy"


def _pieces(structures: Iterable[Atoms], most: int) -> Iterator[Piece]:
    number, first, held, atoms = 0, 0, list[Atoms](), 0
    for structure in structures:
        if held and atoms + len(structure) > most:
            yield number, first, held
            number, first, held, atoms = number + 1, first + len(held), [], 0
        held.append(structure)
        atoms += len(structure)
    if held:
        yield number, first, held
