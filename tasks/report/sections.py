"""Sections of the report about the results, one function each: figures as paragraphs, tables and pictures. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from containers.labels.pool_labels import REJECTIONS
from containers.structures.distances import touching
from tasks.report.figures import DASH, ERRORS, duration, number, percent
from tasks.report.markup import Note, Picture, Pictures, Section, Table
from tasks.report.plots import MOST_PAIRS
from tasks.report.summary import Figures, RunSummary, Size

REFERENCES = {"teacher": "the teacher", "dft": "DFT"}
PLAIN_ERRORS = [key for key in ERRORS if not key.startswith("stress")]
WHERE = {
    "energy_mae_meV_per_atom": ERRORS["energy_mae_meV_per_atom"],
    "formation_energy_mae_meV_per_atom": "formation energy MAE (meV/atom)",
    **{key: ERRORS[key] for key in ("force_mae_meV_per_A", "energy_max_meV_per_atom", "force_max_meV_per_A")},
}
"""Columns of the errors by group and by composition."""


ELSEWHERE = ("reason", "stage", "asked", "onward", "tried")
"""Keys of a plan that the table shows in another column, or that matter to the next decision alone."""


def attempts(summary: RunSummary) -> Section:
    """Every fit: its plan, its end, and the errors of its potentials."""
    plans: list[Mapping[str, Any] | None] = [None, *(attempt.plan for attempt in summary.attempts)]
    return Section(
        "Attempts to fit",
        [
            "The first row shows the whole plan, the others what changed. Each attempt keeps the potential with the"
            " smallest validation error. The potential of the chosen attempt is published.",
            Table(
                ("stage", "attempt", "plan", "verdict", "stopped because", "iterations", "best at", "time", "chosen"),
                [
                    (
                        number(attempt.stage),
                        attempt.name,
                        plan_text(attempt.plan, before),
                        attempt.verdict + (f": {attempt.message}" if attempt.message else ""),
                        attempt.stop_criterion or DASH,
                        number(attempt.iterations)
                        + (f", resumed at {attempt.resumed_at}" if attempt.resumed_at else ""),
                        number(attempt.best_iteration),
                        duration(attempt.seconds),
                        "yes" if index == summary.chosen else "",
                    )
                    for index, (attempt, before) in enumerate(zip(summary.attempts, plans, strict=False))
                ],
                style="attempts",
            ),
            Table(
                ("attempt", "potential", *(ERRORS[key] for key in PLAIN_ERRORS)),
                [
                    (attempt.name, which, *(number(figures.get(key)) for key in PLAIN_ERRORS))
                    for attempt in summary.attempts
                    for which, figures in (
                        ("best, training", attempt.train),
                        ("best, validation", attempt.validation),
                        ("last, validation", attempt.last_validation),
                    )
                    if figures
                ],
            ),
        ],
    )


def plan_text(plan: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """`maxiter 150, start fresh (the first attempt)`: None is left out, the reason comes last.

    With the plan `before` only the changes: `batch_size 100 → 50 (out of memory)`.
    """
    shown = {key: value for key, value in plan.items() if key not in ELSEWHERE}
    if before is None:
        settings = [f"{key} {number(value)}" for key, value in shown.items() if value is not None]
    else:
        changed = {key: value for key, value in shown.items() if value != before.get(key)}
        settings = [f"{key} {number(before.get(key))} → {number(value)}" for key, value in changed.items()]
    text = ", ".join(settings) or "as before"
    return f"{text} ({plan['reason']})" if plan.get("reason") else text


def learning_curve(summary: RunSummary, pictures: Pictures) -> Section:
    """Loss and errors over the iterations."""
    if "learning-curve" not in pictures:
        return Section("Loss and errors over the iterations", ["Nothing to draw: no attempt left a history."])
    return Section(
        "Loss and errors over the iterations",
        [
            Picture("learning-curve", "Loss, energy and force RMSE over the iterations of all attempts"),
            Note(
                "A solid line marks a new stage, which has another loss. A dotted line marks another attempt. A green"
                " mark shows the iteration whose potential was kept."
            ),
        ],
    )


def extensions(summary: RunSummary) -> Section:
    """Rounds with more structures or functions, and why they ended."""
    made = summary.extensions

    def change(before: int, after: int | None) -> str:
        return number(before) if after in (None, before) else f"{number(before)} → {number(after)}"

    def errors(figures: Figures) -> str:
        return ", ".join(number(figures.get(key)) for key in ("force_mae_meV_per_A", "energy_mae_meV_per_atom"))

    rows = []
    for one in made.rounds if made else ():
        added = ", ".join(f"{count} by {how}" for how, count in sorted(one.added_by.items()))
        helped = ("yes" if one.helped else "no") + (", published" if one.chosen else "")
        sizes: list[Size] = [one.before, one.after] if one.after else [one.before]
        rows.append(
            (
                str(one.number),
                f"more {one.kind}" + (f" ({added})" if added else "") + f": {one.reason}",
                change(one.before.structures, one.after.structures if one.after else None),
                change(one.before.functions, one.after.functions if one.after else None),
                " → ".join(errors(size.validation) for size in sizes),
                " → ".join(errors(size.test) for size in sizes),
                helped if one.after else f"failed: {one.failure}",
            )
        )
    head = (
        *("round", "change and reason", "structures", "functions per element"),
        *("validation: force MAE (meV/Å), energy MAE (meV/atom)", "test: the same", "helped"),
    )
    return Section("More structures, more functions", [made.sentence() if made else "", Table(head, rows)])


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
    return Section(
        "Errors on test structures",
        [
            Table(("", *(f"against {name}" for name in REFERENCES.values())), rows),
            Note(
                "γ is the extrapolation grade of the test atoms. Up to 1, the potential interpolates between training"
                " environments. The more γ exceeds 1, the less you should trust it."
            ),
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
        *(
            (f"steps with an atom of γ above {level}", percent(metrics[f"gamma_share_above_{level}"]))
            for level in (1, 5, 25)
        ),
    ]
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
    return Section(
        "References",
        [
            Table((), rows, "The teacher's own error is the best that a student can reach against DFT."),
            Table(
                ("pair", "form", "ε (eV)", "σ (Å)", "whole up to (Å)", "zero from (Å)"),
                terms,
                "The student learned the labels minus these pair potentials. Every figure here is of the sum.",
            ),
        ],
    )


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
    rows = [
        (
            name,
            *(number(pair[key]) for key in ("r_in_A", "shortest_distance_A", "gamma_10_distance_A")),
            percent(pair["share_of_pairs_inside"]),
        )
        for name, pair in pairs.items()
    ]
    head = (
        "pair",
        "repulsion begins (Å)",
        "shortest in the data (Å)",
        "γ passes 10 at (Å)",
        "pairs of the data inside",
    )
    return Section(
        "Core repulsion",
        [
            f"At distances shorter than in the data, the {'reference' if summary.baseline.pairs else 'ZBL'} potential"
            " keeps atoms apart. The plots show the force of the blend beside that of ZBL.",
            Table(head, rows),
            f"The energy of these dimers falls on the way in: {falling}. Add structures in which the atoms are closer,"
            " or choose another r_in_A."
            if falling
            else "",
            Picture("core-repulsion", "Energy and force of each dimer beside ZBL"),
            *([Note(f"{MOST_PAIRS} of {len(pairs)} pairs are drawn.")] if len(pairs) > MOST_PAIRS else []),
        ],
    )


def data(summary: RunSummary) -> Section:
    """Labels, the speed of labelling, rejections and selection."""
    labels, selection, work = summary.labels, summary.selection, summary.labelling
    how = number(selection.how)
    rows = [
        ("labels computed in this run", number(labels.computed)),
        ("labels reused", number(labels.reused)),
        ("structures rejected (see rejected.parquet)", number(labels.rejected)),
        ("labelled structures", number(selection.pool)),
        ("candidates for training among them", number(selection.candidates)),
        ("structures set aside before the fit (see set_aside.parquet)", number(selection.set_aside)),
        ("structures selected", number(selection.selected) + (f" ({how})" if how else "")),
    ]
    if selection.scarce_elements:
        name = "elements with too few environments to choose from: the selection took all that the budget allows"
        rows.append((name, ", ".join(selection.scarce_elements)))
    if work.computed:
        parts = {
            "start and calibration": work.seconds_start,
            "neighbour lists": work.seconds_neighbours,
            "model": work.seconds_model,
            "reading and writing": work.seconds_io,
            "the flow itself": work.seconds_flow,
        }
        rows += [
            ("structures labelled per second", number(work.structures_per_s)),
            ("atoms labelled per second", number(work.atoms_per_s)),
            *((f"time of the labelling: {part}", duration(seconds)) for part, seconds in parts.items()),
        ]
    rejections = sorted(labels.rejected_by.items(), key=lambda item: (-item[1], item[0]))
    return Section(
        "Labels and selection",
        [
            Table((), rows),
            Picture("forces", "Atoms by the force on them"),
            Table(
                (),
                [(f"structures {REJECTIONS[kind]}", number(count)) for kind, count in rejections],
                "Why structures were rejected (one may have several reasons):",
            ),
        ],
    )


def pairs(summary: RunSummary) -> Section:
    """Which pairs of elements the training set has."""

    def known(pair: str, shortest_A: float | None) -> str:
        if shortest_A is None:
            return "nothing, except a core repulsion if the config has one"
        return "larger distances only, no bonds" if shortest_A > touching(pair) else "bonds"

    rows = [
        (
            pair,
            number(sides["train"]["structures"]),
            number(sides["train"]["shortest_A"]),
            number(sides["validation"]["structures"]),
            number(sides["test"]["structures"]),
            known(pair, sides["train"]["shortest_A"]),
        )
        for pair, sides in summary.metrics("frames").get("pairs", {}).items()
    ]
    return Section(
        "Elements and pairs in the training set",
        [
            Table(
                ("pair", "structures", "shortest (Å)", "in validation", "in test", "training covers"),
                rows,
                f"The training set has structures with every element: {', '.join(summary.elements)}. The table"
                " shows what it has of each pair within the cutoff. Do not trust the potential for a pair that is not"
                " there.",
            )
        ],
    )


def grades(summary: RunSummary) -> Section:
    """Extrapolation grades of pool and test structures before and after the selection."""
    when = {"before": "before: with DFT data and structures that were given", "after": "after the selection"}
    rows = [
        (
            f"{of} structures",
            words,
            *(number(found[key]) for key in ("atoms", "max")),
            *(percent(found[key]) for key in ("share_above_1", "share_above_5")),
        )
        for of, grades in summary.selection.grades.items()
        for key, words in when.items()
        if (found := grades.get(key))
    ]
    return Section(
        "Coverage of the selection",
        [
            Table(
                ("structures", "when", "atoms", "largest γ", "share above 1", "share above 5"),
                rows,
                "Extrapolation grade γ of every atom for the basis before the fit. Up to 1, the atom lies within the"
                " range of the training set.",
            ),
            Picture("grades", "Atoms by extrapolation grade, before and after the selection"),
        ],
    )
