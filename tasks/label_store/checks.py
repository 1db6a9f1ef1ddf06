"""Read the output of a labelling step. The step may have opened a hostile model: nothing in the file is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        ids: binary(32), what the step was asked to label.
        atoms: of each of `ids`.

    Raises:
        StoreError: it is not what a labelling step writes; names the file and the row.
    """
    table = _read(labels, ROWS, atoms)
    _check(labels, table, partial(_rules_of_labels, ids=ids, atoms=atoms))
    return table.sort_by("id")


def check_complete(labels: Path, rows: pa.Table, ids: pa.Array, aside: Mapping[str, str]) -> None:
    """Every structure must have one answer: a row, or the reason why it was set aside.

    Otherwise every run would request it again.

    Args:
        labels: the file of `rows`, to be named.
        rows: from `checked_rows`.
        ids: binary(32), what the step was asked to label.
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
    """Hex id -> reason, from a step's `set_aside.parquet`; `ids` (binary(32)) is what the step was asked to label.

    Raises:
        StoreError: it is not what a labelling step writes; names the file and the row.
    """
    table = _read(set_aside, SET_ASIDE, np.zeros(len(ids), dtype=np.int64))
    _check(set_aside, table, partial(_rules_of_reasons, ids=ids))
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
                    said = f"{number} {what}, at most {limit} for {rows} structures of {total} atoms"
                    raise _refused(path, said)
            table = file.read(use_threads=False).cast(schema).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise _refused(path, printable(str(error))) from None
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise
        raise _refused(path, printable(str(error))) from None
    return table


def _check(path: Path, table: pa.Table, rules: Callable[[dict[str, pa.Array]], Iterable[tuple[Rows, str]]]) -> None:
    """Rule after rule, since one may rest on those before it."""
    columns = {name: pa.concat_arrays(table[name].chunks) for name in table.column_names} if len(table) else {}
    for good, what in rules(columns) if columns else ():
        if not good.all():
            raise _refused(f"{path}, row {int(np.argmin(good))} (from 0)", what)


def _rules_of_labels(
    columns: dict[str, pa.Array], ids: pa.Array, atoms: NDArray[np.int64]
) -> Iterator[tuple[Rows, str]]:
    """Which rows are good by each rule, and what is wrong with the others."""
    yield from _rules_of_ids(columns["id"], ids)
    sizes, refused = atoms[_places(columns["id"], ids)], _given(columns["reason"])
    energy, forces, stress = columns["energy"], columns["forces"], columns["stress"]
    yield (_given(energy) ^ refused) & (_given(forces) ^ refused), "either energy and forces or a reason, not both"
    yield ~(_given(stress) & refused), "a stress and a reason"
    lengths = np.asarray(pc.fill_null(pc.list_value_length(forces), 0))
    yield (lengths == 3 * sizes) | refused, "not three force components for each of its atoms"
    yield _finite(energy), "an energy that is not finite"
    parents = np.asarray(pc.list_parent_indices(forces))
    yield _none_of(parents[~_numbers(pc.list_flatten(forces))], len(forces)), "a force that is not finite"
    strained = np.repeat(np.flatnonzero(_given(stress)), 6)
    yield _none_of(strained[~_numbers(pc.list_flatten(stress))], len(stress)), "a stress that is not finite"
    distance = columns["min_distance_A"]
    yield np.asarray(pc.fill_null(columns["edges"], 0)) >= 0, "a negative number of edges"
    yield _finite(distance) & (np.asarray(pc.fill_null(distance, 0.0)) >= 0), "a shortest distance that is none"
    for name in ("device", "acceleration", "mace_version"):
        yield _given(columns[name]), f"no {name}"
    for name in ("reason", "device", "acceleration", "mace_version"):
        yield from _rules_of_text(name, columns[name])


def _rules_of_reasons(columns: dict[str, pa.Array], ids: pa.Array) -> Iterator[tuple[Rows, str]]:
    yield from _rules_of_ids(columns["id"], ids)
    yield _given(columns["reason"]), "no reason"
    yield from _rules_of_text("reason", columns["reason"])


def _rules_of_ids(found: pa.Array, asked: pa.Array) -> Iterator[tuple[Rows, str]]:
    yield _given(found), "no id"
    yield _places(found, asked) >= 0, "a structure that was not to be labelled"
    yield _places(found, found) == np.arange(len(found)), "the id of an earlier row again"


def _places(ids: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    return IdIndex([id_words(among)]).find(ids)


def _rules_of_text(name: str, column: pa.Array) -> Iterator[tuple[Rows, str]]:
    text = pc.fill_null(column, "")
    yield np.asarray(pc.utf8_length(text)) <= LONGEST_TEXT, f"{name} of more than {LONGEST_TEXT} characters"
    yield ~np.asarray(pc.match_substring_regex(text, CONTROL)), f"{name} with control characters"


def _given(column: pa.Array) -> Rows:
    return np.asarray(column.is_valid())


def _numbers(values: pa.Array) -> Rows:
    """Which values are finite; null is not."""
    return np.isfinite(np.asarray(pc.fill_null(values, np.nan)))


def _finite(column: pa.Array) -> Rows:
    """Null, or finite."""
    return np.isfinite(np.asarray(pc.fill_null(column, 0.0)))


def _none_of(bad: NDArray[np.int64], rows: int) -> Rows:
    """All rows but `bad` are good."""
    good = np.ones(rows, dtype=bool)
    good[bad] = False
    return good


def _refused(place: object, what: str) -> StoreError:
    return StoreError(f"{place}: {what}. Nothing of this shard was kept; the labelling step must not write this.")
