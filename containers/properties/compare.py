"""Properties of student and teacher side by side: deviations in the units of the field, and limits.

Light: flows and reports read it without matcalc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from containers.contract import Closed
from containers.properties.measure import Crystal, Properties
from containers.properties.molecules import Molecule

Kind = Literal[
    "lattice", "bulk modulus", "elastic", "phase energy", "formation energy", "phonon", "vacancy", "surface", "bond",
    "angle", "vibration",
]  # fmt: skip
UNITS: dict[Kind, str] = {
    "lattice": "percent",
    "bulk modulus": "percent",
    "elastic": "percent",
    "phase energy": "meV_per_atom",
    "formation energy": "meV_per_atom",
    "phonon": "THz",
    "vacancy": "eV",
    "surface": "percent",
    "bond": "percent",
    "angle": "degrees",
    "vibration": "THz",
}
SOFT_GPa = 5.0
"""A modulus below this is compared with this, so that a soft mode's small difference is no large share."""


class Deviation(Closed):
    """One property of one crystal or molecule.

    `teacher` and `student` are None where it failed, and `deviation` is None then.
    """

    crystal: str
    property: str
    kind: Kind
    unit: str  # of the values
    teacher: float | None
    student: float | None
    deviation: float | None  # student less teacher, in the unit of UNITS


UNIT_TEXTS = {
    "A": "Å", "GPa": "GPa", "eV": "eV", "J_per_m2": "J/m²", "meV_per_atom": "meV/atom", "THz": "THz", "percent": "%",
    "degrees": "°",
}  # fmt: skip


def deviations(teacher: Properties, student: Properties) -> list[Deviation]:
    """Return every property of every crystal of the teacher beside the student's, in the same order of crystals."""
    rows: list[Deviation] = []
    found = {crystal.name: crystal for crystal in student.crystals}
    for one in teacher.crystals:
        rows.extend(_crystal(one, found.get(one.name)))
    molecules = {molecule.name: molecule for molecule in student.molecules}
    for molecule in teacher.molecules:
        rows.extend(_molecule(molecule, molecules.get(molecule.name)))
    for kind, energies in (("phase energy", phase_energies), ("formation energy", formation_energies)):
        given, others = energies(teacher.crystals), energies(student.crystals)
        rows.extend(
            Deviation(
                crystal=crystal, property=kind, kind=kind, unit="meV_per_atom", teacher=value,
                student=others.get(crystal), deviation=None if crystal not in others else others[crystal] - value,
            )
            for crystal, value in given.items()
        )  # fmt: skip
    return rows


def _crystal(teacher: Crystal, student: Crystal | None) -> Iterator[Deviation]:
    tables: list[tuple[Kind, str, str]] = [
        ("lattice", "A", "lattice_A"),
        ("bulk modulus", "GPa", "bulk_GPa"),
        ("elastic", "GPa", "elastic_GPa"),
        ("vacancy", "eV", "vacancy_eV"),
        ("surface", "J_per_m2", "surface_J_per_m2"),
    ]
    for kind, unit, attribute in tables:
        found = {} if student is None else getattr(student, attribute) or {}
        for key, value in (getattr(teacher, attribute) or {}).items():
            difference = None if key not in found else found[key] - value
            if difference is not None and UNITS[kind] == "percent":
                difference = 100 * difference / (max(abs(value), SOFT_GPa) if unit == "GPa" else abs(value))
            yield Deviation(
                crystal=teacher.name, property=key, kind=kind, unit=unit, teacher=value, student=found.get(key),
                deviation=difference,
            )  # fmt: skip
    if teacher.frequencies_THz is not None:
        given = np.array(teacher.frequencies_THz)
        found_THz = None if student is None or student.frequencies_THz is None else np.array(student.frequencies_THz)
        yield Deviation(
            crystal=teacher.name, property="mean over the mesh", kind="phonon", unit="THz",
            teacher=float(given.mean()), student=None if found_THz is None else float(found_THz.mean()),
            deviation=None if found_THz is None else float(np.abs(found_THz - given).mean()),
        )  # fmt: skip


def _molecule(teacher: Molecule, student: Molecule | None) -> Iterator[Deviation]:
    """Yield bonds, angles, and the mean over the vibrations in their order."""
    bonds, angles = (student.bonds_A, student.angles_degrees) if student else ({}, {})
    for pair, length in teacher.bonds_A.items():
        yield Deviation(
            crystal=teacher.name, property=pair, kind="bond", unit="A", teacher=length, student=bonds.get(pair),
            deviation=100 * (bonds[pair] / length - 1) if pair in bonds else None,
        )  # fmt: skip
    for name, angle in teacher.angles_degrees.items():
        yield Deviation(
            crystal=teacher.name, property=name, kind="angle", unit="degrees", teacher=angle, student=angles.get(name),
            deviation=angles[name] - angle if name in angles else None,
        )  # fmt: skip
    given, found = np.array(teacher.vibrations_THz), np.array(student.vibrations_THz) if student else np.array([])
    known = found.shape == given.shape  # a linear molecule that bends loses one
    yield Deviation(
        crystal=teacher.name, property="mean over the modes", kind="vibration", unit="THz", teacher=float(given.mean()),
        student=float(found.mean()) if known else None,
        deviation=float(np.abs(found - given).mean()) if known else None,
    )  # fmt: skip


def phase_energies(crystals: Sequence[Crystal]) -> dict[str, float]:
    """Return energies above the lowest phase of the same composition (meV/atom), where there are two or more."""
    lowest: dict[str, float] = {}
    for one in crystals:
        lowest[one.formula] = min(lowest.get(one.formula, np.inf), one.energy_eV_per_atom)
    several = {one.formula for one in crystals if sum(one.formula == other.formula for other in crystals) > 1}
    return {
        one.name: 1000 * (one.energy_eV_per_atom - lowest[one.formula]) for one in crystals if one.formula in several
    }


def formation_energies(crystals: Sequence[Crystal]) -> dict[str, float]:
    """Return energies of compounds from the lowest crystals of their elements (meV/atom), where all are there."""
    pure: dict[int, float] = {}
    for one in crystals:
        if len(set(one.numbers)) == 1:
            pure[one.numbers[0]] = min(pure.get(one.numbers[0], np.inf), one.energy_eV_per_atom)
    return {
        one.name: 1000 * (one.energy_eV_per_atom - sum(pure[number] for number in one.numbers) / len(one.numbers))
        for one in crystals
        if len(set(one.numbers)) > 1 and set(one.numbers) <= set(pure)
    }


def mean_percent(
    rows: Sequence[Deviation], kinds: Sequence[Kind] = ("lattice", "bulk modulus", "elastic")
) -> Mapping[str, float]:
    """Return the mean size of the deviations (percent) of each crystal over some kinds."""
    by_crystal: dict[str, list[float]] = {}
    for row in rows:
        if row.kind in kinds and row.deviation is not None:
            by_crystal.setdefault(row.crystal, []).append(abs(row.deviation))
    return {crystal: float(np.mean(sizes)) for crystal, sizes in by_crystal.items()}
