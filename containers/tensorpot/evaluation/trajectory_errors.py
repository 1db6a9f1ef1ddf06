"""`trajectory_errors`: errors of the student on structures of its own molecular dynamics, which the teacher labelled.

By run and by extrapolation grade γ: a user sees which errors to expect where a simulation reports such a grade.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ase import Atoms

from containers.arrays import Floats
from containers.contract import Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.metrics import MILLI, errors
from containers.structures.table import read_atoms
from containers.tensorpot.evaluation.error_tables import Compared
from containers.tensorpot.evaluation.evaluate import compare, perfect
from containers.tensorpot.evaluation.stability import LEVELS

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {
    "potential": "the student with its core (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "trajectory": "the runs (trajectory.json)",
    "structures": "their frames (Parquet of STRUCTURES)",
    "labels": Optional("the teacher's labels of the frames (Parquet of LABELS); left out: no frame has one"),
    "rejected": Optional("frames without a label that keeps the bounds, and why (Parquet, of pool_labels)"),
}
OUTPUTS = {"trajectory_errors": "trajectory_errors.json"}  # {"runs", "by_gamma", "frames"}


class Params(Closed):
    """No parameters."""


class Metrics(StepMetrics):
    """Rows for the report: one for each run, each range of γ that has atoms, and each frame."""

    runs: list[dict[str, Any]]
    by_gamma: list[dict[str, Any]]
    frames: list[dict[str, Any]]


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write errors of each run and each range of γ, and those of every frame."""
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    labelled = labelled_frames(inputs)
    return _write(inputs, outputs, labelled, [compare(atoms, student) for atoms in labelled])


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a student without errors."""
    labelled = labelled_frames(inputs)
    return _write(inputs, outputs, labelled, [perfect(atoms) for atoms in labelled])


def labelled_frames(inputs: Inputs) -> list[Atoms]:
    """Return the frames that have a label."""
    return [atoms for path in inputs.all("labels") for atoms in read_atoms(path)]


def errors_of(compared: Sequence[Compared]) -> dict[str, Any]:
    """Return errors, counts and the teacher's mean force component of some frames; None where there are none."""
    energies, forces = (paired(compared, quantity) for quantity in ("energy_eV_per_atom", "force_eV_per_A"))
    return {
        "labelled": len(compared),
        "gamma_max": max((float(one.gamma.max()) for one in compared), default=None),
        "teacher_force_size_meV_per_A": float(MILLI * np.abs(forces[0]).mean()) if forces.size else None,
        **errors("energy", "meV_per_atom", *energies),
        **errors("force", "meV_per_A", *forces),
    }


def by_gamma(compared: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return the errors in each range of γ that has atoms: forces of its atoms, energies of the frames whose largest γ
    is in it."""
    energies, forces = (paired(compared, quantity) for quantity in ("energy_eV_per_atom", "force_eV_per_A"))
    place_of_frame = np.searchsorted(LEVELS, [one.gamma.max() for one in compared])
    place_of_atom = np.searchsorted(LEVELS, np.concatenate([np.zeros(0), *(one.gamma for one in compared)]))
    return [
        {
            "gamma_above": LEVELS[place - 1] if place else None,
            "gamma_up_to": LEVELS[place] if place < len(LEVELS) else None,
            "atoms": int((place_of_atom == place).sum()),
            **errors("force", "meV_per_A", *forces[:, np.repeat(place_of_atom == place, 3)]),
            "frames": int((place_of_frame == place).sum()),
            **errors("energy", "meV_per_atom", *energies[:, place_of_frame == place]),
        }
        for place in sorted(set(place_of_atom.tolist()))
    ]


def paired(compared: Sequence[Compared], quantity: str) -> Floats:
    """Return (2, n): reference and student, all frames one after the other."""
    return np.concatenate([np.zeros((2, 0)), *(np.stack(one.values[quantity]) for one in compared)], axis=1)


def _write(inputs: Inputs, outputs: Path, labelled: Sequence[Atoms], compared: Sequence[Compared]) -> dict[str, Any]:
    runs = json.loads(inputs.one("trajectory").read_bytes())["runs"]
    group_of = {one["id"]: one["group"] for one in pq.read_table(inputs.one("structures")).to_pylist()}
    rejected = [row for path in inputs.all("rejected") for row in pq.read_table(path).to_pylist()]
    rows = []
    for one in runs:
        mine = [found for found in compared if found.group == one["run"]]
        reasons = Counter(row["reason"] for row in rejected if group_of[row["id"]] == one["run"])
        commonest = next(iter(reasons.most_common(1)), (None, 0))[0]
        set_aside = {"set_aside": one["frames"] - len(mine), "set_aside_because": commonest}
        rows.append({**one, **errors_of(mine), **set_aside})
    timestep_ps = {one["run"]: one["timestep_fs"] / 1000 for one in runs}
    frames = [
        {
            "run": one.group,
            "time_ps": float(atoms.info["row"] * timestep_ps[one.group]),
            "gamma_max": float(one.gamma.max()),
            "energy_error_meV_per_atom": float(MILLI * (one.energies[1] - one.energies[0])),
            "force_rmse_meV_per_A": errors_of([one])["force_rmse_meV_per_A"],
        }
        for atoms, one in zip(labelled, compared, strict=True)
    ]
    report = {"runs": rows, "by_gamma": by_gamma(compared), "frames": frames}
    (outputs / OUTPUTS["trajectory_errors"]).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return report
