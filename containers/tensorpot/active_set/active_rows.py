"""Active sets of B-projections: MaxVol that also works when the rows span less than the whole space.

A row is one atom's projections on the basis functions of its element. MaxVol (Goreinov et al., "How to find a good
submatrix", 2010; Podryabinkin & Shapeev, Comp. Mater. Sci. 140, 171, 2017) finds the rows of largest volume; the
extrapolation grade of a row is the largest coefficient when it is written in terms of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from containers.arrays import Floats, Indices

RANK_TOLERANCE = 1e-12
"""Share of the largest singular value, columns scaled to length 1: rounding of equal environments gives 1e-15, and 250
functions on varied silicon 5e-8."""
OUTSIDE = 1e-10
"""Volume given to the directions that no row has: a row that leaves the span by more than this share of the largest
rows extrapolates."""
MAXVOL_SWAPS = 300
SAMPLE = 8
"""Rows per function that are looked at first."""
NEW = 1e-6
"""Length in units of an active row above which a row adds a direction."""


@dataclass(frozen=True)
class Span:
    """Span of a set of rows.

    Attributes:
        scale: (F,) length of each column, 1 where it is zero.
        inside: (F, R) orthonormal directions that the scaled rows have, R = rank.
        lengths: (R,) singular values that belong to `inside`.
    """

    scale: Floats
    inside: Floats
    lengths: Floats

    @property
    def complete(self) -> bool:
        """True where the rows span every function."""
        return self.inside.shape[0] == self.inside.shape[1]


def span(rows: Floats) -> Span:
    """Return the span of `rows` (N, F), N and F at least 1."""
    scale = column_scale(rows)
    triangle = np.linalg.qr(rows / scale, mode="r")
    _, singular, directions = np.linalg.svd(triangle, full_matrices=False)
    rank = int((singular > RANK_TOLERANCE * singular.max(initial=0.0)).sum())
    return Span(scale, directions[:rank].T, singular[:rank])


def column_scale(rows: Floats) -> Floats:
    """Return (F,) the length of each column, 1 where it is zero."""
    lengths = np.linalg.norm(rows, axis=0)
    return np.where(lengths > 0, lengths, 1.0)


def active_rows(rows: Floats, tolerance: float) -> Indices:
    """Return indices of the rows of largest volume: as many as the rank of `rows` (N, F).

    Rows that span everything go to pyace's MaxVol as they are, others in the coordinates of their span.
    """
    from pyace.maxvol import maxvol

    seen = rows
    # a share of them may span every function already: no need to factorise them all
    if len(rows) and not span(rows[:: max(1, len(rows) // (SAMPLE * rows.shape[1]))]).complete:
        spanned = span(rows)
        seen = rows if spanned.complete else rows / spanned.scale @ (spanned.inside / spanned.lengths)
    if not seen.size:
        return np.zeros(0, dtype=np.int64)
    picked, _ = maxvol(np.ascontiguousarray(seen), tol=tolerance, max_iters=MAXVOL_SWAPS)
    return np.asarray(picked, dtype=np.int64)


def inverse(active: Floats, functions: int) -> Floats:
    """Return the (F, F) matrix that gives the extrapolation grade: `abs(row @ inverse).max()`.

    Args:
        active: (R, F) active rows, R at most F.
        functions: F.

    Where R < F the missing directions get the tiny volume `OUTSIDE`, so that leaving the span of the training set
    counts as extrapolation instead of being projected away (a pseudo-inverse alone would report a small grade).
    """
    if len(active) == functions:
        return np.asarray(np.linalg.pinv(active), dtype=float)
    scale = column_scale(active)
    _, _, directions = np.linalg.svd(active / scale, full_matrices=True)
    square = np.concatenate([active / scale, OUTSIDE * directions[len(active) :]])
    return np.linalg.inv(square) / scale[:, None]


def greedy_order(coordinates: Callable[[int], Floats], size: int, active: list[Indices], given: Indices) -> list[int]:
    """Sort structures by how much they add to those before them.

    Args:
        coordinates: of a structure by its place: those (n, R) of all its rows in terms of the active rows.
        size: R.
        active: for each structure which of the R active rows are its own.
        given: which of the R active rows are there before the first.

    The next structure is the one whose active rows lie furthest outside the span of every row chosen before (so that
    a copy of a chosen structure adds nothing); then the one with most active rows; then the first.
    """
    missing = np.eye(size)  # projector on what is not yet spanned
    missing[given, given] = 0.0
    left, order = list(range(len(active))), []
    while left:
        gains = [round(float(np.trace(missing[np.ix_(active[k], active[k])])), 6) for k in left]
        best = min(range(len(left)), key=lambda place: (-gains[place], -len(active[left[place]]), left[place]))
        chosen = left.pop(best)
        order.append(chosen)
        if gains[best] > 0:
            _, singular, directions = np.linalg.svd(coordinates(chosen) @ missing, full_matrices=False)
            new = directions[singular > NEW * max(1.0, float(singular.max(initial=0.0)))]
            missing = missing - new.T @ new
    return order
