"""A committee of students as an ASE calculator: the mean of what they say, and how far they are from each other.

This file needs nothing but numpy, ASE and, beside it, `calculator.py` and what that needs. In the folder
`runs/NAME/committee` it is `committee.py` and works alone::

    from committee import committee
    atoms.calc = committee()
    atoms.get_forces()                  # eV/Å, mean over the students
    atoms.calc.results["force_std"]     # eV/Å, each atom: where it is large the students do not know
    atoms.calc.results["energy_std"]    # eV, of the structure

Units: Å, eV, eV/Å, stress eV/Å³. Deviations are population standard deviations over the students.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Committee(Calculator):  # type: ignore[misc]  # ASE has no types
    """The mean of several calculators. `results` also has `energy_std` (eV), `forces_std` (N, 3) and `force_std` (N,)
    in eV/Å: the root of an atom's mean square over its three components."""

    implemented_properties: Sequence[str] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, students: Sequence[Calculator]) -> None:
        """`students` give energies on one scale."""
        super().__init__()
        self.students = list(students)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`."""
        super().calculate(atoms, properties, system_changes)
        self.results = together([_answer(student, self.atoms) for student in self.students])


def _answer(student: Calculator, atoms: Atoms) -> dict[str, Any]:
    student.calculate(atoms)
    return dict(student.results)


def together(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviations of what the members say of one structure (energy, forces and, where all have one, stress)."""
    energies = np.array([answer["energy"] for answer in answers])
    forces = np.stack([answer["forces"] for answer in answers])
    deviations = forces.std(axis=0)
    mean = float(energies.mean())
    found: dict[str, Any] = {
        "energy": mean,
        "free_energy": mean,
        "forces": forces.mean(axis=0),
        "energy_std": float(energies.std()),
        "forces_std": deviations,
        "force_std": per_atom(deviations),
    }
    if all("stress" in answer for answer in answers):
        found["stress"] = np.mean([answer["stress"] for answer in answers], axis=0)
    return found


def per_atom(vectors: Floats) -> Floats:
    """(N, 3) -> (N,): the root of the mean square of the components."""
    return np.asarray(np.sqrt((np.asarray(vectors) ** 2).mean(axis=1)), dtype=float)


def committee(folder: Path | str | None = None) -> Committee:
    """The committee in `folder`, or in the folder of this file; committee.json names its students."""
    from calculator import load  # type: ignore[import-not-found]  # the file beside this one

    where = Path(folder) if folder is not None else Path(__file__).resolve().parent
    names = json.loads((where / "committee.json").read_text())["students"]
    return Committee([load(where / name / "potential.yaml", where / name / "baseline.json", None) for name in names])
