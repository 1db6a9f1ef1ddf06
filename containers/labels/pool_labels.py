"""Step `pool_labels`: a pool's labels from the label stores of its teachers; what nothing should learn is set aside.

It opens only Arrow files that we wrote, and runs in the flow's own process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

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
"""Kind of a rejection -> what is said of structures that met it."""


class Params(Closed):
    """Whose labels, and which of them to take."""

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
    rejected_by: dict[str, int]  # by the words of REASONS


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Read the labels, average them, and part the pool into labelled and rejected. Both keep the pool's order.

    Raises:
        BadInput: there is no structure, or none of them has a label that keeps the bounds.
        StepError: a structure is in no label store, or its stored label does not fit it.
    """
    stores = [LabelRows(files) for files in _files_of(inputs.all("labels"), params.teachers)]
    pool = pq.ParquetFile(inputs.one("structures"))
    tally = Tally()
    with _Writer(outputs, _elements(pool), several=len(stores) > 1) as writer:
        for structures in _first_of_each(pool):
            writer.write(*_judged(structures, stores, params, tally))
            machine.progress(tally.structures, pool.metadata.num_rows, f"{tally.labels} structures with a label")
    _check_any(tally)
    return tally.metrics()


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """The same: it is fast, and only the rows in the label stores of a stub run are made up."""
    return run(inputs, outputs, params, machine)


def _files_of(files: Sequence[Path], teachers: Sequence[str]) -> list[list[Path]]:
    """The files of each teacher, told apart by the folder of its label store."""
    found: dict[str, list[Path]] = {teacher[:FOLDER_DIGITS]: [] for teacher in teachers}
    for path in files:
        folder = path.parent.parent.name
        if folder not in found:
            raise StepError(f"{path} is in the label store of no teacher of this request")
        found[folder].append(path)
    return list(found.values())


def _elements(pool: pq.ParquetFile) -> tuple[int, ...]:
    """Atomic numbers of the pool, in the order of MLIP's types: one for the whole file."""
    found: set[int] = set()
    for batch in pool.iter_batches(batch_size=BATCH, columns=["numbers"]):
        found.update(np.unique(flat(pa.chunked_array([batch["numbers"]]))).tolist())
    return element_order(found)


def _first_of_each(pool: pq.ParquetFile) -> Iterator[pa.Table]:
    """The structures in turns, each id once."""
    first = firsts(binary_ids(pool.read(columns=["id"])))
    start = 0
    for batch in pool.iter_batches(batch_size=BATCH, columns=STRUCTURES.names):  # DFT data have labels of their own
        yield pa.Table.from_batches([batch]).filter(pa.array(first[start : start + len(batch)]))
        start += len(batch)


class _Rejection(NamedTuple):
    reason: str
    kinds: tuple[str, ...]


class _Sieve:
    """Structures, and what is said against those that fell through so far.

    Attributes:
        left: the structures with nothing against them, in order.
    """

    def __init__(self, structures: pa.Table) -> None:
        self.left = structures
        self._structures = structures
        self._places = np.arange(structures.num_rows)
        self._against: dict[int, _Rejection] = {}

    def reject(self, found: Mapping[int, _Rejection]) -> pa.Array:
        """Drop structures by their place in `left`; returns which of `left` stay."""
        self._against |= {int(self._places[place]): rejection for place, rejection in found.items()}
        stay = np.ones(len(self._places), dtype=bool)
        stay[list(found)] = False
        self._places, stays = self._places[stay], pa.array(stay)
        self.left = self.left.filter(stays) if found else self.left
        return stays

    def rejected(self) -> pa.Table:
        """The rows of REJECTED, in order."""
        places = sorted(self._against)
        reasons = pa.array([self._against[place].reason for place in places], pa.string())
        rows = self._structures.select(REJECTED.names[:-1]).take(pa.array(places, pa.int64()))
        return rows.append_column("reason", reasons).cast(REJECTED)

    def kinds(self) -> Counter[str]:
        """How often each kind of reason was given; a structure may have several."""
        return Counter(kind for rejection in self._against.values() for kind in rejection.kinds)


def _judged(
    structures: pa.Table, stores: Sequence[LabelRows], params: Params, tally: Tally
) -> tuple[pa.Table, pa.Table]:
    """The labelled rows and the rejected rows of some structures, which are counted."""
    sieve = _Sieve(structures)
    columns = _sifted(sieve, stores, params, tally)
    labelled = sieve.left
    tally.count(structures, labelled.num_rows, sieve.kinds())
    for name, column in columns.items():
        labelled = labelled.append_column(name, column)
    return labelled, sieve.rejected()


def _sifted(sieve: _Sieve, stores: Sequence[LabelRows], params: Params, tally: Tally) -> dict[str, pa.Array]:
    """Drop every structure that has no good label; returns the label columns of the others."""
    ids = sieve.left["id"].to_pylist()
    absent = {place: params.unlabelled[one] for place, one in enumerate(ids) if one in params.unlabelled}
    sieve.reject({place: _Rejection(reason, ("memory",)) for place, reason in absent.items()})
    members = [store.take(binary_ids(sieve.left)) for store in stores]
    refused = {place: reason for place, reason in enumerate(refusals(members)) if reason}
    answered = sieve.reject({place: _Rejection(reason, (_refusal(reason),)) for place, reason in refused.items()})
    numbers = sieve.left["numbers"]
    labels = mean_labels([member.filter(answered) for member in members] if refused else members, numbers)
    figures = measure(numbers, labels, params.e0s_eV)
    tally.measure(figures)
    wrong = broken(figures, params.bounds, params.max_force_std)
    good = sieve.reject({place: _Rejection("; ".join(why.values()), tuple(why)) for place, why in wrong.items()})
    return {name: column.filter(good) for name, column in labels.columns().items()}


def _refusal(reason: str) -> str:
    """The kind of a stored reason; that of a committee names the member before it."""
    return "not_finite" if NOT_FINITE in reason else "teacher"


class _Writer:
    """The outputs, written batch by batch; their bytes depend on the content alone."""

    def __init__(self, outputs: Path, elements: Sequence[int], several: bool) -> None:
        self.schema = pa.schema([*LABELS, *(DEVIATIONS if several else ())])
        self._open = ExitStack()
        self._labels = self._parquet(outputs / OUTPUTS["labels"], self.schema)
        self._rejected = self._parquet(outputs / OUTPUTS["rejected"], REJECTED)
        self._extxyz = self._open.enter_context((outputs / OUTPUTS["extxyz"]).open("wb"))
        self._cfg = self._open.enter_context((outputs / OUTPUTS["cfg"]).open("wb"))
        self._elements = elements

    def _parquet(self, path: Path, schema: pa.Schema) -> pq.ParquetWriter:
        return self._open.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def write(self, labelled: pa.Table, rejected: pa.Table) -> None:
        """Append rows."""
        if rejected.num_rows:
            self._rejected.write_table(rejected)
        if labelled.num_rows:
            self._labels.write_table(labelled.cast(self.schema))
            write_frames(self._extxyz, labelled)
            write_configurations(self._cfg, labelled, self._elements)


def _check_any(tally: Tally) -> None:
    """Raise `BadInput` when there is nothing to learn from."""
    if tally.structures == 0:
        raise BadInput("there is no structure in the pool: give files that have some (pool.files)")
    if tally.labels == 0:
        told = ", ".join(f"{count} {REJECTIONS[kind]}" for kind, count in sorted(tally.kinds.items()))
        raise BadInput(f"none of the {tally.structures} structures of the pool has a label to learn from: {told}")
