"""The rounds of the convergence loop as rows of text for page and artifacts alike. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.extensions import Round
from tasks.figures import Figures
from tasks.report_rows import number

HEAD = (
    "round",
    "what it did, and why",
    "structures",
    "functions an element",
    "validation: force MAE (meV/Å), energy MAE (meV/atom)",
    "test: the same",
    "helped",
)
MEAN_ERRORS = ("force_mae_meV_per_A", "energy_mae_meV_per_atom")


def rows(rounds: Sequence[Round]) -> list[tuple[str, ...]]:
    """One row of text a round, see HEAD."""
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
