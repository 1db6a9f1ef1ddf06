"""Structures as Arrow tables: schema, content ids, and the way from and to `ase.Atoms` without loss.

Units: positions and cell Å, energy eV (total), forces eV/Å, stress eV/Å³ (ASE sign, Voigt xx yy zz yz xz xy).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from containers.arrays import Indices

STRUCTURES = pa.schema(
    [
        ("id", pa.string()),
        ("numbers", pa.list_(pa.int32())),
        ("positions", pa.list_(pa.float64())),  # N*3, row by row
        ("cell", pa.list_(pa.float64(), 9)),  # row by row
        ("pbc", pa.list_(pa.bool_(), 3)),
        ("source", pa.string()),  # file it came from
        ("row", pa.int32()),  # its place in that file, from 0
        ("group", pa.string()),  # a class: bulk, surface, ...
        ("family", pa.string()),  # parent or trajectory; near copies share it
        ("state", pa.string()),  # what else the teacher reads of it; see `frame_state`
    ]
)
LABELS = pa.schema(
    [
        *STRUCTURES,
        ("energy", pa.float64()),
        ("forces", pa.list_(pa.float64())),  # N*3
        ("stress", pa.list_(pa.float64(), 6)),  # null unless periodic in all three directions
    ]
)
Origin = Literal["teacher", "dft"]
KEPT_INFO = ("id", "source", "row", "group", "family")
STATE = "state"


def structure_id(atoms: Atoms, state: str = "") -> str:
    """sha256 of what the teacher reads: numbers, positions, cell, pbc and the state (see `frame_state`) where it is not
    MACE's default. Names and order of files do not enter."""
    digest = hashlib.sha256()
    digest.update(np.asarray(atoms.numbers, dtype="<i4").tobytes())
    for lengths in (atoms.positions, atoms.cell.array):
        digest.update((np.asarray(lengths, dtype="<f8") + 0.0).tobytes())  # + 0.0 makes -0.0 equal 0.0
    digest.update(np.asarray(atoms.pbc, dtype=np.uint8).tobytes())
    digest.update(state.encode())
    return digest.hexdigest()


def structures_table(structures: Sequence[Atoms]) -> pa.Table:
    """Return one row a structure; `info` has the keys of KEPT_INFO (see `ingest`), and STATE where it is no default."""
    return pa.Table.from_pydict(_columns(structures), schema=STRUCTURES)


def labels_table(structures: Sequence[Atoms]) -> pa.Table:
    """Like `structures_table`, with energy, forces and stress from each structure's calculator."""
    columns = _columns(structures)
    results = [atoms.calc.results for atoms in structures]
    columns["energy"] = [float(result["energy"]) for result in results]
    columns["forces"] = [np.asarray(result["forces"], dtype=float).ravel() for result in results]
    columns["stress"] = [result.get("stress") for result in results]
    return pa.Table.from_pydict(columns, schema=LABELS)


def _columns(structures: Sequence[Atoms]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {key: [atoms.info[key] for atoms in structures] for key in KEPT_INFO}
    columns[STATE] = [atoms.info.get(STATE, "") for atoms in structures]
    columns["numbers"] = [atoms.numbers.astype(np.int32) for atoms in structures]
    columns["positions"] = [atoms.positions.ravel() for atoms in structures]
    columns["cell"] = [atoms.cell.array.ravel() for atoms in structures]
    columns["pbc"] = [[bool(flag) for flag in atoms.pbc] for atoms in structures]
    return columns


def atoms_from_table(table: pa.Table) -> list[Atoms]:
    """Return the structures of a table in its order; labels come as a `SinglePointCalculator`, float64 untouched."""
    rows = zip(*(table.column(key).to_pylist() for key in KEPT_INFO), strict=True)
    ends = np.cumsum(list_lengths(table.column("numbers"))).tolist()
    numbers, positions = flat(table.column("numbers")), flat(table.column("positions")).reshape(-1, 3)
    cells, pbcs = flat(table.column("cell")).reshape(-1, 3, 3), flat(table.column("pbc")).reshape(-1, 3)
    structures = [
        Atoms(numbers[start:end], positions[start:end], cell=cell, pbc=pbc, info=dict(zip(KEPT_INFO, row, strict=True)))
        for start, end, cell, pbc, row in zip([0, *ends], ends, cells, pbcs, rows, strict=False)
    ]
    if STATE in table.column_names:
        for atoms, state in zip(structures, table.column(STATE).to_pylist(), strict=True):
            atoms.info |= {STATE: state} if state else {}
    if "energy" in table.column_names:
        forces = flat(table.column("forces")).reshape(-1, 3)
        stresses = iter(flat(table.column("stress")).reshape(-1, 6))
        energies, stressed = table.column("energy").to_pylist(), table.column("stress").is_valid().to_pylist()
        for atoms, start, end, energy, has_stress in zip(
            structures, [0, *ends], ends, energies, stressed, strict=False
        ):
            results = {"energy": energy, "forces": forces[start:end].copy()}
            if has_stress:
                results["stress"] = next(stresses).copy()
            atoms.calc = SinglePointCalculator(atoms, **results)
    return structures


def with_state(table: pa.Table) -> pa.Table:
    """Return the same; a table from before there were states gets the default ones, behind `family`."""
    if STATE in table.column_names:
        return table
    place = table.schema.get_field_index("family") + 1
    return table.add_column(place, STRUCTURES.field(STATE), pa.array([""] * table.num_rows, pa.string()))


def flat(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return all numbers of a column of lists one after the other; rows that are null give none."""
    values = column.combine_chunks().flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False))


def list_lengths(column: pa.ChunkedArray) -> Indices:
    """Return how many numbers each row of a column of lists has; [rows]."""
    return np.asarray(pc.list_value_length(column).to_numpy(), dtype=np.int64)


def read_structures(path: Path) -> pa.Table:
    """Read the columns of STRUCTURES of a Parquet file; one from before there were states gets the default ones."""
    there = [name for name in STRUCTURES.names if name in pq.read_schema(path).names]
    return with_state(pq.read_table(path, columns=there))


def read_atoms(path: Path) -> list[Atoms]:
    """Read every structure of a Parquet file."""
    return atoms_from_table(pq.read_table(path))


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet whose bytes depend on the table alone."""
    pq.write_table(table, path, compression="zstd", row_group_size=10_000)
