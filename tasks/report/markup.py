"""A report as one description: sections of paragraphs, tables and pictures, rendered to HTML and to Markdown.

Both templates escape every value. In paragraphs, text between backticks becomes code. Numbers are made text here too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from textwrap import indent
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

DASH = "–"
ERRORS = {
    "energy_mae_meV_per_atom": "energy MAE (meV/atom)",
    "energy_rmse_meV_per_atom": "energy RMSE (meV/atom)",
    "energy_max_meV_per_atom": "largest energy error (meV/atom)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
    "force_rmse_meV_per_A": "force RMSE (meV/Å)",
    "force_max_meV_per_A": "largest force error (meV/Å)",
    "stress_mae_meV_per_A3": "stress MAE (meV/Å³)",
    "stress_rmse_meV_per_A3": "stress RMSE (meV/Å³)",
    "stress_max_meV_per_A3": "largest stress error (meV/Å³)",
}


def number(value: Any) -> str:
    """Four significant digits; a dash for no number; lists and mappings item by item; anything else as it is."""
    if value is None:
        return DASH
    if isinstance(value, Mapping):
        items = {key: f"({number(item)})" if isinstance(item, Mapping) else number(item) for key, item in value.items()}
        return ", ".join(f"{key} {item}" for key, item in items.items() if item != DASH)
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def percent(share: float | None) -> str:
    """A share as `5.00 %`."""
    return DASH if share is None else f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """`0.42 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


Pictures = Mapping[str, bytes]
"""PNG by name; any may be absent."""


class Note(NamedTuple):
    """A paragraph in a softer colour."""

    text: str


class Verdict(NamedTuple):
    """A result that the reader must see first."""

    good: bool
    title: str
    text: str


Grade = Literal["good", "check", "fails", "not measured"]
SIGNS: dict[Grade, str] = {"good": "🟢", "check": "🟠", "fails": "🔴", "not measured": "⚪"}
"""Colours of Markdown, which has no other; the word always stands beside them."""


class Judgement(NamedTuple):
    """The verdict on one section of a run."""

    section: str
    grade: Grade
    reason: str
    todo: str = ""


class Judgements(NamedTuple):
    """Verdicts as a table, each with its colour and its word."""

    rows: Sequence[Judgement]


class Tiles(NamedTuple):
    """Key figures: label, value, note."""

    rows: Sequence[tuple[str, str, str]]


class Table(NamedTuple):
    """Rows of text; left out with its caption when there are none. Without a head: names and values."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    style: str = ""


class Picture(NamedTuple):
    """A picture by its name, left out when it was not drawn; `text` is for readers who do not see it."""

    name: str
    text: str


class Code(NamedTuple):
    """Lines to copy; with a title, they are shown when the title is clicked."""

    text: str
    title: str = ""


Part = str | Note | Verdict | Judgements | Tiles | Table | Picture | Code
STUB = Verdict(False, "STUB RUN", "Nothing was labelled or fitted: no figure here is real.")


class Section(NamedTuple):
    """A title and what stands below it; left out when nothing does."""

    title: str
    parts: Sequence[Part]


def to_html(title: str, sections: Iterable[Section], pictures: Pictures) -> str:
    """One page without outside links; its one script sorts tables."""
    return _HTML.get_template("page.html").render(title=title, sections=_shown(sections, pictures), pictures=pictures)


def to_markdown(title: str, sections: Iterable[Section], pictures: Pictures) -> str:
    """Text for an artifact or a terminal; pictures are data URIs."""
    template = _MARKDOWN.get_template("page.md")
    text = template.render(title=title, sections=_shown(sections, pictures), pictures=pictures)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _shown(sections: Iterable[Section], pictures: Pictures) -> list[Section]:
    def shown(part: Part) -> bool:
        return part.name in pictures if isinstance(part, Picture) else bool(getattr(part, "rows", part))

    found = [Section(section.title, [part for part in section.parts if shown(part)]) for section in sections]
    return [section for section in found if section.parts]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(one_line(cell) for cell in line) + " |" for line in lines)


def _signed(part: Judgements) -> str:
    rows = [(one.section, f"{SIGNS[one.grade]} {one.grade}", one.reason, one.todo) for one in part.rows]
    return markdown_table(("section", "verdict", "reason", "what to do"), rows)


def one_line(text: str) -> str:
    """One line of Markdown in which nothing of the text acts as markup."""
    flat = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\|`*_[]" else sign for sign in flat)


def data_uri(png: bytes) -> str:
    """A PNG as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _environment(coded: Callable[[str], str], **options: Any) -> Environment:
    """Templates in which every value is escaped.

    Args:
        coded: escapes text and marks what stands between backticks as code.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    found.filters.update(
        kind=lambda part: type(part).__name__,
        coded=lambda text: Markup(coded(text)),  # noqa: S704  escaped by `coded`
        data_uri=lambda png: Markup(data_uri(png)),  # noqa: S704  base64
        table=lambda part: Markup(markdown_table(part.head or ("", ""), part.rows)),  # noqa: S704  escaped cells
        signed=lambda part: Markup(_signed(part)),  # noqa: S704  escaped cells
        indented=lambda text: Markup(escape(indent(text, "    "), quote=False)),  # noqa: S704  escaped just now
    )
    return found


_HTML = _environment(lambda text: re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))
_MARKDOWN = _environment(
    lambda text: re.sub(r"\\`.+?\\`", lambda code: re.sub(r"\\(.)", r"\1", code[0]), one_line(text)),
    finalize=lambda value: value if isinstance(value, Markup) else Markup(one_line(str(value))),  # noqa: S704
)
