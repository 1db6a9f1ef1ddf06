"""The picture of a value curve. Pure: equal points give equal bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.pictures import BLUE, GREY, ORANGE, drawing, png
from tasks.value_summary import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERRORS = {
    "force_mae_meV_per_A": "force MAE (meV/Å)",
    "force_max_meV_per_A": "worst force (meV/Å)",
    "energy_mae_meV_per_atom": "energy MAE (meV/atom)",
    "energy_max_meV_per_atom": "worst energy (meV/atom)",
}
COLOURS = {"d_optimal": ORANGE, "combined": BLUE, "random": GREY}
BLACK = "#24292f"


def value_picture(points: Sequence[Point]) -> bytes:
    """Mean and worst errors of forces and energies, above over the size, below over the seconds of the fit."""
    figure = drawing(14.0, 6.6)
    for column, (key, label) in enumerate(ERRORS.items()):
        for row, over in enumerate(("structures", "fit_s")):
            axes = figure.add_subplot(2, len(ERRORS), row * len(ERRORS) + column + 1)
            _panel(axes, points, key, over)
            axes.set(xlabel="training structures" if over == "structures" else "fit (s)", ylabel=label)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def _panel(axes: Axes, points: Sequence[Point], key: str, over: str) -> None:
    for method, by_size in _by_method([point for point in points if point.figures.get(key) is not None]).items():
        sizes = sorted(by_size)
        values = [[float(point.figures[key] or 0) for point in by_size[size]] for size in sizes]
        places = [sum(getattr(point, over) for point in by_size[size]) / len(by_size[size]) for size in sizes]
        means = [sum(some) / len(some) for some in values]
        colour = COLOURS.get(method, BLACK)
        axes.plot(places, means, color=colour, marker="o", ms=4, lw=1.4, label=method)
        if any(len(some) > 1 for some in values):
            low, high = [min(some) for some in values], [max(some) for some in values]
            axes.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
    if any(point.figures.get(key) for point in points):  # a stub has errors of zero
        axes.set(xscale="log", yscale="log")


def _by_method(points: Sequence[Point]) -> dict[str, dict[int, list[Point]]]:
    """Method -> size -> its points (several seeds)."""
    sorted_points: dict[str, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        sorted_points[point.method][point.structures].append(point)
    return sorted_points
