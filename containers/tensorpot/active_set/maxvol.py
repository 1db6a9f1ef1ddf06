"""Active sets of more rows than memory holds: MaxVol over pieces, in passes over files.

Rows that fit at once go to pyace's MaxVol as they are. Otherwise a start is found among rows drawn evenly; every pass
then grades all rows against the active set so far and keeps those with the largest grades, and MaxVol is done over the
active set and these, until no row extrapolates. What a pass keeps depends on the rows alone, not on how they are cut
into pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from containers.arrays import Floats, Indices
from containers.tensorpot.active_set.active_rows import active_rows, column_scale, inverse
from containers.tensorpot.active_set.projection_files import Rows

SAMPLE = 8
"""Rows per function that a start is found among."""
KEPT = 8
"""Rows per function that a pass keeps. Measured on 84,000 environments and 250 functions: 4 takes ten passes, 8 and 16
take seven, 16 longer ones."""
MOST_PASSES = 40
"""Five to ten are usual."""
FRESH = 100
"""Swaps after which the coefficients are computed anew: each swap adds rounding errors to them."""
MOST_ROUNDS = 50
LOG_DET_TOLERANCE = 0.05
"""Per function: how far log det may differ between one cut into pieces and another. MaxVol ends in one of many local
maxima; on 84,000 environments of silicon and 250 functions they spread over 0.03 per function."""


@dataclass(frozen=True)
class Active:
    """The active set of one element.

    Attributes:
        rows: (R, F) projections of the active atoms, R at most F.
        owners: (R,) place of the structure that each belongs to.
        environments: atoms of the element that were looked at.
        passes: how often all of them were graded; 0 where they were looked at at once.
    """

    rows: Floats
    owners: Indices
    environments: int
    passes: int = 0

    @property
    def functions(self) -> int:
        """F, basis functions of the element."""
        return self.rows.shape[1]

    @property
    def scarce(self) -> bool:
        """True where there are fewer environments than functions, so that MaxVol has no choice."""
        return self.environments < self.functions

    @property
    def complete(self) -> bool:
        """True where the rows span every function."""
        return len(self.rows) == self.functions

    @property
    def log_det(self) -> float | None:
        """Logarithm of the rows' determinant; None where they do not span every function."""
        return float(np.linalg.slogdet(self.rows)[1]) if self.complete else None


def active_set(rows: Rows, tolerance: float, one_shot_bytes: int, start: Active | None = None) -> Active:
    """Find the rows of largest volume: no row, written in terms of them, has a coefficient above `tolerance`.

    Args:
        tolerance: at least 1.
        one_shot_bytes: rows of this size or less are looked at all at once.
        start: an active set of some of the rows; its rows are replaced only where that enlarges the volume.
    """
    size = len(rows)
    if start is not None and len(start.rows):
        return _in_passes(start, rows, tolerance, restart=False)
    if 8 * size * rows.functions <= one_shot_bytes:
        found, owners = rows.together()
        return _picked(found, owners, active_rows(found, tolerance), size)
    step = max(1, size // (SAMPLE * rows.functions))
    sample, sample_owners, seen = list[Floats](), list[Indices](), 0
    for found, owners in rows.pieces():
        here = slice(-seen % step, None, step)
        sample.append(found[here].copy())  # a view would keep the whole piece
        sample_owners.append(owners[here])
        seen += len(found)
    found = np.concatenate(sample)
    drawn = _picked(found, np.concatenate(sample_owners), active_rows(found, tolerance), size)
    return _in_passes(drawn, rows, tolerance, restart=True)


def grades(rows: Rows, grading: Floats) -> Iterator[tuple[Floats, Indices]]:
    """Yield piece by piece the extrapolation grades (n,) of the rows and the places of their structures.

    Args:
        grading: (F, F), see `active_rows.inverse`.
    """
    for found, owners in rows.pieces():
        yield np.abs(found @ grading).max(axis=1), owners


def maxvol_from(rows: Floats, start: Indices, tolerance: float) -> Indices:
    """Return places of the rows of largest volume to which swaps one at a time lead.

    Args:
        rows: (N, F).
        start: (R,) places of independent rows; the others are written in terms of them.
    """
    picked = start.copy()
    for _ in range(MOST_ROUNDS):
        scale = column_scale(rows[picked])  # columns of any size are borne
        coefficients = rows @ np.asarray(
            np.linalg.pinv(rows[picked] / scale, rcond=1e-15) / scale[:, None], dtype=float
        )
        for _ in range(FRESH):
            row, column = divmod(int(np.abs(coefficients).argmax()), coefficients.shape[1])
            pivot = coefficients[row, column]
            if abs(pivot) <= tolerance:
                return picked
            change = coefficients[row].copy()
            change[column] -= 1.0
            coefficients -= np.outer(coefficients[:, column] / pivot, change)
            picked[column] = row
    return picked


def _picked(found: Floats, owners: Indices, places: Indices, environments: int, passes: int = 0) -> Active:
    return Active(found[places], owners[places], environments, passes)


def _in_passes(active: Active, rows: Rows, tolerance: float, restart: bool) -> Active:
    size, passes = len(rows), 0
    for passes in range(1, MOST_PASSES + 1):  # noqa: B007  reported
        found, owners, largest = _foremost(rows, inverse(active.rows, rows.functions))
        if largest <= tolerance:
            break
        better = _better(active, found, owners, tolerance, restart)
        if better is None:
            break
        active = better
    return Active(active.rows, active.owners, size, passes)


def _foremost(rows: Rows, grading: Floats) -> tuple[Floats, Indices, float]:
    """Return the KEPT rows per function of largest grade, largest first, their owners, and the largest grade."""
    most = KEPT * rows.functions
    kept, owners, marks = np.zeros((0, rows.functions)), np.zeros(0, dtype=np.int64), np.zeros(0)
    for found, of in rows.pieces():
        grade = np.abs(found @ grading).max(axis=1)
        if len(marks) == most:
            above = grade > marks[-1]
            found, of, grade = found[above], of[above], grade[above]
        if not len(grade):
            continue
        marks, kept, owners = (
            np.concatenate([marks, grade]),
            np.concatenate([kept, found]),
            np.concatenate([owners, of]),
        )
        order = np.argsort(-marks, kind="stable")[:most]
        marks, kept, owners = marks[order], kept[order], owners[order]
    return kept, owners, float(marks.max(initial=0.0))


def _better(active: Active, found: Floats, owners: Indices, tolerance: float, restart: bool) -> Active | None:
    """Return a larger volume among the active rows and others, or None.

    A fresh start over both leaves the local maximum that single swaps are caught in; where it does not help, or is not
    wanted because the active rows shall stay where they can, they are swapped.
    """
    joined = np.concatenate([active.rows, found])
    of = np.concatenate([active.owners, owners])
    scale, before = column_scale(joined), len(active.rows)
    if restart or not active.complete:
        fresh = _picked(joined, of, active_rows(joined, tolerance), active.environments)
        # logarithm of the volume that the rows span
        new, old = (np.log(np.linalg.svd(one.rows / scale, compute_uv=False)).sum() for one in (fresh, active))
        if len(fresh.rows) > before or (restart and new > old):
            return fresh
    start = np.arange(before, dtype=np.int64)
    places = maxvol_from(joined, start, tolerance)
    return None if (places == start).all() else _picked(joined, of, places, active.environments)
