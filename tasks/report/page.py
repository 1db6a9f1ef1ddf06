"""The page and the Markdown artifacts of a run: the order of their sections, and the sections that frame them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.report import card, data, invariants, properties, quality, training, trajectory, usage
from tasks.report.exploration import exploration
from tasks.report.markup import (
    ERRORS,
    STUB,
    Code,
    Judgements,
    Note,
    Part,
    Picture,
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

PAGE_BYTES, ARTIFACT_BYTES = 2_500_000, 800_000
"""Of pictures: with its tables, the page has at most 3 MB, an artifact less than 1 MB."""


def page(summary: RunSummary, pictures: Pictures) -> str:
    """report.html."""
    found = [
        headline(summary),
        origin(summary),
        usage.usage(summary),
        training.attempts(summary),
        training.learning_curve(summary, pictures),
        *([exploration(summary.exploration)] if summary.exploration else []),
        training.extensions(summary),
        quality.fidelity(summary),
        quality.failures(summary),
        properties.properties(summary),
        quality.stability(summary),
        trajectory.trajectory(summary),
        invariants.invariants(summary),
        invariants.speed(summary),
        quality.references(summary),
        quality.repulsion(summary),
        data.labels(summary),
        data.pairs(summary),
        data.grades(summary),
        steps(summary),
    ]
    kept, note = fitting(found, pictures, PAGE_BYTES)
    return to_html(f"{summary.name}: distilled ACE potential", [*found, note], kept)


def artifacts(summary: RunSummary, pictures: Pictures) -> dict[str, str]:
    """Markdown by artifact key."""
    after_the_fit = [training.extensions(summary), quality.stability(summary)]
    errors = [quality.fidelity(summary), quality.failures(summary)]
    found = {
        "card": [headline(summary), properties.properties(summary), *errors],
        "labels": [data.labels(summary), data.grades(summary)],
        "attempts": [headline(summary), training.attempts(summary), *after_the_fit],
        "learning-curve": [training.learning_curve(summary, pictures)],
        "parity": errors,
        "properties": [properties.properties(summary)],
        "trajectory": [trajectory.trajectory(summary)],
        **({"exploration": [exploration(summary.exploration)]} if summary.exploration else {}),
    }
    texts = {}
    for key, sections in found.items():
        kept, note = fitting(sections, pictures, ARTIFACT_BYTES)
        texts[key] = to_markdown(f"{summary.name}: {key}", [*sections, note], kept)
    return texts


def fitting(sections: Sequence[Section], pictures: Pictures, most_bytes: int) -> tuple[Pictures, Section]:
    """Return the pictures that fit into a page, the first ones, and a section that names the others."""
    shown = [part for section in sections for part in section.parts if isinstance(part, Picture)]
    kept: dict[str, bytes] = {}
    left_out, size = [], 0
    for one in shown:
        if one.name in pictures:
            size += 4 * len(pictures[one.name]) // 3  # as base64
            if size <= most_bytes:
                kept[one.name] = pictures[one.name]
            else:
                left_out.append(one.text)
    note = f"Left out here, because the page would be too large: {'; '.join(left_out)}."
    return kept, Section("Other pictures", [note] if left_out else [])


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
