"""Warnings about charges and spins of frames, from what `ingest` counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def state_warnings(found: Mapping[str, Any], of: str) -> list[str]:
    """What to tell the user about the states of the frames `of` some files (metrics `states` of `ingest`)."""
    return [*_not_read(found, of), *_unsaid(found, of), *_odd_spins(found, of), *_several(found, of)]


def _not_read(found: Mapping[str, Any], of: str) -> list[str]:
    if not (count := found["noted"].get("not_read")):
        return []
    return [
        f"{count} frames of the {of} have a charge or a spin that the teacher does not read: it labels them like any"
        f" other frame. The first: {found['first']['not_read']}."
    ]


def _unsaid(found: Mapping[str, Any], of: str) -> list[str]:
    return [
        f"{count} frames of the {of} do not say {name}, which the teacher reads: MACE's default is taken."
        for name, count in found["unsaid"].items()
        if name != "external_field"
    ]


def _odd_spins(found: Mapping[str, Any], of: str) -> list[str]:
    if not (count := found["noted"].get("odd_spin")):
        return []
    return [
        f"{count} frames of the {of} have a total spin that their number of electrons does not allow. MACE's total spin"
        f" is the multiplicity 2S + 1: 1 for a closed shell, 2 for one unpaired electron. The first:"
        f" {found['first']['odd_spin']}."
    ]


def _several(found: Mapping[str, Any], of: str) -> list[str]:
    if found["distinct"] < 2:
        return []
    listed = ", ".join(f"{state}: {count}" for state, count in found["frames"].items())
    both = found["formulas_in_several"]
    mixed = f" {both} compositions are in more than one state (the first: {found['first']['formula']})." if both else ""
    return [
        f"the {of} and the data it is read beside are in {found['distinct']} states ({of}: {listed}).{mixed} A student"
        " has no charge and no spin as input: it fits one energy surface to all of them. Distil one student for each"
        " state, unless the structure decides the state."
    ]
