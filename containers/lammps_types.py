"""Elements and cells as LAMMPS's dumps and data files give them, or do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from containers.too_large import MOST_ATOMS, too_many

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
    number = atomic_numbers.get(symbol.capitalize(), 0)
    if number == 0:
        raise Unreadable(f"{symbol[:20]!r} is no element")
    return number


def numbers_of_types(types: Sequence[str], elements: Mapping[str, str]) -> NDArray[np.int64]:
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


def tilted_cell(lengths: Sequence[float], tilts: Sequence[float]) -> NDArray[np.float64]:
    """Cell (Å, rows are vectors) of edges along x, y, z and tilts xy, xz, yz."""
    (x, y, z), (xy, xz, yz) = lengths, tilts
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])
