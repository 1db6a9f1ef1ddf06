"""Sections of the report about the chosen potential: errors, stability, references, core repulsion. Pure."""

from __future__ import annotations

from containers.properties.compare import UNIT_TEXTS, UNITS, deviations, mean_percent
from tasks.report.markup import DASH, ERRORS, Note, Picture, Section, Table, number, percent
from tasks.report.plots import MOST_PAIRS
from tasks.report.summary import RunSummary

PROPERTY_NAMES = {
    "bulk modulus": "bulk modulus",
    "vacancy": "vacancy of {}",
    "surface": "surface ({})",
    "phonon": "phonon frequencies, mean",
}
REFERENCES = {"teacher": "the teacher", "dft": "DFT"}
WHERE = {
    "energy_mae_meV_per_atom": ERRORS["energy_mae_meV_per_atom"],
    "formation_energy_mae_meV_per_atom": "formation energy MAE (meV/atom)",
    **{key: ERRORS[key] for key in ("force_mae_meV_per_A", "energy_max_meV_per_atom", "force_max_meV_per_A")},
}
"""Columns of the errors by group and by composition."""


def fidelity(summary: RunSummary) -> Section:
    """Errors and extrapolation grade against teacher and DFT, with parity plots."""
    labels = {
        "structures": "structures",
        "atoms": "atoms",
        **ERRORS,
        "gamma_max": "largest extrapolation grade γ",
        "gamma_share_above_1": "share of atoms that extrapolate (γ above 1)",
    }
    found = [summary.fidelity[against] or {} for against in REFERENCES]
    rows = [
        (label, *((percent if "share" in key else number)(figures.get(key)) for figures in found))
        for key, label in labels.items()
        if any(key in figures for figures in found)
    ]
    explained = Note(
        "γ is the extrapolation grade of the test atoms. Up to 1, the potential interpolates between training"
        " environments. The more γ exceeds 1, the less you should trust it."
    )
    return Section(
        "Errors on test structures",
        [
            Table(("", *(f"against {name}" for name in REFERENCES.values())), rows),
            explained,
            Picture("parity-teacher", "Student over teacher"),
            Picture("parity-dft", "Student over DFT"),
            *([] if summary.fidelity["dft"] else [Note("No DFT test file was given.")]),
        ],
    )


def failures(summary: RunSummary) -> Section:
    """Errors by group and by composition, and the structures that formation energies are relative to."""
    tables = []
    for against, name in REFERENCES.items():
        figures = summary.fidelity[against] or {}
        for by in ("group", "composition"):
            rows = [
                (row["name"], number(row["structures"]), *(number(row[key]) for key in WHERE))
                for row in figures.get(f"by_{by}", [])
            ]
            tables.append(Table((by, "structures", *WHERE.values()), rows, f"Against {name}, by {by}:"))
        energies = figures.get("formation_energies", {})
        pure = [
            (element, one["id"][:12], number(one["reference_eV_per_atom"]), number(one["student_eV_per_atom"]))
            for element, one in energies.get("relative_to", {}).items()
        ]
        pure += [(element, "no structure of it alone", DASH, DASH) for element in energies.get("missing", [])]
        head = ("element", "structure", "reference (eV/atom)", "student (eV/atom)")
        caption = f"Formation energies against {name} are relative to:"
        tables.append(Table(head, pure if len(pure) > 1 else [], caption))
    explained = Note(
        "A formation energy is the energy per atom minus that of the elements. Each element is represented by its"
        " structure of lowest energy in the data, one for the reference and one for the student. So reference energies"
        " (E0) cancel. A dash means: the data have no structure of one of the elements alone."
    )
    return Section("Errors by group and composition", [*tables, explained] if any(one.rows for one in tables) else [])


def properties(summary: RunSummary) -> Section:
    """Properties of crystals, teacher and student side by side."""
    title = "Properties of crystals"
    if summary.properties is None:
        return Section(title, ["Not compared: `properties` has no crystals."])
    teacher, student = summary.properties
    rows = [
        (
            one.crystal,
            PROPERTY_NAMES.get(one.kind, "{}").format(one.property),
            *map(number, (one.teacher, one.student)),
            UNIT_TEXTS.get(one.unit, one.unit),
            "not there" if one.deviation is None else f"{number(one.deviation)} {UNIT_TEXTS[UNITS[one.kind]]}",
        )
        for one in deviations(teacher, student)
    ]
    if not rows:
        return Section(title, ["The pool has no small crystal: give one in `properties.prototypes`."])
    means = mean_percent(deviations(teacher, student))
    said = [f"{name}: {reason}" for of in summary.properties for name, reason in of.left_out.items()]
    said += [
        f"{crystal.name}, {what} ({whose}): {reason}"
        for whose, of in zip(("teacher", "student"), summary.properties, strict=True)
        for crystal in of.crystals
        for what, reason in crystal.failed.items()
    ]
    return Section(
        title,
        [
            "Both relax the same crystals and are measured by the same code. Atoms relax in the strains of the elastic"
            " constants. Energies of vacancies and compounds are relative to the crystals of the elements.",
            Table(
                ("crystal", "mean deviation of lattice, bulk modulus, elastic constants (%)"),
                [(name, number(mean)) for name, mean in means.items()],
            ),
            Table(("crystal", "property", "teacher", "student", "unit", "student less teacher"), rows),
            *(
                Picture(f"crystal-{place}", f"Energy over volume and phonons of {one.name}")
                for place, one in enumerate(teacher.crystals)
            ),
            Table(("not measured",), [(one,) for one in said]),
        ],
    )


def stability(summary: RunSummary) -> Section:
    """Molecular dynamics with the student, or that it was not tried."""
    title, metrics = "Molecular dynamics at constant energy", summary.metrics("stability")
    if not metrics:
        not_tried = "Not tried: stability.picoseconds is 0. Nothing is known about the potential in molecular dynamics."
        return Section(title, [not_tried])
    unstable = metrics["unstable_because"]
    rows = [
        ("atoms", number(metrics["atoms"])),
        ("steps", f"{number(metrics['steps'])} of {number(metrics['timestep_fs'])} fs"),
        ("drift of the total energy (meV/atom/ps)", number(metrics["drift_meV_per_atom_per_ps"])),
        ("atoms lost, fused", f"{number(metrics['lost_atoms'])}, {number(metrics['fused_atoms'])}"),
        ("shortest distance (Å)", number(metrics["shortest_distance_A"])),
    ]
    for level in (1, 5, 25):
        rows.append((f"steps with an atom of γ above {level}", percent(metrics[f"gamma_share_above_{level}"])))
    return Section(title, [f"Unstable: {unstable}" if unstable else "Stable over the whole run.", Table((), rows)])


def references(summary: RunSummary) -> Section:
    """How DFT and teacher agree, and the pair potentials that the student's own energies leave out."""
    metrics, rows = summary.metrics("baseline"), []
    if metrics.get("dft_compared") or metrics.get("dft_not_compared"):
        rows = [
            ("DFT structures that the teacher labelled too", number(metrics["dft_compared"])),
            ("constant taken from DFT energies (eV/atom)", number(summary.baseline.dft_offsets_eV) or "none"),
        ]
        if left := metrics.get("dft_not_compared"):
            name = "DFT structures whose units nothing checked, because the teacher has no label of them"
            rows.append((name, f"{number(left)}; the first: {metrics['dft_not_compared_first']}"))
        rows += [("doubtful DFT labels", warning) for warning in metrics.get("dft_warnings", ())]
        for name, step in summary.steps.items():
            if count := step.metrics.get("unconverged"):
                first = f"{number(count)}; the first: {step.metrics['unconverged_first']}"
                rows.append((f"frames not used, because their SCF did not converge ({name})", first))
        for prefix, of in (("teacher_", "training"), ("teacher_test_", "test")):
            for key in ("energy_mae_meV_per_atom", "force_mae_meV_per_A"):
                if (value := metrics.get(prefix + key)) is not None:
                    rows.append((f"teacher against DFT {of} data: {ERRORS[key]}", number(value)))
    terms = [
        (name, term.form, *map(number, (term.epsilon_eV, term.sigma_A, term.inner_A, term.outer_A)))
        for name, term in summary.baseline.pairs.items()
    ]
    head = ("pair", "form", "ε (eV)", "σ (Å)", "whole up to (Å)", "zero from (Å)")
    caption = "The student learned the labels minus these pair potentials. Every figure here is of the sum."
    own_error = "The teacher's own error is the best that a student can reach against DFT."
    return Section("References", [Table((), rows, own_error), Table(head, terms, caption)])


def repulsion(summary: RunSummary) -> Section:
    """Dimer curves and forces beside ZBL."""
    pairs, metrics = summary.repulsion, summary.metrics("pace_corerep")
    if not pairs:
        return Section("Core repulsion", ["None: the config sets no reference potential."])
    depths = metrics.get("dimer_falls_eV", {})
    falling = ", ".join(
        f"{pair} (by {number(depths[pair])} eV)" if pair in depths else pair
        for pair, rises in metrics.get("dimer_rises", {}).items()
        if not rises
    )
    rows = []
    for name, pair in pairs.items():
        distances = (number(pair[key]) for key in ("r_in_A", "shortest_distance_A", "gamma_10_distance_A"))
        rows.append((name, *distances, percent(pair["share_of_pairs_inside"])))
    head = (
        *("pair", "repulsion begins (Å)", "shortest in the data (Å)"),
        *("γ passes 10 at (Å)", "pairs of the data inside"),
    )
    warning = (
        f"The energy of these dimers falls on the way in: {falling}. Add structures in which the atoms are closer, or"
        " choose another r_in_A."
    )
    return Section(
        "Core repulsion",
        [
            f"At distances shorter than in the data, the {'reference' if summary.baseline.pairs else 'ZBL'} potential"
            " keeps atoms apart. The plots show the force of the blend beside that of ZBL.",
            Table(head, rows),
            warning if falling else "",
            Picture("core-repulsion", "Energy and force of each dimer beside ZBL"),
            *([Note(f"{MOST_PAIRS} of {len(pairs)} pairs are drawn.")] if len(pairs) > MOST_PAIRS else []),
        ],
    )
