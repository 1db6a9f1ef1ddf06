"""Read the output of a labelling step. The step may have opened a hostile model: nothing in the file is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from containers.labels.rows import ID_BYTES, ROWS, IdIndex, binary_ids, id_words
from containers.mace.labelling.predictions import SET_ASIDE
from tasks.errors import StoreError, printable

LONGEST_TEXT = 1000  # characters
BYTES_A_ROW = 4 * 4 * LONGEST_TEXT + 1000  # of everything but the forces: generous
BYTES_AN_ATOM = 3 * (8 + 4)  # forces and their levels
OVERHEAD = 1 << 20  # dictionaries and page headers
CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x{9f}]"

Rows = NDArray[np.bool_]


def checked_rows(labels: Path, ids: pa.Array, atoms: NDArray[np.int64]) -> pa.Table:
    """The rows of a step's `labels.parquet` as ROWS, sorted by id.

    Args:
        labels: the file; rows of `ids` may be missing (`check_complete` sees to them).
        ids: binary(32), the structures that the step had to label.
        atoms: of each of `ids`.

    Raises:
        StoreError: it is not what a labelling step writes; names the file and the row.
    """
    table = _read(labels, ROWS, atoms)
    if not len(table):
        return table
    columns = {name: pa.concat_arrays(table[name].chunks) for name in table.column_names}
    require = partial(_require, labels)
    _check_ids(require, columns["id"], ids)
    sizes, refused = atoms[_places(columns["id"], ids)], _given(columns["reason"])
    energy, forces, stress = columns["energy"], columns["forces"], columns["stress"]
    either = (_given(energy) ^ refused) & (_given(forces) ^ refused)
    require(either, "either energy and forces or a reason, not both")
    require(~(_given(stress) & refused), "a stress and a reason")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(forces), 0))
    require((lengths == 3 * sizes) | refused, "not three force components for each of its atoms")
    require(_finite(energy), "an energy that is not finite")
    rows = np.arange(len(table))
    bad = np.asarray(pc.list_parent_indices(forces))[~_finite(pc.list_flatten(forces), null=np.nan)]
    require(~np.isin(rows, bad), "a force that is not finite")
    bad = np.repeat(np.flatnonzero(_given(stress)), 6)[~_finite(pc.list_flatten(stress), null=np.nan)]
    require(~np.isin(rows, bad), "a stress that is not finite")
    distance = columns["min_distance_A"]
    require(np.asarray(pc.fill_null(columns["edges"], 0)) >= 0, "a negative number of edges")
    positive = np.asarray(pc.fill_null(distance, 0.0)) >= 0
    require(_finite(distance) & positive, "a shortest distance that is none")
    for name in ("device", "acceleration", "mace_version"):
        require(_given(columns[name]), f"no {name}")
    for name in ("reason", "device", "acceleration", "mace_version"):
        _check_text(require, name, columns[name])
    return table.sort_by("id")


def check_complete(labels: Path, rows: pa.Table, ids: pa.Array, aside: Mapping[str, str]) -> None:
    """Every structure must have one answer: a row, or the reason why it was set aside.

    Otherwise every run would request it again.

    Args:
        labels: the file of `rows`, to be named.
        rows: from `checked_rows`.
        ids: binary(32), the structures that the step had to label.
        aside: from `checked_reasons`.

    Raises:
        StoreError: a structure has both answers, or none; names its id.
    """
    answered = pa.concat_arrays([pa.array([], pa.binary(ID_BYTES)), *rows["id"].chunks])
    set_aside = binary_ids(pa.array(list(aside), pa.string()))
    twice, unanswered = _places(set_aside, answered) >= 0, _places(ids, pa.concat_arrays([answered, set_aside])) < 0
    for bad, among, what in (
        (twice, set_aside, "has a label and is set aside"),
        (unanswered, ids, "has neither a label nor is it set aside"),
    ):
        if bad.any():
            raise _refused(labels, f"structure {among[int(np.argmax(bad))].as_py().hex()} {what}")


def checked_reasons(set_aside: Path, ids: pa.Array) -> dict[str, str]:
    """Hex id -> reason, from a step's `set_aside.parquet`; the step had to label `ids` (binary(32)).

    Raises:
        StoreError: it is not what a labelling step writes; names the file and the row.
    """
    table = _read(set_aside, SET_ASIDE, np.zeros(len(ids), dtype=np.int64))
    if len(table):
        found, reasons = (pa.concat_arrays(table[name].chunks) for name in ("id", "reason"))
        require = partial(_require, set_aside)
        _check_ids(require, found, ids)
        require(_given(reasons), "no reason")
        _check_text(require, "reason", reasons)
    return {row["id"].hex(): row["reason"] for row in table.to_pylist()}


def _read(path: Path, schema: pa.Schema, atoms: NDArray[np.int64]) -> pa.Table:
    """The table. Columns and size are checked before: a small file may hold more than fits in memory."""
    rows, total = len(atoms), int(atoms.sum())
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                found = printable(str(file.schema_arrow))[: 2 * LONGEST_TEXT]
                raise _refused(path, f"its columns are not {', '.join(schema.names)} as they should be: {found}")
            meta = file.metadata
            groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
            values = (sum(group.column(i).num_values for group in groups) for i in range(meta.num_columns))
            size, most = sum(group.total_byte_size for group in groups), BYTES_A_ROW * rows + BYTES_AN_ATOM * total
            for what, number, limit in (
                ("rows", meta.num_rows, rows),
                ("values in a column", max(values, default=0), 6 * rows + 3 * total),
                ("bytes", size, OVERHEAD + most),
            ):
                if number > limit:
                    raise _refused(path, f"{number} {what}, at most {limit} for {rows} structures of {total} atoms")
            table = file.read(use_threads=False).cast(schema).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise _refused(path, printable(str(error))) from None
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise
        raise _refused(path, printable(str(error))) from None
    return table


def _require(path: Path, good: Rows, what: str) -> None:
    """Refuse the first row that is not good. Rule after rule, since one may rest on those before it."""
    if not good.all():
        raise _refused(f"{path}, row {int(np.argmin(good))} (from 0)", what)


def _check_ids(require: Callable[[Rows, str], None], found: pa.Array, wanted: pa.Array) -> None:
    require(_given(found), "no id")
    require(_places(found, wanted) >= 0, "a structure that was not to be labelled")
    require(_places(found, found) == np.arange(len(found)), "the id of an earlier row again")


def _check_text(require: Callable[[Rows, str], None], name: str, column: pa.Array) -> None:
    text = pc.fill_null(column, "")
    require(np.asarray(pc.utf8_length(text)) <= LONGEST_TEXT, f"{name} of more than {LONGEST_TEXT} characters")
    require(~np.asarray(pc.match_substring_regex(text, CONTROL)), f"{name} with control characters")


def _places(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    return IdIndex([id_words(among)]).find(ids)


def _given(column: pa.Array) -> Rows:
    return np.asarray(column.is_valid())


def _finite(column: pa.Array, null: float = 0.0) -> Rows:
    """True for finite values; `null` stands for a missing one."""
    return np.isfinite(np.asarray(pc.fill_null(column, null)))


def _refused(place: object, what: str) -> StoreError:
    return StoreError(f"{place}: {what}. Nothing of this shard was kept; the labelling step must not write this.")
