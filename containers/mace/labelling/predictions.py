"""The teacher's answer for each structure, a label or the reason for none, and the two tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from containers.arrays import Floats
from containers.labels.rows import ROWS, binary_ids, firsts
from containers.structures.table import flat, list_lengths

SET_ASIDE = pa.schema([("id", pa.binary(32)), ("reason", pa.string())])
"""Structures that this machine could not label. Never kept: a larger machine tries again."""

STUB_ENERGY = -1.0  # eV per atom
STUB_VERSION = "stub"


@dataclass(frozen=True)
class Label:
    """Label of one structure: eV, eV/Å [N, 3], eV/Å³ Voigt [6] (None unless fully periodic)."""

    energy: float
    forces: Floats
    stress: Floats | None

    @property
    def finite(self) -> bool:
        """True if every number of it is finite."""
        stress = () if self.stress is None else self.stress
        return bool(np.isfinite(self.energy) and np.isfinite(self.forces).all() and np.isfinite(stress).all())


class Unlabelled(str):
    """The reason why this machine has no label for a structure; another one may have."""

    __slots__ = ()


Answer = Label | str
"""A label, or the reason for none: an `Unlabelled` of this machine, or else of any."""


@dataclass
class Predictions:
    """Answers for a run of structures in their order, and the seconds they took."""

    answers: list[Answer]
    edges: list[int | None]  # neighbour pairs; None without a neighbour list
    shortest_A: list[float | None]  # shortest pair within the cutoff
    bound: int  # edges of a batch at the end
    seconds_neighbours: float = 0.0  # summed over processes
    seconds_model: float = 0.0

    @classmethod
    def empty(cls, count: int, bound: int) -> Predictions:
        """Make places for `count` answers."""
        return cls([Unlabelled("not labelled")] * count, [None] * count, [None] * count, bound)

    def put(self, places: Sequence[int], found: Predictions) -> None:
        """Put the answers into `places` and add their seconds; the lower bound stays."""
        for place, answer, edges, shortest in zip(places, found.answers, found.edges, found.shortest_A, strict=True):
            self.answers[place], self.edges[place], self.shortest_A[place] = answer, edges, shortest
        self.bound = min(self.bound, found.bound)
        self.seconds_neighbours += found.seconds_neighbours
        self.seconds_model += found.seconds_model

    @property
    def total_edges(self) -> int:
        """Neighbour pairs of all."""
        return sum(edges or 0 for edges in self.edges)


@dataclass(frozen=True)
class Provenance:
    """Device, kernels and version that computed rows."""

    device: str
    acceleration: str
    mace_version: str


def first_of_each(structures: pa.Table) -> pa.Table:
    """Return the first row of each id, in order."""
    first = firsts(binary_ids(structures))
    return structures if first.all() else structures.filter(pa.array(first))


def answer_rows(structures: pa.Table, labelled: Predictions, provenance: Provenance) -> pa.Table:
    """Return the teacher's answers but those set aside, in the order of `structures` (schema ROWS)."""
    places = [place for place, answer in enumerate(labelled.answers) if not isinstance(answer, Unlabelled)]
    answers = [labelled.answers[place] for place in places]
    labels = [answer if isinstance(answer, Label) else None for answer in answers]
    columns = {
        "id": binary_ids(structures.column("id").take(pa.array(places, pa.int64()))),
        "energy": [label and label.energy for label in labels],
        "forces": [label and label.forces.ravel() for label in labels],
        "stress": [label and label.stress for label in labels],
        "edges": [labelled.edges[place] for place in places],
        "min_distance_A": [labelled.shortest_A[place] for place in places],
        "reason": [answer if isinstance(answer, str) else None for answer in answers],
    }
    return _rows(columns, provenance)


def set_aside_rows(structures: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """Return id and reason of each structure set aside, in the order of `structures` (schema SET_ASIDE)."""
    aside = [isinstance(answer, Unlabelled) for answer in answers]
    ids = binary_ids(structures.column("id").filter(pa.array(aside, pa.bool_())))
    reasons = [str(answer) for answer in answers if isinstance(answer, Unlabelled)]
    return pa.table({"id": ids, "reason": pa.array(reasons, pa.string())}, schema=SET_ASIDE)


def stub_rows(structures: pa.Table) -> pa.Table:
    """Make labels of a world without interaction: -1 eV for each atom, no forces, no stress, no neighbours counted."""
    counts = list_lengths(structures.column("numbers"))
    stressed = flat(structures.column("pbc")).reshape(-1, 3).all(axis=1)
    starts = pa.array(np.concatenate([[0], np.cumsum(3 * counts)]), pa.int32())
    zeros = pa.array(np.zeros(6 * len(counts)))
    columns = {
        "id": binary_ids(structures.column("id")),
        "energy": STUB_ENERGY * counts,
        "forces": pa.ListArray.from_arrays(starts, pa.array(np.zeros(3 * counts.sum()))),
        "stress": pa.FixedSizeListArray.from_arrays(zeros, 6, mask=pa.array(~stressed)),
        **dict.fromkeys(("edges", "min_distance_A", "reason"), pa.nulls(len(counts))),
    }
    return _rows(columns, Provenance("cpu", "none", STUB_VERSION))


def _rows(columns: dict[str, Iterable[object]], provenance: Provenance) -> pa.Table:
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    cast = {name: arrays[name].cast(ROWS.field(name).type) for name in arrays}
    count = len(arrays["id"])
    how = {name: pa.repeat(getattr(provenance, name), count) for name in ("device", "acceleration", "mace_version")}
    return pa.table({**cast, **how}, schema=ROWS)
