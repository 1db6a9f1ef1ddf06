"""The result of a run: its folder with the potential and the report, and the texts of its artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.report import plots
from tasks.report.fit_folder import README, fit_files, fit_readme
from tasks.report.lammps import lammps_input
from tasks.report.learning_curve import Course, learning_curve
from tasks.report.page import artifacts, kind_of_e0s, page
from tasks.report.run_folder import json_text, publish_files
from tasks.report.summary import CALCULATOR, PUBLISHED, RunSummary

PARITY_COLUMNS = ["against", "quantity", "reference", "predicted"]


@dataclass(frozen=True)
class Published:
    """A published run."""

    folder: Path
    report: dict[str, Any]
    artifacts: dict[str, str]  # Markdown by artifact key


def draw(summary: RunSummary) -> dict[str, bytes]:
    """Draw the pictures of a run; those without data are left out."""
    courses = [
        Course(
            attempt.name.removeprefix("pace_train "),
            attempt.stage,
            pq.read_table(attempt.history),
            attempt.best_iteration,
        )
        for attempt in summary.attempts
        if attempt.history
    ]
    points = pq.read_table(summary.files["parity"], columns=PARITY_COLUMNS)
    drawn, histogram = {}, summary.metrics("pool_labels").get("force_histogram_eV_per_A", {})
    if histogram.get("counts"):
        bound = summary.config.get("labels", {}).get("max_force_eV_per_A")
        drawn["forces"] = plots.forces(histogram, bound)
    if any(found.get("after") for found in summary.selection.grades.values()):
        drawn["grades"] = plots.grades(summary.selection.grades)
    if courses:
        drawn["learning-curve"] = learning_curve(courses)
    for against in ("teacher", "dft"):
        if summary.fidelity[against]:
            drawn[f"parity-{against}"] = plots.parity(points, against)
    if summary.repulsion:
        drawn["core-repulsion"] = plots.core_repulsion(summary.repulsion)
    return drawn


def publish(summary: RunSummary, runs: Path, draw: Callable[[RunSummary], dict[str, bytes]] = draw) -> Published:
    """Write `runs/NAME/` as a whole and return what it says.

    Store files are copied, so that editing the run folder cannot damage the store. Files of the user's own in a
    folder published before stay.

    Raises:
        UserError: the place is taken by something that is not a folder, or cannot be written.
    """
    drawn, report, frames = draw(summary), report_json(summary), summary.metrics("frames")
    lammps = lammps_input(
        summary.name,
        summary.elements,
        summary.baseline.e0s_eV,
        bool(summary.baseline.pairs),
        str(frames["lammps_structure"]),
        int(frames["lammps_neighbours"]),
    )
    contents = {
        "in.lammps": lammps,
        README: fit_readme(summary.fits, summary.attempts[summary.chosen].best_iteration),
        "report.html": page(summary, drawn),
        "report.json": json_text(report),
    }
    copies = {name: summary.files[name] for name in PUBLISHED} | {"calculator.py": CALCULATOR}
    publish_files(runs / summary.name, {**copies, **fit_files(summary.fits)}, contents, manifest_json(summary))
    return Published(runs / summary.name, report, artifacts(summary, drawn))


def report_json(summary: RunSummary) -> dict[str, Any]:
    """report.json: the figures of the run; units in the keys.

    Its parts are the values of `tasks.report.summary`: `train.attempts` has an `Attempt` each, with the errors of its
    best and of its last potential; `train.chosen` is the place of the published one, from 0.
    """
    attempts = [attempt.model_dump(mode="json", exclude={"history"}) for attempt in summary.attempts]
    return {
        "name": summary.name,
        "stub": summary.stub,
        "converged": summary.converged,
        "not_converged_because": summary.not_converged_because,
        "thresholds": summary.thresholds,
        "elements": list(summary.elements),
        "baseline": summary.baseline.model_dump(mode="json"),
        "labels": summary.labels.model_dump(),
        "labelling": summary.labelling.model_dump(),
        "selection": summary.selection.model_dump(mode="json"),
        "train": {"attempts": attempts, "chosen": summary.chosen},
        "extensions": summary.extensions and summary.extensions.model_dump(mode="json"),
        "fidelity": summary.fidelity,
        "core_repulsion": {
            pair: {key: value for key, value in figures.items() if not isinstance(value, list)}
            for pair, figures in summary.repulsion.items()
        },
        "seconds": {
            **{name: step.seconds for name, step in summary.steps.items()},
            **{attempt.name: attempt.seconds for attempt in summary.attempts},
        },
        "cached": {name: step.cached for name, step in summary.steps.items()},
        "peak_memory_MB": {name: step.peak_memory_MB for name, step in summary.steps.items()},
        "metrics": {name: step.metrics for name, step in summary.steps.items()},
    }


def manifest_json(summary: RunSummary) -> dict[str, Any]:
    """manifest.json without the digests of the files: where the result comes from."""
    return {
        "name": summary.name,
        "config": summary.config,
        "reference_energies": {
            "from": summary.baseline.e0s_from,
            "e0s_eV": summary.baseline.e0s_eV,
            "kind": kind_of_e0s(summary),
            "median_energy_of_training_structures_less_e0s_eV_per_atom": summary.metrics("frames")[
                "energy_less_e0s_eV_per_atom"
            ],
        },
        "versions": summary.versions,
        "seeds": summary.seeds,
        "inputs": summary.inputs,
        "artefacts": {name: step.key for name, step in summary.steps.items()},
        "seconds": {name: step.seconds for name, step in summary.steps.items()},
    }
