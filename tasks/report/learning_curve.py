"""Learning curves as PNG bytes: of a fit as it runs, and of all attempts in sequence. Pure, like `pictures`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

PANELS = {
    "loss": "loss",
    "energy_rmse_meV_per_atom": "energy RMSE (meV/atom)",
    "force_rmse_meV_per_A": "force RMSE (meV/Å)",
}
COLOURS = {"train": BLUE, "validation": ORANGE}
STAGE, BEST = "#24292f", "#1a7f37"
MOST_POINTS = 200  # of a live curve
COLOURS_KEPT = 32
MANY = 80  # points of a line, whose dots are then small
FAR = 300.0  # times: beyond that only powers of ten are labelled


class Course(NamedTuple):
    """The history of one attempt."""

    name: str
    stage: int
    table: pa.Table  # history.parquet
    best: int | None = None  # iteration whose potential was kept


def learning_curve(courses: Sequence[Course]) -> bytes:
    """Loss, energy RMSE and force RMSE over the iterations of all attempts in sequence, on log scales.

    A new stage has another loss: a solid line marks where it begins, a dotted one another attempt, a short green one
    the iteration whose potential was kept.
    """
    figure = drawing(12.6, 3.6)
    for place, (column, label) in enumerate(PANELS.items(), start=1):
        axes = figure.add_subplot(1, len(PANELS), place)
        start, stage, named = 0, None, set[str]()
        for course in courses:
            for side in COLOURS:
                rows = course.table.filter(pc.equal(course.table["side"], side))
                iterations = start + rows["iteration"].to_numpy()
                values = np.asarray(rows[column].to_numpy(zero_copy_only=False), dtype=float)
                _line(axes, iterations, values, side, named)
            if len(courses) > 1:
                colour, dashes = (STAGE, "-") if course.stage != stage else (GREY, ":")
                axes.axvline(start, color=colour, lw=0.8, ls=dashes)
                axes.annotate(
                    course.name,
                    (start, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, -3),
                    textcoords="offset points",
                    rotation=90,
                    va="top",
                    fontsize=7,
                    color=colour,
                    bbox={"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5},
                )
            if course.best is not None:
                axes.axvline(start + course.best, ymax=0.06, color=BEST, lw=2.0)
            start, stage = start + int(pc.max(course.table["iteration"]).as_py() or 0), course.stage
        _dress(axes, "iteration, all attempts in sequence", label)
    return png(figure)


def _line(axes: Axes, iterations: NDArray[np.int64], values: NDArray[np.float64], side: str, named: set[str]) -> None:
    """Only the first line of a side is named in the legend."""
    shown = np.isfinite(values) & (values > 0)  # a log scale has no place for the rest
    if not shown.any():
        return
    label, size = None if side in named else side, 4 if shown.sum() < MANY else 2
    axes.plot(iterations[shown], values[shown], color=COLOURS[side], marker=".", ms=size, lw=1.2, label=label)
    named.add(side)


def live_curve(curves: Mapping[tuple[str, str], Sequence[tuple[float, float]]]) -> bytes:
    """The curves of a fit as it runs, at most about MOST_POINTS points each, on log scales.

    It has few colours, a quarter of the size: Prefect's server keeps every version for a week.

    Args:
        curves: (side, name of PANELS) -> iteration and value; those that are missing are left out.
    """
    from PIL import Image

    figure = drawing(9.0, 2.4)
    for place, (column, label) in enumerate(PANELS.items(), start=1):
        axes = figure.add_subplot(1, len(PANELS), place)
        for side in COLOURS:
            if points := curves.get((side, column), ()):
                step = -(-len(points) // MOST_POINTS)
                iterations, values = np.array([*points[:-1:step], points[-1]]).T
                _line(axes, iterations, values, side, set())
        _dress(axes, "iteration", label)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(figure))).convert("RGB").quantize(COLOURS_KEPT).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _dress(axes: Axes, across: str, up: str) -> None:
    """Labels and a log scale with few ticks: matplotlib's own minor ones take most of the time of a drawing."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = (1.0,) if high > FAR * low else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=few))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.tick_params(labelsize=8)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
