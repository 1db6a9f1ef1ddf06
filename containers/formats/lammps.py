"""LAMMPS's text dumps, snapshot by snapshot, and its data files, one structure each.

https://docs.lammps.org/dump.html and https://docs.lammps.org/read_data.html

Types are numbers from 1. Their elements stand in the file (a column `element`, type labels, or clear masses), or are
given by the user. Lengths must be in Å; a file that does not name its units is taken to have them. A dump has no total
energy, so its forces are no labels: the structure alone is read. A data file is periodic in all directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, too_many

IN_ANGSTROM = ("metal", "real")
"""Units of LAMMPS whose lengths are Å."""
MASS_SHARE, MASS_MARGIN = 0.005, 5.0
"""A mass is an element's when it is within half a percent of it, and so many times nearer than to any other element:
28 is silicon and 63.5 copper. But 59 may be cobalt or nickel, and 1.0 is a mass in units of its own."""
GIVE_ELEMENTS = "set dataset.type_elements (element of the first type, of the second, ...)"

ITEM = "ITEM: "
CARTESIAN = (("x", "y", "z"), ("xu", "yu", "zu"))
SCALED = (("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
UNNAMED = "C"
"""LAMMPS writes it as the `element` of every atom where `dump_modify element` was not given."""
BOXES = {(): 2, ("xy", "xz", "yz"): 3, ("abc", "origin"): 4}
"""Words behind BOX BOUNDS, the periodic directions left out -> numbers a line."""

COUNT = re.compile(rb"^\s*\d+\s+atoms\s*(#.*)?$", re.MULTILINE)
BOX = re.compile(rb"^\s*(\S+\s+){2,3}(xlo\s+xhi|avec)\b", re.MULTILINE)
STYLES = {"atomic": 2, "charge": 3, "angle": 3, "bond": 3, "molecular": 3, "full": 4}
"""Atom style -> column (from 0) of x in the section Atoms; three image numbers may follow z."""
BY_COLUMNS = {5: "atomic", 8: "atomic"}  # 6 and 9 are of charge or of molecular, 7 and 10 of full or of sphere
IMAGE = re.compile(r"[-+]?\d+")
MOST_HEADERS = 100
SECTIONS = ("Atoms", "Masses", "Atom Type Labels")


class Unreadable(Exception):
    """A piece of a file is wrong; the reader adds the place."""


def is_dump(head: bytes) -> bool:
    """Return True if a file that begins so is a text dump."""
    return head.lstrip().startswith(ITEM.encode())


def is_data(head: bytes) -> bool:
    """Return True if a file that begins so is a data file."""
    return COUNT.search(head) is not None and BOX.search(head) is not None


def dump_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """Read every snapshot, its atoms sorted by `id` where there is one.

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
                yield _snapshot(lines, elements)
            except Unreadable as error:
                raise BadInput(f"{name}: frame {row} (from 0), line {lines.number}: {error}") from None
            row += 1
        else:
            lines.take()


def data_frames(lines: Lines, name: str, elements: Sequence[str]) -> Iterator[Atoms]:
    """Read the structure, its atoms sorted by id.

    Elements are those of the type labels, where all are symbols, else of the masses, where they are clear, else
    `elements`: those of the types 1, 2, ...

    Raises:
        BadInput: a broken file, an atom style that is not known, types of no element; names the file.
    """
    try:
        yield _data(lines, elements)
    except Unreadable as error:
        raise BadInput(
            f"{name}: frame 0 (from 0), a LAMMPS data file: {error}; correct the file, or give a dump with the elements"
        ) from None


def _snapshot(lines: Lines, elements: Sequence[str]) -> Atoms:
    """Read one snapshot; the atoms are its last item."""
    count: int | None = None
    box: tuple[Floats, Floats, list[bool]] | None = None
    while True:
        line = _next_line(lines)
        match line.removeprefix(ITEM).split() if line.startswith(ITEM) else []:
            case ["TIMESTEP"] | ["TIME"]:
                _next_line(lines)
            case ["UNITS"]:
                _check_units(_next_line(lines))
            case ["NUMBER", "OF", "ATOMS"]:
                count = _atom_count(_next_line(lines).split())
            case ["BOX", "BOUNDS", *words]:
                box = _box(words, lines)
            case ["ATOMS", *columns]:
                break
            case _:
                raise Unreadable(f"an item of a dump of atoms (ITEM: ...) should begin here, not {line[:60]!r}")
    if count is None or box is None or not columns:
        raise Unreadable("ITEM: ATOMS comes before the number of atoms or the box, or names no columns")
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise Unreadable(f"the column {twice[0][:20]} is there twice; remove one")
    if count == 0:
        raise Unreadable("zero atoms; remove the snapshot")
    rows = [line.split() for line in lines.take_some(count)]
    if len(rows) < count:
        raise Unreadable(f"the file ends after {len(rows)} of {count} atoms; it was cut off")
    for atom, row in enumerate(rows):
        if len(row) != len(columns):
            raise Unreadable(f"atom {atom} (from 0) has {len(row)} columns instead of {len(columns)}")
    words_of = {column: [row[place] for row in rows] for place, column in enumerate(columns)}

    def numbers(names: Sequence[str]) -> Floats:
        try:
            return np.array([words_of[name] for name in names], dtype=float).T
        except ValueError as error:
            raise Unreadable(f"columns {' '.join(names)}: {error}") from None

    species = _elements_of_dump(words_of, elements)
    cell, origin, pbc = box
    names = next((names for names in (*CARTESIAN, *SCALED) if set(names) <= set(columns)), None)
    if names is None:
        raise Unreadable(f"no positions (x y z, xs ys zs, ...) among the columns {' '.join(columns)[:100]}")
    positions = numbers(names) if names in CARTESIAN else origin + numbers(names) @ cell
    atoms = Atoms(species, positions=positions, cell=cell, pbc=pbc)
    if "id" not in columns:
        return atoms
    identities = numbers(["id"])[:, 0]
    if len(np.unique(identities)) < len(identities):
        raise Unreadable("two atoms have the same id")
    return atoms[np.argsort(identities)]


def _next_line(lines: Lines) -> str:
    if (line := lines.take()) is None:
        raise Unreadable("the file ends inside the snapshot; it was cut off")
    return line.strip()


def _box(words: list[str], lines: Lines) -> tuple[Floats, Floats, list[bool]]:
    """Read the cell (Å, rows are vectors), its origin, and the periodic directions."""
    flags = words[-3:]
    if len(flags) < 3 or not all(re.fullmatch("[pfsm]{2}", flag) for flag in flags):
        raise Unreadable(
            "BOX BOUNDS does not say which directions are periodic; write it as LAMMPS does since 2009, such as"
            " ITEM: BOX BOUNDS pp pp pp"
        )
    pbc, width = [flag == "pp" for flag in flags], BOXES.get(tuple(words[:-3]))
    if width is None:
        raise Unreadable(f"the box is of an unknown kind: {' '.join(words)[:60]!r}")
    rows = np.array([_floats(_next_line(lines).split(), width) for _ in range(3)])
    if width == 4:
        return rows[:, :3], rows[:, 3], pbc
    xy, xz, yz = rows[:, 2].tolist() if width == 3 else (0.0, 0.0, 0.0)
    low = rows[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]  # bounds are those of the tilted cell
    high = rows[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    return _tilted_cell((high - low).tolist(), (xy, xz, yz)), low, pbc


def _elements_of_dump(columns: Mapping[str, list[str]], given: Sequence[str]) -> Indices:
    """Return atomic numbers, [atoms]: of the column `element`, else of clear masses, else of the user's elements.

    Two of them that contradict each other are refused, but for LAMMPS's default of `element`.
    """
    symbols, types, words = (columns.get(name, []) for name in ("element", "type", "mass"))
    masses = {word: element_of_mass(_floats([word], 1)[0]) for word in set(words)}
    by_mass = [masses[word] for word in words] if masses and all(masses.values()) else []
    by_type = {str(number): symbol for number, symbol in enumerate(given, 1)}
    by_key = [atomic_numbers.get(by_type.get(kind, ""), 0) for kind in types] if given else []
    unnamed = set(symbols) == {UNNAMED} and (given or set(types) - {"1"} or set(by_mass) - {6})
    named = [] if unnamed else [_element_number(symbol) for symbol in symbols]
    stated = {"the column element": named, "the column mass": by_mass, "dataset.type_elements": by_key}
    by_atom = {
        source: {atom: chemical_symbols[number] for atom, number in enumerate(numbers) if number}
        for source, numbers in stated.items()
    }
    _refuse_contradiction(by_atom, "atom {} (from 0)")
    if named or by_mass:
        return np.array(named or by_mass)
    if types and given:
        return _numbers_of_types(types, by_type)
    why = "every atom is called C, as without dump_modify element" if unnamed else "no column `element`"
    raise Unreadable(f"the dump does not say which elements the types are ({why}); {GIVE_ELEMENTS}")


def _data(lines: Lines, elements: Sequence[str]) -> Atoms:
    """Read a data file; sections that are not needed are passed over."""
    header: dict[str, list[str]] = {}  # what follows the numbers -> the numbers
    sections: dict[str, list[list[str]]] = {}  # words of each line
    style, in_header, section = "", True, ""
    if units := re.search(r"\bunits\s*=\s*(\w+)", lines.take() or ""):  # as write_data says in the first line
        _check_units(units[1])
    while (line := lines.take()) is not None:
        text, _, comment = (part.strip() for part in line.partition("#"))
        if not text:
            continue
        if text[0].isalpha():
            in_header, section = False, text
            if section in SECTIONS:
                sections[section] = []
            if section == "Atoms":
                style = comment
        elif in_header:
            words = text.split()
            names = [word for word in words if word[0].isalpha()]
            header[" ".join(names)] = words[: -len(names)] if names else words
            if len(header) > MOST_HEADERS:
                raise Unreadable(f"more than {MOST_HEADERS} lines before the first section")
        elif section in SECTIONS:
            sections[section].append(text.split())
            if len(sections[section]) > MOST_ATOMS:
                raise Unreadable(too_many(len(sections[section])))
    rows = sections.get("Atoms", [])
    count = _atom_count(header.get("atoms", []))
    if len(rows) != count or count == 0:
        raise Unreadable(f"{len(rows)} atoms in the section Atoms, where the header says {count}")
    style = style or BY_COLUMNS.get(len(rows[0]), "")
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
    numbers = _numbers_of_types(types, _elements_of_data(sections, elements))
    positions = np.array([_floats(row[start : start + 3], 3) for row in rows])
    order = np.argsort([_floats(row[:1], 1)[0] for row in rows], kind="stable")
    if "avec" in header:
        cell = np.array([_floats(header.get(name, []), 3) for name in ("avec", "bvec", "cvec")])
    else:
        bounds = [_floats(header.get(f"{axis}lo {axis}hi", []), 2) for axis in "xyz"]
        tilts = _floats(header.get("xy xz yz", ["0", "0", "0"]), 3)
        cell = _tilted_cell([high - low for low, high in bounds], tilts)
    return Atoms(numbers[order], positions=positions[order], cell=cell, pbc=True)


def _elements_of_data(sections: Mapping[str, list[list[str]]], given: Sequence[str]) -> dict[str, str]:
    """Return the symbol of each type, by its number and by its label."""
    labels = {row[0]: row[1] for row in sections.get("Atom Type Labels", []) if len(row) == 2}
    masses = {row[0]: element_of_mass(_floats(row[1:2], 1)[0]) for row in sections.get("Masses", [])}
    by_label = labels if all(label in atomic_numbers for label in labels.values()) else {}
    by_mass = {kind: chemical_symbols[number] for kind, number in masses.items() if number}
    by_key = {str(number): symbol for number, symbol in enumerate(given, 1)}
    stated = {"its type label": by_label, "its mass": by_mass, "dataset.type_elements": by_key}
    _refuse_contradiction(stated, "type {}")
    if not (found := by_label or (by_mass if all(masses.values()) else {}) or by_key):
        raise Unreadable(f"neither type labels nor clear masses say which elements the types are; {GIVE_ELEMENTS}")
    return found | {label: found[number] for number, label in labels.items() if number in found}


def _refuse_contradiction(stated: Mapping[str, Mapping[Any, str]], what: str) -> None:
    """Refuse two sources (words -> type or atom -> symbol) that name different elements for one; `what` is its name."""
    for (one, symbols), (other, others) in combinations(stated.items(), 2):
        for key, symbol in symbols.items():
            if symbol != others.get(key, symbol):
                raise Unreadable(
                    f"{what.format(key)} is {symbol} by {one} and {others[key]} by {other}; correct one of them"
                )


def element_of_mass(mass: float) -> int:
    """Return the atomic number of the element whose mass (g/mol) this is; 0 where none is, or more than one may be."""
    apart = np.abs(atomic_masses[1:] - mass)
    nearest, second = np.sort(apart)[:2]
    clear = nearest <= MASS_SHARE * mass and second >= MASS_MARGIN * nearest
    return int(np.argmin(apart)) + 1 if clear else 0


def _element_number(symbol: str) -> int:
    number = atomic_numbers.get(symbol, 0)
    if number == 0:
        near = symbol.capitalize()
        hint = f"; write {near} if it is that, CA and HO may also be names of atoms" if near in atomic_numbers else ""
        raise Unreadable(f"{symbol[:20]!r} is no element{hint}")
    return number


def _numbers_of_types(types: Sequence[str], elements: Mapping[str, str]) -> Indices:
    """Return atomic numbers of atoms of these types; `elements` is type -> symbol."""
    if unknown := sorted(set(types) - set(elements)):
        known = ", ".join(f"{kind} ({symbol})" for kind, symbol in elements.items())
        raise Unreadable(f"type {unknown[0][:20]} has no element; known are {known[:200]}")
    return np.array([_element_number(elements[kind]) for kind in types])


def _check_units(units: str) -> None:
    if units not in IN_ANGSTROM:
        raise Unreadable(f"the units are {units[:20]!r}, lengths must be in Å (units metal or real)")


def _atom_count(words: Sequence[str]) -> int:
    if len(words) != 1 or not words[0].isdecimal() or len(words[0]) > 18:
        raise Unreadable(f"a number of atoms should be here, not {' '.join(words)[:60]!r}")
    if int(words[0]) > MOST_ATOMS:
        raise Unreadable(too_many(int(words[0])))
    return int(words[0])


def _floats(words: Sequence[str], count: int) -> list[float]:
    """Return so many numbers out of as many words."""
    if len(words) != count:
        raise Unreadable(f"{count} numbers should be here, not {' '.join(words)[:60]!r}")
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise Unreadable(str(error)) from None


def _tilted_cell(lengths: Sequence[float], tilts: Sequence[float]) -> Floats:
    """Return the cell (Å, rows are vectors) of edges along x, y, z and tilts xy, xz, yz."""
    (x, y, z), (xy, xz, yz) = lengths, tilts
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])
