"""The page and the Markdown artifacts of a run, as text. Pure: values and pictures in, text out; everything escaped."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from tasks.report.energies import energies
from tasks.report.lammps import INSTALL, neighbour_words, pair_lines
from tasks.report.markup import (
    STUB_BANNER,
    STYLE,
    Pictures,
    details,
    facts,
    markdown_pictures,
    markdown_table,
    one_line,
    picture,
    section,
    table,
)
from tasks.report.sections import (
    ATTEMPT_HEAD,
    ERROR_HEAD,
    attempt_rows,
    attempts,
    data,
    error_rows,
    extension_text,
    extensions,
    failures,
    grades,
    pairs,
    references,
    repulsion,
    size_rows,
    stability,
    stability_text,
)
from tasks.report.summary import RunSummary
from tasks.report.tables import (
    GRADE_HEAD,
    count_rows,
    duration,
    error_table,
    fidelity_rows,
    grade_rows,
    labelling_rows,
    number,
    rejection_rows,
    step_rows,
    threshold_rows,
)


def page(summary: RunSummary, pictures: Pictures) -> str:
    """report.html: one page without scripts and outside links."""
    sections = [
        headline(summary),
        origin(summary),
        usage(summary),
        attempts(summary, pictures),
        extensions(summary),
        fidelity(summary, pictures),
        failures(summary),
        stability(summary),
        references(summary),
        repulsion(summary, pictures),
        data(summary, pictures),
        pairs(summary),
        grades(summary, pictures),
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
        mood, words, reason = "good", "Converged", "Both errors are within the limits, and the gates are passed."
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
    return section(
        "What was distilled from what",
        "<p>The teacher, as its file describes it:</p>",
        facts(rows),
        "<p>Input files:</p>",
        table(("file", "sha256 (start)"), files),
        details("The config, as it was used", json.dumps(summary.config, indent=1, ensure_ascii=False, default=str)),
    )


def usage(summary: RunSummary) -> str:
    """How to use the potential, and what its energies leave out."""
    lines = ["units metal", *pair_lines(summary.elements, bool(summary.baseline.pairs))]
    return section(
        "How to use it",
        "<p>In this folder <code>lmp -in in.lammps</code> runs LAMMPS with the potential on a training structure,"
        " <code>structure.data</code>. LAMMPS needs its package ML-PACE:"
        f" <code>{escape(INSTALL)}</code>. The potential is chosen by:</p>",
        f"<pre>{escape(chr(10).join(lines))}</pre>",
        f"<p>{escape(neighbour_words(summary.lammps_neighbours))}</p>",
        energies(summary),
        facts(size_rows(summary)),
        "<p>In Python: <code>from calculator import calculator</code> in this folder gives an ASE calculator of total"
        " energies, forces, stress and γ (it needs ASE and python-ace, nothing else).</p>",
        "<p>The extrapolation grade γ of new structures comes from <code>potential.yaml</code> with"
        " <code>potential.asi</code>; <code>in.lammps</code> shows the lines.</p>",
        "<p>The folder <code>fit</code> has pacemaker's input and data of each fit that led to the potential, and its"
        " <code>README.md</code> says how to repeat them.</p>",
    )


def fidelity(summary: RunSummary, pictures: Pictures) -> str:
    """Errors and extrapolation grade against teacher and DFT, with parity plots."""
    return section(
        "How well it reproduces the reference",
        table(("", "against the teacher", "against DFT"), fidelity_rows(summary)),
        "<p class='soft'>γ is the extrapolation grade of the test atoms: up to 1 the potential interpolates between"
        " training environments; the more it is above 1, the less it should be trusted.</p>",
        picture(pictures, "parity-teacher", "Student over teacher"),
        picture(pictures, "parity-dft", "Student over DFT"),
        "" if summary.fidelity["dft"] else "<p class='soft'>No DFT test file was given.</p>",
    )


def steps(summary: RunSummary) -> str:
    """Seconds and memory of each step, and the versions."""
    versions = "\n".join(f"{name} {version}" for name, version in sorted(summary.versions.items()))
    return section(
        "Steps",
        table(("step", "this run", "its computation took", "peak memory", "key"), step_rows(summary)),
        details("Versions", versions),
    )


def artifacts(summary: RunSummary, pictures: Pictures) -> dict[str, str]:
    """Markdown by artifact key: `labels`, `attempts`, `learning-curve`, `parity`; pictures are data URIs."""
    verdict = "Converged." if summary.converged else f"Finished, not converged: {summary.not_converged_because}"
    texts = {
        "labels": [
            f"## {one_line(summary.name)}: labels and selection",
            markdown_table(("", ""), [*count_rows(summary), *labelling_rows(summary), *rejection_rows(summary)]),
            *markdown_pictures(pictures, "forces"),
            "Extrapolation grades γ of the basis before its fit:",
            markdown_table(GRADE_HEAD, grade_rows(summary)),
            *markdown_pictures(pictures, "grades"),
        ],
        "attempts": [
            f"## {one_line(summary.name)}: attempts",
            one_line(verdict),
            markdown_table(("figure", "value", "limit", "met"), threshold_rows(summary)),
            markdown_table(ATTEMPT_HEAD, attempt_rows(summary)),
            markdown_table(ERROR_HEAD, error_rows(summary)),
            *extension_text(summary),
            *stability_text(summary),
        ],
        "learning-curve": ["## Learning curve", *markdown_pictures(pictures, "learning-curve")],
        "parity": [
            "## Student against teacher and DFT",
            markdown_table(("", "teacher", "DFT"), fidelity_rows(summary)),
            *(markdown_table(*error_table(summary, against, "group")) for against in ("teacher", "dft")),
            *markdown_pictures(pictures, "parity-teacher", "parity-dft"),
        ],
    }
    return {key: "\n\n".join(parts) + "\n" for key, parts in texts.items()}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return number(value)
