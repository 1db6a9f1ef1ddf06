"""Sections of the report about the fits: every attempt, the curves of its loss and errors, the rounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.report.markup import DASH, ERRORS, Note, Picture, Pictures, Section, Table, duration, number
from tasks.report.summary import Figures, RunSummary, Size

PLAIN_ERRORS = {key: label for key, label in ERRORS.items() if not key.startswith("stress")}
ELSEWHERE = ("reason", "stage", "stage_maxiter", "onward", "tried")
"""Keys of a plan that the table shows in another column, or that matter to the next decision alone."""


def attempts(summary: RunSummary) -> Section:
    """Every fit: its plan, its end, and the errors of its potentials."""
    head = ("stage", "attempt", "plan", "verdict", "stopped because", "iterations", "best at", "time", "chosen")
    rows, errors, before = [], [], None
    for index, attempt in enumerate(summary.attempts):
        resumed = f", resumed at {attempt.resumed_at}" if attempt.resumed_at else ""
        rows.append(
            (
                number(attempt.stage),
                attempt.name,
                plan_text(attempt.plan, before),
                attempt.verdict + (f": {attempt.message}" if attempt.message else ""),
                attempt.stop_criterion or DASH,
                number(attempt.iterations) + resumed,
                number(attempt.best_iteration),
                duration(attempt.seconds),
                "yes" if index == summary.chosen else "",
            )
        )
        before = attempt.plan
        potentials = {
            "best, training": attempt.train,
            "best, validation": attempt.validation,
            "last, validation": attempt.last_validation,
        }
        for potential, figures in potentials.items():
            if figures:
                errors.append((attempt.name, potential, *(number(figures.get(key)) for key in PLAIN_ERRORS)))
    return Section(
        "Attempts to fit",
        [
            "The first row shows the whole plan, the others what changed. Each attempt keeps the potential with the"
            " smallest validation error. The potential of the chosen attempt is published.",
            Table(head, rows, style="attempts"),
            Table(("attempt", "potential", *PLAIN_ERRORS.values()), errors),
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
    title = "Loss and errors over the iterations"
    if "learning-curve" not in pictures:
        return Section(title, ["Nothing to draw: no attempt left a history."])
    explained = Note(
        "A solid line marks a new stage, which has another loss. A dotted line marks another attempt. A green mark"
        " shows the iteration whose potential was kept."
    )
    text = "Loss, energy and force RMSE over the iterations of all attempts"
    return Section(title, [Picture("learning-curve", text), explained])


def extensions(summary: RunSummary) -> Section:
    """Rounds with more structures, more functions or structures for properties, and why they ended."""

    def errors(figures: Figures) -> str:
        return ", ".join(number(figures.get(key)) for key in ("force_mae_meV_per_A", "energy_mae_meV_per_atom"))

    def properties(size: Size) -> str:
        return ", ".join(f"{group} {number(over)}" for group, over in size.properties.items())

    rows, made = [], summary.extensions
    rounds = made.rounds if made else ()
    judged = any(one.before.properties for one in rounds)
    for one in rounds:
        word = "for" if one.kind == "properties" else "by"
        added = ", ".join(f"{count} {word} {how}" for how, count in sorted(one.added_by.items()))
        change = "structures for properties" if one.kind == "properties" else f"more {one.kind}"
        sizes = [one.before, one.after] if one.after else [one.before]
        structures, functions = (
            " → ".join(map(number, dict.fromkeys(getattr(size, name) for size in sizes)))  # once where none was added
            for name in ("structures", "functions")
        )
        helped = ("yes" if one.helped else "no") + (", published" if one.chosen else "")
        rows.append(
            (
                str(one.number),
                change + (f" ({added})" if added else "") + f": {one.reason}",
                structures,
                functions,
                " → ".join(errors(size.validation) for size in sizes),
                " → ".join(errors(size.test) for size in sizes),
                *([" → ".join(map(properties, sizes))] if judged else []),
                helped if one.after else f"failed: {one.failure}",
            )
        )
    head = (
        *("round", "change and reason", "selected structures", "functions per element"),
        *("validation: force MAE (meV/Å), energy MAE (meV/atom)", "test: the same"),
        *(("properties: largest deviation of each group / its limit",) if judged else ()),
        "helped",
    )
    return Section("Rounds of extension", [made.sentence() if made else "", Table(head, rows)])
