"""Rows of the label store: the teacher's raw label of a structure, how it was computed, and how it is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from containers.arrays import Indices, Mask
from containers.contract import StepError

ID_BYTES = 32
HEX_ID = f"^[0-9a-f]{{{2 * ID_BYTES}}}$"
FOLDER_DIGITS = 32
"""Hex digits of a teacher's digest that name the folder of its label store."""
NOT_FINITE = "the teacher's label is not finite"
"""Begin of a `reason` where the teacher gave numbers, but not all of them finite."""

ROWS = pa.schema(
    [
        ("id", pa.binary(32)),  # the structure's content id as bytes
        ("energy", pa.float64()),  # eV, total; null when there is a reason
        ("forces", pa.list_(pa.float64())),  # eV/Å, N*3; null when there is a reason
        ("stress", pa.list_(pa.float64(), 6)),  # eV/Å³, Voigt; null unless periodic in all three directions
        ("edges", pa.int64()),  # neighbour pairs within the teacher's cutoff; null without a neighbour list
        ("min_distance_A", pa.float64()),  # shortest pair, Å; null when no pair lies within the cutoff
        ("reason", pa.string()),  # why the teacher has no label for it; null when it has
        ("device", pa.string()),
        ("acceleration", pa.string()),
        ("mace_version", pa.string()),
    ]
)


_IDS_ONLY = pa.ipc.IpcReadOptions(included_fields=[ROWS.get_field_index("id")], use_threads=False)


class IdIndex:
    """Index to find ids among others, given as `id_words`, by sorting: some 50 bytes an id, no Python object each."""

    def __init__(self, chunks: Sequence[NDArray[np.uint64]]) -> None:
        words = np.concatenate([np.empty((0, 4), dtype=np.uint64), *chunks])
        self._order = np.argsort(words[:, 0], kind="stable")
        self._words = words[self._order]
        self._keys = self._words[:, 0].copy()

    def find(self, ids: pa.Array) -> Indices:
        """Return the place of each of `ids` among those given, counted through all chunks: the first, or -1 for none.

        An id is the digest of a structure, so its first 8 bytes nearly always decide; the other 24 are compared too.
        """
        wanted = id_words(ids)
        left = np.argsort(wanted[:, 0])  # neighbours in memory are looked up one after the other: several times faster
        place = np.empty(len(wanted), dtype=np.int64)
        place[left] = np.searchsorted(self._keys, wanted[left, 0])
        found = np.full(len(wanted), -1, dtype=np.int64)
        while left.size:
            left = left[place[left] < len(self._keys)]
            left = left[self._keys[place[left]] == wanted[left, 0]]
            same = (self._words[place[left]] == wanted[left]).all(axis=1)
            found[left[same]] = self._order[place[left[same]]]
            left = left[~same]
            place[left] += 1
        return found


class LabelRows:
    """The rows of label store files by id. Only their ids are held in memory; rows are read when taken.

    Raises:
        StepError: a file is not one of the label store's.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._batches: list[tuple[Path, int]] = []
        ids: list[NDArray[np.uint64]] = []
        for path in paths:
            chunks = read_ids(path)
            self._batches += [(path, number) for number in range(len(chunks))]
            ids += chunks
        self._starts = np.cumsum([0, *map(len, ids)])
        self._index = IdIndex(ids)

    def take(self, ids: pa.Array) -> pa.Table:
        """Return the rows (ROWS) of `ids` (binary(32)) in their order; where an id has several, the first file's.

        Raises:
            StepError: an id has no row.
        """
        places = self._index.find(ids)
        if (places < 0).any():
            row = int(np.argmax(places < 0))
            raise StepError(f"no label row for structure {ids[row].as_py().hex()}: label the pool again")
        if not len(places):
            return ROWS.empty_table()
        order = np.argsort(places, kind="stable")
        batches = np.searchsorted(self._starts, places[order], side="right") - 1
        parts = []
        for rows in np.split(order, np.flatnonzero(np.diff(batches)) + 1):  # one file after the other
            number = int(np.searchsorted(self._starts, places[rows[0]], side="right")) - 1
            path, batch = self._batches[number]
            with pa.memory_map(str(path)) as source:
                found = pa.array(places[rows] - self._starts[number])
                parts.append(pa.ipc.open_file(source).get_batch(batch).take(found))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches([pa.concat_batches(parts).take(pa.array(back))], schema=ROWS)


def read_ids(path: Path) -> list[NDArray[np.uint64]]:
    """Read the ids of each record batch of a label store file as `id_words`; `StepError` if it is no such file."""
    try:
        with pa.OSFile(str(path)) as source:  # for one column twice as fast as a memory map
            schema = pa.ipc.open_file(source).schema
            if not schema.equals(ROWS):
                raise StepError(f"{path} holds no label rows: its columns are {', '.join(schema.names)}")
            reader = pa.ipc.open_file(source, options=_IDS_ONLY)
            return [id_words(reader.get_batch(number).column("id")) for number in range(reader.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the decoder's
            raise
        raise StepError(f"{path} is no Arrow file: {error}") from None


def id_words(ids: pa.Array) -> NDArray[np.uint64]:
    """Return binary(32) ids without nulls as four numbers each, [ids, 4], which sort as their bytes do."""
    if not len(ids):
        return np.empty((0, 4), dtype=np.uint64)
    words = np.frombuffer(ids.buffers()[1], dtype=">u8", count=4 * len(ids), offset=ID_BYTES * ids.offset)
    return words.astype(np.uint64).reshape(-1, 4)


def firsts(ids: pa.Array) -> Mask:
    """Mark those of binary(32) `ids` that come for the first time."""
    places = pa.table({"id": ids, "place": np.arange(len(ids))}).group_by("id").aggregate([("place", "min")])
    first = np.zeros(len(ids), dtype=np.bool_)
    first[places["place_min"].to_numpy()] = True
    return first


def binary_ids(ids: pa.Table | pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return ids of 64 hex digits (a string column, or a table with the column `id`) as binary(32).

    Raises:
        StepError: an id is not of 64 hex digits; names the row.
    """
    column = ids.column("id") if isinstance(ids, pa.Table) else ids
    row, parts = 0, [pa.array([], type=pa.binary(ID_BYTES))]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        good = np.asarray(pc.fill_null(pc.match_substring_regex(chunk, HEX_ID), False))
        if not good.all():
            wrong = int(np.argmin(good))
            raise StepError(f"the id in row {row + wrong} (from 0) is not of {2 * ID_BYTES} hex digits: {chunk[wrong]}")
        row += len(chunk)
        if len(chunk):
            fixed = chunk.cast(pa.binary()).cast(pa.binary(2 * ID_BYTES))
            digits = fixed.buffers()[1].slice(2 * ID_BYTES * fixed.offset, 2 * ID_BYTES * len(chunk))
            data = pa.py_buffer(bytes.fromhex(str(digits, "ascii")))
            parts.append(pa.Array.from_buffers(pa.binary(ID_BYTES), len(chunk), [None, data]))
    return pa.concat_arrays(parts)
