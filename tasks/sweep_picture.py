"""The picture of a sweep. Pure: equal students give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.pictures import BLUE, GREY, ORANGE, drawing, png
from tasks.sweep_summary import COST, ENERGY, FORCE, SweptStudent, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERRORS = {FORCE: "force MAE (meV/Å)", ENERGY: "energy MAE (meV/atom)"}
MOST_NAMES = 16  # more than that would hide the points: then only the front is named


def sweep_picture(students: Sequence[SweptStudent], chosen: str) -> bytes:
    """Test errors over the time of an evaluation on log scales; the front of the force error is a line.

    Args:
        chosen: name of the student to mark.
    """
    figure = drawing(12.0, 4.6)
    best = front(students)
    for place, (key, label) in enumerate(ERRORS.items(), start=1):
        axes = figure.add_subplot(1, len(ERRORS), place)
        shown = [one for one in students if _drawable(one, key)]
        named = {one.name for one in (shown if len(shown) <= MOST_NAMES else best)} | {chosen}
        if key == FORCE:
            line = [one for one in best if one in shown]
            axes.plot(
                _values(line, COST), _values(line, key), color=BLUE, lw=1.4, label="no other is faster and better"
            )
        _dots(axes, shown, key, {one.name for one in best}, chosen)
        for one in shown:
            if one.name in named:
                _name(axes, one, key)
        axes.set(xlabel="µs an atom, one thread", ylabel=label)
        if shown:
            axes.set(xscale="log", yscale="log")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def _drawable(one: SweptStudent, key: str) -> bool:
    """Whether a log scale has a place for it; a stub has errors of zero."""
    return all((one.figures.get(name) or 0) > 0 for name in (COST, key))


def _values(students: Sequence[SweptStudent], key: str) -> list[float]:
    return [float(one.figures[key] or 0) for one in students]


def _dots(axes: Axes, students: Sequence[SweptStudent], key: str, best: set[str], chosen: str) -> None:
    colours = [BLUE if one.name in best else GREY for one in students]
    axes.scatter(_values(students, COST), _values(students, key), c=colours, s=28, zorder=3)
    taken = [one for one in students if one.name == chosen]
    axes.scatter(
        _values(taken, COST), _values(taken, key), facecolors="none", edgecolors=ORANGE, s=130, lw=1.8, label="taken"
    )


def _name(axes: Axes, one: SweptStudent, key: str) -> None:
    place = (float(one.figures[COST] or 0), float(one.figures[key] or 0))
    axes.annotate(one.name, place, xytext=(6, 4), textcoords="offset points", fontsize=7)
