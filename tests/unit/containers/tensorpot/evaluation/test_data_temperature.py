"""Temperatures of structures on springs, where forces and energies give them without a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from containers.tensorpot.evaluation.data_temperature import (
    highest_temperature,
    temperature_by_force,
    temperatures_by_energy,
)

STIFFNESS = 4.0  # eV/Å²
SITES = (bulk("Si", cubic=True) * 2).positions


class Springs(Calculator):
    """Every atom on a spring to its site; the cell costs nothing."""

    def calculate(self, atoms=None, properties=("forces",), system_changes=all_changes) -> None:
        away = atoms.positions - SITES
        self.results = {"energy": 0.5 * STIFFNESS * (away**2).sum(), "forces": -STIFFNESS * away}


def warm(temperature_K: float, seed: int) -> Atoms:
    """Silicon displaced as springs of this temperature are."""
    atoms = bulk("Si", cubic=True) * 2
    width = np.sqrt(units.kB * temperature_K / STIFFNESS)
    atoms.positions += np.random.default_rng(seed).normal(0, width, atoms.positions.shape)
    return atoms


def energies(structures: list[Atoms]) -> np.ndarray:
    """Their energies on the springs (eV)."""
    return np.array([0.5 * STIFFNESS * ((atoms.positions - SITES) ** 2).sum() for atoms in structures])


def test_forces_and_energies_give_the_temperature_of_springs() -> None:
    random = np.random.default_rng(0)
    assert temperature_by_force(warm(900.0, 1), Springs(), random) == pytest.approx(900.0, rel=0.2)
    structures = [bulk("Si", cubic=True) * 2, *(warm(900.0, seed) for seed in range(20))]
    by_energy = temperatures_by_energy(structures, energies(structures), np.zeros(21))
    assert by_energy[0] == 0
    assert by_energy[1:].mean() == pytest.approx(900.0, rel=0.05)
    assert temperature_by_force(structures[0], Springs(), random) == 0


def test_the_highest_temperature_is_that_of_the_hottest_tenth_and_of_the_lower_estimate() -> None:
    """None of them is at rest, as in a pool of molecular dynamics."""
    structures = [warm(300.0, seed) for seed in range(16)] + [warm(1500.0, seed) for seed in range(4)]
    known = energies(structures)
    assert highest_temperature(structures, known, Springs(), 1) == pytest.approx(1500.0, rel=0.2)
    cold, phases = structures[:16], known[:16] + 64.0 * np.tile([0, 1], 8)  # another phase, 1 eV/atom higher
    assert highest_temperature(cold, phases, Springs(), 1) == pytest.approx(300.0, rel=0.3)
    halved = known[:16] / 2  # 150 K, as of displacements that forces make look hotter
    assert highest_temperature([bulk("Si", cubic=True) * 2, *cold], np.array([0, *halved]), Springs(), 1) < 200
    assert highest_temperature(structures[-4:], known[-4:], Springs(), 1) == pytest.approx(1500.0, rel=0.2)


def test_structures_without_curvature_have_no_temperature() -> None:
    class Flat(Springs):
        def calculate(self, atoms=None, properties=("forces",), system_changes=all_changes) -> None:
            self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}

    atoms = warm(300.0, 0)
    assert highest_temperature([atoms], np.zeros(1), Flat(), 1) is None
