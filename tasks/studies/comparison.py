"""Finished runs side by side, from their run folders: one page with a column for each run.

It reads `report.json` and the `properties_*.json` alone, so that runs of any work root, or copies of them, compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from containers.properties.compare import UNIT_TEXTS, UNITS, Deviation, deviations, mean_percent
from containers.properties.results import Properties
from containers.properties.speed import Speed
from tasks.errors import UserError
from tasks.report.invariants import RUNTIMES
from tasks.report.markup import DASH, ERRORS, Note, Part, Picture, Section, Table, duration, number, percent, to_html
from tasks.report.plots import BLUE, GREEN, ORANGE, drawing, png
from tasks.report.property_plots import TEACHER as TEACHER_STYLE
from tasks.report.property_plots import add_legends, draw_curves

REPORT, TEACHER, STUDENT = "report.json", "properties_teacher.json", "properties_student.json"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
"""Of the runs: colour-blind readers can distinguish them (Okabe and Ito, 2008), and each run has its own dashes."""
DASHES = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
TIMED = ("teacher_properties", "student_properties")
NONE = Properties(crystals=())


@dataclass(frozen=True)
class ComparedRun:
    """One run folder.

    Attributes:
        label: its name, and its place where two runs have one name.
        properties: of teacher and student; None where no crystal was compared.
    """

    label: str
    report: Mapping[str, Any]
    properties: tuple[Properties, Properties] | None

    def metrics(self, step: str) -> dict[str, Any]:
        """Metrics of a step; empty when it did not run."""
        return dict(self.report["metrics"].get(step, {}))

    def errors(self, against: str) -> dict[str, Any]:
        """Errors on test structures, against teacher or dft; empty without."""
        return self.report["fidelity"].get(against) or {}


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read run folders in their order.

    Raises `UserError`: a folder is no run folder, or of another version.
    """
    found = [(folder, _report(folder), _properties(folder)) for folder in folders]
    names = [report["name"] for _, report, _ in found]
    return [
        ComparedRun(name if names.count(name) == 1 else str(folder), report, properties)
        for name, (folder, report, properties) in zip(names, found, strict=True)
    ]


def _report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT
    if not path.is_file():
        there = "has no report.json" if folder.is_dir() else "does not exist"
        raise UserError(f"{folder} is no run folder: it {there}. Give folders such as runs/NAME.")
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
        report["name"], report["converged"]
        for key in ("metrics", "fidelity", "selection", "seconds"):
            report[key].items()
        for step in TIMED:
            Speed.model_validate(report["metrics"].get(step, {}).get("speed", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no report of this program ({type(error).__name__}: {error})") from None
    return report


def _properties(folder: Path) -> tuple[Properties, Properties] | None:
    paths = (folder / TEACHER, folder / STUDENT)
    if not all(path.is_file() for path in paths):
        return None
    try:
        return Properties.read(paths[0]), Properties.read(paths[1])
    except ValidationError as error:
        at = error.errors()[0]
        where = ".".join(map(str, at["loc"]))
        raise UserError(
            f"{folder}: its properties are of another version ({where}: {at['msg']}). Run it again."
        ) from None


def comparison_page(runs: Sequence[ComparedRun]) -> str:
    """Return the page: a column for each run, and the curves of all in one picture for each crystal."""
    crystals = _crystals(runs)
    pictures = {f"crystal-{place}": picture(name, runs) for place, name in enumerate(crystals)}
    shown: list[Part] = [
        Picture(f"crystal-{place}", f"Energy over volume and phonon bands of {name}: teacher and every run")
        for place, name in enumerate(crystals)
    ]
    found = [
        Section("", [Table(("", *(run.label for run in runs)), overview(runs))]),
        Section("Errors on test structures", [*error_tables(runs)]),
        Section("Properties of crystals", [*property_tables(runs), *shown]),
        Section("Speed", [Table(("atoms/s, one core", *(run.label for run in runs)), speeds(runs))]),
    ]
    return to_html(f"{len(runs)} runs side by side", found, pictures)


def overview(runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    """Verdict, size, stability and time, and the card's verdict on each section."""

    def verdict(run: ComparedRun) -> str:
        if run.report.get("stub"):
            return "STUB RUN: no figure is real"
        return "converged" if run.report["converged"] else f"not converged: {run.report.get('not_converged_because')}"

    def stable(run: ComparedRun) -> str:
        metrics = run.metrics("stability")
        if not metrics:
            return "not tried"
        drift = f"drift {number(metrics.get('drift_meV_per_atom_per_ps'))} meV/atom/ps"
        return f"stable, {drift}" if metrics.get("stable") else f"unstable: {metrics.get('unstable_because')}"

    rows = {
        "verdict": verdict,
        "elements": lambda run: ", ".join(run.report.get("elements", ())),
        "training structures selected": lambda run: number(run.report["selection"].get("selected")),
        "basis functions": lambda run: number(run.metrics("pace_corerep").get("functions")) or DASH,
        "molecular dynamics": stable,
        "computing time of all steps": lambda run: duration(sum(run.report["seconds"].values())),
    }
    judged = [
        {one["section"]: f"{one['grade']}: {one['reason']}" for one in run.report.get("card", ())} for run in runs
    ]
    sections = dict.fromkeys(section for card in judged for section in card)
    cards = [(f"card: {section}", *(card.get(section, DASH) for card in judged)) for section in sections]
    return [*((name, *map(text, runs)) for name, text in rows.items()), *cards]


def error_tables(runs: Sequence[ComparedRun]) -> list[Part]:
    """Errors against teacher and DFT, and the test structures they are of."""
    labels = {
        "structures": "structures",
        **ERRORS,
        "gamma_max": "largest extrapolation grade γ",
        "gamma_share_above_1": "share of atoms that extrapolate (γ above 1)",
    }
    parts: list[Part] = []
    for against, name in (("teacher", "the teacher"), ("dft", "DFT")):
        rows = [
            (words, *((percent if "share" in key else number)(run.errors(against).get(key)) for run in runs))
            for key, words in labels.items()
            if any(run.errors(against).get(key) is not None for run in runs)
        ]
        parts.append(Table((f"against {name}", *(run.label for run in runs)), rows))
        if len({run.errors(against).get("structures") for run in runs if run.errors(against)}) > 1:
            parts.append(Note(f"WARNING: the runs were tested against {name} on different structures."))
    return parts


def property_tables(runs: Sequence[ComparedRun]) -> list[Part]:
    """Mean deviation of each crystal, and each property: teacher, then student and deviation of each run."""
    listed = [[] if run.properties is None else deviations(*run.properties) for run in runs]
    found = [{(row.crystal, row.kind, row.property): row for row in rows} for rows in listed]
    rows, differ = [], False
    for crystal, kind, name in dict.fromkeys(key for each in found for key in each):
        ones = [each.get((crystal, kind, name)) for each in found]
        given = [one.teacher for one in ones if one is not None and one.teacher is not None]
        same = bool(given) and np.allclose(given, given[0], rtol=1e-3, atol=1e-6)
        differ = differ or bool(given and not same)
        unit = next(UNIT_TEXTS[one.unit] for one in ones if one is not None)
        teacher = number(float(given[0])) if same else "differs" if given else DASH
        rows.append((crystal, f"{kind}: {name}", unit, teacher, *map(_cell, ones)))
    if not rows:
        return ["No run compared crystals."]
    names = tuple(run.label for run in runs)
    means = [mean_percent(each) for each in listed]
    crystals = dict.fromkeys(crystal for mean in means for crystal in mean)
    warning = "WARNING: the teachers of these runs differ. Each deviation is from the teacher of its own run."
    return [
        *([warning] if differ else []),
        Table(
            ("crystal", *names),
            [(crystal, *(number(mean.get(crystal)) for mean in means)) for crystal in crystals],
            "Mean deviation of lattice, bulk modulus and elastic constants from the teacher (%):",
        ),
        Table(
            ("crystal", "property", "unit", "teacher", *names), rows, "Student, and student less teacher in brackets:"
        ),
    ]


def _cell(row: Deviation | None) -> str:
    """`161.2 (+1.4 %)`: the student, and student less teacher."""
    if row is None:
        return DASH
    if row.student is None or row.deviation is None:
        return "no value"
    return f"{number(row.student)} ({row.deviation:+.3g} {UNIT_TEXTS[UNITS[row.kind]]})"


def speeds(runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    """Atoms per second of each runtime, and the cell."""
    per_s, cells = list[dict[str, float]](), list[str]()
    for run in runs:
        timed = [Speed.model_validate(run.metrics(step).get("speed", {})) for step in TIMED]
        per_s.append({name: value for speed in timed for name, value in speed.atoms_per_s.items()})
        if per_atom := run.metrics("evaluate").get("student_us_per_atom"):
            per_s[-1]["evaluator"] = 1e6 / per_atom
        cells.append(next((speed.cell for speed in timed if speed.cell), DASH))
    rows = [
        (words, *(number(round(found[name])) if found.get(name) else DASH for found in per_s))
        for name, words in RUNTIMES.items()
        if any(found.get(name) for found in per_s)
    ]
    return [*rows, ("cell", *cells)] if set(cells) != {DASH} else rows


def _crystals(runs: Sequence[ComparedRun]) -> list[str]:
    """Names of the crystals that have a curve."""
    every = [one for run in runs if run.properties for one in run.properties[0].crystals]
    return list(dict.fromkeys(one.name for one in every if one.equation_of_state or one.bands_THz))


def picture(name: str, runs: Sequence[ComparedRun]) -> bytes:
    """Energy over volume and phonon bands of a crystal: the first teacher's as lines, each run's in its own dashes."""
    figure = drawing(10.5, 4.0)
    volumes, bands = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    has_teacher = False
    for place, run in enumerate(runs):
        teacher, student = (
            next((one for one in of.crystals if one.name == name), None) for of in run.properties or (NONE, NONE)
        )
        if teacher and not has_teacher:
            draw_curves(volumes, bands, teacher, "teacher", TEACHER_STYLE)
            has_teacher = True
        if student:
            style = {"color": COLOURS[place % len(COLOURS)], "ls": DASHES[place % len(DASHES)], "lw": 1.6}
            draw_curves(volumes, bands, student, run.label, style)
    volumes.set_title(name, fontsize=9)
    add_legends(volumes, bands)
    return png(figure)
