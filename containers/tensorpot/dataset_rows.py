"""Rows on their way into the data set: whole, and each structure once an origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from containers.contract import BadInput
from containers.frame_checks import same_label
from containers.structures import LABELS, flat
from containers.tensorpot.dataset_base import AT_ONCE, SHOWN

NEW = 0
"""`version` of a row that is not known to be in the set."""


def checked(files: Iterable[Path]) -> Iterator[pa.Table]:
    """The rows of tables in turns (schema LABELS).

    Raises:
        BadInput: a label does not fit its structure or is not finite; names file and frame.
    """
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(AT_ONCE, columns=LABELS.names):
                table = pa.Table.from_batches([batch]).cast(LABELS)
                _check(table)
                yield table


def _check(table: pa.Table) -> None:
    atoms = _lengths(table["numbers"])
    energies = np.asarray(table["energy"].to_numpy(zero_copy_only=False), dtype=float)  # null becomes NaN
    stresses = 6 * np.asarray(table["stress"].is_valid(), dtype=np.int64)
    against = {
        "it has no atoms": atoms == 0,
        "its energy is missing or not finite": ~np.isfinite(energies),
        "it does not have one finite position (3 numbers) an atom": ~_fits(table["positions"], 3 * atoms),
        "it does not have one finite force (3 numbers) an atom": ~_fits(table["forces"], 3 * atoms),
        "its stress is not finite": ~_fits(table["stress"], stresses),
    }
    for fault, rows in against.items():
        if rows.any():
            raise BadInput(f"{_place(table.slice(int(np.argmax(rows)), 1).to_pylist()[0])}: {fault}; mend or remove it")


def _fits(column: pa.ChunkedArray, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows of a column of lists have so many numbers, all finite."""
    found = _lengths(column)
    fits = found == lengths
    fits[np.searchsorted(np.cumsum(found), np.flatnonzero(~np.isfinite(flat(column))), side="right")] = False
    return np.asarray(fits)


def _lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int64)


def only_new(rows: pa.Table) -> pa.Table:
    """Of rows of one origin, sorted by id, with those of the set among them: those that are not in the set, once.

    Raises:
        BadInput: a structure has two labels; names both.
    """
    rows = rows.sort_by([("id", "ascending"), ("version", "descending"), ("source", "ascending"), ("row", "ascending")])
    ids = rows["id"].to_numpy(zero_copy_only=False)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    leaders = np.maximum.accumulate(np.where(first, np.arange(len(ids)), 0))
    for place in np.flatnonzero(~first).tolist():
        _check_same(*rows.take([int(leaders[place]), place]).to_pylist())
    return rows.filter(pa.array(first & (rows["version"].to_numpy() == NEW)))


def _check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    if same_label(one["energy"], one["forces"], other["energy"], other["forces"]):
        return
    per_atom = abs(one["energy"] - other["energy"]) / len(one["numbers"])
    apart = np.abs(np.subtract(one["forces"], other["forces"])).max()
    known = f" (in the set since version {one['version']})" if one["version"] != NEW else ""
    raise BadInput(
        f"{_place(other)} is the structure of {_place(one)}{known} with another label of the same origin"
        f" ({one['origin']}): energies differ by {per_atom:.3g} eV/atom, forces by up to {apart:.3g} eV/Å"
        f" (structure {one['id'][:SHOWN]}); {'remove it' if known else 'remove one of the two'}"
    )


def _place(row: dict[str, Any]) -> str:
    return f"{row['source']}: frame {row['row']} (from 0)"
