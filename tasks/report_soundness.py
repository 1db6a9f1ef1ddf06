"""Sections of the page about what comes after a fit: further rounds, the stability gate, size and speed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tasks import extension_rows
from tasks.page_parts import facts, markdown_table, one_line, section, table
from tasks.report_rows import number, percent
from tasks.run_summary import RunSummary

LEVELS = (1, 5, 25)
"""Extrapolation grades whose share of steps is told."""
NOT_TRIED = "Not tried: stability.picoseconds is 0. Nothing is known of how the potential does in molecular dynamics."


def extensions(summary: RunSummary) -> str:
    """What was added when the first student was not good enough, and why it ended."""
    made = summary.extensions
    if made is None:
        return ""
    rounds = table(extension_rows.HEAD, extension_rows.rows(made.rounds)) if made.rounds else ""
    return section("More structures, more functions", f"<p>{escape(made.told())}</p>", rounds)


def stability(summary: RunSummary) -> str:
    """What molecular dynamics with the student did, or that it was not tried."""
    rows, unstable = stability_rows(summary), summary.unstable_because
    if not rows:
        told = escape(NOT_TRIED)
    else:
        told = f"Unstable: {escape(unstable)}" if unstable else "Sound over the whole run."
    return section("Molecular dynamics at constant energy", f"<p>{told}</p>", facts(rows) if rows else "")


def stability_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Name and value of what the gate measured; nothing where there was none."""
    step = summary.steps.get("stability")
    return _rows(step.metrics) if step else []


def _rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    shares = [
        (f"steps with an atom of γ above {level}", percent(metrics[f"gamma_share_above_{level}"])) for level in LEVELS
    ]
    return [
        ("atoms", number(metrics["atoms"])),
        ("steps", f"{number(metrics['steps'])} of {number(metrics['timestep_fs'])} fs"),
        ("drift of the total energy (meV/atom/ps)", number(metrics["drift_meV_per_atom_per_ps"])),
        ("atoms lost, fused", f"{number(metrics['lost_atoms'])}, {number(metrics['fused_atoms'])}"),
        ("shortest distance (Å)", number(metrics["shortest_distance_A"])),
        *shares,
    ]


def size_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Functions, parameters, bytes and speed of the potential."""
    metrics = {
        key: value
        for step in ("pace_corerep", "evaluate")
        for key, value in (summary.steps[step].metrics if step in summary.steps else {}).items()
    }
    named = {
        "functions": "basis functions",
        "parameters": "parameters",
        "yaml_bytes": "potential.yaml (bytes)",
        "yace_bytes": "potential.yace (bytes)",
        "yace_difference_eV_per_atom": ".yace against .yaml (eV/atom)",
        "student_us_per_atom": "µs an atom, one thread",
    }
    return [(label, _text(metrics[key])) for key, label in named.items() if metrics.get(key) is not None]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number(one)}" for name, one in value.items())
    return number(value)


def extension_text(summary: RunSummary) -> list[str]:
    """The rounds as Markdown; nothing where there were none."""
    made = summary.extensions
    if made is None or not made.rounds:
        return []
    return [one_line(made.told()), markdown_table(extension_rows.HEAD, extension_rows.rows(made.rounds))]


def stability_text(summary: RunSummary) -> list[str]:
    """The stability gate as Markdown."""
    rows = stability_rows(summary)
    return ["Molecular dynamics at constant energy:", markdown_table(("", ""), rows) if rows else NOT_TRIED]
