"""Properties of student and teacher side by side: deviations in the units of the field, and limits.

Light: flows and reports read it without matcalc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from containers.contract import Closed
from containers.properties.molecules import Molecule
from containers.properties.results import Crystal, Properties

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
Group = Literal["elastic", "phonon", "vacancy", "surface", "molecule"]
DECIDED_BY: dict[Kind, Group] = {
    "lattice": "elastic",
    "bulk modulus": "elastic",
    "elastic": "elastic",
    "phase energy": "elastic",
    "formation energy": "elastic",
    "phonon": "phonon",
    "vacancy": "vacancy",
    "surface": "surface",
    "bond": "molecule",
    "angle": "molecule",
    "vibration": "molecule",
}
"""Kind of a property -> the structures that decide it, see the step property_structures."""
GROUP_NAMES: dict[str, Group] = {f"property {group}": group for group in get_args(Group)}
"""The group in the info of such a structure -> what it decides."""
SOFT_GPa = 5.0
"""Percent of a smaller modulus are percent of this, so that a small difference of a soft modulus is no large share."""


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

    def words(self) -> str:
        """Return words for the property: `elastic C44 of Si Fd-3m`, `phase energy of Si Fd-3m`."""
        name = self.kind if self.kind == self.property else f"{self.kind} {self.property}"
        return f"{name} of {self.crystal}"


UNIT_TEXTS = {
    "A": "Å", "GPa": "GPa", "eV": "eV", "J_per_m2": "J/m²", "meV_per_atom": "meV/atom", "THz": "THz", "percent": "%",
    "degrees": "°",
}  # fmt: skip
Limit = Annotated[float, Field(gt=0)] | None


class PropertyLimits(Closed):
    """Largest deviations of the student's properties from the teacher's; null: the kind is not judged.

    The names are kinds of UNITS with their unit. The reasons are in docs/use/properties.md.
    """

    lattice_percent: Limit = Field(0.5, description="%, of each lattice parameter")
    bulk_modulus_percent: Limit = Field(5.0, description="%, of the bulk modulus")
    elastic_percent: Limit = Field(10.0, description=f"%, of each elastic constant; of {SOFT_GPa:g} GPa at least")
    phonon_THz: Limit = Field(0.3, description="THz, mean over all modes of a mesh")
    vacancy_eV: Limit = Field(0.2, description="eV, of each formation energy")
    surface_percent: Limit = Field(10.0, description="%, of each face")
    bond_percent: Limit = Field(1.0, description="%, of the shortest bond of each pair in a molecule")
    angle_degrees: Limit = Field(2.0, description="degrees, of the smallest angles of a molecule")
    vibration_THz: Limit = Field(1.0, description="THz, mean over the vibrations of a molecule")
    phase_energy_meV_per_atom: Limit = Field(10.0, description="meV/atom, between phases of one composition")
    formation_energy_meV_per_atom: Limit = Field(10.0, description="meV/atom, of compounds from their elements")

    def of(self, kind: Kind) -> float | None:
        """Return the limit of a kind in its unit (UNITS)."""
        limit: float | None = getattr(self, f"{kind.replace(' ', '_')}_{UNITS[kind]}")
        return limit

    def sentence(self, row: Deviation) -> str:
        """Return the words for a property that misses its limit: its deviation and the limit."""
        unit = UNIT_TEXTS[UNITS[row.kind]]
        if row.deviation is None:
            return f"{row.words()} could not be measured with the student"
        limit = f"wanted at most {self.of(row.kind):g} {unit}"
        return f"{row.words()} differs by {row.deviation:+.3g} {unit} from the teacher's, {limit}"

    def over(self, row: Deviation) -> float:
        """Return the size of a deviation in units of its limit: 0 where the kind is not judged or the teacher has no
        value, infinite where the student has none."""
        limit = self.of(row.kind)
        if limit is None or row.teacher is None:
            return 0.0
        return np.inf if row.deviation is None else abs(row.deviation) / limit


def deviations(teacher: Properties, student: Properties) -> list[Deviation]:
    """Return every property of every crystal of the teacher beside the student's, in the same order of crystals."""
    rows: list[Deviation] = []
    found = {crystal.name: crystal for crystal in student.crystals}
    for one in teacher.crystals:
        rows.extend(_crystal(one, found.get(one.name)))
    molecules = {molecule.name: molecule for molecule in student.molecules}
    for molecule in teacher.molecules:
        rows.extend(_molecule(molecule, molecules.get(molecule.name)))
    # without one of its phases, the student's lowest may be another one than the teacher's
    lost = {one.formula for one in teacher.crystals if one.name not in found}
    phases = [one for one in student.crystals if one.formula not in lost]
    compounds = [one for one in student.crystals if one.formula not in lost or len(set(one.numbers)) > 1]
    energies_of: tuple[tuple[Kind, Callable[[Sequence[Crystal]], dict[str, float]], list[Crystal]], ...] = (
        ("phase energy", phase_energies, phases),
        ("formation energy", formation_energies, compounds),
    )
    for kind, energies, known in energies_of:
        given, others = energies(teacher.crystals), energies(known)
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


def mean_percent(rows: Sequence[Deviation]) -> dict[str, float]:
    """Return the mean size of the deviations (percent) of each crystal over lattice, bulk modulus, elastic constants.

    A value that the student lacks does not count: the table of properties shows it.
    """
    by_crystal: dict[str, list[float]] = {}
    for row in rows:
        if row.kind in ("lattice", "bulk modulus", "elastic") and row.deviation is not None:
            by_crystal.setdefault(row.crystal, []).append(abs(row.deviation))
    return {crystal: float(np.mean(sizes)) for crystal, sizes in by_crystal.items()}
