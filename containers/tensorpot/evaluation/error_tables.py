"""Errors by group and by composition, and formation energies: where a student fails. Pure.

A formation energy is that of a structure an atom, less that of its elements: for each element the structure of that
element alone that is lowest in the reference's energy an atom. Reference and student are each taken relative to their
own energies of the same structures, so reference energies (E0) cancel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import Any

import numpy as np
from ase import Atoms

from containers.arrays import Floats
from containers.metrics import errors
from containers.tensorpot.frames.rows import energy_per_atom

MOST_ROWS = 12
"""Rows of a table by composition; more compositions than these are put together."""
BINS = 10
"""Of the second element's share, where two elements have more compositions than MOST_ROWS."""
OTHERS = "others"
COLUMNS = (
    "energy_mae_meV_per_atom",
    "formation_energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "energy_max_meV_per_atom",
    "force_max_meV_per_A",
)


@dataclass(frozen=True)
class Judged:
    """One structure: what it is made of, and reference and student on it.

    Attributes:
        counts: atoms by element.
        energies: eV/atom of reference and student.
        forces: (2, N, 3) eV/Å of reference and student.
    """

    group: str
    counts: Mapping[str, int]
    energies: tuple[float, float]
    forces: Floats

    @property
    def shares(self) -> dict[str, float]:
        """Share of the atoms by element."""
        atoms = sum(self.counts.values())
        return {element: count / atoms for element, count in self.counts.items()}


@dataclass(frozen=True)
class Pure:
    """The structure that stands for an element: energies (eV/atom) of reference and student, and its id."""

    id: str
    energies: tuple[float, float]


def lowest_pure(structures: Iterable[Atoms]) -> dict[str, Atoms]:
    """For each element the structure of the lowest energy an atom by its own label; of equals the first."""
    found: dict[str, Atoms] = {}
    for atoms in structures:
        if len(symbols := set(atoms.get_chemical_symbols())) == 1:
            (symbol,) = symbols
            if symbol not in found or energy_per_atom(atoms) < energy_per_atom(found[symbol]):
                found[symbol] = atoms
    return found


def tables(judged: Sequence[Judged], pure: Mapping[str, Pure]) -> dict[str, Any]:
    """`by_group` and `by_composition` (rows with name, structures, atoms, COLUMNS), and `formation_energies`.

    Without the structure of an element, formation energies of what contains it are None, and `missing` names it.
    """
    name_of = composition_names([one.counts for one in judged])
    elements = sorted({element for one in judged for element in one.counts})
    return {
        "by_group": _rows(judged, pure, lambda one: one.group or "(none)", sorted),
        "by_composition": _rows(judged, pure, lambda one: name_of(one.counts), composition_order(elements)),
        "formation_energies": {
            **_formation_errors(judged, pure),
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


def formula(counts: Mapping[str, int]) -> str:
    """The reduced formula with the elements in alphabetic order: AlNi3."""
    whole = reduce(gcd, counts.values())
    return "".join(
        element + (str(counts[element] // whole) if counts[element] != whole else "") for element in sorted(counts)
    )


def composition_names(all_counts: Sequence[Mapping[str, int]]) -> Callable[[Mapping[str, int]], str]:
    """How compositions are named, in at most MOST_ROWS names.

    The reduced formula; where two elements have too many formulas, the share of the second one in tenths; where more
    elements have, the most frequent formulas, and OTHERS.
    """
    formulas = Counter(formula(counts) for counts in all_counts)
    elements = sorted({element for counts in all_counts for element in counts})
    if len(formulas) <= MOST_ROWS:
        return formula
    if len(elements) == 2:
        return lambda counts: _tenth(counts, elements)
    frequent = sorted(formulas, key=lambda name: (-formulas[name], name))[: MOST_ROWS - 1]
    return lambda counts: name if (name := formula(counts)) in frequent else OTHERS


def composition_order(elements: Sequence[str]) -> Callable[[Iterable[str]], list[str]]:
    """Names in the order of a table: the first element alone, shares rising, the others by name, OTHERS last."""

    def key(name: str) -> tuple[int, str]:
        if name == OTHERS:
            return (3, name)
        if len(elements) == 2 and name in elements:
            return (2 * elements.index(name), name)
        return (1, name)

    return lambda names: sorted(names, key=key)


def _tenth(counts: Mapping[str, int], elements: Sequence[str]) -> str:
    second = counts.get(elements[1], 0)
    atoms = sum(counts.values())
    if second in (0, atoms):
        return elements[second == atoms]
    low = min(BINS * second // atoms, BINS - 1)
    return f"{100 * low // BINS:02d} to {100 * (low + 1) // BINS} % {elements[1]}"


def _rows(
    judged: Sequence[Judged],
    pure: Mapping[str, Pure],
    name: Callable[[Judged], str],
    ordered: Callable[[Iterable[str]], list[str]],
) -> list[dict[str, Any]]:
    members: dict[str, list[Judged]] = {}
    for one in judged:
        members.setdefault(name(one), []).append(one)
    return [{"name": key, **_errors(members[key], pure)} for key in ordered(members)]


def _errors(judged: Sequence[Judged], pure: Mapping[str, Pure]) -> dict[str, Any]:
    energies = np.array([one.energies for one in judged])
    forces = np.concatenate([one.forces.reshape(2, -1) for one in judged], axis=1)
    found = {
        **errors("energy", "meV_per_atom", *energies.T),
        **_formation_errors(judged, pure),
        **errors("force", "meV_per_A", *forces),
    }
    atoms = sum(sum(one.counts.values()) for one in judged)
    return {"structures": len(judged), "atoms": atoms, **{key: found[key] for key in COLUMNS}}


def _formation_errors(judged: Sequence[Judged], pure: Mapping[str, Pure]) -> dict[str, float | None]:
    """Of the structures whose elements all have a structure of their own."""
    known = [formation_energies(one, pure) for one in judged if set(one.counts) <= set(pure)]
    return errors("formation_energy", "meV_per_atom", *np.array(known).reshape(-1, 2).T)


def formation_energies(one: Judged, pure: Mapping[str, Pure]) -> tuple[float, float]:
    """eV/atom, of reference and student."""
    reference, student = (
        one.energies[k] - sum(share * pure[element].energies[k] for element, share in one.shares.items())
        for k in (0, 1)
    )
    return reference, student
