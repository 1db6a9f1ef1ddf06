"""Step `mace_label`: energy, forces and stress of every structure from the teacher."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, StepMetrics
from containers.mace.labelling.batches import DEFAULT_BOUND
from containers.mace.labelling.predictions import Provenance, answer_rows, first_of_each, set_aside_rows, stub_rows
from containers.processes import processes_for
from containers.structures.table import atoms_from_table, list_lengths, write_table

IMAGE: Image = "mace"
VERSION = 3
INPUTS = {"structures": "Parquet of STRUCTURES to label", "model": "the teacher, a MACE model"}
OUTPUTS = {"labels": "labels.parquet", "set_aside": "set_aside.parquet"}

Dtype = Literal["float32", "float64"]
LABEL_VERSIONS: dict[Dtype, int] = {"float32": 3, "float64": 2}
"""Part of the key of stored labels; the version in which labels of a dtype changed last. Version 3 adds the E0s in
float64, which leaves labels in float64 as they were."""


class Params(Closed):
    """Head and arithmetic of the teacher."""

    head: str = Field(description="readout of the teacher, one of those in teacher.json (see `choose_head`)")
    dtype: Dtype = Field(
        "float32",
        description="arithmetic of the teacher; float32 is about twice as fast and differs by some 1e-5 eV/atom,"
        " a hundredth of what an ACE fit leaves",
    )


class Metrics(StepMetrics):
    """What the labelling of a shard says of the machine's speed."""

    edges: int = 0
    edges_per_s: float = 0.0
    edges_per_batch: int
    calibration: dict[str, float]  # edges of a batch -> edges a second


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Label each structure once. Rows keep the order of the input; one that no machine can label has a reason, one
    that this machine has no memory for is set aside.

    Two runs on a CPU with the same `edges_per_batch` give the same bytes, with any number of threads, unless memory
    ends. On a GPU sums are done in any order, and the last digits of the dtype differ; so they do with other batches.

    Raises:
        BadInput: the model is not a MACE model, or its head is unknown.
        StepError: no such device, or the acceleration is not admitted.
    """
    started = time.monotonic()
    table = first_of_each(pq.read_table(inputs.one("structures")))
    structures = atoms_from_table(table)
    read = time.monotonic()
    from containers.mace.labelling.labeller import LabelSettings  # loads torch, which counts as start
    from containers.mace.labelling.shard import label_shard

    given = machine.resources
    bound, known = given.edges_per_batch or DEFAULT_BOUND, given.edges_per_batch is not None
    settings = LabelSettings(inputs.one("model"), params.head, params.dtype, bound, given.device, given.acceleration)
    processes = processes_for(given.threads)
    shard = label_shard(settings, structures, processes, calibrated=known, progress=machine.progress)
    labelled, throughput = shard.labelled, shard.calibration.throughput
    done = time.monotonic()
    rows = answer_rows(table, labelled, Provenance(given.device, given.acceleration, version("mace-torch")))
    write_table(outputs / OUTPUTS["labels"], rows)
    write_table(outputs / OUTPUTS["set_aside"], set_aside_rows(table, labelled.answers))
    return {
        **_counts(table, rows, labelled.total_edges, shard.seconds),
        "processes": shard.processes,
        "edges_per_batch": shard.bound,
        "calibration": {str(bound): round(speed, 1) for bound, speed in sorted(throughput.items())},
        "parity": shard.parity,
        "seconds_neighbours": round(labelled.seconds_neighbours / shard.processes, 3),
        "seconds_model": round(labelled.seconds_model / shard.model_processes, 3),
        "seconds_start": round(done - read - shard.seconds, 3),
        "seconds_io": round(read - started + time.monotonic() - done, 3),
        "device": given.device,
        "acceleration": given.acceleration,
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write labels of a world without interaction: -1 eV for each atom, no forces, no stress."""
    started = time.monotonic()
    table = first_of_each(pq.read_table(inputs.one("structures")))
    read = time.monotonic()
    rows = stub_rows(table)
    made = time.monotonic()
    write_table(outputs / OUTPUTS["labels"], rows)
    write_table(outputs / OUTPUTS["set_aside"], set_aside_rows(table, [""] * len(table)))
    counts = _counts(table, rows, 0, made - read)
    machine.progress(len(rows), len(rows), f"{len(rows)} structures, {counts['atoms']} atoms")
    return {
        **counts,
        "processes": 1,
        "edges_per_batch": machine.resources.edges_per_batch or DEFAULT_BOUND,
        "calibration": {},
        "parity": {},
        "seconds_start": 0.0,
        "seconds_neighbours": 0.0,
        "seconds_model": round(made - read, 3),
        "seconds_io": round(read - started + time.monotonic() - made, 3),
        "device": machine.resources.device,
        "acceleration": machine.resources.acceleration,
    }


def _counts(structures: pa.Table, rows: pa.Table, edges: int, seconds: float) -> dict[str, Any]:
    """Return counts, and speeds of the labelling itself: without start, reading and writing."""
    refused, atoms = rows.column("energy").null_count, int(list_lengths(structures.column("numbers")).sum())
    amounts = {"structures": len(structures), "atoms": atoms, "edges": edges}
    return {
        "structures": len(structures),
        "labels": len(rows) - refused,
        "refused": refused,
        "set_aside": len(structures) - len(rows),
        "atoms": atoms,
        **{f"{name}_per_s": round(amount / max(seconds, 1e-9), 3) for name, amount in amounts.items()},
        "edges": edges,
    }
