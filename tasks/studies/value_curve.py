"""The folder of a value curve: picture, table, page. Pure but for `publish`.

What a value curve is made of: one fit a point.

The picture of a value curve. Pure: equal points give equal bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from containers.contract import Closed, file_digest
from tasks.report.markup import STUB_BANNER, STYLE, data_uri, markdown_table, table
from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png
from tasks.report.run_folder import MANIFEST, publish_folder
from tasks.report.tables import duration, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Point(Closed):
    """A student fitted to a chosen set, and its errors on the test structures, against the teacher."""

    method: str = Field(description="how the set was chosen: d_optimal, combined, random, all")
    seed: int
    structures: int = Field(ge=1, description="in the training frame, DFT structures included")
    atoms: int = Field(ge=1)
    fit_s: float = Field(ge=0, description="seconds of pace_train, its start included, over all stages")
    iterations: int = Field(ge=0, description="over all stages")
    ended: str = Field(
        description="verdict on its last stage, or the accident that broke off an earlier one: a fit of less than asked"
    )
    figures: dict[str, float | int | None] = Field(description="of `evaluate`: force_mae_meV_per_A, ...")


class Failure(Closed):
    """A fit that gave no point."""

    method: str
    seed: int
    size: int = Field(ge=1, description="structures that were asked for")
    step: str = Field(description="the step that failed")
    message: str


class ValueCurve(Closed):
    """Every point of a run."""

    name: str
    config: dict[str, Any]
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")
    points: tuple[Point, ...] = Field(min_length=1)
    failures: tuple[Failure, ...] = ()


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


FAILED_HEAD = ("method", "structures asked for", "failed in", "because")
HEAD = ("method", "structures", "atoms", "fit", *ERRORS.values(), "ended as")
TITLE = "What training structures are worth"
EXPLAINED = (
    "Each point is one fit. Errors are against the teacher, on test structures that no fit saw; worst is the largest"
    " error of a force component or of a structure's energy."
)
FAILED = "These gave no point:"


def rows(points: Sequence[Point]) -> Iterator[tuple[str, ...]]:
    """A row of HEAD for each point, by size."""
    for point in sorted(points, key=lambda one: (one.structures, one.method, one.seed)):
        errors = (number(point.figures.get(key)) for key in ERRORS)
        sizes = (number(point.structures), number(point.atoms), duration(point.fit_s))
        yield (_name(point), *sizes, *errors, point.ended)


def failed_rows(failures: Sequence[Failure]) -> list[tuple[str, ...]]:
    """A row of FAILED_HEAD for each fit that gave no point."""
    return [(_name(one), number(one.size), one.step, one.message) for one in failures]


def _name(one: Point | Failure) -> str:
    return f"random, seed {one.seed}" if one.method == "random" else one.method


def markdown(curve: ValueCurve, picture: bytes | None = None) -> str:
    """The table, and the picture when it is given, for an artifact or a terminal."""
    parts = [f"## {TITLE}", "STUB RUN: no figure is real." if curve.stub else "", EXPLAINED]
    parts += [f"![value curve]({data_uri(picture)})"] if picture else []
    parts += [markdown_table(HEAD, rows(curve.points))]
    if curve.failures:
        parts += [FAILED, markdown_table(FAILED_HEAD, failed_rows(curve.failures))]
    return "\n\n".join(part for part in parts if part) + "\n"


def page(curve: ValueCurve, picture: bytes) -> str:
    """index.html, without scripts and outside links."""
    title = escape(f"{curve.name}: {TITLE}")
    failed = f"<p>{FAILED}</p>{table(FAILED_HEAD, failed_rows(curve.failures))}" if curve.failures else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>{STUB_BANNER if curve.stub else ''}"
        f'<p>{escape(EXPLAINED)}</p><img src="{data_uri(picture)}" alt="errors over size and over fit seconds">'
        f"{table(HEAD, rows(curve.points))}{failed}</main>\n</body>\n</html>\n"
    )


def publish(curve: ValueCurve, folder: Path) -> str:
    """Write `folder` as a whole; returns the text of the artifact.

    Raises:
        UserError, StoreError: as `publish_folder`.
    """
    picture = value_picture(curve.points)
    publish_folder(folder, lambda place: _fill(place, curve, picture))
    return markdown(curve, picture)


def _fill(folder: Path, curve: ValueCurve, picture: bytes) -> None:
    (folder / "value_curve.png").write_bytes(picture)
    (folder / "value_curve.json").write_text(curve.model_dump_json(indent=1) + "\n")
    (folder / "value_curve.md").write_text(markdown(curve))
    (folder / "index.html").write_text(page(curve, picture))
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"name": curve.name, "files": files}, indent=1) + "\n")
