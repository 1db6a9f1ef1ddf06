"""Compositions as formulas: Si, NiAl, Ni3Al."""

from __future__ import annotations

from collections.abc import Iterable

from ase.formula import Formula


def counts(composition: str) -> dict[str, int]:
    """Return element -> atoms of the smallest formula unit; `ValueError` for a formula that ASE does not read."""
    try:
        formula = Formula(composition, strict=True)
        found = formula.reduce()[0].count()
    except (ValueError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"compositions: ASE cannot read {composition!r} ({error}). Write Si, NiAl, Ni3Al.") from None
    if not found or "X" in found:
        raise ValueError(f"compositions: {composition!r} has no elements. Write Si, NiAl, Ni3Al.")
    return {symbol: int(count) for symbol, count in sorted(found.items())}


def name_of(composition: str) -> str:
    """Return the formula of the smallest unit in Hill's order: Si of Si2, AlNi of NiAl."""
    return str(Formula.from_dict(counts(composition)).format("hill"))


def check_compositions(compositions: Iterable[str], most_atoms: int) -> None:
    """Raise `ValueError` for what is no formula, is larger than a drawn cell, or comes for the second time."""
    seen: dict[str, str] = {}
    for composition in compositions:
        if (same := seen.setdefault(name_of(composition), composition)) is not composition:
            raise ValueError(f"compositions: {composition} is the same as {same}. Give each once.")
        if (atoms := sum(counts(composition).values())) > most_atoms:
            raise ValueError(
                f"compositions: the smallest unit of {composition} has {atoms} atoms, a random crystal at most"
                f" {most_atoms}. Raise explore.drawn_atoms, or give a crystal in explore.seeds."
            )
