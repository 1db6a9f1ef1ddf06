"""Labelled structures as extended XYZ, with every digit: what ASE reads back is bit for bit what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from containers.structures import atoms_from_table

PROPERTIES = "species:S:1:pos:R:3:forces:R:3"


def write_extxyz(path: Path, labels: pa.Table) -> None:
    """Write a table of LABELS: id, energy (eV, total), forces (eV/Å), stress (eV/Å³, nine numbers) of each row.

    ASE's own writer keeps eight decimals of positions and forces, which loses the content id.
    """
    with path.open("w", encoding="ascii", newline="\n") as file:
        for batch in labels.to_batches(max_chunksize=1000):
            file.writelines(map(_frame, atoms_from_table(pa.Table.from_batches([batch]))))


def _frame(atoms: Atoms) -> str:
    results = atoms.calc.results
    rows = np.hstack([atoms.positions, results["forces"]]).tolist()
    lines = [f"{symbol} {_numbers(row)}" for symbol, row in zip(atoms.symbols, rows, strict=True)]
    return "\n".join([str(len(atoms)), _comment(atoms), *lines, ""])


def _comment(atoms: Atoms) -> str:
    results = atoms.calc.results
    parts = [f"Properties={PROPERTIES}", f"id={atoms.info['id']}", f"energy={float(results['energy'])!r}"]
    if atoms.cell.array.any():
        parts.insert(0, f'Lattice="{_numbers(atoms.cell.array.ravel().tolist())}"')
    if "stress" in results:
        parts.append(f'stress="{_numbers(voigt_6_to_full_3x3_stress(results["stress"]).ravel().tolist())}"')
    periodic = " ".join("T" if flag else "F" for flag in atoms.pbc)
    return " ".join([*parts, f'pbc="{periodic}"'])


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))
