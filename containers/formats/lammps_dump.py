"""LAMMPS's text dumps, read snapshot by snapshot (https://docs.lammps.org/dump.html).

Types are numbers from 1. Which element a type is tells the column `element`, or a clear `mass`, or else the user. A
dump has no total energy, so its forces are no labels: the structure alone is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.formats.lammps_data import (
    GIVE_ELEMENTS,
    Unreadable,
    atom_count,
    by_number,
    check_units,
    element_number,
    element_of_mass,
    floats,
    numbers_of_types,
    tilted_cell,
)
from containers.formats.text import Lines

ITEM = "ITEM: "
CARTESIAN = (("x", "y", "z"), ("xu", "yu", "zu"))
SCALED = (("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
UNNAMED = "C"
"""What LAMMPS writes as the `element` of every atom where `dump_modify element` was not given."""
BOXES = {(): 2, ("xy", "xz", "yz"): 3, ("abc", "origin"): 4}
"""Words behind BOX BOUNDS, the periodic directions left out -> numbers a line."""


def is_dump(head: bytes) -> bool:
    """Whether a file that begins so is a text dump."""
    return head.lstrip().startswith(ITEM.encode())


def dump_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """Every snapshot, its atoms sorted by `id` where there is one.

    Args:
        lines: the text.
        name: the user's name of the file.
        elements: those of the types 1, 2, ... where the file does not say.

    Raises:
        BadInput: a broken snapshot, lengths in another unit than Å, types of no element; names file, frame and line.
    """
    row = 0
    while (line := lines.peek()) is not None:
        if line.strip():
            try:
                yield _Snapshot(lines).atoms(elements)
            except Unreadable as error:
                raise BadInput(f"{name}: frame {row} (from 0), line {lines.number}: {error}") from None
            row += 1
        else:
            lines.take()


class _Snapshot:
    """One snapshot as it stands in the dump."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._count: int | None = None
        self._box: tuple[Floats, Floats, list[bool]] | None = None
        self._columns: dict[str, list[str]] = {}
        while not self._columns:
            self._read(self._line())

    def _line(self) -> str:
        line = self._lines.take()
        if line is None:
            raise Unreadable("the file ends inside the snapshot; it was cut off")
        return line.strip()

    def _read(self, line: str) -> None:
        """One item; the atoms are the last."""
        match line.removeprefix(ITEM).split() if line.startswith(ITEM) else []:
            case ["TIMESTEP"] | ["TIME"]:
                self._line()
            case ["UNITS"]:
                check_units(self._line())
            case ["NUMBER", "OF", "ATOMS"]:
                self._count = atom_count(self._line().split())
            case ["BOX", "BOUNDS", *words]:
                self._box = self._read_box(words)
            case ["ATOMS", *columns]:
                self._columns = self._read_atoms(columns)
            case _:
                raise Unreadable(f"an item of a dump of atoms (ITEM: ...) should begin here, not {line[:60]!r}")

    def _read_box(self, words: list[str]) -> tuple[Floats, Floats, list[bool]]:
        """Cell (rows are vectors), its origin, and the periodic directions."""
        flags = words[-3:]
        if len(flags) < 3 or not all(re.fullmatch("[pfsm]{2}", flag) for flag in flags):
            raise Unreadable(
                "BOX BOUNDS does not say which directions are periodic; write it as LAMMPS does since 2009, such as"
                " ITEM: BOX BOUNDS pp pp pp"
            )
        pbc, width = [flag == "pp" for flag in flags], BOXES.get(tuple(words[:-3]))
        if width is None:
            raise Unreadable(f"the box is of an unknown kind: {' '.join(words)[:60]!r}")
        rows = np.array([floats(self._line().split(), width) for _ in range(3)])
        if width == 4:
            return rows[:, :3], rows[:, 3], pbc
        xy, xz, yz = rows[:, 2].tolist() if width == 3 else (0.0, 0.0, 0.0)
        low = rows[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]  # bounds are those of the tilted cell
        high = rows[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
        return tilted_cell((high - low).tolist(), (xy, xz, yz)), low, pbc

    def _read_atoms(self, columns: list[str]) -> dict[str, list[str]]:
        if self._count is None or self._box is None or not columns:
            raise Unreadable("ITEM: ATOMS comes before the number of atoms or the box, or names no columns")
        if twice := [column for column in columns if columns.count(column) > 1]:
            raise Unreadable(f"the column {twice[0][:20]} is there twice; remove one")
        if self._count == 0:
            raise Unreadable("zero atoms; remove the snapshot")
        words = [line.split() for line in self._lines.take_some(self._count)]
        if len(words) < self._count:
            raise Unreadable(f"the file ends after {len(words)} of {self._count} atoms; it was cut off")
        for atom, found in enumerate(words):
            if len(found) != len(columns):
                raise Unreadable(f"atom {atom} (from 0) has {len(found)} columns instead of {len(columns)}")
        return {column: [found[place] for found in words] for place, column in enumerate(columns)}

    def atoms(self, elements: Sequence[str]) -> Atoms:
        """The structure of ASE."""
        assert self._box is not None
        cell, origin, pbc = self._box
        atoms = Atoms(self._numbers(elements), positions=self._positions(cell, origin), cell=cell, pbc=pbc)
        if "id" not in self._columns:
            return atoms
        identities = self._floats(["id"])[:, 0]
        if len(np.unique(identities)) < len(identities):
            raise Unreadable("two atoms have the same id")
        return atoms[np.argsort(identities)]

    def _positions(self, cell: Floats, origin: Floats) -> Floats:
        for names in CARTESIAN:
            if set(names) <= set(self._columns):
                return self._floats(names)
        for names in SCALED:
            if set(names) <= set(self._columns):
                return origin + self._floats(names) @ cell
        raise Unreadable(f"no positions (x y z, xs ys zs, ...) among the columns {' '.join(self._columns)[:100]}")

    def _floats(self, names: Sequence[str]) -> Floats:
        """Columns of numbers, [atoms, names]."""
        try:
            return np.array([self._columns[name] for name in names], dtype=float).T
        except ValueError as error:
            raise Unreadable(f"columns {' '.join(names)}: {error}") from None

    def _numbers(self, given: Sequence[str]) -> Indices:
        """Atomic numbers, [atoms]; the column `element`, else clear masses, else the user's elements of the types.

        Two of them that contradict each other are refused, but for LAMMPS's default of `element`.
        """
        symbols, types = self._columns.get("element", []), self._columns.get("type", [])
        masses = {word: element_of_mass(floats([word], 1)[0]) for word in set(self._columns.get("mass", []))}
        by_mass = [masses[word] for word in self._columns.get("mass", [])] if masses and all(masses.values()) else []
        by_type = by_number(given)
        by_key = [atomic_numbers.get(by_type.get(kind, ""), 0) for kind in types] if given else []
        unnamed = set(symbols) == {UNNAMED} and (given or set(types) - {"1"} or set(by_mass) - {6})
        named = [] if unnamed else [element_number(symbol) for symbol in symbols]
        said = {"the column element": named, "the column mass": by_mass, "dataset.type_elements": by_key}
        for (one, numbers), (other, others) in combinations(((key, found) for key, found in said.items() if found), 2):
            for atom, (first, second) in enumerate(zip(numbers, others, strict=True)):
                if first and second and first != second:
                    raise Unreadable(
                        f"atom {atom} (from 0) is {chemical_symbols[first]} by {one} and {chemical_symbols[second]} by"
                        f" {other}; correct one of them"
                    )
        if named or by_mass:
            return np.array(named or by_mass)
        if types and given:
            return numbers_of_types(types, by_type)
        why = "every atom is called C, as without dump_modify element" if unnamed else "no column `element`"
        raise Unreadable(f"the dump does not say which elements the types are ({why}); {GIVE_ELEMENTS}")
