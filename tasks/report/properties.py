"""The section on properties of crystals and molecules: teacher, student, limits, DFT or experiment. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from containers.properties.compare import UNIT_TEXTS, UNITS, Deviation, deviations, mean_percent
from tasks.report.markup import DASH, Note, Picture, Section, Table, number
from tasks.report.summary import RunSummary

PROPERTY_NAMES = {
    "bulk modulus": "bulk modulus",
    "vacancy": "vacancy of {}",
    "surface": "surface ({})",
    "phonon": "phonon frequencies, mean",
    "bond": "bond {}",
    "angle": "angle {}",
    "vibration": "vibrations, mean",
}
DIMERS = Note(
    "Dimer curves: the energy of two atoms less that of the atoms alone, from 0.8 times the sum of the covalent radii"
    " to the teacher's cutoff. If the data have no dimers, the student's curve is an extrapolation."
)


def properties(summary: RunSummary) -> Section:
    """Properties of crystals and molecules, teacher and student side by side, and reference values of the config."""
    title = "Properties of crystals and molecules"
    if summary.properties is None:
        return Section(title, ["Not compared: `properties` has no crystals."])
    teacher, student = summary.properties
    found, limits = deviations(teacher, student), summary.property_limits
    if not found:
        none = "No crystal and no molecule was compared: give one of the elements in `properties.prototypes`."
        reasons = [(one,) for one in not_measured(summary, found)]
        return Section(title, [none, Table(("not measured",), reasons)])
    references = references_of(summary)
    rows = []
    for one in found:
        row = [
            *(one.crystal, PROPERTY_NAMES.get(one.kind, "{}").format(one.property)),
            *(number(one.teacher), number(one.student), UNIT_TEXTS[one.unit]),
            "no value" if one.deviation is None else f"{number(one.deviation)} {UNIT_TEXTS[UNITS[one.kind]]}",
        ]
        limit = limits.of(one.kind)
        within = DASH if limit is None or one.teacher is None else "yes" if limits.over(one) <= 1 else "no"
        row += [number(limit), within]
        rows.append([*row, number(reference_of(one, references))] if references else row)
    head = [
        *("crystal", "property", "teacher", "student", "unit", "student less teacher", "limit", "within"),
        *(("DFT or experiment",) if references else ()),
    ]
    means = mean_percent(found)
    molecules = "A molecule has no elastic constants: its shortest bonds, smallest angles and vibrations are compared."
    return Section(
        title,
        [
            "Teacher and student relax the same crystals, and the same code measures both. Atoms relax in the strains"
            " of the elastic constants. Energies of vacancies and compounds are relative to crystals of the elements.",
            molecules if teacher.molecules else "",
            Table(
                ("crystal", "mean deviation of lattice, bulk modulus, elastic constants (%)"),
                [(name, number(mean)) for name, mean in means.items()],
            ),
            Table(head, rows),
            *(
                Picture(f"crystal-{place}", f"Energy over volume and phonons of {one.name}, teacher and student")
                for place, one in enumerate(teacher.crystals)
            ),
            Picture("dimers", "Energy of two atoms over their distance, teacher and student"),
            *([DIMERS] if teacher.dimers else []),
            Table(("not measured",), [(one,) for one in not_measured(summary, found)]),
        ],
    )


def not_measured(summary: RunSummary, found: Sequence[Deviation]) -> list[str]:
    """Return sentences on crystals, properties and reference values that are not in the table, with the reason."""
    compared = summary.properties or ()
    said = [f"{name}: {reason}" for of in compared for name, reason in of.left_out.items()]
    said += [
        f"{crystal.name}, {what} ({whose}): {reason}"
        for whose, of in zip(("teacher", "student"), compared, strict=False)
        for crystal in of.crystals
        for what, reason in crystal.failed.items()
    ]
    return said + [
        f"properties.reference: {crystal} has no {name} here"
        for crystal, values in references_of(summary).items()
        for name in values
        if not any(one.crystal == crystal and name in reference_names(one) for one in found)
    ]


def references_of(summary: RunSummary) -> dict[str, dict[str, float]]:
    """Return `properties.reference` of the config."""
    found: dict[str, dict[str, float]] = summary.config.get("properties", {}).get("reference", {})
    return found


def reference_names(row: Deviation) -> tuple[str, str]:
    """Return the names by which `properties.reference` may call a property: C44, vacancy Si, surface 111."""
    return row.property, f"{row.kind} {row.property}"


def reference_of(row: Deviation, references: dict[str, dict[str, float]]) -> float | None:
    """Return the value of DFT or experiment that the config has for a property, in the unit of its row."""
    given = references.get(row.crystal, {})
    return next((given[name] for name in reference_names(row) if name in given), None)
