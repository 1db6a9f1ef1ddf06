"""A value curve: test errors over the number of training structures, and the folder that shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from containers.contract import Closed
from tasks.report.markup import ERRORS, Part, Picture, Table, duration, number
from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png
from tasks.studies.study import Study


class Point(Closed):
    """A student fitted to a chosen set, and its errors on the test structures, against the teacher."""

    method: str = Field(description="how the set was chosen: d_optimal, combined, random, all")
    seed: int
    structures: int = Field(ge=1, description="in the training frame, DFT structures included")
    atoms: int = Field(ge=1)
    fit_s: float = Field(ge=0, description="seconds of pace_train, its start included, over all stages")
    iterations: int = Field(ge=0, description="over all stages")
    ended: str = Field(
        description="verdict on its last stage, or the accident that ended an earlier one and made the fit shorter"
    )
    figures: dict[str, float | int | None] = Field(description="of `evaluate`: force_mae_meV_per_A, ...")


class MissingPoint(Closed):
    """A fit that gave no point."""

    method: str
    seed: int
    size: int = Field(ge=1, description="structures requested")
    step: str = Field(description="the step that failed")
    message: str


class ValueCurve(Study):
    """Every point of a run."""

    KIND: ClassVar[str] = "value_curve"
    TITLE: ClassVar[str] = "errors over the number of training structures"
    TASK: ClassVar[str] = "value curve"

    points: tuple[Point, ...] = Field(min_length=1)
    failures: tuple[MissingPoint, ...] = ()

    def parts(self) -> list[Part]:
        """A note on what is compared, the picture, and a row for each point by size."""

        def name(one: Point | MissingPoint) -> str:
            return f"random, seed {one.seed}" if one.method == "random" else one.method

        rows = []
        for one in sorted(self.points, key=lambda one: (one.structures, one.method, one.seed)):
            errors = (number(one.figures.get(key)) for key in SHOWN)
            counts = (number(one.structures), number(one.atoms), duration(one.fit_s))
            rows.append((name(one), *counts, *errors, one.ended))
        failures = [(name(one), number(one.size), one.step, one.message) for one in self.failures]
        return [
            "Each point is one fit. Errors are against the teacher, on test structures that no fit used. The largest"
            " errors are those of a force component and of a structure's energy.",
            Picture(self.KIND, "Errors over the number of structures and over the seconds of the fit"),
            Table(HEAD, rows),
            Table(("method", "structures requested", "failed in", "because"), failures, "These gave no point:"),
        ]

    def picture(self) -> bytes:
        """Errors over the size and over the seconds of the fit."""
        return value_picture(self.points)


SHOWN = ("force_mae_meV_per_A", "force_max_meV_per_A", "energy_mae_meV_per_atom", "energy_max_meV_per_atom")
HEAD = ("method", "structures", "atoms", "fit", *(ERRORS[key] for key in SHOWN), "ended as")
COLOURS = {"d_optimal": ORANGE, "combined": BLUE, "random": GREY}
BLACK = "#24292f"


def value_picture(points: Sequence[Point]) -> bytes:
    """Mean and worst errors of forces and energies, above over the size, below over the seconds of the fit."""
    figure = drawing(14.0, 6.6)
    for column, key in enumerate(SHOWN):
        known: dict[str, dict[int, list[Point]]] = defaultdict(lambda: defaultdict(list))
        for point in points:
            if point.figures.get(key) is not None:
                known[point.method][point.structures].append(point)
        for row, over in enumerate(("structures", "fit_s")):
            axes = figure.add_subplot(2, len(SHOWN), row * len(SHOWN) + column + 1)
            for method, by_size in known.items():
                groups = [by_size[size] for size in sorted(by_size)]
                values = [[float(point.figures[key] or 0) for point in group] for group in groups]
                places = [sum(getattr(point, over) for point in group) / len(group) for group in groups]
                means = [sum(some) / len(some) for some in values]
                colour = COLOURS.get(method, BLACK)
                axes.plot(places, means, color=colour, marker="o", ms=4, lw=1.4, label=method)
                if any(len(some) > 1 for some in values):
                    low, high = [min(some) for some in values], [max(some) for some in values]
                    axes.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
            if any(point.figures.get(key) for point in points):  # a stub has errors of zero
                axes.set(xscale="log", yscale="log")
            axes.set(xlabel="training structures" if over == "structures" else "fit (s)", ylabel=ERRORS[key])
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)
