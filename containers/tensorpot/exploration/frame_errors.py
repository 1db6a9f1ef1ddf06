"""`frame_errors`: errors of the student on frames of its own explorations, which the teacher labelled.

The frames are those that an exploration keeps whatever their grade, so that the errors are those of the places where
the student goes, and not of those where it is known to extrapolate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from containers.contract import Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.tensorpot.evaluation.error_tables import Compared
from containers.tensorpot.evaluation.evaluate import compare, perfect
from containers.tensorpot.evaluation.trajectory_errors import errors_of, labelled_frames

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {
    "potential": "the student with its core (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "structures": "the frames (Parquet of STRUCTURES), one `source` for each run",
    "labels": Optional("the teacher's labels of the frames (Parquet of LABELS); left out: no frame has one"),
    "rejected": Optional("frames without a label that keeps the bounds, and why (Parquet, of pool_labels)"),
}
OUTPUTS = {"frame_errors": "frame_errors.json"}  # {"all", "runs"}


class Params(Closed):
    """No parameters."""


class Metrics(StepMetrics):
    """Errors of all frames together, and a row for each run by its `source`."""

    all: dict[str, Any]
    runs: list[dict[str, Any]]


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the errors of each run."""
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    return _write(inputs, outputs, [compare(atoms, student) for atoms in labelled_frames(inputs)])


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a student without errors."""
    return _write(inputs, outputs, [perfect(atoms) for atoms in labelled_frames(inputs)])


def _write(inputs: Inputs, outputs: Path, compared: Sequence[Compared]) -> dict[str, Any]:
    source_of = {row["id"]: row["source"] for row in pq.read_table(inputs.one("structures")).to_pylist()}
    rejected = [row for path in inputs.all("rejected") for row in pq.read_table(path).to_pylist()]
    rows = []
    for source, frames in sorted(Counter(source_of.values()).items()):
        mine = [one for one in compared if source_of[one.id] == source]
        reasons = Counter(row["reason"] for row in rejected if source_of[row["id"]] == source)
        commonest = next(iter(reasons.most_common(1)), (None, 0))[0]
        set_aside = {"set_aside": frames - len(mine), "set_aside_because": commonest}
        rows.append({"source": source, "frames": frames, **errors_of(mine), **set_aside})
    found = {"all": errors_of(compared), "runs": rows}
    (outputs / OUTPUTS["frame_errors"]).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found
