"""The teacher's answer for each structure, a label or a reason, and the two tables they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.structures import LABELS, STRUCTURES

REJECTED = pa.schema([*(STRUCTURES.field(name) for name in ("id", "source", "row")), ("reason", pa.string())])


@dataclass(frozen=True)
class Label:
    """What the teacher says of one structure: eV, eV/Å [N, 3], eV/Å³ Voigt [6] (None unless fully periodic)."""

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None

    @property
    def finite(self) -> bool:
        """Whether every number of it is one."""
        stress = () if self.stress is None else self.stress
        return bool(np.isfinite(self.energy) and np.isfinite(self.forces).all() and np.isfinite(stress).all())


Answer = Label | str
"""A label, or why there is none."""


def labels_table(structures: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """The rows of `structures` that have a label, with it, in their order (schema LABELS)."""
    labels = [answer for answer in answers if isinstance(answer, Label)]
    kept = structures.filter(pa.array([isinstance(answer, Label) for answer in answers], pa.bool_()))
    columns = {name: kept.column(name) for name in STRUCTURES.names}
    columns["energy"] = pa.array([label.energy for label in labels], LABELS.field("energy").type)
    columns["forces"] = pa.array([label.forces.ravel() for label in labels], LABELS.field("forces").type)
    columns["stress"] = pa.array([label.stress for label in labels], LABELS.field("stress").type)
    return pa.table(columns, schema=LABELS)


def rejected_table(structures: pa.Table, answers: Sequence[Answer]) -> pa.Table:
    """id, source, row and reason of the rows without a label, in their order (schema REJECTED)."""
    reasons = [answer for answer in answers if isinstance(answer, str)]
    left = structures.filter(pa.array([isinstance(answer, str) for answer in answers], pa.bool_()))
    columns = {name: left.column(name) for name in REJECTED.names if name != "reason"}
    return pa.table({**columns, "reason": pa.array(reasons, pa.string())}, schema=REJECTED)
