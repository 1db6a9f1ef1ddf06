"""Structures that put elastic constants into forces: frozen long waves, and strained cells.

A strain of one percent changes the energy of an atom by less than a fit's error. A sine wave of displacements with the
same strain shows as forces of some 0.1 eV/Å, which a fit does follow: force = C q² u V (stiffness, wave vector,
displacement, volume of an atom).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from containers.arrays import Floats
from containers.structures.cells import heights

EV_PER_A3_IN_GPa = 160.21766208


@dataclass(frozen=True)
class Wave:
    """A frozen wave: planes of a crystal displaced as a sine along their normal."""

    rest: Atoms  # the cell without the wave
    axis: Floats  # (3,) of the displacements
    miller: tuple[int, int, int]
    polarisation: int  # 0 along the normal, 1 and 2 across it
    amplitude_A: float
    length_A: float

    @property
    def structure(self) -> Atoms:
        """The displaced cell."""
        return self.at(self.amplitude_A)

    def at(self, amplitude_A: float) -> Atoms:
        """Return the cell displaced by another amplitude."""
        moved = self.rest.copy()
        moved.positions += amplitude_A * np.sin(2 * np.pi * moved.get_scaled_positions()[:, 2])[:, None] * self.axis
        return moved


def directions(conventional: Atoms) -> list[tuple[int, int, int]]:
    """Return the Miller indices up to 1 that differ by symmetry."""
    from pymatgen.core.surface import get_symmetrically_distinct_miller_indices
    from pymatgen.io.ase import AseAtomsAdaptor

    found = get_symmetrically_distinct_miller_indices(AseAtomsAdaptor.get_structure(conventional), 1)
    return [(int(h), int(k), int(m)) for h, k, m in found]


def waves(conventional: Atoms, length_A: float, force_eV_per_A: float, stiffness_GPa: float) -> Iterator[Wave]:
    """Yield waves of at least `length_A` along each distinct direction, in three polarisations.

    The amplitude gives this force by the stiffness, and is at most a tenth of the shortest distance of two atoms.
    """
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor

    volume = conventional.get_volume() / len(conventional)
    distances = conventional.get_all_distances(mic=True)
    shortest = distances[distances > 0].min() if (distances > 0).any() else volume ** (1 / 3)
    for miller in directions(conventional):
        oriented = SlabGenerator(AseAtomsAdaptor.get_structure(conventional), miller, 1, 1).oriented_unit_cell
        one = AseAtomsAdaptor.get_atoms(oriented, msonable=False)
        cell = one * (1, 1, int(np.ceil(length_A / heights(one)[2])))  # the first two axes lie in the plane
        length = heights(cell)[2]
        normal = np.cross(cell.cell[0], cell.cell[1])
        normal = normal / np.linalg.norm(normal)
        across = cell.cell[0] / np.linalg.norm(cell.cell[0])
        for number, axis in enumerate((normal, across, np.cross(normal, across))):
            amplitude = force_eV_per_A / (stiffness_GPa / EV_PER_A3_IN_GPa * (2 * np.pi / length) ** 2 * volume)
            amplitude = min(amplitude, 0.1 * shortest)
            yield Wave(cell, axis, miller, number, float(amplitude), float(length))
