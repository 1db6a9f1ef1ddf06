"""The folder of a sweep: picture, table, page, and the config of the student that is taken. Pure but for `publish`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from containers.contract import file_digest
from tasks.page_parts import STUB_BANNER, data_uri, markdown_table, table
from tasks.page_style import STYLE
from tasks.report_rows import duration, number
from tasks.run_folder import MANIFEST, publish_folder
from tasks.sweep_picture import sweep_picture
from tasks.sweep_summary import COST, ENERGY, FORCE, SweepSummary

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
    """The config of the student that is taken, as `flows.distill` reads it at `place`."""
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
