"""Atoms to a table and back without loss, and what a structure's id depends on."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import file_digest
from containers.structures.table import (
    LABELS,
    STRUCTURES,
    atoms_from_table,
    labels_table,
    read_atoms,
    structure_id,
    structures_table,
    write_table,
)

PBCS = [(x, y, z) for x in (False, True) for y in (False, True) for z in (False, True)]


def odd_structure(seed: int, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    """Numbers of every size, a skew and perhaps left-handed cell, positions far outside it, a negative zero."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 9))
    positions = random.normal(0, 10.0 ** random.integers(-8, 8), (count, 3))
    positions[0, 0] = -0.0
    cell = random.normal(0, 7, (3, 3)) if any(pbc) else np.zeros((3, 3))
    atoms = Atoms(random.integers(1, 119, count), positions=positions, cell=cell, pbc=pbc)
    atoms.info = {"id": structure_id(atoms), "source": "där.xyz", "row": seed, "group": "", "family": f"f{seed}"}
    return atoms


def with_labels(atoms: Atoms, stress: bool) -> Atoms:
    random = np.random.default_rng(len(atoms))
    results = {"energy": random.normal(0, 1e5), "forces": random.normal(0, 1, (len(atoms), 3))}
    if stress:
        results["stress"] = random.normal(0, 1, 6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def bits(values: object) -> bytes:
    return np.asarray(values, dtype=float).tobytes()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pbc", PBCS)
def test_round_trip_is_bit_exact(tmp_path: Path, seed: int, pbc: tuple[bool, bool, bool]) -> None:
    atoms = odd_structure(seed, pbc)
    write_table(tmp_path / "one.parquet", structures_table([atoms]))
    (back,) = read_atoms(tmp_path / "one.parquet")
    assert bits(back.positions) == bits(atoms.positions)
    assert bits(back.cell.array) == bits(atoms.cell.array)
    assert back.numbers.tolist() == atoms.numbers.tolist()
    assert back.pbc.tolist() == list(pbc)
    assert back.info == atoms.info
    assert structure_id(back) == atoms.info["id"]
    assert back.calc is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stress", [True, False])
def test_labels_round_trip_is_bit_exact(tmp_path: Path, seed: int, stress: bool) -> None:
    atoms = with_labels(odd_structure(seed), stress)
    write_table(tmp_path / "one.parquet", labels_table([atoms]))
    (back,) = read_atoms(tmp_path / "one.parquet")
    assert set(back.calc.results) == set(atoms.calc.results)
    for name, values in atoms.calc.results.items():
        assert bits(back.calc.results[name]) == bits(values)
        assert np.shape(back.calc.results[name]) == np.shape(values)


def test_many_structures_keep_their_order_and_sizes() -> None:
    structures = [odd_structure(seed) for seed in range(20)]
    back = atoms_from_table(structures_table(structures))
    assert [atoms.info["row"] for atoms in back] == list(range(20))
    assert [len(atoms) for atoms in back] == [len(atoms) for atoms in structures]


def test_schemas() -> None:
    atoms = with_labels(odd_structure(0), stress=True)
    assert structures_table([atoms]).schema == STRUCTURES
    assert labels_table([atoms]).schema == LABELS
    assert structures_table([]).num_rows == 0


def test_id_ignores_info_labels_and_the_sign_of_zero() -> None:
    atoms = odd_structure(1)
    other = with_labels(atoms.copy(), stress=True)
    other.info = {"source": "elsewhere.xyz", "row": 7}
    other.positions[0, 0] = 0.0
    assert bits(other.positions) != bits(atoms.positions)
    assert structure_id(other) == structure_id(atoms)


def test_id_is_the_same_on_every_machine() -> None:
    atoms = Atoms("SiGe", positions=[[0, 0, 0], [1.5, 0.25, -2]], cell=[4, 5, 6], pbc=(True, True, False))
    content = struct.pack("<2i", 14, 32) + struct.pack("<15d", 0, 0, 0, 1.5, 0.25, -2, 4, 0, 0, 0, 5, 0, 0, 0, 6)
    assert structure_id(atoms) == hashlib.sha256(content + bytes([1, 1, 0])).hexdigest()


@pytest.mark.parametrize("change", ["number", "position", "cell", "pbc", "order", "one more"])
def test_id_depends_on_content(change: str) -> None:
    atoms = Atoms("SiGe", positions=[[0, 0, 0], [1.5, 0, 0]], cell=[4, 5, 6], pbc=True)
    other = atoms.copy()
    if change == "number":
        other.numbers[0] = 15
    elif change == "position":
        other.positions[1, 0] = np.nextafter(1.5, 2)
    elif change == "cell":
        other.cell[2, 2] = np.nextafter(6, 7)
    elif change == "pbc":
        other.pbc[2] = False
    elif change == "order":
        other = other[[1, 0]]
    else:
        other += Atoms("H")
    assert structure_id(other) != structure_id(atoms)


def test_bytes_of_a_file_depend_on_the_table_alone(tmp_path: Path) -> None:
    table = structures_table([odd_structure(seed) for seed in range(5)])
    write_table(tmp_path / "a", table)
    write_table(tmp_path / "b", structures_table(atoms_from_table(table)))
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")


def test_a_state_is_part_of_the_id_and_stays_with_the_structure(tmp_path: Path) -> None:
    atoms, state = odd_structure(1), "total_charge=1 total_spin=2"
    assert structure_id(atoms, "") == structure_id(atoms)
    assert len({structure_id(atoms), structure_id(atoms, state), structure_id(atoms, "total_charge=1")}) == 3
    atoms.info["state"] = state
    write_table(tmp_path / "one.parquet", structures_table([atoms]))
    (back,) = read_atoms(tmp_path / "one.parquet")
    assert back.info == atoms.info
