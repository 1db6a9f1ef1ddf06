"""Pictures of a run as PNG bytes. Pure: equal data give equal bytes. matplotlib is imported when a picture is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from containers.metrics import errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DOTS_PER_INCH = 110
MOST_POINTS = 1500  # more than that are drawn as a density: small files, and a cloud stays readable
MOST_PAIRS = 12
BLACK, BLUE, ORANGE, GREEN, GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "#8b949e"
"""Colours of Okabe and Ito (https://jfly.uni-koeln.de/color/), which differ for colour-blind readers too; a grey."""

QUANTITIES = {
    "energy_eV_per_atom": ("energy", "eV/atom", "meV_per_atom", "meV/atom"),
    "force_eV_per_A": ("force", "eV/Å", "meV_per_A", "meV/Å"),
    "stress_eV_per_A3": ("stress", "eV/Å³", "meV_per_A3", "meV/Å³"),
}
"""quantity in parity.parquet -> word, unit of its values, unit of its errors in keys, the same in print"""


def forces(histogram: Mapping[str, Sequence[float]], bound: float | None) -> bytes:
    """Atoms by the length of the force on them, on log scales, with the bound beyond which labels are set aside.

    Args:
        histogram: edges (eV/Å, positive, rising) and counts of the bins between them; at least one.
        bound: eV/Å; None: not drawn.
    """
    figure = drawing(6.0, 3.0)
    axes = figure.add_subplot(1, 1, 1)
    axes.stairs(histogram["counts"], histogram["edges"], color=BLUE, fill=True, alpha=0.6)
    if bound is not None:
        axes.axvline(bound, color=ORANGE, lw=1.2, label=f"set aside beyond {bound:g} eV/Å")
        axes.legend(frameon=False, loc="upper left")
    axes.set(xlabel="force on an atom (eV/Å)", ylabel="atoms", xscale="log", yscale="log", ylim=(0.7, None))
    return png(figure)


def parity(table: pa.Table, against: str) -> bytes:
    """Predicted over reference values, a panel for each quantity of parity.parquet that has points.

    Args:
        table: parity.parquet (against, quantity, reference, predicted).
        against: "teacher" or "dft".
    """
    rows = table.filter(pc.equal(table["against"], against))
    panels = {quantity: rows.filter(pc.equal(rows["quantity"], quantity)) for quantity in QUANTITIES}
    panels = {quantity: points for quantity, points in panels.items() if points.num_rows}
    figure = drawing(3.06 * max(len(panels), 1), 3.1)
    for place, (quantity, points) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        word, unit, error_key, error_unit = QUANTITIES[quantity]
        reference, predicted = points["reference"].to_numpy(), points["predicted"].to_numpy()
        finite = np.isfinite(reference) & np.isfinite(predicted)
        reference, predicted = reference[finite], predicted[finite]
        if finite.any():
            low = float(min(reference.min(), predicted.min()))
            high = float(max(reference.max(), predicted.max()))
            margin = 0.04 * (high - low) or 0.1
            low, high = low - margin, high + margin
            axes.plot([low, high], [low, high], color=GREY, lw=0.8, zorder=1)
            if len(reference) > MOST_POINTS:
                cells: dict[str, Any] = {"gridsize": 60, "bins": "log", "mincnt": 1, "extent": (low, high, low, high)}
                axes.hexbin(reference, predicted, cmap="viridis", zorder=2, **cells)
            else:
                axes.scatter(reference, predicted, s=9, color=BLUE, alpha=0.6, linewidths=0, zorder=2)
            axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            axes.locator_params(nbins=5)
            mae = errors(word, error_key, reference, predicted)[f"{word}_mae_{error_key}"]
            axes.text(0.04, 0.96, f"MAE {mae:.3g} {error_unit}", transform=axes.transAxes, va="top", fontsize=8)
        missing = "" if finite.all() else f", {int((~finite).sum())} not finite"
        axes.set_title(f"{word} ({unit}), {len(reference)} points{missing}", fontsize=9)
        axes.set(xlabel="DFT" if against == "dft" else against, ylabel="student")
    return png(figure)


DIMER = (
    ("energy_eV", "zbl_eV", "energy (eV)"),
    ("force_eV_per_A", "zbl_force_eV_per_A", "force (eV/Å)"),
)


def core_repulsion(pairs: Mapping[str, Mapping[str, Any]], most: int = MOST_PAIRS) -> bytes:
    """Energy of every dimer and the force on its atoms beside ZBL's (symmetric log scale), three pairs a row.

    Args:
        pairs: the `pairs` of core_repulsion.json; at least one.
        most: so many of them are drawn, the first.
    """
    shown = list(pairs.items())[:most]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = drawing(max(3.06 * columns, 5.0), 5.6 * rows)
    for place, (name, pair) in enumerate(shown):
        above = 2 * (place // columns) * columns + place % columns + 1
        for below, (student, zbl, label) in enumerate(DIMER):
            axes = figure.add_subplot(2 * rows, columns, above + below * columns)
            axes.plot(pair["distance_A"], pair[zbl], color=GREY, ls="--", lw=1.2, label="ZBL")
            axes.plot(pair["distance_A"], pair[student], color=BLUE, lw=1.6, label="student")
            axes.axvline(pair["r_in_A"], color=ORANGE, lw=0.9, label="repulsion begins")
            if pair["shortest_distance_A"] is not None:
                axes.axvline(pair["shortest_distance_A"], color=GREY, lw=0.9, ls=":", label="shortest in the data")
            axes.set_yscale("symlog", linthresh=1)
            axes.set(xlabel="distance (Å)", ylabel=label)
            axes.set_title("" if below else name, fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def error_against_gamma(table: pa.Table) -> bytes:
    """Errors of every test structure against the teacher over the largest γ of its atoms, on log scales.

    Args:
        table: parity.parquet (against, id, quantity, reference, predicted, gamma).
    """
    rows = table.filter(pc.equal(table["against"], "teacher"))
    figure = drawing(9.2, 3.2)
    for place, quantity in enumerate(("force_eV_per_A", "energy_eV_per_atom"), start=1):
        word, _, _, unit = QUANTITIES[quantity]
        points = rows.filter(pc.equal(rows["quantity"], quantity))
        difference = np.abs(points["predicted"].to_numpy() - points["reference"].to_numpy())
        _, first, of = np.unique(points["id"].to_numpy(zero_copy_only=False), return_index=True, return_inverse=True)
        gamma = points["gamma"].to_numpy()[first]
        error = 1000 * np.bincount(of, difference, len(first)) / np.maximum(np.bincount(of, minlength=len(first)), 1)
        shown = np.isfinite(gamma) & np.isfinite(error) & (gamma > 0) & (error > 0)
        axes = figure.add_subplot(1, 2, place)
        axes.axvline(1, color=ORANGE, lw=2.0, ls="--", label="extrapolates beyond")
        if shown.sum() > MOST_POINTS:
            cells: dict[str, Any] = {"gridsize": 50, "bins": "log", "mincnt": 1, "xscale": "log", "yscale": "log"}
            axes.hexbin(gamma[shown], error[shown], cmap="viridis", zorder=2, **cells)
        else:
            axes.scatter(gamma[shown], error[shown], s=12, color=BLUE, alpha=0.6, linewidths=0, zorder=2)
        scale = "log" if shown.any() else "linear"
        axes.set(xscale=scale, yscale=scale, xlabel="largest γ of the structure", ylabel=f"{word} MAE ({unit})")
        if shown.any():
            _few_ticks(axes.xaxis)
            _few_ticks(axes.yaxis)
        axes.set_title(f"{word}, {int(shown.sum())} structures", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def grades(grades: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Share of the atoms by extrapolation grade, of pool and test structures, before and after the selection.

    Args:
        grades: of the metrics of pace_select: `pool`, `test` -> `before`, `after` -> histogram, or None.
    """
    figure = drawing(9.0, 3.0)
    for place, (of, found) in enumerate(grades.items(), start=1):
        axes = figure.add_subplot(1, len(grades), place)
        for when, colour in (("before", GREY), ("after", BLUE)):
            if histogram := (found.get(when) or {}).get("histogram"):
                counts = np.array(histogram["counts"], dtype=float)
                axes.stairs(counts / max(counts.sum(), 1), histogram["edges"], color=colour, lw=1.6, label=when)
        axes.axvline(1.0, color=ORANGE, lw=0.9)
        axes.set_xscale("symlog", linthresh=2)
        axes.set(xlabel="extrapolation grade γ", ylabel="share of the atoms")
        axes.set_title(f"{of} structures", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    return png(figure)


PANELS = {
    "loss": "loss",
    "energy_rmse_meV_per_atom": "energy RMSE (meV/atom)",
    "force_rmse_meV_per_A": "force RMSE (meV/Å)",
}
COLOURS = {"train": BLUE, "validation": ORANGE}
STAGE, BEST = "#24292f", GREEN
MOST_LIVE_POINTS = 200  # of a curve
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
    figure = drawing(9.2, 3.4)
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
    """The curves of a fit as it runs, at most about MOST_LIVE_POINTS points each, on log scales.

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
                step = -(-len(points) // MOST_LIVE_POINTS)
                iterations, values = np.array([*points[:-1:step], points[-1]]).T
                _line(axes, iterations, values, side, set())
        _dress(axes, "iteration", label)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(figure))).convert("RGB").quantize(COLOURS_KEPT).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _dress(axes: Axes, across: str, up: str) -> None:
    """Labels and a log scale with few ticks: matplotlib's own minor ones take most of the time of a drawing."""
    axes.set_yscale("log")
    _few_ticks(axes.yaxis)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _few_ticks(axis: Axis) -> None:
    """Ticks of a log scale as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > FAR * low else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def drawing(width: float, height: float) -> Figure:
    """An empty figure, inches, outside pyplot: no global state, and no display is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH)


def png(figure: Figure) -> bytes:
    """The figure as PNG with our axes and margins.

    Margins have room for the labels, in inches: a layout engine would draw everything twice to find it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    if figure.axes and (place := figure.axes[0].get_subplotspec()):
        grid = place.get_gridspec()
        width, height = figure.get_size_inches()
        left, right, bottom, top, between = 0.85, 0.15, 0.55, 0.3, 0.85
        panel_width = (width - left - right - between * (grid.ncols - 1)) / grid.ncols
        panel_height = (height - bottom - top - between * (grid.nrows - 1)) / grid.nrows
        figure.subplots_adjust(
            left=left / width,
            right=1 - right / width,
            bottom=bottom / height,
            top=1 - top / height,
            wspace=between / panel_width,
            hspace=between / panel_height,
        )
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#d0d7de", lw=0.4)
        axes.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
