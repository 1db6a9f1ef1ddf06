"""Step `pool_labels`: a pool's labels from the label stores of its teachers; bad labels are set aside with a reason.

It opens only Arrow files that we wrote, and runs in the flow's own process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepError, StepMetrics
from containers.formats.extxyz import write_frames
from containers.formats.mlip_cfg import element_order, write_configurations
from containers.labels.bounds import Sanity, Tally, broken, measure
from containers.labels.ensemble import mean_labels, refusals
from containers.labels.rows import FOLDER_DIGITS, NOT_FINITE, LabelRows, binary_ids, firsts
from containers.structures.table import LABELS, STRUCTURES, flat

IMAGE: Image = "mace"
VERSION = 3
INPUTS = {
    "structures": "Parquet of STRUCTURES; of structures that are there twice the first counts",
    "labels": Optional(
        "files of the teachers' label stores, each in KEY/FOLDER/ where KEY begins the teacher's digest"
    ),
}
OUTPUTS = {
    "labels": "labels.parquet",
    "rejected": "rejected.parquet",
    "extxyz": "labels.extxyz",
    "cfg": "labels.cfg",  # for MLIP; its types are the pool's elements, sorted by symbol
}

REJECTED = pa.schema([*(STRUCTURES.field(name) for name in ("id", "source", "row")), ("reason", pa.string())])
DEVIATIONS = (("energy_std", pa.float64()), ("forces_std", pa.list_(pa.float64())))  # eV; eV/Å, N*3
BATCH = 2_000  # structures at once
REJECTIONS = {
    "committee": "on which the committee disagrees (teacher.max_force_std)",
    "distance": "with atoms too close (labels.min_distance_A)",
    "energy": "with too large an energy (labels.max_energy_eV_per_atom)",
    "force": "with too large a force (labels.max_force_eV_per_A)",
    "memory": "that did not fit in memory (label on a machine with more)",
    "not_finite": "whose label is not finite (try teacher.dtype float64, or another teacher)",
    "teacher": "that the teacher cannot label (does it know the elements?)",
}
"""Kind of a rejection -> words for the structures that met it."""


class Params(Closed):
    """The teachers whose labels are taken, and the bounds of a good label."""

    teachers: tuple[str, ...] = Field(min_length=1, description="digests (TeacherKey) of the committee's members")
    bounds: Sanity = Sanity()
    max_force_std: float | None = Field(
        None, gt=0, description="largest deviation of a force vector within the committee, eV/Å; None: any"
    )
    e0s_eV: dict[str, float] = Field(description="element -> reference energy, the mean over the committee, eV")
    unlabelled: dict[str, str] = Field(
        {}, description="structure id -> why this machine could not label it; such reasons are in no label store"
    )

    @model_validator(mode="after")
    def _a_true_committee(self) -> Params:
        if len(set(self.teachers)) < len(self.teachers):
            raise ValueError("the committee (teacher.model and teacher.committee) has the same model twice")
        if self.max_force_std is not None and len(self.teachers) == 1:
            raise ValueError("max_force_std needs a committee of at least two teachers")
        return self


class Metrics(StepMetrics):
    """How many structures have a label to learn from, and why others have none."""

    structures: int
    labels: int
    rejected: int
    rejected_by: dict[str, int]  # by the kinds of REJECTIONS


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Read the labels, average them, and part the pool into labelled and rejected. Both keep the pool's order.

    The bytes of the outputs depend on the content alone.

    Raises:
        BadInput: there is no structure, or none of them has a label that keeps the bounds.
        StepError: a structure is in no label store, or its stored label does not fit it.
    """
    files: dict[str, list[Path]] = {teacher[:FOLDER_DIGITS]: [] for teacher in params.teachers}
    for path in inputs.all("labels"):
        if (folder := path.parent.parent.name) not in files:
            raise StepError(f"{path} is in the label store of no teacher of this request")
        files[folder].append(path)
    stores = [LabelRows(paths) for paths in files.values()]
    pool = pq.ParquetFile(inputs.one("structures"))
    numbers: set[int] = set()
    for batch in pool.iter_batches(batch_size=BATCH, columns=["numbers"]):
        numbers.update(np.unique(flat(pa.chunked_array([batch["numbers"]]))).tolist())
    elements = element_order(numbers)  # one order for the whole file of MLIP
    first = firsts(binary_ids(pool.read(columns=["id"])))
    schema = pa.schema([*LABELS, *(DEVIATIONS if len(stores) > 1 else ())])
    tally, row = Tally(), 0
    with ExitStack() as stack:
        paths = {name: outputs / file for name, file in OUTPUTS.items()}
        label_file, rejected_file = (
            stack.enter_context(pq.ParquetWriter(paths[name], columns, compression="zstd"))
            for name, columns in (("labels", schema), ("rejected", REJECTED))
        )
        extxyz, cfg = (stack.enter_context(paths[name].open("wb")) for name in ("extxyz", "cfg"))
        for batch in pool.iter_batches(batch_size=BATCH, columns=STRUCTURES.names):  # DFT data have labels of their own
            structures = pa.Table.from_batches([batch]).filter(pa.array(first[row : row + len(batch)]))
            row += len(batch)
            labelled, rejected = _judge(structures, stores, params, tally)
            if rejected.num_rows:
                rejected_file.write_table(rejected)
            if labelled.num_rows:
                label_file.write_table(labelled.cast(schema))
                write_frames(extxyz, labelled)
                write_configurations(cfg, labelled, elements)
            machine.progress(tally.structures, pool.metadata.num_rows, f"{tally.labels} structures with a label")
    if tally.structures == 0:
        raise BadInput("there is no structure in the pool: give files that have some (pool.files)")
    if tally.labels == 0:
        reasons = ", ".join(f"{count} {REJECTIONS[kind]}" for kind, count in sorted(tally.kinds.items()))
        raise BadInput(f"none of the {tally.structures} structures of the pool has a label to learn from: {reasons}")
    return tally.metrics()


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Do the same: it is fast, and only the rows in the label stores of a stub run are made up."""
    return run(inputs, outputs, params, machine)


def _judge(
    structures: pa.Table, stores: Sequence[LabelRows], params: Params, tally: Tally
) -> tuple[pa.Table, pa.Table]:
    """Return the labelled rows and the rejected rows (REJECTED) of some structures, and count them."""
    against: dict[int, tuple[str, tuple[str, ...]]] = {}  # place -> reason and its kinds
    places, left = np.arange(structures.num_rows), structures

    def reject(found: dict[int, tuple[str, tuple[str, ...]]]) -> pa.Array:
        """Drop structures by their place in `left`; return a mask of those of `left` that stay."""
        nonlocal places, left
        against.update({int(places[place]): rejection for place, rejection in found.items()})
        stay = np.ones(len(places), dtype=bool)
        stay[list(found)] = False
        places, left = places[stay], left.filter(pa.array(stay))
        return pa.array(stay)

    ids = enumerate(structures["id"].to_pylist())
    reject({place: (params.unlabelled[one], ("memory",)) for place, one in ids if one in params.unlabelled})
    members = [store.take(binary_ids(left)) for store in stores]
    refused = ((place, reason) for place, reason in enumerate(refusals(members)) if reason)
    answered = reject(  # a committee's reason names the member before it
        {place: (reason, ("not_finite" if NOT_FINITE in reason else "teacher",)) for place, reason in refused}
    )
    labels = mean_labels([member.filter(answered) for member in members], left["numbers"])
    figures = measure(left["numbers"], labels, params.e0s_eV)
    tally.measure(figures)
    wrong = broken(figures, params.bounds, params.max_force_std)
    good = reject({place: ("; ".join(reasons.values()), tuple(reasons)) for place, reasons in wrong.items()})
    tally.count(structures, left.num_rows, Counter(kind for _, kinds in against.values() for kind in kinds))
    for name, column in labels.columns().items():
        left = left.append_column(name, column.filter(good))
    order = sorted(against)
    rejected = structures.select(REJECTED.names[:-1]).take(pa.array(order, pa.int64()))
    reasons = pa.array([against[place][0] for place in order], pa.string())
    return left, rejected.append_column("reason", reasons).cast(REJECTED)
