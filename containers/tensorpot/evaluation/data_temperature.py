"""The temperature that structures have by their forces and energies. Frames seldom carry one, and what is drawn by hand
has none.

Forces: in equilibrium the mean-square force over the mean curvature of the energy is kT, for any smooth energy.
Energies: a classical crystal has 3/2 kT an atom above its lowest. Random displacements are hotter by their forces,
strains and other phases by their energies: the lower of both counts. Source: Butler, Ayton, Jepps and Evans, J. Chem.
Phys. 109, 6519 (1998), configurational temperature; Hutchinson, Commun. Stat. Simul. Comput. 19, 433 (1990), the sum
of curvatures from random directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from containers.arrays import Floats
from containers.structures.cells import bare

HIGH = 90
"""Percentile that counts as the highest: one odd structure must not decide."""
MOST_STRUCTURES = 100
DIRECTIONS = 2
SHIFT_A = 0.01


def highest_temperature(
    structures: Sequence[Atoms], energies_eV: Floats, calculator: Calculator, seed: int
) -> float | None:
    """Return the temperature (K) that HIGH percent of the structures stay below; None where no structure has one.

    Of more than MOST_STRUCTURES every so many-th is taken.
    """
    random = np.random.default_rng(seed)
    every = max(1, -(-len(structures) // MOST_STRUCTURES))
    taken = structures[::every]
    by_force = np.array([temperature_by_force(atoms, calculator, random) for atoms in taken])
    known = np.minimum(by_force, temperatures_by_energy(taken, energies_eV[::every], by_force))
    known = known[np.isfinite(known)]
    return float(np.percentile(known, HIGH)) if len(known) else None


def temperatures_by_energy(structures: Sequence[Atoms], energies_eV: Floats, by_force: Floats) -> Floats:
    """Return the temperature (K) of each structure by its energy above the lowest of its composition.

    The lowest has the temperature of its forces: there may be no structure at rest.
    """
    names = [atoms.symbols.formula.reduce()[0].format("hill") for atoms in structures]
    kelvin = energies_eV / np.array([len(atoms) for atoms in structures]) / (1.5 * units.kB)
    lowest: dict[str, int] = {}
    for place, name in enumerate(names):
        if name not in lowest or kelvin[place] < kelvin[lowest[name]]:
            lowest[name] = place
    coldest = np.array([lowest[name] for name in names])
    return np.asarray(kelvin - kelvin[coldest] + by_force[coldest])


def temperature_by_force(atoms: Atoms, calculator: Calculator, random: np.random.Generator) -> float:
    """Return the configurational temperature (K) of a structure; NaN where its energy has no curvature upwards."""

    def forces(shift: Floats) -> Floats:
        moved = bare(atoms)
        moved.positions += shift
        calculator.calculate(moved)
        return np.asarray(calculator.results["forces"], dtype=float)

    curvature = 0.0
    for _ in range(DIRECTIONS):
        shift = SHIFT_A * random.choice([-1.0, 1.0], size=(len(atoms), 3))
        curvature += float(((forces(-shift) - forces(shift)) * shift).sum()) / (2 * SHIFT_A**2 * DIRECTIONS)
    square = float((forces(np.zeros((len(atoms), 3))) ** 2).sum())
    return square / curvature / units.kB if curvature > 0 else np.nan
