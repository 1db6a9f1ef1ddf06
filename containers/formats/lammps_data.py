"""LAMMPS's data files, one structure each (https://docs.lammps.org/read_data.html).

The format has neither units nor periodic directions: lengths are taken to be in Å and all directions periodic.

Elements and cells as LAMMPS's dumps and data files give them, or do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, too_many

COUNT = re.compile(rb"^\s*\d+\s+atoms\s*(#.*)?$", re.MULTILINE)
BOX = re.compile(rb"^\s*(\S+\s+){2,3}(xlo\s+xhi|avec)\b", re.MULTILINE)
STYLES = {"atomic": 2, "charge": 3, "angle": 3, "bond": 3, "molecular": 3, "full": 4}
"""Atom style -> column (from 0) of x in the section Atoms; three image numbers may follow z."""
BY_COLUMNS = {5: "atomic", 8: "atomic"}  # 6 and 9 are of charge or of molecular, 7 and 10 of full or of sphere
IMAGE = re.compile(r"[-+]?\d+")
MOST_HEADERS = 100
SECTIONS = ("Atoms", "Masses", "Atom Type Labels")


def is_data(head: bytes) -> bool:
    """Whether a file that begins so is a data file."""
    return COUNT.search(head) is not None and BOX.search(head) is not None


def data_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """The structure, its atoms sorted by id.

    Elements are those of the type labels, where all are symbols, else of the masses, where they are clear, else
    `elements`: those of the types 1, 2, ...

    Raises:
        BadInput: a broken file, an atom style that is not known, types of no element; names the file.
    """
    try:
        yield _read(lines).atoms(elements)
    except Unreadable as error:
        raise BadInput(
            f"{name}: frame 0 (from 0), a LAMMPS data file: {error}; correct the file, or give a dump with the elements"
        ) from None


@dataclass
class _File:
    """A data file by its parts."""

    header: dict[str, list[str]] = field(default_factory=dict)  # what follows the numbers -> the numbers
    sections: dict[str, list[list[str]]] = field(default_factory=dict)  # words of each line
    style: str = ""

    def atoms(self, elements: Sequence[str]) -> Atoms:
        """The structure of ASE."""
        rows = self.sections.get("Atoms", [])
        count = atom_count(self.header.get("atoms", []))
        if len(rows) != count or count == 0:
            raise Unreadable(f"{len(rows)} atoms in the section Atoms, where the header says {count}")
        style = self.style or BY_COLUMNS.get(len(rows[0]), "")
        if style not in STYLES:
            raise Unreadable(
                f"the atom style {style!r} is not read or not clear; write it behind the section's title, such as"
                f" `Atoms # charge` (known: {', '.join(STYLES)})"
            )
        start = STYLES[style]
        if wrong := next((row for row in rows if len(row) not in (start + 3, start + 6)), None):
            raise Unreadable(f"{' '.join(wrong)[:60]!r} is no atom of the style {style}")
        if wrong := next((row for row in rows if not all(map(IMAGE.fullmatch, row[start + 3 :]))), None):
            raise Unreadable(
                f"{' '.join(wrong)[:60]!r} is no atom of the style {style}: its last three numbers are no images (whole"
                " numbers); write the atom style behind the section's title, such as `Atoms # charge`"
            )
        if len({row[0] for row in rows}) < len(rows):
            raise Unreadable("two atoms have the same id")
        types = [row[start - 1 if style in ("atomic", "angle", "bond", "molecular") else start - 2] for row in rows]
        numbers = numbers_of_types(types, self._elements(elements))
        positions = np.array([floats(row[start : start + 3], 3) for row in rows])
        order = np.argsort([floats(row[:1], 1)[0] for row in rows], kind="stable")
        return Atoms(numbers[order], positions=positions[order], cell=self._cell(), pbc=True)

    def _cell(self) -> Floats:
        if "avec" in self.header:
            return np.array([floats(self.header.get(name, []), 3) for name in ("avec", "bvec", "cvec")])
        bounds = [floats(self.header.get(f"{axis}lo {axis}hi", []), 2) for axis in "xyz"]
        tilts = floats(self.header.get("xy xz yz", ["0", "0", "0"]), 3)
        return tilted_cell([high - low for low, high in bounds], tilts)

    def _elements(self, given: Sequence[str]) -> dict[str, str]:
        """Type, by its number and by its label -> symbol."""
        labels = {row[0]: row[1] for row in self.sections.get("Atom Type Labels", []) if len(row) == 2}
        masses = {row[0]: element_of_mass(floats(row[1:2], 1)[0]) for row in self.sections.get("Masses", [])}
        by_label = labels if all(label in atomic_numbers for label in labels.values()) else {}
        by_mass = {kind: chemical_symbols[number] for kind, number in masses.items() if number}
        said = {"its type label": by_label, "its mass": by_mass, "dataset.type_elements": by_number(given)}
        for (one, symbols), (other, others) in combinations(said.items(), 2):
            for kind in symbols:
                if symbols[kind] != others.get(kind, symbols[kind]):
                    raise Unreadable(
                        f"type {kind} is {symbols[kind]} by {one} and {others[kind]} by {other}; correct one of them"
                    )
        if not (found := by_label or (by_mass if all(masses.values()) else {}) or by_number(given)):
            raise Unreadable(f"neither type labels nor clear masses say which elements the types are; {GIVE_ELEMENTS}")
        return found | {label: found[number] for number, label in labels.items() if number in found}


def _read(lines: Lines) -> _File:
    """The file by its parts; what is not needed is passed over."""
    file, rows = _File(), list[list[str]]()
    if units := re.search(r"\bunits\s*=\s*(\w+)", lines.take() or ""):  # as write_data says in the first line
        check_units(units[1])
    in_header = True
    while (line := lines.take()) is not None:
        text, _, comment = (part.strip() for part in line.partition("#"))
        if not text:
            continue
        if text[0].isalpha():
            in_header, rows = False, []
            if text in SECTIONS:
                file.sections[text] = rows
            if text == "Atoms":
                file.style = comment
        elif in_header:
            words = text.split()
            names = [word for word in words if word[0].isalpha()]
            file.header[" ".join(names)] = words[: -len(names)] if names else words
            if len(file.header) > MOST_HEADERS:
                raise Unreadable(f"more than {MOST_HEADERS} lines before the first section")
        elif any(rows is kept for kept in file.sections.values()):
            rows.append(text.split())
            if len(rows) > MOST_ATOMS:
                raise Unreadable(too_many(len(rows)))
    return file


IN_ANGSTROM = ("metal", "real")
"""Units of LAMMPS whose lengths are Å. A file that does not name its units is taken to be in one of them."""
MASS_SHARE, MASS_MARGIN = 0.005, 5.0
"""A mass is an element's when it is within half a percent of it, and so many times nearer than to any other element:
28 is silicon and 63.5 copper. But 59 may be cobalt or nickel, and 1.0 is a mass in units of its own."""
GIVE_ELEMENTS = "set dataset.type_elements (element of the first type, of the second, ...)"


class Unreadable(Exception):
    """What is wrong with a piece of a file; the reader adds the place."""


def element_of_mass(mass: float) -> int:
    """Atomic number of the element whose mass (g/mol) this is; 0 where none is, or more than one may be."""
    apart = np.abs(atomic_masses[1:] - mass)
    nearest, second = np.sort(apart)[:2]
    clear = nearest <= MASS_SHARE * mass and second >= MASS_MARGIN * nearest
    return int(np.argmin(apart)) + 1 if clear else 0


def element_number(symbol: str) -> int:
    """Atomic number of a chemical symbol."""
    number = atomic_numbers.get(symbol, 0)
    if number == 0:
        near = symbol.capitalize()
        hint = f"; write {near} if it is that, CA and HO may also be names of atoms" if near in atomic_numbers else ""
        raise Unreadable(f"{symbol[:20]!r} is no element{hint}")
    return number


def numbers_of_types(types: Sequence[str], elements: Mapping[str, str]) -> Indices:
    """Atomic numbers of atoms of these types; `elements` is type -> symbol."""
    if unknown := sorted(set(types) - set(elements)):
        known = ", ".join(f"{kind} ({symbol})" for kind, symbol in elements.items())
        raise Unreadable(f"type {unknown[0][:20]} has no element; known are {known[:200]}")
    return np.array([element_number(elements[kind]) for kind in types])


def by_number(elements: Sequence[str]) -> dict[str, str]:
    """Type -> symbol of the elements of the types 1, 2, ..."""
    return {str(number): symbol for number, symbol in enumerate(elements, 1)}


def check_units(units: str) -> None:
    """Refuse units of LAMMPS in which lengths are not Å."""
    if units not in IN_ANGSTROM:
        raise Unreadable(f"the units are {units[:20]!r}, lengths must be in Å (units metal or real)")


def atom_count(words: Sequence[str]) -> int:
    """The number of atoms that a file claims."""
    if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > 18:
        raise Unreadable(f"a number of atoms should be here, not {' '.join(words)[:60]!r}")
    if int(words[0]) > MOST_ATOMS:
        raise Unreadable(too_many(int(words[0])))
    return int(words[0])


def floats(words: Sequence[str], count: int) -> list[float]:
    """So many numbers out of as many words."""
    if len(words) != count:
        raise Unreadable(f"{count} numbers should be here, not {' '.join(words)[:60]!r}")
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise Unreadable(str(error)) from None


def tilted_cell(lengths: Sequence[float], tilts: Sequence[float]) -> Floats:
    """Cell (Å, rows are vectors) of edges along x, y, z and tilts xy, xz, yz."""
    (x, y, z), (xy, xz, yz) = lengths, tilts
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])
