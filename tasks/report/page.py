"""The page and the Markdown artifacts of a run: the order of their sections, and the sections that frame them. Pure."""

from __future__ import annotations

import json

from tasks.report import card, data, quality, training, usage
from tasks.report.markup import (
    ERRORS,
    STUB,
    Code,
    Judgements,
    Note,
    Part,
    Pictures,
    Section,
    Table,
    Tiles,
    duration,
    number,
    to_html,
    to_markdown,
)
from tasks.report.summary import RunSummary


def page(summary: RunSummary, pictures: Pictures) -> str:
    """report.html."""
    found = [
        headline(summary),
        origin(summary),
        usage.usage(summary),
        training.attempts(summary),
        training.learning_curve(summary, pictures),
        training.extensions(summary),
        quality.fidelity(summary),
        quality.failures(summary),
        quality.properties(summary),
        quality.stability(summary),
        quality.references(summary),
        quality.repulsion(summary),
        data.labels(summary),
        data.pairs(summary),
        data.grades(summary),
        steps(summary),
    ]
    return to_html(f"{summary.name}: distilled ACE potential", found, pictures)


def artifacts(summary: RunSummary, pictures: Pictures) -> dict[str, str]:
    """Markdown by artifact key."""
    after_the_fit = [training.extensions(summary), quality.stability(summary)]
    found = {
        "card": [headline(summary), quality.fidelity(summary), quality.failures(summary), quality.properties(summary)],
        "labels": [data.labels(summary), data.grades(summary)],
        "attempts": [headline(summary), training.attempts(summary), *after_the_fit],
        "learning-curve": [training.learning_curve(summary, pictures)],
        "parity": [quality.fidelity(summary), quality.failures(summary)],
        "properties": [quality.properties(summary)],
    }
    return {key: to_markdown(f"{summary.name}: {key}", parts, pictures) for key, parts in found.items()}


def headline(summary: RunSummary) -> Section:
    """The verdict on the run and on each section, and the figures that decide it."""
    teacher, selection = summary.fidelity["teacher"] or {}, summary.selection
    tiles = []
    for key, limit in summary.thresholds.items():
        if key not in ERRORS:
            continue
        value = teacher.get(key)
        met = "not known" if value is None else "met" if value <= limit else "not met"
        tiles.append((ERRORS[key], number(value), f"at most {number(limit)}: {met}"))
    spent = sum(step.seconds for step in summary.steps.values() if not step.cached)
    tiles += [
        ("structures selected", number(selection.selected), f"of {number(selection.candidates)} candidates"),
        ("computed in this run", duration(spent), "the rest came from the store"),
    ]
    explained = (
        "Errors are against the teacher, on test structures that neither the fit nor the choice of the potential used."
        " Force errors are per Cartesian component."
    )
    verdicts: list[Part] = [card.whole(summary), Judgements(card.judge(summary))]
    title = Note(f"ACE potential for {', '.join(summary.elements)}, distilled from a MACE model.")
    return Section("", [title, *([STUB] if summary.stub else []), *verdicts, Tiles(tiles), Note(explained)])


def origin(summary: RunSummary) -> Section:
    """Teacher, input files and config."""
    teacher = [(key, number(value)) for key, value in summary.teacher.items()]
    files = [(name, digest[:16]) for name, digest in summary.inputs.items()]
    config = json.dumps(summary.config, indent=1, ensure_ascii=False, default=str)
    return Section(
        "Teacher, data and config",
        [
            Table((), teacher, "The teacher, from its file:"),
            Table(("file", "sha256 (start)"), files, "Input files:"),
            Code(config, "The config of this run"),
        ],
    )


def steps(summary: RunSummary) -> Section:
    """Seconds and memory of each step, and the versions."""
    rows = []
    for name, step in summary.steps.items():
        source, memory = "from the store" if step.cached else "computed", f"{step.peak_memory_MB:,.0f} MB"
        rows.append((name, source, duration(step.seconds), memory, step.key[:12]))
    versions = "\n".join(f"{name} {version}" for name, version in sorted(summary.versions.items()))
    head = ("step", "this run", "computing time", "peak memory", "key")
    return Section("Steps", [Table(head, rows), Code(versions, "Versions")])
