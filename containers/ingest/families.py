"""Families of near duplicates, which get one family, so that the split keeps them on one side.

Two structures are near duplicates when they have the same elements in the same order and the same periodic directions,
a strain leads from one cell to the other, and the atoms, moved with the cell, are displaced little. Shifting, rotating
or mirroring the whole structure changes nothing, as it changes nothing for a potential; another order of the atoms, or
other vectors of the same lattice, are not recognised. Families are never merged: that would move structures to another
side.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from ase import Atoms
from numpy.typing import NDArray

from containers.structures.cells import lattice
from containers.structures.table import STATE, atoms_from_table, structure_id

LIKENESS_A = 0.25
"""Å. Found by measurement (docs/use/datasets.md)."""
STRAIN = 0.2
"""Largest Frobenius norm of the Green strain between the cells of near duplicates."""
BLOCK = 2_000  # rows of a table at once
GLANCE = 16  # atoms of a crystal compared first

Floats = NDArray[np.floating]


class _Shape(NamedTuple):
    """Compared properties of a structure."""

    kind: bytes  # digest of the elements in their order and of the periodic directions
    cell: Floats  # [3, 3], Å; unit vectors in the directions that are not periodic
    places: NDArray[np.float32]  # [N, 3] in units of the cell vectors, from atom 0
    periodic: NDArray[np.bool_]  # [3]


class Families:
    """Families of structures, in the order of calls; a later call never changes an earlier answer.

    Args:
        likeness_A: largest root mean square displacement (Å) of near duplicates; 0 turns the search off.
        strain: largest strain between their cells.
        every: compare with every structure that is learned, not with the founders of its family alone. It finds the
            copy of a copy, for the time of a comparison with all of them.
    """

    def __init__(self, likeness_A: float, strain: float = STRAIN, every: bool = False) -> None:
        self._likeness, self._strain, self._every = likeness_A, strain, every
        self._known: dict[bytes, str] = {}
        self._learned: set[str] = set()
        self._founders: dict[bytes, _Founders] = {}
        self._waiting: list[tuple[_Shape, str]] = []
        self._last: dict[str, tuple[_Shape, str]] = {}

    def learn(self, table: pa.Table) -> None:
        """Take the structures of a table (columns of STRUCTURES) with their families, for ever.

        A family's founders are the structure it is named after or, where that is not in the table, all its structures;
        with `every` they are all its structures in any case.
        """
        ids = set(table.column("id").to_pylist())
        for start in range(0, table.num_rows, BLOCK):
            for atoms in atoms_from_table(table.slice(start, BLOCK)):
                identity, family = str(atoms.info["id"]), str(atoms.info["family"])
                self._learned.add(family)
                kept = self._known.setdefault(bytes.fromhex(identity), family) == family
                founds = self._every or family == identity or family not in ids
                if kept and self._likeness and founds:
                    self._waiting.append((_shape(atoms), family))

    def family(self, atoms: Atoms, given: str, trajectory: str, joins: bool = False) -> str:
        """Return the family of a structure.

        It is the one it had before; else the given one; else that of the nearest near duplicate, among all founders
        and the frame before it, of equally near ones the first founder; else it founds one, named by its content id.

        Args:
            atoms: positions and cell in Å; `info` has the state where it is not the default.
            given: family in its file; "" for none.
            trajectory: name of its file; a frame is compared with the frame before it in the same file.
            joins: whether a near duplicate goes before a given family that nothing known has.
        """
        identity = structure_id(atoms, atoms.info.get(STATE, ""))
        if not self._likeness:
            return self._known.setdefault(bytes.fromhex(identity), given or identity)
        shape, key = _shape(atoms), bytes.fromhex(identity)
        if key not in self._known:
            settled = given and (not joins or given in self._learned)
            found = None if settled else self._of_near_duplicate(shape, trajectory)
            self._known[key] = found or given or identity
            if not found:
                self._waiting.append((shape, self._known[key]))
        self._last[trajectory] = (shape, self._known[key])
        return self._known[key]

    def _of_near_duplicate(self, shape: _Shape, trajectory: str) -> str | None:
        # founders are sorted in only here: files that name every family pay nothing
        for founder, family in self._waiting:
            founders = self._founders.setdefault(founder.kind, _Founders(founder))
            # skip near copies of a founder of the same family
            if self._every or founders.nearest(founder, self._likeness, self._strain, family) is None:
                founders.add(founder, family)
        self._waiting = []
        candidates = [self._founders[shape.kind]] if shape.kind in self._founders else []
        last = self._last.get(trajectory)
        if last is not None and last[0].kind == shape.kind:
            candidates.append(_Founders(shape))
            candidates[-1].add(*last)
        found = [near for one in candidates if (near := one.nearest(shape, self._likeness, self._strain)) is not None]
        return min(found, key=lambda near: near[0])[1] if found else None


def _shape(atoms: Atoms) -> _Shape:
    periodic = np.asarray(atoms.pbc)
    kind = hashlib.sha256(np.asarray(atoms.numbers, dtype="<i4").tobytes() + periodic.tobytes()).digest()
    cell = lattice(atoms)
    places = (atoms.positions - atoms.positions[0]) @ np.linalg.inv(cell)
    return _Shape(kind, cell, places.astype(np.float32), periodic)


class _Founders:
    """Founders of the kind of a structure, and the search among them.

    A crystal is periodic in one direction at least.

    Each comparison is one of whole arrays over the founders that are left. Cells, then a lower bound of the
    displacement, rule out most of them and no near duplicate.
    """

    def __init__(self, shape: _Shape) -> None:
        self._crystals = bool(shape.periodic.any())
        self._names: list[str] = []
        self._code_of: dict[str, int] = {}
        self._codes = _Rows(np.int32)
        self._metrics = _Rows(np.float64)  # inverses of cell cellᵀ, 1/Å²
        self._places = _Rows(np.float32)
        self._glances = _Rows(np.float32)

    def add(self, shape: _Shape, family: str) -> None:
        """Take one more founder."""
        if family not in self._code_of:
            self._code_of[family] = len(self._names)
            self._names.append(family)
        self._codes.add(np.asarray(self._code_of[family]))
        self._metrics.add(np.linalg.inv(shape.cell @ shape.cell.T))
        self._places.add(shape.places)
        self._glances.add(self._glance(shape))

    def nearest(
        self, shape: _Shape, likeness: float, strain: float, family: str | None = None
    ) -> tuple[float, str] | None:
        """Return displacement (Å) and family of the nearest near duplicate, if any; of `family` only when given.

        Cells are compared by the Frobenius norms of the Green strains that lead to `shape`'s; no rotation changes them.
        With the deformation gradient F, twice the strain is F Fᵀ - 1, and F Fᵀ has the eigenvalues of
        metric⁻¹ cell cellᵀ.
        """
        if family is not None and family not in self._code_of:
            return None
        largest = len(shape.places) * likeness**2
        left = np.arange(len(self._codes.all))
        if family is not None:
            left = np.flatnonzero(self._codes.all == self._code_of[family])
        stretches = (self._metrics.all[left].reshape(-1, 3) @ (shape.cell @ shape.cell.T)).reshape(-1, 3, 3)
        squares = np.einsum("fij,fji->f", stretches, stretches) - 2 * np.einsum("fii->f", stretches) + 3
        left = left[np.sqrt(np.maximum(squares, 0.0)) / 2 <= strain]
        if self._crystals:  # lower bounds of the squares (Å²), which are fast to find
            bounds = self._squares(shape._replace(places=self._glance(shape)), self._glances.all[left])
        else:
            apart = self._glances.all[left] - self._glance(shape).astype(np.float32)
            bounds = np.asarray(np.einsum("fn,fn->f", apart, apart))
        left = left[bounds <= largest]
        squares = self._squares(shape, self._places.all[left])
        if not len(left) or squares.min() > largest:
            return None
        best = int(np.argmin(squares))
        return float(np.sqrt(squares[best] / len(shape.places))), self._names[self._codes.all[left[best]]]

    def _squares(self, shape: _Shape, places: Floats) -> Floats:
        """Return sums of squared displacements (Å²) from founders at `places` [F, N, 3]; [F]."""
        if self._crystals:  # displacements are of the nearest image, measured in the asking cell
            moved = shape.places - places
            moved -= np.rint(moved) * shape.periodic.astype(np.float32)
            apart = (moved.reshape(-1, 3) @ shape.cell.astype(np.float32)).reshape(len(moved), 3 * moved.shape[1])
            summed = apart @ np.tile(np.eye(3, dtype=np.float32), (moved.shape[1], 1))
            squares = np.einsum("fi,fi->f", apart, apart) - np.einsum("fi,fi->f", summed, summed) / moved.shape[1]
            return np.maximum(squares, 0.0)
        ours, theirs = _centred(shape.places.astype(float)), _centred(places.astype(float))  # at the best rotation
        best = np.linalg.svd(np.einsum("ni,fnj->fij", ours, theirs), compute_uv=False).sum(axis=1)
        return np.maximum((ours**2).sum() + (theirs**2).sum(axis=(1, 2)) - 2 * best, 0.0)

    def _glance(self, shape: _Shape) -> Floats:
        """Return the part of a structure for a lower bound.

        Of a crystal a few atoms: the displacement of a subset about its own mean never exceeds that of all atoms. Of a
        molecule the distances from its centre, which no rotation changes.
        """
        if self._crystals:
            return shape.places[np.linspace(0, len(shape.places) - 1, min(GLANCE, len(shape.places))).astype(int)]
        return np.asarray(np.linalg.norm(_centred(shape.places), axis=1))


class _Rows:
    """An array that grows by rows."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._kind, self._count = kind, 0
        self._room: NDArray[Any] = np.empty(0, dtype=kind)

    def add(self, row: NDArray[Any]) -> None:
        """Put one more row at the end; all have one shape."""
        if self._count == len(self._room):
            wider = np.empty((max(1, 2 * self._count), *row.shape), dtype=self._kind)
            wider[: self._count] = self._room.reshape(-1, *row.shape)
            self._room = wider
        self._room[self._count] = row
        self._count += 1

    @property
    def all(self) -> NDArray[Any]:
        """The rows so far."""
        return self._room[: self._count]


def _centred(places: Floats) -> Floats:
    return places - places.mean(axis=-2, keepdims=True)
