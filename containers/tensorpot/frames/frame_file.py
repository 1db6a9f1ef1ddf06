"""pacemaker's frames (`.pckl.gzip`): structures that may enter one, and the way there and back without loss.

Columns: `ase_atoms`, `energy_corrected` (eV, total less the reference energies and the pair terms), `forces` (N, 3)
eV/Å, less the pair terms, `name` (the structure's id), `w_energy`, `w_forces` (one number an atom), and for our own
use `energy` (eV, total), `forces_total` (eV/Å, the label), `stress` (eV/Å³, Voigt xx yy zz yz xz xy, the label, or
None) and `group` (a class). pacemaker ignores columns that it does not know.

pacemaker divides each column of weights by its sum, in train and validation apart; its loss is then
(1 - kappa) Σ w_energy (ΔE/N)² + kappa Σ w_forces |ΔF|². So one number for `w_energy` and for every atom of `w_forces`
makes a structure count that many times among energies, and each of its atoms among forces.
"""

from __future__ import annotations

import gzip
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, StepError
from containers.structures.cells import bare
from containers.structures.distances import nearest
from containers.structures.table import Origin
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import padded, pair_terms

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
    energy_corrected: float  # eV, total less the reference energies and the pair terms
    forces: np.ndarray  # (N, 3) eV/Å, less the pair terms
    stress: np.ndarray | None  # (6,) eV/Å³
    weight: float = 1.0  # of its energy, and of the forces on each of its atoms
    forces_total: np.ndarray | None = None  # (N, 3) eV/Å, the label; None: there are no pair terms
    weight_forces: float | None = None  # where it is not `weight`
    group: str = ""  # a class

    @property
    def w_forces(self) -> float:
        """Weight of the forces on each atom."""
        return float(self.weight if self.weight_forces is None else self.weight_forces)

    @property
    def label_forces(self) -> np.ndarray:
        """(N, 3) eV/Å with the pair terms."""
        return self.forces if self.forces_total is None else self.forces_total


def overlap(atoms: Atoms, distances: np.ndarray) -> str | None:
    """Return why no potential can be evaluated on the structure; `distances` (N,) are those of `nearest`."""
    if distances.min() >= ONE_PLACE:
        return None
    return f"atom {int(distances.argmin())} (from 0) and another are in one place ({distances.min():.2g} Å apart)"


def fit_ready(atoms: Atoms, cutoff: float) -> Atoms | str:
    """Return the structure as pacemaker takes it (see `padded`), or why it would drop it."""
    distances = nearest(atoms, cutoff)
    if reason := overlap(atoms, distances):
        return reason
    lonely = np.flatnonzero(distances >= cutoff - EDGE)
    if lonely.size:
        return f"atom {lonely[0]} (from 0) has no neighbour within the cutoff of {cutoff:g} Å"
    return padded(atoms, cutoff)


def energy_corrected(energy: float, atoms: Atoms, e0s_eV: Mapping[str, float]) -> float:
    """Return the total energy less the reference energies (eV); raises `BadInput` where one is missing."""
    symbols = atoms.get_chemical_symbols()
    if missing := sorted(set(symbols) - set(e0s_eV)):
        raise BadInput(f"no reference energy is given for {', '.join(missing)}: add it to e0s_eV (eV an atom)")
    return energy - sum(e0s_eV[symbol] * symbols.count(symbol) for symbol in sorted(set(symbols)))


def energy_problem(corrected: float, atoms: int) -> str | None:
    """Return why this corrected energy (eV, of so many atoms) cannot enter a frame."""
    low, high = ENERGY_RANGE
    per_atom = corrected / atoms
    if low <= per_atom <= high:
        return None
    return f"{per_atom:.4g} eV/atom above the reference energies is outside pacemaker's range of {low:g} to {high:g}"


def fit_label(
    atoms: Atoms, origin: Origin, elements: Sequence[str], cutoff: float, baseline: Baseline, fitted: bool = True
) -> Labelled | str:
    """Return what a frame has of a labelled structure, with weight 1, or why pacemaker cannot take it.

    Energies of DFT are brought to the teacher's scale.

    Args:
        fitted: False for a test structure, which pacemaker never sees: lonely atoms and open cells stay as they are.
    """
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        return f"has {', '.join(unknown)}, which the potential does not"
    fit = fit_ready(atoms, cutoff) if fitted else overlap(atoms, nearest(atoms, cutoff)) or bare(atoms)
    if isinstance(fit, str):
        return fit
    forces = atoms.get_forces()
    energy = baseline.on_teachers_scale(
        float(atoms.get_potential_energy()), Counter(atoms.get_chemical_symbols()), origin
    )
    corrected, to_fit = energy_corrected(energy, atoms, baseline.e0s_eV), forces
    if baseline.pairs:
        pair_energy, pair_forces, _ = pair_terms(atoms, {name: p.model_dump() for name, p in baseline.pairs.items()})
        corrected, to_fit = corrected - pair_energy, forces - pair_forces
    if reason := energy_problem(corrected, len(atoms)):
        return reason
    stress = atoms.calc.results.get("stress") if atoms.pbc.all() else None
    name, group = str(atoms.info["id"]), str(atoms.info["group"])
    return Labelled(name, fit, energy, corrected, to_fit, stress, forces_total=forces, group=group)


def frame(rows: Sequence[Labelled]) -> pd.DataFrame:
    """Return the rows as pacemaker's data frame. Weights of 1 throughout are pacemaker's own uniform weighting."""
    import pandas as pd

    if special := [row.name for row in rows if row.name.startswith("augmented")]:
        raise StepError(f"pacemaker treats names that start with `augmented` specially: {special[0]}")
    columns = {
        "ase_atoms": [bare(row.atoms) for row in rows],
        "energy": [float(row.energy) for row in rows],
        "energy_corrected": [float(row.energy_corrected) for row in rows],
        "forces": [np.array(row.forces, dtype=float).reshape(-1, 3) for row in rows],
        "forces_total": [np.array(row.label_forces, dtype=float).reshape(-1, 3) for row in rows],
        "stress": [None if row.stress is None else np.array(row.stress, dtype=float) for row in rows],
        "name": [row.name for row in rows],
        "group": [row.group for row in rows],
        "w_energy": [float(row.weight) for row in rows],
        "w_forces": [np.full(len(row.atoms), row.w_forces) for row in rows],
    }
    numbers = ("energy", "energy_corrected", "w_energy")
    dtypes = {key: "float64" if key in numbers else "object" for key in columns}
    return pd.DataFrame({key: pd.Series(values, dtype=dtypes[key]) for key, values in columns.items()})


def write_frame(path: Path, table: pd.DataFrame) -> None:
    """Write a `.pckl.gzip`; the bytes depend on the table alone."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        pickle.dump(table, packed, protocol=4)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a frame that `write_frame` wrote. It is a pickle: never one that came from outside."""
    import pandas as pd

    return pd.read_pickle(path, compression="gzip")  # noqa: S301  our own file, digest checked by the step


def atoms_of_frame(table: pd.DataFrame) -> list[Atoms]:
    """Return the structures with labels as calculators (total energy, forces, stress); ids and groups in `info`."""
    structures = []
    for row in table.to_dict("records"):
        atoms = bare(row["ase_atoms"])
        atoms.info |= {"id": row["name"], "group": row["group"]}
        stress = {} if row["stress"] is None else {"stress": row["stress"]}
        atoms.calc = SinglePointCalculator(atoms, energy=row["energy"], forces=row["forces_total"], **stress)
        structures.append(atoms)
    return structures
