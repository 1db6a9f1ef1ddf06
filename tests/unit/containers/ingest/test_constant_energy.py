"""Energies that never change are no energies; equal structures and reference atoms are left in peace."""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput
from containers.ingest.constant_energy import ConstantEnergies


def labelled(atoms: Atoms, row: int, energy: float | None) -> Atoms:
    """With EMT's forces, and its energy where none is given."""
    real = atoms.copy()
    real.calc = EMT()
    found = real.get_potential_energy() if energy is None else energy
    atoms.calc = SinglePointCalculator(atoms, energy=found, forces=real.get_forces())
    atoms.info["row"] = row
    return atoms


def rattled(seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


def judged(structures: list[Atoms], energy: float | None = 0.0) -> None:
    energies = ConstantEnergies()
    for row, atoms in enumerate(structures):
        energies.add(labelled(atoms, row, energy), "a.dump")
    energies.check()


def test_structures_that_differ_have_no_common_energy() -> None:
    with pytest.raises(BadInput, match=r"^a\.dump: all total energies are 0 eV.* \(frames 0, 2, 3, from 0\)"):
        judged([rattled(0), rattled(0), rattled(1), rattled(2)])
    judged([rattled(0), rattled(1), rattled(2)], energy=None)


def files_of(energies: list[float | None], structures: list[Atoms] | None = None) -> ConstantEnergies:
    made = ConstantEnergies()
    for row, energy in enumerate(energies):
        made.add(labelled(structures[row] if structures else rattled(row), row, energy), "a.xyz")
    return made


def test_two_structures_show_nothing_and_one_other_energy_is_enough() -> None:
    judged([rattled(0), rattled(1)])
    files_of([-1.0, -1.0, -2.0, -1.0, -1.0]).check()
    with pytest.raises(BadInput, match="although the structures differ"):
        files_of([-1.0, -1.0 - 1e-9, -1.0 + 1e-9]).check()


def test_zeros_beside_energies_are_none_but_each_set_of_elements_may_have_one() -> None:
    with pytest.raises(BadInput, match=r"^a\.xyz: the total energies of frames 1, 3 \(from 0\).* exactly 0 eV"):
        files_of([-1.0, 0.0, -2.0, 0.0]).check()
    reference = [rattled(0), bulk("Cu", cubic=True), bulk("Au", cubic=True), rattled(1)]
    files_of([-0.2, 0.0, 0.0, -0.3], reference).check()


def test_strained_crystals_without_forces_differ() -> None:
    with pytest.raises(BadInput, match="although the structures differ"):
        judged([bulk("Cu", a=size, cubic=True) for size in (3.5, 3.6, 3.7)])


def test_a_structure_turned_or_in_another_order_is_the_same() -> None:
    turned = rattled(0)
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    judged([rattled(0), turned, rattled(0)[[2, 0, 3, 1]], rattled(0)[[3, 2, 1, 0]]], energy=-1.0)


def test_reference_atoms_may_all_have_no_energy() -> None:
    judged([Atoms(symbol, cell=[12.0] * 3, pbc=True) for symbol in ("Cu", "Au", "Ni", "Al")])


def test_files_are_judged_apart() -> None:
    energies = ConstantEnergies()
    for row in range(3):
        energies.add(labelled(rattled(row), row, -1.0), f"{row}.xyz")
    energies.check()
