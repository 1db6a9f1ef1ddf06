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
from tasks.value_summary import Point, ValueCurve

HEAD = ("method", "structures", "atoms", "fit", *ERRORS.values())
TITLE = "What training structures are worth"
EXPLAINED = (
    "Each point is one fit. Errors are against the teacher, on test structures that no fit saw; worst is the largest"
    " error of a force component or of a structure's energy."
)


def rows(points: Sequence[Point]) -> Iterator[tuple[str, ...]]:
    """A row of HEAD for each point, by size."""
    for point in sorted(points, key=lambda one: (one.structures, one.method, one.seed)):
        name = f"random, seed {point.seed}" if point.method == "random" else point.method
        errors = (number(point.figures.get(key)) for key in ERRORS)
        yield (name, number(point.structures), number(point.atoms), duration(point.fit_s), *errors)


def markdown(curve: ValueCurve, picture: bytes | None = None) -> str:
    """The table, and the picture when it is given, for an artifact or a terminal."""
    parts = [f"## {TITLE}", "STUB RUN: no figure is real." if curve.stub else "", EXPLAINED]
    parts += [f"![value curve]({data_uri(picture)})"] if picture else []
    return "\n\n".join([part for part in parts if part] + [markdown_table(HEAD, rows(curve.points))]) + "\n"


def page(curve: ValueCurve, picture: bytes) -> str:
    """index.html, without scripts and outside links."""
    title = escape(f"{curve.name}: {TITLE}")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>{STUB_BANNER if curve.stub else ''}"
        f'<p>{escape(EXPLAINED)}</p><img src="{data_uri(picture)}" alt="errors over size and over fit seconds">'
        f"{table(HEAD, rows(curve.points))}</main>\n</body>\n</html>\n"
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
