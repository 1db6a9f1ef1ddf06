"""Extrapolation grades of many structures, before and after the selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from containers.arrays import Floats, Indices, Mask
from containers.tensorpot.active_set.active_rows import inverse
from containers.tensorpot.active_set.maxvol import Active, grades
from containers.tensorpot.selection.d_optimal import Search

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 25.0, 100.0, 1e3, 1e6)
"""Edges of the histogram; the last bin holds everything above too. Above 25 pacemaker advises to stop."""
INSIDE = 1.01
"""MaxVol stops near 1: what it leaves just above is inside."""


@dataclass(frozen=True)
class Grades:
    """Extrapolation grades of atoms and, for each, the place of its structure."""

    values: Floats
    owners: Indices


def grade_all(search: Search, sets: dict[str, Active]) -> Grades:
    """Return the grade of every atom against these active sets."""
    found = [
        (piece, owners)
        for name, active in sets.items()
        for piece, owners in grades(search.projected.elements[name], inverse(active.rows, active.functions))
    ]
    return Grades(np.concatenate([values for values, _ in found]), np.concatenate([owners for _, owners in found]))


def summary(found: Grades, structures: Mask) -> dict[str, Any] | None:
    """Return figures of the atoms of some structures; None when there are none. Shares are of atoms."""
    mine = structures[found.owners]
    values = found.values[mine]
    if not len(values):
        return None
    counts, _ = np.histogram(np.minimum(values, EDGES[-1]), bins=EDGES)
    outside = np.unique(found.owners[mine][values > INSIDE])
    return {
        "structures": int(structures.sum()),
        "atoms": len(values),
        "max": float(values.max()),
        "median": float(np.median(values)),
        "share_above_1": float((values > INSIDE).mean()),
        "share_above_5": float((values > 5).mean()),
        "share_above_25": float((values > 25).mean()),
        "share_of_structures_above_1": float(len(outside) / structures.sum()),
        "histogram": {"edges": list(EDGES), "counts": counts.tolist()},
    }
