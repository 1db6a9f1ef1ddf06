"""What the attempts at a fit tried, how they ended and what they are worth: rows and a section of the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.page_parts import Pictures, picture, section, table
from tasks.report_rows import DASH, ERRORS, duration, number
from tasks.run_summary import Attempt, RunSummary

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
            _best_at(attempt),
            duration(attempt.seconds),
            "yes" if index == summary.chosen else "",
        )
        for index, (attempt, before) in enumerate(zip(summary.attempts, plans, strict=False))
    ]


def _iterations(attempt: Attempt) -> str:
    """`150`, or `150, taken up at 60` of one that an earlier run had begun."""
    counted = number(attempt.iterations)
    return f"{counted}, taken up at {attempt.resumed_at}" if attempt.resumed_at else counted


def _best_at(attempt: Attempt) -> str:
    """`38`, or `38 (40 missed)` where the potential of the smallest error could not be copied in time."""
    missed = attempt.missed_iteration
    return number(attempt.best_iteration) + (f" ({missed} missed)" if missed is not None else "")


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
