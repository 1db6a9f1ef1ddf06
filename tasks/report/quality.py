"""Sections of the report about the chosen potential: errors, stability, references, core repulsion. Pure."""

from __future__ import annotations

import math

from tasks.report.markup import DASH, ERRORS, Note, Picture, Section, Table, number, percent
from tasks.report.plots import MOST_PAIRS
from tasks.report.summary import RunSummary

REFERENCES = {"teacher": "the teacher", "dft": "DFT"}
WHERE = {
    "energy_mae_meV_per_atom": ERRORS["energy_mae_meV_per_atom"],
    "formation_energy_mae_meV_per_atom": "formation energy MAE (meV/atom)",
    **{key: ERRORS[key] for key in ("force_mae_meV_per_A", "energy_max_meV_per_atom", "force_max_meV_per_A")},
}
"""Columns of the errors by element, group, composition and size."""


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
    expected = expected_errors(summary)
    rows = []
    for key, label in labels.items():
        if any(key in figures for figures in found):
            values = [(percent if "share" in key else number)(figures.get(key)) for figures in found]
            rows.append((label, *values, *([number(expected.get(key))] if expected else [])))
    head = ["", *(f"against {name}" for name in REFERENCES.values())]
    if expected:
        head.append("expected against DFT")
    explained = Note(
        "γ is the extrapolation grade of the test atoms. Up to 1, the potential interpolates between training"
        " environments. The more γ exceeds 1, the less you should trust it."
    )
    return Section(
        "Errors on test structures",
        [
            Table(head, rows),
            explained,
            *([Note(EXPECTED)] if expected else []),
            Picture("error-against-gamma", "Force and energy errors of test structures over their largest γ"),
            Picture("parity-teacher", "Student over teacher"),
            Picture("parity-dft", "Student over DFT"),
            *([] if summary.fidelity["dft"] else [Note("No DFT test file was given.")]),
        ],
    )


EXPECTED = (
    "Expected: √(student-teacher² + teacher-DFT²), the error against DFT if the errors of student and teacher are"
    " independent. If the measured error is far above it, the DFT test structures are harder for the student than the"
    " teacher's test structures. If it is far below, the student's errors cancel those of the teacher."
)


def expected_errors(summary: RunSummary) -> dict[str, float]:
    """Return MAE and RMSE of the student against DFT as its own and the teacher's errors suggest; empty without both.

    The teacher's are those on the DFT test structures, the student's those on the teacher's test structures.
    """
    if not summary.fidelity["dft"]:
        return {}
    own, teachers = summary.fidelity["teacher"] or {}, summary.metrics("baseline")
    found = {}
    for key in ERRORS:
        own_error, teachers_error = own.get(key), teachers.get(f"teacher_test_{key}")
        if "max" not in key and own_error is not None and teachers_error is not None:
            found[key] = math.hypot(own_error, teachers_error)
    return found


def failures(summary: RunSummary) -> Section:
    """Errors by element, group, composition and size, and the structures that formation energies are relative to."""
    tables = []
    for against, name in REFERENCES.items():
        figures = summary.fidelity[against] or {}
        for by in ("element", "group", "composition", "size"):
            found = figures.get(f"by_{by}", [])
            shown = [key for key in WHERE if any(row[key] is not None for row in found)]
            rows = [(row["name"], number(row["structures"]), *(number(row[key]) for key in shown)) for row in found]
            head = (by, "structures", *(WHERE[key] for key in shown))
            tables.append(Table(head, rows, f"Against {name}, by {by}:"))
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
    title = "Errors by element, group, composition and size"
    return Section(title, [*tables, explained] if any(one.rows for one in tables) else [])


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
