"""What structures and labels must satisfy; whole files are in test_ingest and test_readers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from containers.contract import BadInput
from containers.ingest.checks import (
    SAME_ENERGY_eV_per_atom,
    SAME_FORCE_eV_per_A,
    check_lengths,
    check_one_label,
    check_structure,
    checked_labels,
)
from containers.structures.distances import shortest_distance

FORCES = np.array([[0.3, 0.0, 0.0], [-0.3, 0.0, 0.0]])


def dimer(distance: float = 2.35, **info: Any) -> Atoms:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [distance, 0, 0]], cell=[12, 9, 9], pbc=True)
    atoms.info.update(info)
    atoms.calc = SinglePointCalculator(atoms, energy=-8.0, forces=FORCES, stress=np.arange(6) / 8)
    return atoms


def lengths(atoms: Atoms) -> None:
    check_lengths(atoms, shortest_distance(atoms, 4.0), "f: frame 0")


# ---- auto


def test_auto_takes_reference_labels_where_there_are_some() -> None:
    atoms = dimer(REF_energy=-9.0, REF_stress=np.arange(6))
    atoms.arrays["REF_forces"] = 2 * FORCES
    found = checked_labels(atoms, "auto", "auto", "auto", "f")
    assert found["energy"] == -9.0
    np.testing.assert_array_equal(found["forces"], 2 * FORCES)
    np.testing.assert_array_equal(found["stress"], np.arange(6))


def test_auto_takes_the_format_s_own_labels_else() -> None:
    found = checked_labels(dimer(), "auto", "auto", "auto", "f")
    assert found["energy"] == -8.0
    np.testing.assert_array_equal(found["stress"], np.arange(6) / 8)
    assert "stress" not in checked_labels(dimer(), "auto", "auto", None, "f")


def test_auto_never_mixes_the_two() -> None:
    with pytest.raises(BadInput, match=r"no 'REF_forces'; .*\(REF_energy, energy, forces, stress\)"):
        checked_labels(dimer(REF_energy=-9.0), "auto", "auto", None, "f")


def test_what_is_there_is_told() -> None:
    atoms = dimer(dft_energy=-9.0)
    atoms.calc = None
    with pytest.raises(BadInput, match=r"^f: no 'energy'; set energy_key to a name that is there \(dft_energy\)$"):
        checked_labels(atoms, "auto", "auto", None, "f")


def test_forces_without_an_energy_are_no_dft_data() -> None:
    """So ASE gives a LAMMPS dump, once the energy that it invents is taken off."""
    atoms = dimer()
    del atoms.calc.results["energy"]
    with pytest.raises(BadInput, match=r"^f: no 'energy': .* a LAMMPS dump, cannot be DFT data .*\(forces, stress\)$"):
        checked_labels(atoms, "auto", "auto", None, "f")


@pytest.mark.parametrize("forces_key", ["auto", "REF_forces"])
def test_a_single_atom_needs_no_forces(forces_key: str) -> None:
    """In MACE's training files isolated atoms have none; in a crystal of one atom a cell symmetry makes them zero."""
    for atoms in (Atoms("Si"), bulk("Cu")):
        atoms.info = {"REF_energy": -0.8, "config_type": "IsolatedAtom"}
        found = checked_labels(atoms, "auto", forces_key, None, "f")
        np.testing.assert_array_equal(found["forces"], np.zeros((1, 3)))
        assert found["energy"] == -0.8
        del atoms.info["REF_energy"]
        with pytest.raises(BadInput, match="no 'energy'"):
            checked_labels(atoms, "auto", forces_key, None, "f")
    atoms = dimer(REF_energy=-0.8)
    with pytest.raises(BadInput, match="no 'REF_forces'"):
        checked_labels(atoms, "auto", forces_key, None, "f")


def test_nine_numbers_of_stress_are_a_symmetric_tensor() -> None:
    upper = [1.0, 0.5, 0.4, 0.0, 2.0, 0.3, 0.0, 0.0, 3.0]
    with pytest.raises(BadInput, match="the nine numbers of stress are no symmetric tensor"):
        checked_labels(dimer(REF_energy=0.0, stress=np.array(upper)), "energy", "forces", "stress", "f")


# ---- sums and units


@pytest.mark.parametrize(("extra", "refused"), [(0.0, False), (0.05, False), (0.15, True)])
def test_forces_sum_to_about_zero(extra: float, refused: bool) -> None:
    """Where the mean force is small the bound is 0.1 eV/Å per atom."""
    atoms = dimer()
    atoms.calc.results["forces"] = FORCES + np.array([extra, 0, 0])
    if not refused:
        checked_labels(atoms, "auto", "auto", None, "f")
        return
    with pytest.raises(BadInput, match=r"forces do not sum to zero: 0\.15 eV/Å per atom"):
        checked_labels(atoms, "auto", "auto", None, "f")


def test_the_bound_grows_with_the_forces() -> None:
    atoms = dimer()
    atoms.calc.results["forces"] = 100 * FORCES + np.array([0.5, 0, 0])
    checked_labels(atoms, "auto", "auto", None, "f")


def test_held_atoms_may_have_any_sum() -> None:
    atoms = dimer()
    atoms.calc.results["forces"] = FORCES + np.array([1.0, 0, 0])
    atoms.set_constraint(FixAtoms([0]))
    checked_labels(atoms, "auto", "auto", None, "f")


@pytest.mark.parametrize(("scale", "refused"), [(3_000, False), (4_000, True)])
def test_forces_of_another_unit(scale: float, refused: bool) -> None:
    atoms = dimer()
    atoms.calc.results["forces"] = scale * FORCES
    if not refused:
        checked_labels(atoms, "auto", "auto", None, "f")
        return
    with pytest.raises(BadInput, match=r"forces of atom 0 \(from 0\) is 1200 eV/Å; meV/Å would explain it"):
        checked_labels(atoms, "auto", "auto", None, "f")


@pytest.mark.parametrize(("energy", "refused"), [(-1.6e6, False), (2.1e6, True)])
def test_energies_of_another_unit(energy: float, refused: bool) -> None:
    """Two atoms; all-electron energies of heavy elements pass."""
    atoms = dimer()
    atoms.calc.results["energy"] = energy
    if not refused:
        checked_labels(atoms, "auto", "auto", None, "f")
        return
    with pytest.raises(BadInput, match=r"energy is 1\.05e\+06 eV per atom; meV or J/mol"):
        checked_labels(atoms, "auto", "auto", None, "f")


@pytest.mark.parametrize("scale", [0.1, 1 / 12])
def test_lengths_in_nanometres(scale: float) -> None:
    atoms = bulk("Si")
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    with pytest.raises(BadInput, match=r"^f: frame 0: every atom has a neighbour within 0\.\d+ Å: lengths in nm"):
        lengths(atoms)


def test_fractional_coordinates() -> None:
    atoms = bulk("Si", cubic=True) * 2
    atoms.positions = atoms.get_scaled_positions()
    with pytest.raises(BadInput, match="fractional coordinates"):
        lengths(atoms)


CRYSTALS = {
    "diamond": lambda: bulk("Si", cubic=True),  # its shortest distance as fractions: 0.433
    "diamond, two atoms": lambda: bulk("C"),
    "bcc": lambda: bulk("Fe", cubic=True),
    "bcc of the largest atoms": lambda: bulk("Cs", cubic=True),
    "hcp of the smallest metal": lambda: bulk("Be"),
    "rock salt": lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "with hydrogen": lambda: bulk("LiH", "rocksalt", a=4.08),
    "slab with vacuum": lambda: fcc111("Cu", (1, 1, 4), vacuum=6, periodic=True),
    "graphene": lambda: graphene(vacuum=7.5),
    "supercell": lambda: bulk("Cu", cubic=True) * 3,
    "strained": lambda: strained(bulk("SiC", "zincblende", a=4.36, cubic=True)),
}


def strained(atoms: Atoms) -> Atoms:
    deformed = np.array([[1.1, 0.05, 0], [0, 0.95, 0.1], [0, 0, 0.9]])
    atoms.set_cell(atoms.cell.array @ deformed, scale_atoms=True)
    return atoms


@pytest.mark.parametrize("crystal", CRYSTALS)
@pytest.mark.parametrize("rattled_A", [0.0, 0.1])
def test_fractional_coordinates_are_told_where_distances_alone_do_not(crystal: str, rattled_A: float) -> None:
    atoms = CRYSTALS[crystal]()
    atoms.pbc = True
    lengths(atoms)
    atoms.rattle(rattled_A, seed=3)
    atoms.positions = atoms.get_scaled_positions(wrap=False)
    with pytest.raises(BadInput, match=r"^f: frame 0: every .*fractional coordinates"):
        lengths(atoms)


def test_the_message_of_fractional_coordinates_names_the_mend() -> None:
    atoms = bulk("Si", cubic=True)
    atoms.positions = atoms.get_scaled_positions()
    with pytest.raises(BadInput, match=r"^f: frame 0: every coordinate .*0\.433 Å apart.*atoms\.set_scaled_positions"):
        lengths(atoms)


@pytest.mark.parametrize("box", [3.0, 5.0, 8.0, 20.0])
@pytest.mark.parametrize("name", ["H2", "H2O", "N2", "CO", "OH", "CN", "HCN", "CO2"])
def test_small_molecules_in_the_corner_of_a_box_are_fine(name: str, box: float) -> None:
    """All positions between 0 and 1 Å where they fit; also with bonds a tenth shorter."""
    for scale in (1.0, 0.9):
        atoms = molecule(name)
        atoms.positions = scale * (atoms.positions - atoms.positions.min(axis=0))
        atoms.set_cell([box] * 3)
        atoms.pbc = True
        lengths(atoms)


@pytest.mark.parametrize("distance", np.arange(0.3, 1.1, 0.05))
def test_a_dimer_that_is_pushed_together_in_a_box_is_fine(distance: float) -> None:
    lengths(Atoms("Si2", positions=[[0, 0, 0], [distance, 0, 0]], cell=[10, 10, 10], pbc=True))


def test_one_atom_and_crystals_in_angstroms_are_fine() -> None:
    for symbol in ("Fe", "Cu", "Cs", "Be"):
        lengths(bulk(symbol))
        lengths(bulk(symbol) * 2)


def test_close_atoms_are_fine_where_not_all_are() -> None:
    lengths(Atoms("Si3", positions=[[0, 0, 0], [0.2, 0, 0], [3, 0, 0]]))
    lengths(Atoms("Si2", positions=[[0, 0, 0], [0.2, 0, 0]]))  # a dimer, pushed together on purpose
    lengths(Atoms("Si"))
    lengths(bulk("Si"))


def test_a_million_atoms_are_too_many() -> None:
    with pytest.raises(BadInput, match="1,000,001 atoms, at most 1,000,000"):
        check_structure(Atoms(numbers=np.ones(1_000_001, dtype=int), positions=np.zeros((1_000_001, 3))), "f")


# ---- two labels of one structure


@pytest.mark.parametrize(
    ("energy", "force", "same"),
    [
        (0.0, 0.0, True),
        (0.9 * SAME_ENERGY_eV_per_atom, 0.9 * SAME_FORCE_eV_per_A, True),
        (1.1 * SAME_ENERGY_eV_per_atom, 0.0, False),
        (0.0, 1.1 * SAME_FORCE_eV_per_A, False),
        (-1.1 * SAME_ENERGY_eV_per_atom, 0.0, False),
        (0.0, -1.1 * SAME_FORCE_eV_per_A, False),
    ],
)
def test_one_label(energy: float, force: float, same: bool) -> None:
    other = FORCES + np.array([[0, 0, 0], [0, force, 0]])
    first = {"source": "a", "row": 0, "energy": -8.0, "forces": FORCES.ravel().tolist()}  # two atoms
    second = {"source": "b", "row": 1, "energy": -8.0 + 2 * energy, "forces": other.ravel().tolist()}
    with nullcontext() if same else pytest.raises(BadInput, match=r"b: frame 1 .* of a: frame 0 .* another label"):
        check_one_label(first, second)
