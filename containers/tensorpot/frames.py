"""pacemaker's frames (`.pckl.gzip`): what may enter one, and the way there and back without loss.

Columns: `ase_atoms`, `energy_corrected` (eV, total less the reference energies), `forces` (N, 3) eV/Å, `name` (the
structure's id), `w_energy`, `w_forces` (one number an atom), and for our own use `energy` (eV, total) and `stress`
(eV/Å³, Voigt xx yy zz yz xz xy, or None). pacemaker ignores columns that it does not know.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, StepError
from containers.distances import nearest, periodic_cell

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none

ENERGY_RANGE = (-20.0, 250.0)
"""eV/atom; pacemaker replaces every reference energy when one structure's corrected energy is outside."""
ONE_PLACE = 0.01
"""Å; pyace refuses atoms closer than about 1e-5 Å, and nothing is learnt from a distance such as this."""
EDGE = 1e-6
"""Å; a neighbour so near to the cutoff may or may not be counted, and adds nothing."""


@dataclass(frozen=True)
class Labelled:
    """One row of a frame."""

    name: str
    atoms: Atoms
    energy: float  # eV, total
    energy_corrected: float  # eV, total less the reference energies
    forces: np.ndarray  # (N, 3) eV/Å
    stress: np.ndarray | None  # (6,) eV/Å³
    weight: float = 1.0


def geometry(atoms: Atoms) -> Atoms:
    """A copy with numbers, positions, cell and pbc alone."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)


def padded(atoms: Atoms, cutoff: float) -> Atoms:
    """The structure made periodic in three directions by empty space that no interaction of `cutoff` (Å) crosses.

    Positions and the periodic lattice are unchanged, so a potential of this cutoff gives the same energies and forces.
    (pacemaker stops at cells that are periodic in one or two directions, pyace at left-handed ones.)
    """
    bare = geometry(atoms)
    if not atoms.pbc.all():
        cell = periodic_cell(bare)
        extent = np.ptp(bare.positions @ np.linalg.inv(cell), axis=0)
        lengths = np.where(bare.pbc, 1.0, extent + 2 * cutoff)
        bare.set_cell(cell * lengths[:, None])
        bare.set_pbc(True)
    if np.linalg.det(bare.cell.array) < 0:
        turned = int(np.argmin(atoms.pbc))  # an open direction where there is one; a and -a make the same lattice
        bare.set_cell(np.where(np.arange(3)[:, None] == turned, -1.0, 1.0) * bare.cell.array)
    return bare


def overlap(atoms: Atoms, distances: np.ndarray) -> str | None:
    """Why no potential can be evaluated on the structure; `distances` (N,) are those of `nearest`."""
    if distances.min() >= ONE_PLACE:
        return None
    return f"atom {int(distances.argmin())} (from 0) and another are in one place ({distances.min():.2g} Å apart)"


def fit_ready(atoms: Atoms, cutoff: float) -> Atoms | str:
    """The structure as pacemaker takes it (see `padded`), or why it would drop it."""
    distances = nearest(atoms, cutoff)
    if reason := overlap(atoms, distances):
        return reason
    lonely = np.flatnonzero(distances >= cutoff - EDGE)
    if lonely.size:
        return f"atom {lonely[0]} (from 0) has no neighbour within the cutoff of {cutoff:g} Å"
    return padded(atoms, cutoff)


def energy_corrected(energy: float, atoms: Atoms, e0s_eV: Mapping[str, float]) -> float:
    """eV: the total energy less the reference energies; raises `BadInput` where one is missing."""
    symbols = atoms.get_chemical_symbols()
    if missing := sorted(set(symbols) - set(e0s_eV)):
        raise BadInput(f"no reference energy is given for {', '.join(missing)}: add it to e0s_eV (eV an atom)")
    return energy - sum(e0s_eV[symbol] * symbols.count(symbol) for symbol in sorted(set(symbols)))


def energy_problem(corrected: float, atoms: int) -> str | None:
    """Why this corrected energy (eV, of so many atoms) cannot enter a frame."""
    low, high = ENERGY_RANGE
    per_atom = corrected / atoms
    if low <= per_atom <= high:
        return None
    return f"{per_atom:.4g} eV/atom above the reference energies is outside pacemaker's range of {low:g} to {high:g}"


def frame(rows: Sequence[Labelled]) -> pd.DataFrame:
    """The rows as pacemaker's data frame. Weights of 1 throughout are pacemaker's own uniform weighting."""
    import pandas as pd

    if special := [row.name for row in rows if row.name.startswith("augmented")]:
        raise StepError(f"pacemaker treats names that start with `augmented` specially: {special[0]}")
    columns = {
        "ase_atoms": [geometry(row.atoms) for row in rows],
        "energy": [float(row.energy) for row in rows],
        "energy_corrected": [float(row.energy_corrected) for row in rows],
        "forces": [np.array(row.forces, dtype=float).reshape(-1, 3) for row in rows],
        "stress": [None if row.stress is None else np.array(row.stress, dtype=float) for row in rows],
        "name": [row.name for row in rows],
        "w_energy": [float(row.weight) for row in rows],
        "w_forces": [np.full(len(row.atoms), float(row.weight)) for row in rows],
    }
    return pd.DataFrame({key: pd.Series(values, dtype=_dtype(key)) for key, values in columns.items()})


def _dtype(column: str) -> str:
    return "float64" if column in ("energy", "energy_corrected", "w_energy") else "object"


def write_frame(path: Path, table: pd.DataFrame) -> None:
    """Write a `.pckl.gzip`; the bytes depend on the table alone."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        pickle.dump(table, packed, protocol=4)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a frame that `write_frame` wrote. It is a pickle: never one that came from outside."""
    import pandas as pd

    return pd.read_pickle(path, compression="gzip")  # noqa: S301  our own file, digest checked by the step


def atoms_of_frame(table: pd.DataFrame) -> list[Atoms]:
    """The structures with total energy, forces and stress as calculators, and their ids in `info`."""
    return [_labelled_atoms(row) for row in table.to_dict("records")]


def _labelled_atoms(row: Mapping[Hashable, Any]) -> Atoms:
    labelled = geometry(row["ase_atoms"])
    labelled.info["id"] = row["name"]
    results = {key: row[key] for key in ("energy", "forces", "stress") if row[key] is not None}
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled
