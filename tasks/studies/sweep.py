"""A sweep: its students, the front that no other student beats, the one that is taken, and the folder with all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from ruamel.yaml import YAML

from containers.contract import Closed
from tasks.report.markup import ERRORS, Part, Picture, Table, duration, number
from tasks.report.plots import BLUE, GREY, ORANGE, drawing, png
from tasks.studies.study import Study

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


class SweepSummary(Study):
    """Every student of a sweep."""

    KIND: ClassVar[str] = "sweep"
    TITLE: ClassVar[str] = "sweep of students"
    TASK: ClassVar[str] = "sweep"

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

    def parts(self) -> list[Part]:
        """A note on what is compared, the picture, a row for each student with the smallest force error first."""
        rule = "the smallest force error"
        if self.take == "cheapest":
            rule = f"the fastest whose force error exceeds the smallest by at most {100 * self.within:g} %"
        chosen, best = self.chosen, {one.name for one in front(self.students)}
        rows = []
        for one in sorted(self.students, key=lambda student: student.force):
            stable = number(None if one.stable is None else "yes" if one.stable else "no")
            sizes = (number(one.functions), number(one.structures), duration(one.fit_s))
            marks = ("yes" if one.name in best else "", "yes" if one.name == chosen.name else "")
            figures = (number(one.figures.get(key)) for key in COLUMNS)
            rows.append((one.name, *figures, *sizes, one.verdict, stable, *marks))
        failures = [(one.name, one.step, one.message) for one in self.failures]
        warnings = []
        if any("pacemaker.cutoff" in one.changes for one in self.students):
            warnings.append(
                f"The teacher sees {number(self.teacher_reach_A)} Å (its cutoff times its layers). A student sees only"
                " its own cutoff."
            )
        if len({one.figures.get("structures") for one in self.students}) > 1:
            warnings.append("The students were tested on different structures, so their errors cannot be compared.")
        if chosen.stable is False:
            warnings.append("No student passed the stability check in molecular dynamics.")
        return [
            "Errors are against the teacher, on test structures that no fit used. The evaluation time is that of one"
            " thread on the machine that ran it. No other student beats a student of the front in both.",
            f"Taken: {chosen.name} ({rule}).",
            *warnings,
            Picture(self.KIND, "Test errors over the time of an evaluation"),
            Table(HEAD, rows),
            Table(("student", "failed in", "because"), failures, "These gave no student:"),
        ]

    def picture(self) -> bytes:
        """Errors over the time of an evaluation."""
        return sweep_picture(self.students, self.chosen.name)

    def contents(self, folder: Path) -> dict[str, str]:
        """All figures as a table, and the config of the student that is taken."""
        place = folder / "chosen.yaml"
        return {"sweep.csv": comma_separated(self), "chosen.yaml": chosen_yaml(self, place)}


def front(students: Sequence[SweptStudent]) -> tuple[SweptStudent, ...]:
    """Return the students that no other beats in force error and speed, fastest first; the first of equal ones."""
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


COLUMNS = {
    FORCE: ERRORS[FORCE],
    "force_max_meV_per_A": ERRORS["force_max_meV_per_A"],
    ENERGY: ERRORS[ENERGY],
    COST: "µs/atom",
}
HEAD = ("student", *COLUMNS.values(), "functions", "training structures", "fit", "verdict", "stable", "front", "taken")
CHOSEN_HEAD = """\
# The student that the sweep took: {name}. The command below makes its run folder from the results of the sweep.
# Nothing is fitted again, but a last fit that was interrupted before it converged is continued:
#   python -m flows.distill {place}
"""


def comma_separated(sweep: SweepSummary) -> str:
    """sweep.csv: a row for each student in the order of the config, a column for each key and each figure."""
    keys = list(dict.fromkeys(key for one in sweep.students for key in one.changes))
    figures = sorted({key for one in sweep.students for key in one.figures})
    plain = ("structures", "functions", "fit_s", "attempts", "iterations", "verdict", "stable", "potential_key")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *plain, *(f"test_{key}" if key != COST else key for key in figures)])
    for one in sweep.students:
        changed = [one.changes.get(key) for key in keys]
        changed = [json.dumps(value) if isinstance(value, dict | list) else value for value in changed]
        writer.writerow([*changed, *(getattr(one, name) for name in plain), *(one.figures.get(key) for key in figures)])
    return text.getvalue()


def chosen_yaml(sweep: SweepSummary, place: Path) -> str:
    """The config of the student that is taken, as `flows.distill.flow` reads it at `place`."""
    text = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.dump(sweep.chosen_config, text)
    return CHOSEN_HEAD.format(name=sweep.chosen.name, place=place) + text.getvalue()


MOST_NAMES = 16  # more than that would hide the points: then only the front is named


def sweep_picture(students: Sequence[SweptStudent], chosen: str) -> bytes:
    """Test errors over the time of an evaluation on log scales; the front of the force error is a line.

    Args:
        chosen: name of the student to mark.
    """
    figure = drawing(12.0, 4.6)
    best = front(students)
    for place, key in enumerate((FORCE, ENERGY), start=1):
        axes = figure.add_subplot(1, 2, place)
        shown = [one for one in students if all((one.figures.get(name) or 0) > 0 for name in (COST, key))]
        named = {one.name for one in (shown if len(shown) <= MOST_NAMES else best)} | {chosen}
        if key == FORCE:
            line = [one for one in best if one in shown]
            axes.plot(*_places(line, key), color=BLUE, lw=1.4, label="no other is faster and better")
        colours = [BLUE if one in best else GREY for one in shown]
        axes.scatter(*_places(shown, key), c=colours, s=28, zorder=3)
        taken = [one for one in shown if one.name == chosen]
        costs, errors = _places(taken, key)
        axes.scatter(costs, errors, facecolors="none", edgecolors=ORANGE, s=130, lw=1.8, label="taken")
        for one, cost, error in zip(shown, *_places(shown, key), strict=True):
            if one.name in named:
                axes.annotate(one.name, (cost, error), xytext=(6, 4), textcoords="offset points", fontsize=7)
        axes.set(xlabel="µs/atom, one thread", ylabel=ERRORS[key])
        if shown:
            axes.set(xscale="log", yscale="log")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def _places(students: Sequence[SweptStudent], key: str) -> tuple[list[float], list[float]]:
    """Evaluation times and errors."""
    costs, errors = ([float(one.figures[name] or 0) for one in students] for name in (COST, key))
    return costs, errors
