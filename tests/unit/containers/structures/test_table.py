"""Atoms to a table and back without loss, what an id depends on, and rows sorted by id on disk."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import file_digest
from containers.structures import external_sort
from containers.structures.external_sort import Spool, blocks
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
    with_labels(atoms, stress=all(pbc))
    write_table(tmp_path / "one.parquet", labels_table([atoms]))
    (back,) = read_atoms(tmp_path / "one.parquet")
    assert set(back.calc.results) == set(atoms.calc.results)
    for name, values in atoms.calc.results.items():
        assert bits(back.calc.results[name]) == bits(values)
        assert np.shape(back.calc.results[name]) == np.shape(values)


def test_tables_keep_order_and_sizes_and_alone_decide_the_bytes_of_their_file(tmp_path: Path) -> None:
    structures = [odd_structure(seed) for seed in range(20)]
    back = atoms_from_table(structures_table(structures))
    assert [atoms.info["row"] for atoms in back] == list(range(20))
    assert [len(atoms) for atoms in back] == [len(atoms) for atoms in structures]
    atoms = with_labels(odd_structure(0), stress=True)
    assert structures_table([atoms]).schema == STRUCTURES
    assert labels_table([atoms]).schema == LABELS
    assert structures_table([]).num_rows == 0
    table = structures_table(structures)
    write_table(tmp_path / "a", table)
    write_table(tmp_path / "b", structures_table(atoms_from_table(table)))
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")


def test_id_is_the_same_on_every_machine_and_ignores_info_labels_and_the_sign_of_zero() -> None:
    atoms = odd_structure(1)
    other = with_labels(atoms.copy(), stress=True)
    other.info = {"source": "elsewhere.xyz", "row": 7}
    other.positions[0, 0] = 0.0
    assert bits(other.positions) != bits(atoms.positions)
    assert structure_id(other) == structure_id(atoms)
    atoms = Atoms("SiGe", positions=[[0, 0, 0], [1.5, 0.25, -2]], cell=[4, 5, 6], pbc=(True, True, False))
    content = struct.pack("<2i", 14, 32) + struct.pack("<15d", 0, 0, 0, 1.5, 0.25, -2, 4, 0, 0, 0, 5, 0, 0, 0, 6)
    assert structure_id(atoms) == hashlib.sha256(content + bytes([1, 1, 0])).hexdigest()


@pytest.mark.parametrize(
    "change",
    {
        "number": lambda atoms: atoms.numbers.put(0, 15),
        "position": lambda atoms: atoms.positions.put(3, np.nextafter(1.5, 2)),
        "cell": lambda atoms: atoms.cell.array.put(8, np.nextafter(6, 7)),
        "pbc": lambda atoms: atoms.set_pbc((True, True, False)),
        "order": lambda atoms: atoms[[1, 0]],
        "one more": lambda atoms: atoms + Atoms("H"),
    }.items(),
    ids=lambda change: change[0],
)
def test_id_depends_on_content(change: tuple[str, Callable[[Atoms], Atoms | None]]) -> None:
    atoms = Atoms("SiGe", positions=[[0, 0, 0], [1.5, 0, 0]], cell=[4, 5, 6], pbc=True)
    other = atoms.copy()
    assert structure_id(change[1](other) or other) != structure_id(atoms)


def test_a_state_is_part_of_the_id_and_stays_with_the_structure(tmp_path: Path) -> None:
    atoms, state = odd_structure(1), "total_charge=1 total_spin=2"
    assert structure_id(atoms, "") == structure_id(atoms)
    assert len({structure_id(atoms), structure_id(atoms, state), structure_id(atoms, "total_charge=1")}) == 3
    atoms.info["state"] = state
    write_table(tmp_path / "one.parquet", structures_table([atoms]))
    (back,) = read_atoms(tmp_path / "one.parquet")
    assert back.info == atoms.info


# ---- rows sorted by id on disk


SCHEMA = pa.schema([("id", pa.string()), ("numbers", pa.list_(pa.int32())), ("place", pa.int32())])


def keyed(*keys: int, start: int = 0) -> pa.Table:
    ids = [hashlib.sha256(str(key).encode()).hexdigest() for key in keys]
    columns = {"id": ids, "numbers": [[14] * (1 + key % 5) for key in keys], "place": range(start, start + len(keys))}
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def spooled(folder: Path, *tables: pa.Table) -> list[pa.Table]:
    folder.mkdir()
    with Spool(folder, SCHEMA) as made:
        for table in tables:
            made.add(table)
        return list(made.parts())


def test_rows_come_sorted_and_equal_ids_in_their_order(tmp_path: Path) -> None:
    parts = spooled(tmp_path / "a", keyed(*range(500)), keyed(3, 7, 3, start=500))
    found = pa.concat_tables(parts).to_pylist()
    assert found == sorted(found, key=lambda row: (row["id"], row["place"]))
    assert sorted(row["place"] for row in found) == list(range(503))
    borders = [(part["id"][0].as_py(), part["id"][-1].as_py()) for part in parts]
    assert all(last < first for (_, last), (first, _) in pairwise(borders))
    assert list((tmp_path / "a").iterdir()) == []
    assert spooled(tmp_path / "b") == []
    assert list(blocks(iter([]))) == []


@pytest.mark.parametrize(
    ("most_rows", "most_atoms"), [(10, 1_000_000), (1_000, 20), (7, 20), (1, 1), (1_000, 1_000_000)]
)
def test_blocks_depend_on_the_rows_alone(monkeypatch: pytest.MonkeyPatch, most_rows: int, most_atoms: int) -> None:
    monkeypatch.setattr(external_sort, "ROWS", most_rows)
    monkeypatch.setattr(external_sort, "ATOMS", most_atoms)
    table = keyed(*range(100))
    whole = list(blocks(iter([table])))
    for step in (1, 3, 33):
        parted = list(blocks(table.slice(start, step) for start in range(0, 100, step)))
        assert [block.to_pylist() for block in parted] == [block.to_pylist() for block in whole]
    assert pa.concat_tables(whole).to_pylist() == table.to_pylist()
    for block in whole:
        atoms = sum(map(len, block["numbers"].to_pylist()))
        assert block.num_rows <= most_rows
        assert atoms <= most_atoms or block.num_rows == 1
