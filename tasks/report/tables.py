"""The figures of a run as rows of text, for the page and for the Markdown artifacts alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from containers.labels.pool_labels import REJECTIONS
from containers.structures.distances import touching
from tasks.report.summary import RunSummary

DASH = "–"
NO_BREAK = "\u00a0"
ERRORS = {
    "energy_mae_meV_per_atom": "energy MAE (meV/atom)",
    "energy_rmse_meV_per_atom": "energy RMSE (meV/atom)",
    "energy_max_meV_per_atom": "energy, largest error (meV/atom)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
    "force_rmse_meV_per_A": "force RMSE (meV/Å)",
    "force_max_meV_per_A": "force, largest error (meV/Å)",
    "stress_mae_meV_per_A3": "stress MAE (meV/Å³)",
    "stress_rmse_meV_per_A3": "stress RMSE (meV/Å³)",
    "stress_max_meV_per_A3": "stress, largest error (meV/Å³)",
}
WHERE = {
    "energy_mae_meV_per_atom": "energy MAE (meV/atom)",
    "formation_energy_mae_meV_per_atom": "formation energy MAE (meV/atom)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
    "energy_max_meV_per_atom": "largest energy error (meV/atom)",
    "force_max_meV_per_A": "largest force error (meV/Å)",
}
"""Columns of the errors by group and by composition."""
GRADES = {
    "gamma_max": "largest extrapolation grade γ",
    "gamma_share_above_1": "share of atoms that extrapolate (γ above 1)",
}
PAIR_HEAD = ("pair", "structures", "shortest (Å)", "in validation", "in test", "what training knows of it")
GRADE_HEAD = ("structures", "when", "atoms", "largest γ", "share above 1", "share above 5")


def number(value: Any) -> str:
    """Four significant digits; a dash for no number; anything else as it is written."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def percent(share: float | None) -> str:
    """A share as `5.00 %`."""
    return DASH if share is None else f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """`0.42 s`, `42 s`, `3 min 05 s`, `1 h 02 min`, held together by no-break spaces."""
    return _duration(seconds).replace(" ", NO_BREAK)


def _duration(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def threshold_rows(summary: RunSummary) -> list[tuple[str, str, str, str]]:
    """Figure, value against the teacher on the test split, the config's limit, and whether it is met."""
    teacher = summary.fidelity["teacher"] or {}
    rows = []
    for key, limit in summary.thresholds.model_dump().items():
        value = teacher.get(key)
        met = DASH if value is None else "yes" if value <= limit else "no"
        rows.append((ERRORS[key], number(value), f"at most {number(limit)}", met))
    return rows


def fidelity_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """Label, value against the teacher, value against DFT (a dash without DFT data)."""
    labels = {"structures": "structures", "atoms": "atoms", **ERRORS, **GRADES}
    teacher, dft = (summary.fidelity[against] or {} for against in ("teacher", "dft"))
    return [
        (label, _figure(key, teacher), _figure(key, dft)) for key, label in labels.items() if key in {*teacher, *dft}
    ]


def error_table(summary: RunSummary, against: str, by: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the errors by `group` or by `composition`; no rows where nothing was evaluated."""
    head = (by, "structures", *(WHERE[key] for key in WHERE))
    rows = (summary.fidelity[against] or {}).get(f"by_{by}", [])
    return head, [(row["name"], number(row["structures"]), *(number(row[key]) for key in WHERE)) for row in rows]


def formation_rows(summary: RunSummary, against: str) -> list[tuple[str, ...]]:
    """Element, the structure that formation energies are relative to, its energy by reference and student (eV/atom)."""
    found = (summary.fidelity[against] or {}).get("formation_energies", {})
    known = [
        (element, pure["id"][:12], number(pure["reference_eV_per_atom"]), number(pure["student_eV_per_atom"]))
        for element, pure in found.get("relative_to", {}).items()
    ]
    return known + [(element, "no structure of it alone", DASH, DASH) for element in found.get("missing", [])]


def _figure(key: str, figures: Mapping[str, Any]) -> str:
    value = figures.get(key)
    return percent(value) if "share" in key else number(value)


def step_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """Step, whether it came from the store, its seconds, its memory, the start of its key."""
    return [
        (
            name,
            "from the store" if step.cached else "computed",
            duration(step.seconds),
            f"{step.peak_memory_MB:,.0f} MB",
            step.key[:12],
        )
        for name, step in summary.steps.items()
    ]


def count_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Labels and selection in numbers."""
    labels, selection = summary.labels, summary.selection
    how = ", ".join(f"{number(count)} {reason}" for reason, count in selection.how.items())
    rows = [
        ("labels computed now", number(labels.computed)),
        ("labels reused", number(labels.reused)),
        ("structures rejected (see rejected.parquet)", number(labels.rejected)),
        ("labelled structures", number(selection.pool)),
        ("of them candidates for training", number(selection.candidates)),
        ("structures set aside before the fit (see set_aside.parquet)", number(selection.set_aside)),
        ("structures selected", number(selection.selected) + (f" ({how})" if how else "")),
    ]
    if selection.scarce_elements:
        rows.append(
            (
                "elements with too few environments to choose from: all that the budget allows were taken",
                ", ".join(selection.scarce_elements),
            )
        )
    return rows


def rejection_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Why structures have no label to learn from, and how many, the most frequent first."""
    counts = sorted(summary.labels.rejected_by.items(), key=lambda item: (-item[1], item[0]))
    return [(f"structures {REJECTIONS[kind]}", number(count)) for kind, count in counts]


def labelling_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """Speed of this run's labelling and where its time went; none when every label was there."""
    done = summary.labelling
    if not done.computed:
        return []
    parts = {
        "start and calibration": done.seconds_start,
        "neighbour lists": done.seconds_neighbours,
        "model": done.seconds_model,
        "reading and writing": done.seconds_io,
        "the flow's own": done.seconds_flow,
    }
    return [
        ("structures labelled per second", number(done.structures_per_s)),
        ("atoms labelled per second", number(done.atoms_per_s)),
        *((f"time of the labelling: {part}", duration(seconds)) for part, seconds in parts.items()),
    ]


def grade_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """A row of GRADE_HEAD for pool and test structures, before the selection (where data were given) and after."""
    when = {"before": "before: with DFT data and what was given", "after": "after the selection"}
    return [
        (
            of,
            told,
            number(found["atoms"]),
            number(found["max"]),
            percent(found["share_above_1"]),
            percent(found["share_above_5"]),
        )
        for of, grades in summary.selection.grades.items()
        for key, told in when.items()
        if (found := grades.get(key))
    ]


def reference_rows(summary: RunSummary) -> list[tuple[str, str]]:
    """How DFT and teacher agree on the same structures, and what was taken from DFT energies; none without DFT data."""
    step = summary.steps.get("baseline")
    if step is None or not (step.metrics.get("dft_compared") or step.metrics.get("dft_not_compared")):
        return []
    offsets = summary.baseline.dft_offsets_eV
    constants = ", ".join(f"{element} {number(value)}" for element, value in offsets.items()) or "none"
    rows = [
        ("DFT structures that the teacher labelled too", number(step.metrics["dft_compared"])),
        ("constant taken from DFT energies (eV an atom)", constants),
    ]
    if left := step.metrics.get("dft_not_compared"):
        name = "DFT structures whose units nothing checked, as the teacher has no label of them"
        rows.append((name, f"{number(left)}; the first: {step.metrics['dft_not_compared_first']}"))
    rows += [("doubtful DFT labels", warning) for warning in step.metrics.get("dft_warnings", ())]
    for name, ingested in summary.steps.items():
        if count := ingested.metrics.get("unconverged"):
            first = f"{number(count)}; the first: {ingested.metrics['unconverged_first']}"
            rows.append((f"frames not used, because their SCF did not converge ({name})", first))
    for prefix, of in (("teacher_", "training"), ("teacher_test_", "test")):
        for key in ("energy_mae_meV_per_atom", "force_mae_meV_per_A"):
            if (value := step.metrics.get(prefix + key)) is not None:
                rows.append((f"teacher against DFT {of} data: {ERRORS[key]}", number(value)))
    return rows


def pair_rows(summary: RunSummary) -> list[tuple[str, ...]]:
    """A row of PAIR_HEAD for every pair of elements: what the training frame and the other sides have within the
    cutoff; none where the frames do not say."""
    step = summary.steps.get("frames")
    pairs = step.metrics.get("pairs", {}) if step else {}
    return [
        (
            pair,
            number(sides["train"]["structures"]),
            number(sides["train"]["shortest_A"]),
            number(sides["validation"]["structures"]),
            number(sides["test"]["structures"]),
            _known(pair, sides["train"]["shortest_A"]),
        )
        for pair, sides in pairs.items()
    ]


def _known(pair: str, shortest_A: float | None) -> str:
    if shortest_A is None:
        return "nothing: its core alone, where the config has one"
    return "no bonds, only larger distances" if shortest_A > touching(pair) else "its bonds"
