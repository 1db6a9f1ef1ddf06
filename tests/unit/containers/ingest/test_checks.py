"""What structures and labels must satisfy; whole files are in test_ingest and test_reading."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.emt import EMT
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
from containers.ingest.constant_energy import ConstantEnergies
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


def test_auto_takes_reference_labels_else_the_format_s_own_and_never_mixes_the_two() -> None:
    atoms = dimer(REF_energy=-9.0, REF_stress=np.arange(6))
    atoms.arrays["REF_forces"] = 2 * FORCES
    found = checked_labels(atoms, "auto", "auto", "auto", "f")
    assert found["energy"] == -9.0
    np.testing.assert_array_equal(found["forces"], 2 * FORCES)
    np.testing.assert_array_equal(found["stress"], np.arange(6))
    found = checked_labels(dimer(), "auto", "auto", "auto", "f")
    assert found["energy"] == -8.0
    np.testing.assert_array_equal(found["stress"], np.arange(6) / 8)
    assert "stress" not in checked_labels(dimer(), "auto", "auto", None, "f")
    with pytest.raises(BadInput, match=r"no 'REF_forces'; .*\(REF_energy, energy, forces, stress\)"):
        checked_labels(dimer(REF_energy=-9.0), "auto", "auto", None, "f")


def test_an_energy_that_is_missing_is_named_with_what_is_there() -> None:
    atoms = dimer(dft_energy=-9.0)
    atoms.calc = None
    with pytest.raises(BadInput, match=r"^f: no 'energy'; set energy_key to a name that is there \(dft_energy\)$"):
        checked_labels(atoms, "auto", "auto", None, "f")
    # as ASE gives a LAMMPS dump, once the energy that it invents is taken off
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


# ---- sums and units


ALONG_X = np.array([1.0, 0, 0])


@pytest.mark.parametrize(
    ("labels", "held", "message"),
    [
        ({"forces": FORCES + 0.05 * ALONG_X}, [], None),
        ({"forces": FORCES + 0.15 * ALONG_X}, [], r"forces do not sum to zero: 0\.15 eV/Å per atom"),
        ({"forces": 100 * FORCES + 0.5 * ALONG_X}, [], None),  # the bound of 0.1 eV/Å per atom grows with the forces
        ({"forces": FORCES + ALONG_X}, [0], None),  # with held atoms any sum is right
        ({"forces": 3_000 * FORCES}, [], None),
        ({"forces": 4_000 * FORCES}, [], r"forces of atom 0 \(from 0\) is 1200 eV/Å; meV/Å would explain it"),
        ({"energy": -1.6e6}, [], None),  # all-electron energies of heavy elements
        ({"energy": 2.1e6}, [], r"energy is 1\.05e\+06 eV per atom; meV or J/mol"),
    ],
)
def test_forces_sum_to_zero_and_labels_have_our_units(labels: dict[str, Any], held: list[int], message: str) -> None:
    atoms = dimer()
    atoms.calc.results |= labels
    atoms.set_constraint(FixAtoms(held) if held else None)
    with pytest.raises(BadInput, match=message) if message else nullcontext():
        checked_labels(atoms, "auto", "auto", None, "f")


@pytest.mark.parametrize("scale", [0.1, 1 / 12])
def test_lengths_in_nanometres(scale: float) -> None:
    atoms = bulk("Si")
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    with pytest.raises(BadInput, match=r"^f: frame 0: every atom has a neighbour within 0\.\d+ Å: lengths in nm"):
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
def test_fractional_coordinates_are_found_where_distances_alone_do_not(crystal: str, rattled_A: float) -> None:
    atoms = CRYSTALS[crystal]()
    atoms.pbc = True
    lengths(atoms)
    atoms.rattle(rattled_A, seed=3)
    atoms.positions = atoms.get_scaled_positions(wrap=False)
    with pytest.raises(BadInput, match=r"^f: frame 0: every .*fractional coordinates"):
        lengths(atoms)


def test_the_message_of_fractional_coordinates_names_the_fix() -> None:
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


def test_crystals_and_close_atoms_are_fine_where_not_all_are_close() -> None:
    for symbol in ("Fe", "Cu", "Cs", "Be", "Si"):
        lengths(bulk(symbol))
        lengths(bulk(symbol) * 2)
    lengths(Atoms("Si"))
    lengths(Atoms("Si3", positions=[[0, 0, 0], [0.2, 0, 0], [3, 0, 0]]))
    lengths(Atoms("Si2", positions=[[0, 0, 0], [0.2, 0, 0]]))  # a dimer, pushed together on purpose
    for distance in np.arange(0.3, 1.1, 0.05):
        lengths(Atoms("Si2", positions=[[0, 0, 0], [distance, 0, 0]], cell=[10, 10, 10], pbc=True))


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


# ---- energies that never change are no energies


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


def check(energies: list[float | None], structures: list[Atoms] | None = None) -> None:
    """Check total energies of structures of one file; None is EMT's."""
    made = ConstantEnergies()
    for row, energy in enumerate(energies):
        made.add(labelled(structures[row] if structures else rattled(row), row, energy), "a.xyz")
    made.check()


@pytest.mark.parametrize(
    ("energies", "structures", "message"),
    [
        (
            [0.0] * 4,
            [rattled(0), rattled(0), rattled(1), rattled(2)],
            r"^a\.xyz: all total energies are 0 eV.* \(frames 0, 2, 3, from 0\)",
        ),
        ([None] * 3, None, None),
        ([0.0] * 2, None, None),  # two structures show nothing
        ([-1.0, -1.0, -2.0, -1.0, -1.0], None, None),
        ([-1.0, -1.0 - 1e-9, -1.0 + 1e-9], None, "although the structures differ"),
        ([-1.0, 0.0, -2.0, 0.0], None, r"^a\.xyz: the total energies of frames 1, 3 \(from 0\).* exactly 0 eV"),
        # each set of elements may have one zero, isolated atoms have as many as there are elements
        ([-0.2, 0.0, 0.0, -0.3], [rattled(0), bulk("Cu", cubic=True), bulk("Au", cubic=True), rattled(1)], None),
        ([0.0] * 4, [Atoms(symbol, cell=[12.0] * 3, pbc=True) for symbol in ("Cu", "Au", "Ni", "Al")], None),
        ([0.0] * 3, [bulk("Cu", a=size, cubic=True) for size in (3.5, 3.6, 3.7)], "although the structures differ"),
    ],
)
def test_structures_that_differ_have_no_common_energy(
    energies: list[float | None], structures: list[Atoms] | None, message: str | None
) -> None:
    with pytest.raises(BadInput, match=message) if message else nullcontext():
        check(energies, structures)


def test_a_structure_turned_or_in_another_order_is_the_same_and_files_are_judged_apart() -> None:
    turned = rattled(0)
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    check([-1.0] * 4, [rattled(0), turned, rattled(0)[[2, 0, 3, 1]], rattled(0)[[3, 2, 1, 0]]])
    energies = ConstantEnergies()
    for row in range(3):
        energies.add(labelled(rattled(row), row, -1.0), f"{row}.xyz")
    energies.check()
