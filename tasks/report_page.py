"""The page and the Markdown artifacts of a run, as text. Pure: values and pictures in, text out; everything escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tasks.lammps import pair_lines
from tasks.page_style import STYLE
from tasks.pictures import MOST_PAIRS
from tasks.report_rows import (
    ATTEMPT_HEAD,
    attempt_rows,
    count_rows,
    duration,
    fidelity_rows,
    labelling_rows,
    number,
    percent,
    rejection_rows,
    step_rows,
    threshold_rows,
)
from tasks.run_summary import RunSummary

Pictures = Mapping[str, bytes]
"""PNG by name: `forces`, `learning-curve`, `parity-teacher`, `parity-dft`, `core-repulsion`; one may be absent."""

STUB_BANNER = (
    "<div class='verdict bad'><strong>Stub run</strong>Nothing was labelled or fitted: no figure on this page is real."
    "</div>"
)


def page(summary: RunSummary, pictures: Pictures) -> str:
    """report.html: one page without scripts and outside links."""
    sections = [
        headline(summary),
        origin(summary),
        usage(summary),
        attempts(summary, pictures),
        fidelity(summary, pictures),
        repulsion(summary, pictures),
        data(summary, pictures),
        steps(summary),
    ]
    title = escape(f"{summary.name}: distilled ACE potential")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def headline(summary: RunSummary) -> str:
    """The verdict and the figures that decide it."""
    if summary.converged:
        mood, words, reason = "good", "Converged", "Both errors are within the limits of the config."
    else:
        mood, words = "bad", "Finished, not converged"
        reason = summary.not_converged_because or "No reason was given."
    tiles = "".join(
        f"<div class='figure'><span>{escape(label)}</span><b>{escape(value)}</b><span>{escape(limit)}</span></div>"
        for label, value, limit, _ in threshold_rows(summary)
    )
    what = f"ACE potential for {', '.join(summary.elements)}, distilled from a MACE model"
    return (
        f"<h1>{escape(summary.name)}</h1><p class='soft'>{escape(what)}</p>"
        f"{STUB_BANNER if summary.stub else ''}"
        f"<div class='verdict {mood}'><strong>{words}</strong>{escape(reason)}</div>"
        f"<div class='figures'>{tiles}{_speed_tiles(summary)}</div>"
        "<p class='soft'>Errors are against the teacher, on test structures that neither the fit nor the choice of the"
        " potential saw. Force errors are per Cartesian component.</p>"
    )


def _speed_tiles(summary: RunSummary) -> str:
    spent = sum(step.seconds for step in summary.steps.values() if not step.cached)
    tiles = [
        (
            "structures selected",
            number(summary.selection.selected),
            f"of {number(summary.selection.candidates)} candidates",
        ),
        ("computed in this run", duration(spent), "the rest came from the store"),
    ]
    return "".join(
        f"<div class='figure'><span>{escape(label)}</span><b>{escape(value)}</b><span>{escape(note)}</span></div>"
        for label, value, note in tiles
    )


def origin(summary: RunSummary) -> str:
    """What was distilled from what."""
    rows = [(key, _text(value)) for key, value in summary.teacher.items()]
    files = [(name, digest[:16]) for name, digest in summary.inputs.items()]
    return _section(
        "What was distilled from what",
        "<p>The teacher, as its file describes it:</p>",
        facts(rows),
        "<p>Input files:</p>",
        table(("file", "sha256 (start)"), files),
        _details("The config, as it was used", json.dumps(summary.config, indent=1, ensure_ascii=False, default=str)),
    )


def usage(summary: RunSummary) -> str:
    """How to use the potential, and what its energies leave out."""
    rows = [(element, repr(summary.e0s_eV[element])) for element in summary.elements]
    return _section(
        "How to use it",
        "<p>In LAMMPS with the package ML-PACE (the whole input is <code>in.lammps</code> in this folder):</p>",
        f"<pre>{escape(chr(10).join(['units metal', *pair_lines(summary.elements)]))}</pre>",
        "<p>Energies of the potential exclude the reference energies (E0) below, one for each atom."
        " Add them to compare with the teacher's total energies; forces and stresses need nothing.</p>",
        table(("element", "E0 (eV per atom)"), rows),
        "<p>The extrapolation grade γ of new structures comes from <code>potential.yaml</code> with"
        " <code>potential.asi</code>; <code>in.lammps</code> shows the lines.</p>",
    )


def attempts(summary: RunSummary, pictures: Pictures) -> str:
    """Every fit: plan, verdict, iterations, seconds, errors, and the curve."""
    return _section(
        "Attempts to fit",
        table(ATTEMPT_HEAD, attempt_rows(summary), style="attempts"),
        _picture(pictures, "learning-curve", "Loss and force RMSE over the iterations of all attempts"),
    )


def fidelity(summary: RunSummary, pictures: Pictures) -> str:
    """Errors and extrapolation grade against teacher and DFT, with parity plots."""
    return _section(
        "How well it reproduces the reference",
        table(("", "against the teacher", "against DFT"), fidelity_rows(summary)),
        "<p class='soft'>γ is the extrapolation grade of the test atoms: up to 1 the potential interpolates between"
        " training environments; the more it is above 1, the less it should be trusted.</p>",
        _picture(pictures, "parity-teacher", "Student over teacher"),
        _picture(pictures, "parity-dft", "Student over DFT"),
        "" if summary.fidelity["dft"] else "<p class='soft'>No DFT test file was given.</p>",
    )


def repulsion(summary: RunSummary, pictures: Pictures) -> str:
    """Dimer curves beside ZBL."""
    pairs = summary.repulsion
    if not pairs:
        return _section("Core repulsion", "<p>None: the config asks for no reference potential.</p>")
    rows = [
        (name, number(pair["r_in_A"]), number(pair["shortest_distance_A"]), percent(pair.get("share_of_pairs_inside")))
        for name, pair in pairs.items()
    ]
    more = f"<p class='soft'>{MOST_PAIRS} of {len(pairs)} pairs are drawn.</p>" if len(pairs) > MOST_PAIRS else ""
    return _section(
        "Core repulsion",
        "<p>Atoms closer than the data knows are kept apart by the ZBL potential.</p>",
        table(("pair", "repulsion begins (Å)", "shortest in the data (Å)", "pairs of the data inside"), rows),
        _picture(pictures, "core-repulsion", "Energy of each dimer beside ZBL"),
        more,
    )


def data(summary: RunSummary, pictures: Pictures) -> str:
    """Labels, rejections, selection."""
    rejections = rejection_rows(summary)
    return _section(
        "Labels and selection",
        facts([*count_rows(summary), *labelling_rows(summary)]),
        _picture(pictures, "forces", "Atoms by the force on them"),
        "<p>Why structures were rejected (one may have several reasons):</p>" if rejections else "",
        facts(rejections) if rejections else "",
    )


def steps(summary: RunSummary) -> str:
    """Seconds and memory of each step, and the versions."""
    versions = "\n".join(f"{name} {version}" for name, version in sorted(summary.versions.items()))
    return _section(
        "Steps",
        table(("step", "this run", "its computation took", "peak memory", "key"), step_rows(summary)),
        _details("Versions", versions),
    )


def artifacts(summary: RunSummary, pictures: Pictures) -> dict[str, str]:
    """Markdown by artifact key: `labels`, `attempts`, `learning-curve`, `parity`; pictures are data URIs."""
    verdict = "Converged." if summary.converged else f"Finished, not converged: {summary.not_converged_because}"
    texts = {
        "labels": [
            f"## {_cell(summary.name)}: labels and selection",
            markdown_table(("", ""), [*count_rows(summary), *labelling_rows(summary), *rejection_rows(summary)]),
            *_markdown_pictures(pictures, "forces"),
        ],
        "attempts": [
            f"## {_cell(summary.name)}: attempts",
            _cell(verdict),
            markdown_table(("figure", "value", "limit", "met"), threshold_rows(summary)),
            markdown_table(ATTEMPT_HEAD, attempt_rows(summary)),
        ],
        "learning-curve": ["## Learning curve", *_markdown_pictures(pictures, "learning-curve")],
        "parity": [
            "## Student against teacher and DFT",
            markdown_table(("", "teacher", "DFT"), fidelity_rows(summary)),
            *_markdown_pictures(pictures, "parity-teacher", "parity-dft"),
        ],
    }
    return {key: "\n\n".join(parts) + "\n" for key, parts in texts.items()}


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
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def data_uri(png: bytes) -> str:
    """A PNG as text that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n"


def _details(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _picture(pictures: Pictures, name: str, text: str) -> str:
    return f'<img src="{data_uri(pictures[name])}" alt="{escape(text)}">' if name in pictures else ""


def _markdown_pictures(pictures: Pictures, *names: str) -> list[str]:
    return [f"![{name}]({data_uri(pictures[name])})" for name in names if name in pictures] or ["Nothing to draw."]


def _cell(text: str) -> str:
    """One line of Markdown in which nothing of the text acts as markup."""
    flat = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\|`*_[]" else sign for sign in flat)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return number(value)
