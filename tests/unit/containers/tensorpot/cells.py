"""Labelled cells of silicon, and the table of a data set, as the steps before write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.structures.table import labels_table, structure_id
from containers.tensorpot.dataset.history import DATASET


def labelled(
    atoms: Atoms, family: str = "f", energy: float = -8.0, row: int = 7, source: str = "some.xyz", group: str = "bulk"
) -> Atoms:
    """The structure with everything a label has."""
    atoms.info = {"id": structure_id(atoms), "source": source, "row": row, "group": group, "family": family}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.full((len(atoms), 3), 0.25))
    if atoms.pbc.all():
        atoms.calc.results["stress"] = np.arange(6.0)
    return atoms


def cell(seed: int, family: str = "f", energy: float = -8.0, **place: Any) -> Atoms:
    """A two-atom silicon cell, another for every seed."""
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=seed)
    return labelled(atoms, family, energy, **place)


def data_set(rows: Sequence[tuple[Atoms, str, str]]) -> pa.Table:
    """DATASET of (structure, origin, side)."""
    table = labels_table([atoms for atoms, _, _ in rows])
    for name, values in (("origin", [row[1] for row in rows]), ("side", [row[2] for row in rows])):
        table = table.append_column(name, pa.array(values, pa.string()))
    return table.append_column("version", pa.array([1] * len(rows))).cast(DATASET)
