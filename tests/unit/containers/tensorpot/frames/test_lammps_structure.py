"""The structure for the LAMMPS input: which one, read back as it was, and how many neighbours LAMMPS lists."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from containers.structures.cells import bare
from containers.tensorpot.frames.frame_file import Labelled
from containers.tensorpot.frames.lammps_structure import example, most_neighbours, write_structure
from containers.tensorpot.frames.rows import TrainingRow, energies_less_e0s
from containers.tensorpot.student.calculator import neighbours, padded

CUTOFF = 5.0


def row(atoms: Atoms, energy_corrected: float, energy: float = 0.0) -> TrainingRow:
    label = Labelled(
        str(atoms.symbols), padded(atoms, CUTOFF), energy, energy_corrected, np.zeros((len(atoms), 3)), None
    )
    return TrainingRow(atoms, "teacher", "train", label)


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=1)
    return atoms


def left_handed() -> Atoms:
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.6))
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell.array[[1, 0, 2]], pbc=True)


def tilted() -> Atoms:
    atoms = rattled(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    atoms.set_cell(np.array([[1, 0, 0], [3, 1, 0], [-2, 5, 1]]) @ atoms.cell.array)  # the same lattice
    atoms.rotate(37, (1, 2, 3), rotate_cell=True)
    return atoms


SHAPES = {
    "primitive": rattled(bulk("NaCl", "rocksalt", a=5.6)),
    "left-handed": left_handed(),
    "strongly tilted and turned": tilted(),
    "slab": rattled(fcc111("Na", (2, 2, 3), a=4.2)),
    "molecule": rattled(molecule("CH3CH2OH")),
}


def surroundings(atoms: Atoms) -> list[np.ndarray]:
    """For each atom the numbers of its neighbours and their distances, sorted by distance."""
    first, second, vectors = neighbours(atoms, CUTOFF)
    found = np.column_stack([atoms.numbers[second], np.linalg.norm(vectors, axis=1)])
    parts = (found[first == atom] for atom in range(len(atoms)))
    return [part[np.lexsort(part.round(6).T)] for part in parts]


@pytest.mark.parametrize("shape", SHAPES)
def test_lammps_reads_the_structure_that_was_trained_on(tmp_path: Path, shape: str) -> None:
    atoms = SHAPES[shape]
    elements = ("Ar", *sorted(set(atoms.get_chemical_symbols())))
    write_structure(tmp_path / "structure.data", padded(atoms, CUTOFF), elements)
    text = (tmp_path / "structure.data").read_text()
    assert f"{len(elements)} atom types" in text
    number, mass, *_ = text.partition("Masses")[2].split()
    assert (number, float(mass)) == ("1", pytest.approx(39.948)), "a type that the structure lacks is declared too"
    back = ase.io.read(tmp_path / "structure.data", format="lammps-data")
    assert back.get_chemical_symbols() == atoms.get_chemical_symbols()
    lengths, tilts = np.diag(back.cell), back.cell.array[(1, 2, 2), (0, 0, 1)]
    assert (np.abs(tilts) <= 0.5 * lengths[[0, 0, 1]] + 1e-9).all(), "LAMMPS stops at a strong tilt"
    assert not np.triu(back.cell, 1).any()
    for ours, theirs in zip(surroundings(atoms), surroundings(bare(back)), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-9)


def test_the_example_has_the_most_elements_then_is_periodic_then_lowest_in_energy() -> None:
    salt, salt_low = SHAPES["primitive"], bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    open_salt = Atoms("NaCl", positions=[(0, 0, 0), (0, 0, 2.4)])
    rows = [row(SHAPES["slab"], -90.0), row(open_salt, -20.0), row(salt, -2.0), row(salt_low, -16.0)]
    assert example(rows) is rows[3]
    assert example(rows[:3]) is rows[2]
    assert example(rows[:2]) is rows[1]


def test_most_neighbours_and_median_energies_less_e0s() -> None:
    assert most_neighbours([molecule("H2"), bulk("Cu", "fcc", a=3.6)], 3.7) == 12 + 6
    rows = [
        row(Atoms("Na2"), 0.0, energy=2 * -1.0 + 2 * -0.5),
        row(Atoms("NaCl"), 0.0, energy=-1.0 - 7.0 + 2 * -3.0),
        row(Atoms("NaCl"), 0.0, energy=-1.0 - 7.0 + 2 * -4.0),
        row(Atoms("Cl2"), 0.0, energy=2 * -7.0 + 2 * -6.0),
    ]
    found = energies_less_e0s(rows, ("Ar", "Cl", "Na"), {"Ar": 0.0, "Cl": -7.0, "Na": -1.0})
    assert found == {"all": -4.0, "Ar": None, "Cl": -6.0, "Na": -3.0}
