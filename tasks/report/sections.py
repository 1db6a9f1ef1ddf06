"""Sections of the page about the data: references, labels, selection, and what keeps atoms apart. Pure.

What the attempts at a fit tried, how they ended and what they are worth: rows and a section of the page. Pure.

Sections of the page about what comes after a fit: further rounds, the stability gate, size and speed. Pure.

The rounds of the convergence loop as rows of text for page and artifacts alike. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tasks.report.markup import Pictures, facts, markdown_table, one_line, picture, section, table
from tasks.report.plots import MOST_PAIRS
from tasks.report.summary import Attempt, Figures, Round, RunSummary
from tasks.report.tables import (
    DASH,
    ERRORS,
    GRADE_HEAD,
    PAIR_HEAD,
    count_rows,
    duration,
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


ATTEMPT_HEAD = ("stage", "attempt", "plan", "verdict", "stopped because", "iterations", "best at", "time", "chosen")
ERROR_HEAD = ("attempt", "potential", *(label for key, label in ERRORS.items() if not key.startswith("stress")))

BOOKKEEPING = ("reason", "stage", "asked", "onward", "tried")
"""Keys of a plan that are told elsewhere, or matter to the next decision alone."""


def attempts(summary: RunSummary, pictures: Pictures) -> str:
    """Every fit: plan, verdict, iterations, seconds, errors, and the curves."""
    return section(
        "Attempts to fit",
        "<p>The first attempt is told whole, the others by what they change. Of each, the potential with the smallest"
        " validation error is kept; the chosen attempt's is published.</p>",
        table(ATTEMPT_HEAD, attempt_rows(summary), style="attempts"),
        table(ERROR_HEAD, error_rows(summary)),
        picture(pictures, "learning-curve", "Loss, energy and force RMSE over the iterations of all attempts"),
        "<p class='soft'>A solid line marks a new stage, whose loss is another one; a dotted line another attempt; a"
        " green mark the iteration whose potential was kept.</p>"
        if "learning-curve" in pictures
        else "",
    )


def attempt_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """A row of ATTEMPT_HEAD for each attempt."""
    plans: list[Mapping[str, Any] | None] = [None, *(attempt.plan for attempt in summary.attempts)]
    return [
        (
            number(attempt.stage),
            attempt.name,
            plan_text(attempt.plan, before),
            attempt.verdict + (f": {attempt.message}" if attempt.message else ""),
            attempt.stop_criterion or DASH,
            _iterations(attempt),
            number(attempt.best_iteration),
            duration(attempt.seconds),
            "yes" if index == summary.chosen else "",
        )
        for index, (attempt, before) in enumerate(zip(summary.attempts, plans, strict=False))
    ]


def _iterations(attempt: Attempt) -> str:
    """`150`, or `150, taken up at 60` of one that an earlier run had begun."""
    counted = number(attempt.iterations)
    return f"{counted}, taken up at {attempt.resumed_at}" if attempt.resumed_at else counted


def error_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """A row of ERROR_HEAD for each side of each attempt that left a potential."""
    return [
        (attempt.name, told, *(number(figures.get(key)) for key in ERRORS if not key.startswith("stress")))
        for attempt in summary.attempts
        for told, figures in (
            ("best, training", attempt.train),
            ("best, validation", attempt.validation),
            ("last, validation", attempt.last_validation),
        )
        if figures
    ]


def plan_text(plan: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """`maxiter 150, start fresh (the first attempt)`: what is None is left out, the reason comes last.

    With the plan `before` only what changed: `batch_size 100 → 50 (out of memory)`.
    """
    told = {key: value for key, value in plan.items() if key not in BOOKKEEPING}
    if before is None:
        settings = [f"{key} {_value(value)}" for key, value in told.items() if value is not None]
    else:
        changed = {key: value for key, value in told.items() if value != before.get(key)}
        settings = [f"{key} {_value(before.get(key))} → {_value(value)}" for key, value in changed.items()]
    text = ", ".join(settings) or "as before"
    return f"{text} ({plan['reason']})" if plan.get("reason") else text


def _value(value: Any) -> str:
    """Early stopping is a mapping, the rest are numbers and words."""
    if isinstance(value, Mapping):
        return " ".join(f"{name} {number(one)}" for name, one in value.items() if one is not None)
    return number(value)


LEVELS = (1, 5, 25)
"""Extrapolation grades whose share of steps is told."""
NOT_TRIED = "Not tried: stability.picoseconds is 0. Nothing is known of how the potential does in molecular dynamics."


def extensions(summary: RunSummary) -> str:
    """What was added when the first student was not good enough, and why it ended."""
    made = summary.extensions
    if made is None:
        return ""
    rounds = table(ROUND_HEAD, round_rows(made.rounds)) if made.rounds else ""
    return section("More structures, more functions", f"<p>{escape(made.told())}</p>", rounds)


def stability(summary: RunSummary) -> str:
    """What molecular dynamics with the student did, or that it was not tried."""
    rows, unstable = stability_rows(summary), summary.unstable_because
    if not rows:
        told = escape(NOT_TRIED)
    else:
        told = f"Unstable: {escape(unstable)}" if unstable else "Sound over the whole run."
    return section("Molecular dynamics at constant energy", f"<p>{told}</p>", facts(rows) if rows else "")


def stability_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Name and value of what the gate measured; nothing where there was none."""
    step = summary.steps.get("stability")
    return _rows(step.metrics) if step else []


def _rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    shares = [
        (f"steps with an atom of γ above {level}", percent(metrics[f"gamma_share_above_{level}"])) for level in LEVELS
    ]
    return [
        ("atoms", number(metrics["atoms"])),
        ("steps", f"{number(metrics['steps'])} of {number(metrics['timestep_fs'])} fs"),
        ("drift of the total energy (meV/atom/ps)", number(metrics["drift_meV_per_atom_per_ps"])),
        ("atoms lost, fused", f"{number(metrics['lost_atoms'])}, {number(metrics['fused_atoms'])}"),
        ("shortest distance (Å)", number(metrics["shortest_distance_A"])),
        *shares,
    ]


def size_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Functions, parameters, bytes and speed of the potential."""
    metrics = {
        key: value
        for step in ("pace_corerep", "evaluate")
        for key, value in (summary.steps[step].metrics if step in summary.steps else {}).items()
    }
    named = {
        "functions": "basis functions",
        "parameters": "parameters",
        "yaml_bytes": "potential.yaml (bytes)",
        "yace_bytes": "potential.yace (bytes)",
        "yace_difference_eV_per_atom": ".yace against .yaml (eV/atom)",
        "student_us_per_atom": "µs an atom, one thread",
    }
    return [(label, _text(metrics[key])) for key, label in named.items() if metrics.get(key) is not None]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(one)}" for name, one in value.items())
    return number(value)


def extension_text(summary: RunSummary) -> list[str]:
    """The rounds as Markdown; nothing where there were none."""
    made = summary.extensions
    if made is None or not made.rounds:
        return []
    return [one_line(made.told()), markdown_table(ROUND_HEAD, round_rows(made.rounds))]


def stability_text(summary: RunSummary) -> list[str]:
    """The stability gate as Markdown."""
    rows = stability_rows(summary)
    return ["Molecular dynamics at constant energy:", markdown_table(("", ""), rows) if rows else NOT_TRIED]


ROUND_HEAD = (
    "round",
    "what it did, and why",
    "structures",
    "functions an element",
    "validation: force MAE (meV/Å), energy MAE (meV/atom)",
    "test: the same",
    "helped",
)
MEAN_ERRORS = ("force_mae_meV_per_A", "energy_mae_meV_per_atom")


def round_rows(rounds: Sequence[Round]) -> list[tuple[str, ...]]:
    """One row of text a round, see ROUND_HEAD."""
    return [
        (
            str(one.number),
            f"{_done(one)}: {one.reason}",
            _change(one.before.structures, one.after.structures if one.after else None),
            _change(one.before.functions, one.after.functions if one.after else None),
            _errors(one.before.validation, one.after.validation if one.after else None),
            _errors(one.before.test, one.after.test if one.after else None),
            _helped(one),
        )
        for one in rounds
    ]


def _done(one: Round) -> str:
    by = ", ".join(f"{count} by {how}" for how, count in sorted(one.added_by.items()))
    return f"more {one.kind}" + (f" ({by})" if by else "")


def _change(before: int, after: int | None) -> str:
    return number(before) if after in (None, before) else f"{number(before)} → {number(after)}"


def _errors(before: Figures, after: Figures | None) -> str:
    def told(figures: Figures) -> str:
        return ", ".join(number(figures.get(name)) for name in MEAN_ERRORS)

    return told(before) if after is None else f"{told(before)} → {told(after)}"


def _helped(one: Round) -> str:
    if one.after is None:
        return f"failed: {one.failure}"
    return ("yes" if one.helped else "no") + (", published" if one.chosen else "")
