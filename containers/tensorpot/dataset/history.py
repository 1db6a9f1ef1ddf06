"""An accumulated data set as a file: its columns, its versions, and the places of its rows before more come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from containers.contract import BadInput, Closed
from containers.structures.split import Side
from containers.structures.table import LABELS, Origin, flat, list_lengths, with_state

DATASET = pa.schema(
    [
        *LABELS,
        ("origin", pa.string()),  # teacher or dft: who labelled it
        ("side", pa.string()),  # train, validation or test
        ("version", pa.int32()),  # of the set, in which the row came in
    ]
)
HISTORY = b"mace_to_ace.history"  # key in the file's metadata
WHERE = ("id", "origin", "side", "family")
AT_ONCE = 2_000  # rows
SHOWN = 12  # digits of a digest
Key = tuple[bytes, Origin]


class Version(Closed):
    """One state of a set."""

    digest: str  # of all its rows
    teacher: int  # rows that came in
    dft: int


class History(Closed):
    """Every version of a set, the first is number 1; and the teachers whose labels it holds."""

    teachers: tuple[str, ...]
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True)
class Base:
    """An earlier data set, or none (with `path` None).

    Attributes:
        sides: of the structures, by id as bytes.
        families: the side of each family.
        keys: id and origin of each row.
        digests: one a row.
    """

    path: Path | None
    history: History
    sides: dict[bytes, Side] = field(default_factory=dict)
    families: dict[str, Side] = field(default_factory=dict)
    keys: set[Key] = field(default_factory=set)
    digests: list[bytes] = field(default_factory=list)

    def tables(self) -> Iterator[pa.Table]:
        """Yield its rows in their order."""
        if self.path is not None:
            for batch in pq.ParquetFile(self.path).iter_batches(AT_ONCE):
                yield with_state(pa.Table.from_batches([batch])).cast(DATASET)

    def learn(self, table: pa.Table) -> None:
        """Take where the structures and families of rows are; `table` has the columns of WHERE."""
        for identity, origin, side, family in zip(*(table[name].to_pylist() for name in WHERE), strict=True):
            key = bytes.fromhex(identity)
            self.sides.setdefault(key, side)
            self.families.setdefault(family, side)
            self.keys.add((key, origin))


def known_places(path: Path | None) -> Base:
    """Return a base that knows where its structures and families are; its history is not read."""
    base = Base(path, History(teachers=()))
    if path:
        for batch in pq.ParquetFile(path).iter_batches(AT_ONCE, columns=list(WHERE)):
            base.learn(pa.Table.from_batches([batch]))
    return base


def read_base(files: Sequence[Path], teachers: Sequence[str]) -> Base:
    """Read the set that came before; refuses what `dataset` did not write, and labels of other teachers.

    Raises:
        BadInput: another file, one that was changed since, or one with labels of other teachers.
    """
    if not files:
        return Base(None, History(teachers=tuple(sorted(teachers))))
    path = files[0]
    try:
        with pq.ParquetFile(path) as file:
            if not with_state(file.schema_arrow.empty_table()).schema.equals(DATASET):
                raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}")
            history = History.model_validate_json((file.metadata.metadata or {}).get(HISTORY, b"no history"))
    except (pa.ArrowException, OSError, ValidationError, ValueError) as error:
        raise BadInput(
            f"base set {path.name}: not a data set of an earlier run ({error}); give the dataset.parquet of that run"
        ) from error
    base = Base(path, history)
    if set(base.history.teachers) != set(teachers):
        raise BadInput(
            f"the teacher's labels of the base set are by {_shown(base.history.teachers)}, those of this run by"
            f" {_shown(teachers)} (digests of model, head, dtype and label version): a set holds the labels of one"
            " teacher. Give the teacher of the earlier run, or start a new set without a base"
        )
    for table in base.tables():
        base.learn(table)
        base.digests.extend(row_digests(table))
    if digest_of(base.digests) != base.history.versions[-1].digest:
        raise BadInput(
            f"base set {path.name}: its rows are not those of its last version, so the file was changed since;"
            " give the file as the earlier run wrote it"
        )
    return base


def _shown(teachers: Iterable[str]) -> str:
    return ", ".join(teacher[:SHOWN] for teacher in sorted(teachers))


def digest_of(rows: Iterable[bytes]) -> str:
    """Return the digest of a set from those of its rows, the same in any order and any number of versions."""
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def row_digests(table: pa.Table) -> list[bytes]:
    """Return the sha256 of id, origin and label of each row (schema DATASET)."""
    ends = 3 * np.cumsum(list_lengths(table["numbers"]))
    forces = np.asarray(flat(table["forces"]), dtype="<f8")
    stresses = iter(np.asarray(flat(table["stress"]), dtype="<f8").reshape(-1, 6))
    columns = (table["id"].to_pylist(), table["origin"].to_pylist(), table["energy"].to_pylist())
    made = []
    for (identity, origin, energy), stressed, start, end in zip(
        zip(*columns, strict=True), table["stress"].is_valid().to_pylist(), [0, *ends[:-1]], ends, strict=True
    ):
        digest = hashlib.sha256(f"{identity} {origin} {float(energy).hex()} ".encode())
        digest.update(forces[start:end].tobytes())
        digest.update(next(stresses).tobytes() if stressed else b"")
        made.append(digest.digest())
    return made
