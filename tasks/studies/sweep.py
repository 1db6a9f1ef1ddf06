"""The folder of a sweep: picture, table, page, and the config of the student that is taken. Pure but for `publish`.

What a sweep is made of: students, which of them no other beats, and which one is taken. Pure.

The picture of a sweep. Pure: equal students give equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from ruamel.yaml import YAML

from containers.contract import Closed, file_digest
from tasks.report.markup import STUB_BANNER, STYLE, data_uri, markdown_table, table
from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png
from tasks.report.run_folder import MANIFEST, publish_folder
from tasks.report.tables import duration, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORCE, ENERGY, COST = "force_mae_meV_per_A", "energy_mae_meV_per_atom", "student_us_per_atom"


class SweptStudent(Closed):
    """A student, and its errors on the test structures, against the teacher."""

    name: str = Field(description="its changes in short")
    changes: dict[str, Any] = Field(description="dotted key of the config -> value")
    verdict: str = Field(description="on the attempt that was taken")
    attempts: int = Field(ge=1)
    iterations: int = Field(ge=0, description="of the attempt that was taken")
    fit_s: float = Field(ge=0, description="seconds of all attempts, when they were computed")
    structures: int = Field(ge=1, description="in the training frame")
    functions: int | None = Field(None, description="basis functions")
    stable: bool | None = Field(None, description="whether it passed the gate of molecular dynamics; None: no gate")
    figures: dict[str, float | int | None] = Field(
        description="of `evaluate`, against the teacher: force_mae_meV_per_A, ...; student_us_per_atom"
    )
    potential_key: str = Field(description="of the exported potential in the store (step pace_corerep)")

    @property
    def force(self) -> float:
        """Force MAE on the test structures, meV/Å."""
        error = self.figures.get(FORCE)
        return float("inf") if error is None else float(error)

    @property
    def cost(self) -> float | None:
        """Microseconds an atom and evaluation take on one thread."""
        cost = self.figures.get(COST)
        return None if cost is None else float(cost)


class SweepFailure(Closed):
    """A student that could not be made."""

    name: str
    changes: dict[str, Any]
    step: str = Field(description="the step that failed")
    message: str


class SweepSummary(Closed):
    """Every student of a sweep."""

    name: str
    config: dict[str, Any]
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")
    teacher_reach_A: float = Field(description="how far the teacher sees: its cutoff times its layers")
    take: Literal["best", "cheapest"]
    within: float = Field(ge=0)
    students: tuple[SweptStudent, ...] = Field(min_length=1)
    failures: tuple[SweepFailure, ...] = ()
    chosen_config: dict[str, Any] = Field(description="of the student that is taken, as `flows.distill.flow` reads it")

    @property
    def chosen(self) -> SweptStudent:
        """The student that is taken."""
        return choose(self.students, self.take, self.within)

    @property
    def front(self) -> tuple[SweptStudent, ...]:
        """The students that no other beats."""
        return front(self.students)


def front(students: Sequence[SweptStudent]) -> tuple[SweptStudent, ...]:
    """Those with a smaller force error than every one that is as fast, fastest first; of equals the first."""
    found: list[SweptStudent] = []
    timed = [(one.cost, one.force, one) for one in students if one.cost is not None]
    for _, force, one in sorted(timed, key=lambda three: three[:2]):
        if not found or force < found[-1].force:
            found.append(one)
    return tuple(found)


def choose(students: Sequence[SweptStudent], take: Literal["best", "cheapest"], within: float) -> SweptStudent:
    """The student with the smallest force error, or the fastest of those whose error exceeds it by at most `within`
    (a share). One that failed the gate of molecular dynamics is taken only where all did."""
    sound = [one for one in students if one.stable is not False] or list(students)
    best = min(sound, key=lambda one: one.force)
    if take == "best":
        return best
    good = [one for one in sound if one.force <= best.force * (1 + within)]
    return min(good, key=lambda one: (float("inf") if one.cost is None else one.cost, one.force))


FIGURES = {
    FORCE: "force MAE (meV/Å)",
    "force_max_meV_per_A": "worst force (meV/Å)",
    ENERGY: "energy MAE (meV/atom)",
    COST: "µs an atom",
}
HEAD = ("student", *FIGURES.values(), "functions", "training structures", "fit", "verdict", "stable", "front", "taken")
FAILED_HEAD = ("student", "failed in", "because")
TITLE = "A sweep of students"
EXPLAINED = (
    "Errors are against the teacher, on test structures that no fit saw. The time of an evaluation is that of one"
    " thread on the machine that made it. Students of the front are those that no other beats in both."
)
FAILED = "These gave no student:"
CHOSEN_HEAD = """\
# The student that the sweep took, {name}. The run folder from what the sweep has computed; nothing is fitted again,
# but where its last fit was broken off before it converged, that goes on:
#   python -m flows.distill {place}
"""


def notes(sweep: SweepSummary) -> list[str]:
    """What must be known to read the table."""
    rule = "the smallest force error"
    if sweep.take == "cheapest":
        rule = f"the fastest whose force error exceeds the smallest by at most {100 * sweep.within:g} %"
    found = [f"Taken: {sweep.chosen.name} ({rule})."]
    if any("pacemaker.cutoff" in one.changes for one in sweep.students):
        found.append(
            f"The teacher sees {number(sweep.teacher_reach_A)} Å (its cutoff times its layers); a student sees its own"
            " cutoff alone."
        )
    if len({one.figures.get("structures") for one in sweep.students}) > 1:
        found.append("The students were tested on different structures: their errors are not of one kind.")
    if sweep.chosen.stable is False:
        found.append("No student passed the gate of molecular dynamics.")
    return found


def rows(sweep: SweepSummary) -> Iterator[tuple[str, ...]]:
    """A row of HEAD for each student, the smallest force error first."""
    best = {one.name for one in sweep.front}
    for one in sorted(sweep.students, key=lambda student: student.force):
        yield (
            one.name,
            *(number(one.figures.get(key)) for key in FIGURES),
            number(one.functions),
            number(one.structures),
            duration(one.fit_s),
            one.verdict,
            number(None if one.stable is None else "yes" if one.stable else "no"),
            "yes" if one.name in best else "",
            "yes" if one.name == sweep.chosen.name else "",
        )


def failed_rows(sweep: SweepSummary) -> list[tuple[str, ...]]:
    """A row of FAILED_HEAD for each student that could not be made."""
    return [(one.name, one.step, one.message) for one in sweep.failures]


def markdown(sweep: SweepSummary, picture: bytes | None = None) -> str:
    """The table, and the picture when it is given, for an artifact or a terminal."""
    parts = [f"## {TITLE}", "STUB RUN: no figure is real." if sweep.stub else "", EXPLAINED, *notes(sweep)]
    parts += [f"![sweep]({data_uri(picture)})"] if picture else []
    parts += [markdown_table(HEAD, rows(sweep))]
    if sweep.failures:
        parts += [FAILED, markdown_table(FAILED_HEAD, failed_rows(sweep))]
    return "\n\n".join(part for part in parts if part) + "\n"


def page(sweep: SweepSummary, picture: bytes) -> str:
    """index.html, without scripts and outside links."""
    title = escape(f"{sweep.name}: {TITLE}")
    failed = f"<p>{FAILED}</p>{table(FAILED_HEAD, failed_rows(sweep))}" if sweep.failures else ""
    told = "".join(f"<p>{escape(text)}</p>" for text in (EXPLAINED, *notes(sweep)))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>{STUB_BANNER if sweep.stub else ''}"
        f'{told}<img src="{data_uri(picture)}" alt="test errors over the time of an evaluation">'
        f"{table(HEAD, rows(sweep))}{failed}</main>\n</body>\n</html>\n"
    )


def comma_separated(sweep: SweepSummary) -> str:
    """sweep.csv: a row for each student, as they were asked for, with a column for each key and each figure."""
    keys = list(dict.fromkeys(key for one in sweep.students for key in one.changes))
    figures = sorted({key for one in sweep.students for key in one.figures})
    plain = ("structures", "functions", "fit_s", "attempts", "iterations", "verdict", "stable", "potential_key")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *plain, *(f"test_{key}" if key != COST else key for key in figures)])
    for one in sweep.students:
        changed = [_cell(one.changes.get(key)) for key in keys]
        writer.writerow([*changed, *(getattr(one, name) for name in plain), *(one.figures.get(key) for key in figures)])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def chosen_yaml(sweep: SweepSummary, place: Path) -> str:
    """The config of the student that is taken, as `flows.distill.flow` reads it at `place`."""
    text = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.dump(sweep.chosen_config, text)
    return CHOSEN_HEAD.format(name=sweep.chosen.name, place=place) + text.getvalue()


def publish(sweep: SweepSummary, folder: Path) -> str:
    """Write `folder` as a whole; returns the text of the artifact.

    Raises:
        UserError, StoreError: as `publish_folder`.
    """
    picture = sweep_picture(sweep.students, sweep.chosen.name)
    texts = {
        "sweep.json": sweep.model_dump_json(indent=1) + "\n",
        "sweep.csv": comma_separated(sweep),
        "sweep.md": markdown(sweep),
        "index.html": page(sweep, picture),
        "chosen.yaml": chosen_yaml(sweep, folder / "chosen.yaml"),
    }
    publish_folder(folder, lambda place: _fill(place, sweep.name, texts, picture))
    return markdown(sweep, picture)


def _fill(folder: Path, name: str, texts: dict[str, str], picture: bytes) -> None:
    (folder / "sweep.png").write_bytes(picture)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"name": name, "files": files}, indent=1) + "\n")


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
