"""Mean size of the teacher's forces and spread of its energies: what errors of a student are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase.data import atomic_numbers

from containers.arrays import Floats
from containers.structures.table import flat, list_lengths


@dataclass
class Sizes:
    """Labels of the teacher, counted while they pass by."""

    elements: Sequence[str]
    _force: float = 0.0  # eV/Å, sum of the sizes of components
    _components: int = 0
    _energies: list[Floats] = field(default_factory=list)  # (N,) eV/atom
    _shares: list[Floats] = field(default_factory=list)  # (N, E) of the elements among the atoms

    def add(self, table: pa.Table) -> None:
        """Take the rows of a DATASET table that the teacher labelled."""
        rows = table.filter(pc.equal(table["origin"], "teacher"))
        forces, numbers, atoms = np.abs(flat(rows["forces"])), flat(rows["numbers"]), list_lengths(rows["numbers"])
        self._force += float(forces.sum())
        self._components += len(forces)
        owners = np.repeat(np.arange(len(atoms)), atoms)
        of_element = [np.bincount(owners, numbers == atomic_numbers[one], len(atoms)) for one in self.elements]
        self._shares.append(np.stack(of_element, axis=1) / atoms[:, None])
        self._energies.append(rows["energy"].to_numpy() / atoms)

    def figures(self) -> dict[str, float]:
        """Return the mean size of a force component, and the mean size of what a least-squares energy of each element
        leaves of the energies: at equal composition, their mean deviation."""
        energies, shares = np.concatenate([*self._energies, np.zeros(0)]), np.concatenate(self._shares)
        left = energies - shares @ np.linalg.lstsq(shares, energies, rcond=None)[0]
        return {
            "force_mean_meV_per_A": 1000 * self._force / max(self._components, 1),
            "energy_spread_meV_per_atom": 1000 * float(np.abs(left).mean()) if len(left) else 0.0,
        }
