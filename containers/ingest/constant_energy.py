"""DFT energies that are none: those of a file that never change although the structures do, and zeros beside others."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from containers.contract import BadInput
from containers.ingest.checks import SAME_FORCE_eV_per_A
from containers.structures.distances import nearest

DIFFERENT, TWO = 3, 2
"""So many structures that differ show that equal energies are none, and that energies of zero beside others are."""
SAME_ENERGY_eV = 1e-6
"""Total energies that differ by less are equal: a program printed one number, and a unit was converted."""
REACH_A, SAME_DISTANCE_A = 6.0, 1e-3


class ConstantEnergies:
    """Energies of each file so far. Files are known by their names; single atoms are left out."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._different: dict[str, list[Atoms]] = {}  # by file, as long as its energies are equal
        self._zero: dict[tuple[str, str], list[Atoms]] = {}  # by file and elements

    def add(self, atoms: Atoms, name: str) -> None:
        """Take in a structure with its label."""
        if len(atoms) == 1:  # reference atoms are often all given as 0 eV
            return
        energy = float(atoms.calc.results["energy"])
        if energy == 0.0:
            zero = self._zero.setdefault((name, " ".join(sorted(atoms.symbols.species()))), [])
            if len(zero) < TWO and not any(_same(atoms, one) for one in zero):
                zero.append(atoms)
        if name not in self._first:
            self._first[name], self._different[name] = energy, [atoms]
        elif abs(energy - self._first[name]) > SAME_ENERGY_eV:
            self._different[name] = []
        elif 0 < len(found := self._different[name]) < DIFFERENT and not any(_same(atoms, one) for one in found):
            found.append(atoms)

    def check(self) -> None:
        """Raise `BadInput` for the first file whose energies are all equal over structures that differ, or zero in two.

        One structure of each set of elements may be the zero of energy, two different ones of the same elements not.
        """
        for name, different in self._different.items():
            if len(different) >= DIFFERENT:
                raise BadInput(
                    f"{name}: all total energies are {self._first[name]:g} eV, although the structures differ (frames"
                    f" {', '.join(str(atoms.info['row']) for atoms in different)}, from 0): these are no DFT energies."
                    " Give the file that holds them, or their name (dft.energy_key); pool.files needs no energies"
                )
        for (name, _), zero in self._zero.items():
            if len(zero) == TWO and not self._different[name]:
                raise BadInput(
                    f"{name}: the total energies of frames {', '.join(str(atoms.info['row']) for atoms in zero)} (from"
                    " 0), and perhaps of others, are exactly 0 eV, although the structures differ and other frames have"
                    " energies: these are no DFT energies. Give them, or remove these frames"
                )


def _same(one: Atoms, other: Atoms) -> bool:
    """Return whether two structures may be one, turned, moved or with its atoms in another order."""
    if sorted(one.numbers) != sorted(other.numbers):
        return False
    forces, others = (np.sort(np.linalg.norm(atoms.calc.results["forces"], axis=1)) for atoms in (one, other))
    if not np.allclose(forces, others, rtol=0, atol=SAME_FORCE_eV_per_A):
        return False
    mine, theirs = (np.sort(nearest(atoms, REACH_A)) for atoms in (one, other))
    return np.allclose(mine, theirs, rtol=0, atol=SAME_DISTANCE_A)
