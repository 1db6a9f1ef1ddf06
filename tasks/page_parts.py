"""HTML and Markdown that the pages are made of. Pure; everything is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

Pictures = Mapping[str, bytes]
"""PNG by name; one may be absent."""

STUB_BANNER = (
    "<div class='verdict bad'><strong>Stub run</strong>Nothing was labelled or fitted: no figure on this page is real."
    "</div>"
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "") -> str:
    """An HTML table; every cell is escaped. `yes` and `no` are coloured."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return _table([top, *("".join(map(_cell_of_page, row)) for row in rows)], style)


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """An HTML table of names and values; every cell is escaped."""
    return _table([f"<th>{escape(name)}</th><td>{escape(value)}</td>" for name, value in rows], "facts")


def _table(lines: Iterable[str], style: str) -> str:
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='wide'><table class='{style}'>{body}</table></div>"


def _cell_of_page(text: str) -> str:
    mark = f" class='{text}'" if text in ("yes", "no") else ""
    return f"<td{mark}>{escape(text)}</td>"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(one_line(cell) for cell in line) + " |" for line in lines)


def data_uri(png: bytes) -> str:
    """A PNG as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def section(title: str, *parts: str) -> str:
    """A heading, and what is below it."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n"


def details(title: str, text: str) -> str:
    """Text that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def picture(pictures: Pictures, name: str, text: str) -> str:
    """The picture in the page itself, or nothing where there is none; `text` is for those who do not see it."""
    return f'<img src="{data_uri(pictures[name])}" alt="{escape(text)}">' if name in pictures else ""


def markdown_pictures(pictures: Pictures, *names: str) -> list[str]:
    """The pictures of these names that there are, or words that there are none."""
    return [f"![{name}]({data_uri(pictures[name])})" for name in names if name in pictures] or ["Nothing to draw."]


def one_line(text: str) -> str:
    """One line of Markdown in which nothing of the text acts as markup."""
    flat = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\|`*_[]" else sign for sign in flat)
