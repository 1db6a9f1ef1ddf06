"""HTML and Markdown that the pages are made of. Pure; everything is escaped.

The style sheet of report.html: inline, because the page must stand alone.
"""

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


STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d0d7de; --ground: #ffffff; --panel: #f6f8fa;
        --good: #1a7f37; --bad: #bc4c00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--ground);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 40px 0 10px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
p { margin: 8px 0; max-width: 78ch; }
.soft { color: var(--soft); }
.verdict { margin: 20px 0 16px; padding: 14px 18px; border-left: 5px solid; background: var(--panel); }
.verdict strong { display: block; font-size: 19px; }
.good { border-color: var(--good); } .good strong, td.yes { color: var(--good); }
.bad { border-color: var(--bad); } .bad strong, td.no { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.figure { flex: 1 1 190px; padding: 12px 16px; border: 1px solid var(--line); border-radius: 6px; }
.figure b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
table.facts th { width: 34%; }
table.attempts td:nth-child(3) { min-width: 180px; }
table.attempts td { min-width: 72px; overflow-wrap: normal; }
img { display: block; max-width: 100%; height: auto; margin: 10px 0; }
pre { margin: 10px 0; padding: 12px 16px; overflow-x: auto; background: var(--panel); border-radius: 6px;
      font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""
