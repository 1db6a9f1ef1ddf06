"""Pictures of structures, seen a little from above. Pure, as `tasks.report.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from tasks.report.plots import BLUE, GREEN, GREY, ORANGE, drawing, png

COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Of elements in alphabetic order: Okabe and Ito. More elements share the last one."""
POINTS_PER_INCH = 72
TURNED = (np.radians(15.0), np.radians(-75.0))
"""About the vertical axis, then towards the reader."""


def structures(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw structures side by side: atoms as circles by element, those in front last, and the cell.

    Args:
        rows: of a table of STRUCTURES (numbers, positions and cell in Å, row by row).
    """
    present = sorted({chemical_symbols[number] for row in rows for number in row["numbers"]})
    colour = {symbol: COLOURS[min(place, len(COLOURS) - 1)] for place, symbol in enumerate(present)}
    (s, t) = TURNED
    turn = np.array([[np.cos(s), np.sin(s), 0], [-np.sin(s), np.cos(s), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]])
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    edges = [(a, b) for a in range(8) for b in range(a) if np.abs(corners[a] - corners[b]).sum() == 1]
    figure = drawing(3.1 * len(rows), 3.1)
    for place, row in enumerate(rows, 1):
        axes = figure.add_subplot(1, len(rows), place)
        box = corners @ np.reshape(row["cell"], (3, 3)) @ turn
        at = np.reshape(row["positions"], (-1, 3)) @ turn
        everything = np.concatenate([at, box])
        middle, half = everything.mean(axis=0), np.abs(everything - everything.mean(axis=0))[:, :2].max() + 1.5
        for a, b in edges:
            axes.plot(box[[a, b], 0], box[[a, b], 1], color=GREY, lw=0.6, zorder=0)
        order, numbers = np.argsort(at[:, 2]), np.asarray(row["numbers"])
        points = 3.0 * POINTS_PER_INCH / (2 * half)  # of an Å
        axes.scatter(
            at[order, 0], at[order, 1], s=(1.2 * covalent_radii[numbers[order]] * points) ** 2, linewidths=0.4,
            c=[colour[chemical_symbols[number]] for number in numbers[order]], edgecolors="white",
        )  # fmt: skip
        axes.set(
            xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal",
            xticks=[], yticks=[],
        )  # fmt: skip
        axes.spines[:].set_visible(False)
        if len(present) > 1 and place == 1:
            for symbol in present:
                axes.scatter([], [], color=colour[symbol], label=symbol)
            axes.legend(frameon=False, loc="upper left", fontsize=7)
    return png(figure)
