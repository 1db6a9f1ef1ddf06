"""The folder of a value curve: picture, table, page. Pure but for `publish`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from containers.contract import file_digest
from tasks.page_parts import STUB_BANNER, data_uri, markdown_table, table
from tasks.page_style import STYLE
from tasks.report_rows import duration, number
from tasks.run_folder import MANIFEST, publish_folder
from tasks.value_picture import ERRORS, value_picture
from tasks.value_summary import Failure, Point, ValueCurve

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
