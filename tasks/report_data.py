"""Sections of the page about the data: references, labels, selection, and what keeps atoms apart. Pure."""

from __future__ import annotations

from html import escape

from tasks.page_parts import Pictures, facts, picture, section, table
from tasks.pictures import MOST_PAIRS
from tasks.report_rows import (
    GRADE_HEAD,
    PAIR_HEAD,
    count_rows,
    error_table,
    formation_rows,
    grade_rows,
    labelling_rows,
    number,
    pair_rows,
    percent,
    reference_rows,
    rejection_rows,
)
from tasks.run_summary import RunSummary


def references(summary: RunSummary) -> str:
    """What the student's own energies leave out, and how DFT and teacher agree."""
    pairs = summary.baseline.pairs
    parts = []
    if rows := reference_rows(summary):
        parts += ["<p>The teacher's own error is the best that a student can reach against DFT.</p>", facts(rows)]
    if pairs:
        head = ("pair", "form", "ε (eV)", "σ (Å)", "whole up to (Å)", "zero from (Å)")
        terms = [
            (
                name,
                term.form,
                number(term.epsilon_eV),
                number(term.sigma_A),
                number(term.inner_A),
                number(term.outer_A),
            )
            for name, term in pairs.items()
        ]
        told = "<p>The student learned the labels less these pair potentials; every figure here is of the sum.</p>"
        parts += [told, table(head, terms)]
    return section("References", *parts) if parts else ""


def failures(summary: RunSummary) -> str:
    """Errors by group and by composition against teacher and DFT, and what formation energies are relative to."""
    parts = []
    for against, name in (("teacher", "the teacher"), ("dft", "DFT")):
        for by in ("group", "composition"):
            head, rows = error_table(summary, against, by)
            if rows:
                parts += [f"<p>Against {name}, by {by}:</p>", table(head, rows)]
        if len(rows := formation_rows(summary, against)) > 1:
            head = ("element", "structure", "reference (eV/atom)", "student (eV/atom)")
            parts += [f"<p>Formation energies against {name} are relative to:</p>", table(head, rows)]
    if not parts:
        return ""
    told = (
        "<p class='soft'>A formation energy is an energy an atom less that of the elements. Each element is represented"
        " by its structure of the lowest energy in the data, by reference and by student. So reference energies (E0)"
        " cancel. A dash: the data have no structure of one of the elements alone.</p>"
    )
    return section("Where it fails", *parts, told)


def repulsion(summary: RunSummary, pictures: Pictures) -> str:
    """Dimer curves and forces beside ZBL."""
    pairs = summary.repulsion
    if not pairs:
        return section("Core repulsion", "<p>None: the config asks for no reference potential.</p>")
    head = (
        "pair",
        "repulsion begins (Å)",
        "shortest in the data (Å)",
        "γ passes 10 at (Å)",
        "pairs of the data inside",
    )
    rows = [
        (
            name,
            number(pair["r_in_A"]),
            number(pair["shortest_distance_A"]),
            number(pair["gamma_10_distance_A"]),
            percent(pair["share_of_pairs_inside"]),
        )
        for name, pair in pairs.items()
    ]
    more = f"<p class='soft'>{MOST_PAIRS} of {len(pairs)} pairs are drawn.</p>" if len(pairs) > MOST_PAIRS else ""
    by = "the reference potential" if summary.baseline.pairs else "the ZBL potential"
    return section(
        "Core repulsion",
        f"<p>Atoms closer than the data knows are kept apart by {by}; the blend's force is beside ZBL's.</p>",
        table(head, rows),
        f"<p>{escape(_not_rising(summary))}</p>",
        picture(pictures, "core-repulsion", "Energy and force of each dimer beside ZBL"),
        more,
    )


def pairs(summary: RunSummary) -> str:
    """Which pairs of elements training has seen."""
    rows = pair_rows(summary)
    if not rows:
        return ""
    return section(
        "Elements and pairs that training saw",
        f"<p>Training has structures with every element: {escape(', '.join(summary.elements))}. The table says what it"
        " has of every pair within the cutoff. Do not trust the potential where it has nothing.</p>",
        table(PAIR_HEAD, rows),
    )


def data(summary: RunSummary, pictures: Pictures) -> str:
    """Labels, rejections, selection."""
    rejections = rejection_rows(summary)
    return section(
        "Labels and selection",
        facts([*count_rows(summary), *labelling_rows(summary)]),
        picture(pictures, "forces", "Atoms by the force on them"),
        "<p>Why structures were rejected (one may have several reasons):</p>" if rejections else "",
        facts(rejections) if rejections else "",
    )


def _not_rising(summary: RunSummary) -> str:
    """A warning where a given r_in leaves a dimer that attracts inside; empty otherwise."""
    step = summary.steps.get("pace_corerep")
    falls = [pair for pair, rises in (step.metrics.get("dimer_rises", {}) if step else {}).items() if not rises]
    if not falls:
        return ""
    by = step.metrics.get("dimer_falls_eV", {}) if step else {}
    told = ", ".join(f"{pair} (by {number(by[pair])} eV)" if pair in by else pair for pair in falls)
    return (
        f"The energy of a dimer falls on the way in: {told}. Add structures with it closer, or choose another r_in_A."
    )


def grades(summary: RunSummary, pictures: Pictures) -> str:
    """Extrapolation grades of pool and test structures before and after the selection."""
    rows = grade_rows(summary)
    if not rows:
        return ""
    return section(
        "What the selection covers",
        "<p>The extrapolation grade γ of every atom with the basis before its fit: up to 1 it lies within what the"
        " training set spans.</p>",
        table(GRADE_HEAD, rows),
        picture(pictures, "grades", "Atoms by extrapolation grade, before and after the selection"),
    )
