"""Labelled cells of silicon, the table of a data set, and a potential of known answers in pyace's place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
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


class Ace(Calculator):
    """-1 eV an atom, forces 0.1 eV/Å, stress 0.01 eV/Å³, grades 0, 2, 4...; as pyace, no open or left-handed cell."""

    cutoff = 5.0

    def calculate(self, atoms: Atoms, *_: object) -> None:
        assert atoms.pbc.all()
        assert np.linalg.det(atoms.cell.array) > 0
        count = len(atoms)
        self.results = {"energy": -1.0 * count, "forces": np.full((count, 3), 0.1), "gamma": np.arange(count) * 2.0}
        self.results["stress"] = np.full(6, 0.01)
