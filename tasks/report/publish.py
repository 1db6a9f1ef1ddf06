"""The result of a run: its folder with the potential, the report and the fits, and the texts of its artifacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from containers.tensorpot.fit import draw as draw_rows
from containers.tensorpot.pacemaker.input import START_FILE, TRAIN_FILE, VALIDATION_FILE
from containers.tensorpot.pacemaker.program import INPUT_FILE
from tasks.report import card, plots, property_plots, structure_plots, trajectory
from tasks.report.page import artifacts, page
from tasks.report.run_folder import json_text, publish_files
from tasks.report.summary import CALCULATOR, PROPERTIES, PUBLISHED, FitFiles, RunSummary
from tasks.report.usage import kind_of_e0s, lammps_input, ml_peg

PARITY_COLUMNS = ["against", "id", "quantity", "reference", "predicted", "gamma"]
FOLDER = "fit"
WHOLE_FILE = "whole.pckl.gzip"
DRAW = Path(draw_rows.__file__)


def draw(summary: RunSummary) -> dict[str, bytes]:
    """Draw the pictures of a run; those without data are left out."""
    courses = [
        plots.Course(one.name.removeprefix("pace_train "), one.stage, pq.read_table(one.history), one.best_iteration)
        for one in summary.attempts
        if one.history
    ]
    points = pq.read_table(summary.files["parity"], columns=PARITY_COLUMNS)
    drawn, histogram = {}, summary.metrics("pool_labels").get("force_histogram_eV_per_A", {})
    if histogram.get("counts"):
        bound = summary.config.get("labels", {}).get("max_force_eV_per_A")
        drawn["forces"] = plots.forces(histogram, bound)
    if any(found.get("after") for found in summary.selection.grades.values()):
        drawn["grades"] = plots.grades(summary.selection.grades)
    if courses:
        drawn["learning-curve"] = plots.learning_curve(courses)
    for against in ("teacher", "dft"):
        if summary.fidelity[against]:
            drawn[f"parity-{against}"] = plots.parity(points, against)
    if summary.fidelity["teacher"]:
        drawn["error-against-gamma"] = plots.error_against_gamma(points)
    if summary.properties:
        teacher, student = summary.properties
        drawn |= {f"crystal-{number}": png for number, png in enumerate(property_plots.crystals(teacher, student))}
        if teacher.dimers:
            drawn["dimers"] = property_plots.dimers(teacher.dimers, student.dimers)
    if frames := summary.metrics("trajectory_errors").get("frames"):
        drawn["trajectory"] = trajectory.picture(frames)
    if (found := summary.metrics("teacher_motion")) and not found.get("failed"):
        drawn["motion"] = trajectory.motion_picture(found)
    if summary.exploration and "explored" in summary.files:
        drawn["explored"] = structure_plots.structures(pq.read_table(summary.files["explored"]).slice(0, 2).to_pylist())
    if summary.repulsion:
        drawn["core-repulsion"] = plots.core_repulsion(summary.repulsion)
    return drawn


def publish(summary: RunSummary, folder: Path, draw: Callable[[RunSummary], dict[str, bytes]] = draw) -> dict[str, str]:
    """Write `folder` as a whole; return the Markdown of each artifact by its key.

    Store files are copied, so that editing the run folder cannot damage the store. Files of the user's own in a
    folder published before stay.

    Raises:
        UserError, StoreError: see `publish_folder`.
    """
    drawn = draw(summary)
    contents = {
        "in.lammps": lammps_input(summary),
        "ml_peg.yml": ml_peg(summary),
        f"{FOLDER}/README.md": fit_readme(summary.fits, summary.attempts[summary.chosen].best_iteration),
        "report.html": page(summary, drawn),
        "report.json": json_text(report_json(summary)),
    }
    names = [*PUBLISHED, *(name for name in PROPERTIES if name in summary.files)]
    copies = {name: summary.files[name] for name in names} | {"calculator.py": CALCULATOR}
    publish_files(folder, {**copies, **fit_files(summary.fits)}, contents, manifest_json(summary))
    return artifacts(summary, drawn)


def report_json(summary: RunSummary) -> dict[str, Any]:
    """report.json: the figures of the run; units in the keys.

    Its parts are the values of `tasks.report.summary`: `train.attempts` has an `AttemptSummary` each, with the errors
    of its best and of its last potential; `train.chosen` is the place of the published one, from 0. `card` has the
    verdict on each section.
    """
    attempts = [attempt.model_dump(mode="json", exclude={"history"}) for attempt in summary.attempts]
    return {
        "name": summary.name,
        "stub": summary.stub,
        "converged": summary.converged,
        "not_converged_because": summary.not_converged_because,
        "card": [one._asdict() for one in card.judge(summary)],
        "thresholds": summary.thresholds,
        "elements": list(summary.elements),
        "baseline": summary.baseline.model_dump(mode="json"),
        "labels": summary.labels.model_dump(),
        "labelling": summary.labelling.model_dump(),
        "selection": summary.selection.model_dump(mode="json"),
        "train": {"attempts": attempts, "chosen": summary.chosen},
        "extensions": summary.extensions and summary.extensions.model_dump(mode="json"),
        "exploration": summary.exploration and summary.exploration.model_dump(mode="json"),
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


def fit_files(fits: Sequence[FitFiles]) -> dict[str, Path]:
    """Name in the run folder -> file that is copied there."""
    found: dict[str, Path] = {}
    for fit in fits:
        inside = {INPUT_FILE: fit.input_yaml, VALIDATION_FILE: fit.validation}
        if fit.bootstrap is None:
            inside[TRAIN_FILE] = fit.train
        else:
            inside |= {WHOLE_FILE: fit.train, DRAW.name: DRAW}
        if fit.start_yaml is not None:
            inside[START_FILE] = fit.start_yaml
        found |= {f"{FOLDER}/{fit.folder}/{name}": path for name, path in inside.items()}
    return found


def fit_readme(fits: Sequence[FitFiles], best_iteration: int | None) -> str:
    """README.md of the folder.

    Args:
        best_iteration: of the last fit, whose potential is published.
    """
    rows = [f"| `{fit.folder}` | {fit.attempt} | {fit.start or 'nothing: all functions are new'} |" for fit in fits]
    first = fits[0]
    drawing = "" if first.bootstrap is None else f"python draw.py {first.bootstrap}    # draws the training rows\n"
    return f"""# The fits that led to the potential

Each folder has all that pacemaker reads. Repeat a fit in it:

```
cd {first.folder}
{drawing}pacemaker --no-predict input.yaml
```

| folder | attempt of the report | starts from |
|---|---|---|
{chr(10).join(rows)}

- A start is in the folder as `{START_FILE}`, so each fit can be repeated without those before it.
- `../potential.yaml` is the potential of iteration {best_iteration} of the last folder, the best on the validation
  frame. It also has a core repulsion, added after the fit. `interim_potential_0.yaml` of pacemaker has none.
- On one machine, one thread gives the same losses to the last digit. Other numbers of threads change the last digits,
  and a long fit amplifies that. A fit that was interrupted and resumed (see the report) differs more.
- Set `TF_USE_LEGACY_KERAS=1`. `OMP_NUM_THREADS`, `TF_NUM_INTRAOP_THREADS` and `TF_NUM_INTEROP_THREADS` set the threads.
- To repeat a fit again, remove `metrics.txt` and `test_metrics.txt` first: pacemaker appends to them.
- `*.pckl.gzip` are pickles: loading one runs its code, so load only those of people you trust. They need about the
  numpy and pandas of `../manifest.json`. `../frames.extxyz` has the structures of the last fit as text.
"""
