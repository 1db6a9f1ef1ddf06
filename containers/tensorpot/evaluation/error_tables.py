"""Errors by element, group, composition and size, and formation energies: where a student fails. Pure.

A formation energy is that of a structure an atom, less that of its elements: for each element the structure of that
element alone that is lowest in the reference's energy an atom. Reference and student are each taken relative to their
own energies of the same structures, so reference energies (E0) cancel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms

from containers.metrics import errors
from containers.tensorpot.frames.rows import energy_per_atom

MOST_ROWS = 12
"""Rows of a table by composition; more compositions than these are put together."""
BINS = 10
"""Rows by the second element's share, where two elements have more compositions than MOST_ROWS."""
OTHERS = "others"
COLUMNS = (
    "energy_mae_meV_per_atom",
    "formation_energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "energy_max_meV_per_atom",
    "force_max_meV_per_A",
)


@dataclass(frozen=True)
class Compared:
    """One structure: reference and student.

    Attributes:
        values: quantity (energy_eV_per_atom, force_eV_per_A, stress_eV_per_A3) -> (reference, predicted), flat arrays
            of equal length.
        gamma: (N,) extrapolation grade of each atom.
        group: class of the structure; empty where it has none.
        counts: atoms by element.
        symbols: (N,) elements of the atoms, in the order of the forces.
    """

    id: str
    values: dict[str, tuple[np.ndarray, np.ndarray]]
    gamma: np.ndarray
    group: str
    counts: Mapping[str, int]
    symbols: Sequence[str] = ()

    @property
    def energies(self) -> tuple[float, float]:
        """eV/atom of reference and student."""
        reference, predicted = self.values["energy_eV_per_atom"]
        return float(reference[0]), float(predicted[0])


def lowest_pure(structures: Iterable[Atoms]) -> dict[str, Atoms]:
    """Return for each element the structure of the lowest energy an atom by its own label; of equals the first."""
    found: dict[str, Atoms] = {}
    for atoms in structures:
        if len(symbols := set(atoms.get_chemical_symbols())) == 1:
            (symbol,) = symbols
            if symbol not in found or energy_per_atom(atoms) < energy_per_atom(found[symbol]):
                found[symbol] = atoms
    return found


def tables(compared: Sequence[Compared], pure: Mapping[str, Compared]) -> dict[str, Any]:
    """Return `by_element`, `by_group`, `by_composition`, `by_size`, and `formation_energies`.

    The first four are rows with name, structures, atoms, COLUMNS; those by element have errors of forces alone.

    Args:
        pure: by element, the structure that stands for it. Without one, formation energies of what contains the
            element are None, and `missing` names it.
    """
    name_of = composition_names([one.counts for one in compared])
    elements = sorted({element for one in compared for element in one.counts})

    def place(composition: str) -> tuple[int, str]:
        """Order of a table: the first element alone, shares rising, the others by name, OTHERS last."""
        if composition == OTHERS:
            return 3, composition
        pure_of_two = len(elements) == 2 and composition in elements
        return 2 * elements.index(composition) if pure_of_two else 1, composition

    by_group, by_composition = defaultdict[str, list[Compared]](list), defaultdict[str, list[Compared]](list)
    by_size = defaultdict[int, list[Compared]](list)
    for one in compared:
        by_size[(sum(one.counts.values()) - 1).bit_length()].append(one)  # 1, 2, 3 to 4, 5 to 8, ... atoms
        by_group[one.group or "(none)"].append(one)
        by_composition[name_of(one.counts)].append(one)
    return {
        "by_element": by_element(compared, elements),
        "by_size": [_row(size_name(power), by_size[power], pure) for power in sorted(by_size)],
        "by_group": [_row(name, by_group[name], pure) for name in sorted(by_group)],
        "by_composition": [_row(name, by_composition[name], pure) for name in sorted(by_composition, key=place)],
        "formation_energies": {
            **_formation_errors(compared, pure),
            "relative_to": {
                element: {
                    "id": pure[element].id,
                    "reference_eV_per_atom": pure[element].energies[0],
                    "student_eV_per_atom": pure[element].energies[1],
                }
                for element in elements
                if element in pure
            },
            "missing": [element for element in elements if element not in pure],
        },
    }


def by_element(compared: Sequence[Compared], elements: Sequence[str]) -> list[dict[str, Any]]:
    """Return the errors of the forces on the atoms of each element; none where `symbols` are not known."""
    known = [one for one in compared if one.symbols]
    if not known:
        return []
    symbols = np.concatenate([np.asarray(one.symbols) for one in known])
    reference, predicted = (
        np.concatenate([one.values["force_eV_per_A"][place].reshape(-1, 3) for one in known]) for place in (0, 1)
    )
    rows = []
    for element in elements:
        of_it = symbols == element
        found = errors("force", "meV_per_A", reference[of_it], predicted[of_it])
        structures = sum(element in one.counts for one in known)
        figures = {key: found.get(key) for key in COLUMNS}
        rows.append({"name": element, "structures": structures, "atoms": int(of_it.sum()), **figures})
    return rows


def size_name(power: int) -> str:
    """Return the words for structures of more than half of 2**power atoms, and up to that."""
    least, most = 2**power // 2 + 1, 2**power
    return f"{least} to {most} atoms" if least < most else f"{most} atom{'s' * (most > 1)}"


def formula(counts: Mapping[str, int]) -> str:
    """Return the reduced formula with the elements in alphabetic order: AlNi3."""
    whole = reduce(gcd, counts.values())
    return "".join(
        element + (str(counts[element] // whole) if counts[element] != whole else "") for element in sorted(counts)
    )


def composition_names(all_counts: Sequence[Mapping[str, int]]) -> Callable[[Mapping[str, int]], str]:
    """Return the function that names compositions in at most MOST_ROWS names.

    The reduced formula; where two elements have too many formulas, the share of the second one in tenths; where more
    elements have, the most frequent formulas, and OTHERS.
    """
    formulas = Counter(formula(counts) for counts in all_counts)
    elements = sorted({element for counts in all_counts for element in counts})
    if len(formulas) <= MOST_ROWS:
        return formula
    frequent = sorted(formulas, key=lambda name: (-formulas[name], name))[: MOST_ROWS - 1]

    def in_tenths(counts: Mapping[str, int]) -> str:
        second, atoms = counts.get(elements[1], 0), sum(counts.values())
        if second in (0, atoms):
            return elements[second == atoms]
        low = min(BINS * second // atoms, BINS - 1)
        return f"{100 * low // BINS:02d} to {100 * (low + 1) // BINS} % {elements[1]}"

    return in_tenths if len(elements) == 2 else lambda counts: n if (n := formula(counts)) in frequent else OTHERS


def _row(name: str, compared: Sequence[Compared], pure: Mapping[str, Compared]) -> dict[str, Any]:
    forces = (
        np.concatenate(values) for values in zip(*(one.values["force_eV_per_A"] for one in compared), strict=True)
    )
    found = {
        **errors("energy", "meV_per_atom", *np.array([one.energies for one in compared]).T),
        **_formation_errors(compared, pure),
        **errors("force", "meV_per_A", *forces),
    }
    atoms = sum(sum(one.counts.values()) for one in compared)
    return {"name": name, "structures": len(compared), "atoms": atoms, **{key: found[key] for key in COLUMNS}}


def _formation_errors(compared: Sequence[Compared], pure: Mapping[str, Compared]) -> dict[str, float | None]:
    """Return the errors over the structures whose elements all have a structure of their own."""
    known = np.array(
        [
            [
                energy
                - sum(count / sum(one.counts.values()) * pure[name].energies[k] for name, count in one.counts.items())
                for k, energy in enumerate(one.energies)
            ]
            for one in compared
            if set(one.counts) <= set(pure)
        ]
    )
    return errors("formation_energy", "meV_per_atom", *known.reshape(-1, 2).T)
