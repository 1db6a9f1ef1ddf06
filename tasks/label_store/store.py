"""The labels of each teacher by structure, computed once: `STORE/labels/KEY/`.

Everything below a teacher's folder is written by this module and those it uses: `files` (their integrity, and many
small ones joined), `claims`, `checks` (of a step's output before it is believed).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from containers.contract import Closed, canonical_json, write_atomic
from containers.labels.rows import FOLDER_DIGITS, IdIndex
from tasks.label_store.checks import check_complete, checked_rows
from tasks.label_store.claims import Claim, Claims
from tasks.label_store.files import LabelFiles
from tasks.store.locks import held

TEACHER, CALIBRATION = "teacher.json", "calibration.json"


class TeacherKey(Closed):
    """All that decides a teacher's answer to a structure."""

    model: str = Field(description="sha256 of the model file")
    head: str
    dtype: str
    version: int = Field(description="of labels in this dtype (mace_label.LABEL_VERSIONS)")
    stub: bool = Field(description="whether the labels are stubs")

    @property
    def digest(self) -> str:
        """sha256 over all fields, as hex."""
        return hashlib.sha256(canonical_json(self.model_dump())).hexdigest()


class MachineSpeed(Closed):
    """Cost of labelling on one machine: for the size of shards and the bound of batches."""

    edges_per_batch: int = Field(gt=0)
    edges_per_s: float = Field(gt=0)
    throughput: dict[str, float] = Field({}, description="edges/s by the edges of a batch")


class LabelStore(LabelFiles):
    """The labels of one teacher. `root` is `STORE/labels`; with `verify` no file is trusted before its digest."""

    def __init__(self, root: Path, key: TeacherKey, verify: bool = False) -> None:
        super().__init__(root.absolute() / key.digest[:FOLDER_DIGITS], verify)
        self.key, self._claims = key, Claims(self.folder)

    def make(self) -> None:
        """Make the folders and teacher.json, which says whose labels these are."""
        super().make()
        if not (self.folder / TEACHER).exists():
            with held(self.folder / "teacher.lock"):
                write_atomic(self.folder / TEACHER, self.key.model_dump_json(indent=1).encode())

    def missing(self, ids: pa.Array) -> NDArray[np.bool_]:
        """Which of `ids` (binary(32)) have no row; those of damaged files, which are moved aside and logged, too."""
        with self.reading() as paths:
            stored = self.ids(paths).values()
        return IdIndex([words for file in stored for words in file]).find(ids) < 0

    def commit(
        self, labels: Path, ids: pa.Array, atoms: NDArray[np.int64], aside: Mapping[str, str] | None = None
    ) -> int:
        """Take over the `labels.parquet` of a labelling step; return its number of rows.

        Args:
            labels: the step's file, with a row for each of `ids` but those set aside.
            ids: binary(32), the structures that the step was given.
            atoms: of each of `ids`.
            aside: from `checked_reasons`, what the step set aside.

        Raises:
            StoreError: the file is not what such a step writes, or has a structure less or one that was set aside;
                names the row. Nothing of it is kept.
            OSError: the disk is full, say; nothing half-written stays.
        """
        rows = checked_rows(labels, ids, atoms)
        check_complete(labels, rows, ids, aside or {})
        if len(rows):
            self.make()
            self.write([rows])
        return len(rows)

    def claim(self, ids: pa.Array) -> AbstractContextManager[Claim]:
        """Take what is missing of `ids` (binary(32)) and is not taken by another live run, for this block.

        Killed or ended, a run gives back what it has not committed.
        """
        self.make()
        return self._claims.claim(ids, self.missing)

    def wait(self, ids: pa.Array, seconds: float) -> None:
        """Until no other run has a claim on any of `ids`, at most `seconds`: they are then stored, or free to claim.

        Leave the block of `claim` before: two runs that wait in theirs wait for each other.
        """
        self._claims.wait(ids, seconds)

    def calibration(self, machine: str) -> MachineSpeed | None:
        """The calibration kept of `machine`; None when there is none or it cannot be read."""
        return self._calibrations().get(machine)

    def keep_calibration(self, machine: str, value: MachineSpeed) -> None:
        """Keep what was measured on `machine` for the next run."""
        self.make()
        with held(self.folder / "calibration.lock"):
            values = {**self._calibrations(), machine: value}
            text = json.dumps({name: kept.model_dump() for name, kept in sorted(values.items())}, indent=1)
            write_atomic(self.folder / CALIBRATION, text.encode())

    def _calibrations(self) -> dict[str, MachineSpeed]:
        try:
            found = json.loads((self.folder / CALIBRATION).read_bytes())
            return {name: MachineSpeed.model_validate(value) for name, value in found.items()}
        except (FileNotFoundError, ValueError, AttributeError):  # lost or damaged: it is measured again
            return {}
