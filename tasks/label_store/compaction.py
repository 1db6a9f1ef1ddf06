"""Turns many small files of a label store into few, by the first digits of the ids, without ever losing a row.

New files are in place before old ones go. What is killed, or finds the disk full, in between leaves rows twice, which
readers do not mind and the next compaction drops.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.labels.rows import ROWS, IdIndex, id_words, read_ids
from tasks.label_store.files import NAME, READING, LabelFiles
from tasks.store.locks import alone

MOST_FRESH = 16  # files of single shards
MOST_FILES = 8  # of one bucket
BUCKET_ROWS = 20_000  # beyond, buckets are split: a bucket is what is held in memory
WORTHWHILE_ROWS = 500  # for each bucket, before many of them are written: until then fresh files are joined
DEEPEST = 3  # hex digits, 4096 buckets
OPEN_BATCHES = 256  # of those that are moved: mapped, not read
ABANDONED_SECONDS = 86_400.0  # no file takes a day to be written


def compact(files: LabelFiles) -> None:
    """Move the fresh files into buckets when there are too many. Not while somebody reads: then nothing is done."""
    if not files.folder.is_dir() or len(_named(files.fresh)) <= MOST_FRESH:
        return
    with alone(files.folder / READING) as free:
        if free:
            _compact(files)


def _compact(files: LabelFiles) -> None:
    _remove_abandoned(files)
    fresh, buckets = files.valid(files.fresh), files.valid(files.buckets)
    depth = _depth([*fresh, *buckets])
    if depth > 1 and sum(map(_count, fresh)) < WORTHWHILE_ROWS * 16**depth:
        _join(files, sorted(fresh, key=_count)[:-1], depth - 1)
    else:
        _distribute(files, [*fresh, *(path for path in buckets if len(_prefix(path)) < depth)], buckets, depth)
    files.keep_stamps()


def _join(files: LabelFiles, fresh: Sequence[Path], depth: int) -> None:
    """Make one fresh file of all; the largest is not among them, so that a row is not written again each time."""
    if not (sources := files.intact(fresh)):  # all were damaged
        return
    parts = _Parts(sources, depth)
    written = files.write(files.fresh, [("", (_rows(parts.of(prefix)) for prefix in _prefixes(depth)))])
    _remove(sources, written)


def _distribute(files: LabelFiles, moved: Sequence[Path], buckets: Sequence[Path], depth: int) -> None:
    """Move the rows of some files into the buckets of `depth`; those that then have too many files become one."""
    moved, merged = files.intact(moved), []
    parts, there = _Parts(moved, depth), defaultdict(list)
    for path in buckets:
        there[_prefix(path)].append(path)

    def new_files() -> Iterator[tuple[str, list[pa.Table]]]:
        for prefix in _prefixes(depth):
            here = there[prefix]
            if len(here) < MOST_FILES:
                rows = _without(_rows(parts.of(prefix)), here)
            else:
                here = files.intact(here)
                rows = _rows([*_Parts(here, depth).of(prefix), *parts.of(prefix)])
                merged.extend(here)
            if len(rows):
                yield prefix, [rows]

    written = files.write(files.buckets, new_files())
    _remove([*moved, *merged], set(written))


def _remove(paths: Iterable[Path], written: Collection[Path]) -> None:
    """A joined file may be one of those it was made of."""
    for path in paths:
        if path not in written:
            path.unlink(missing_ok=True)


def _prefixes(depth: int) -> Iterator[str]:
    return (f"{number:0{depth}x}" for number in range(16**depth))


def _depth(paths: Sequence[Path]) -> int:
    """Digits by which the rows of `paths` make buckets of the wanted size; never fewer than there were."""
    rows, before = sum(map(_count, paths)), max((len(_prefix(path)) for path in paths), default=1)
    needed = next((depth for depth in range(1, DEEPEST) if rows <= BUCKET_ROWS * 16**depth), DEEPEST)
    return max(needed, before)


class _Parts:
    """The rows of some files by the first `depth` digits of their ids. Only their places are held in memory.

    Files are sorted, so what begins with the same digits is one run of rows of each batch.
    """

    def __init__(self, paths: Sequence[Path], depth: int) -> None:
        self._batches: list[tuple[Path, int]] = []
        runs = [np.empty((4, 0), dtype=np.int32)]
        for path in paths:
            for number, words in enumerate(read_ids(path)):
                runs.append(_runs(words[:, 0] >> np.uint64(64 - 4 * depth), len(self._batches)))
                self._batches.append((path, number))
        together = np.concatenate(runs, axis=1)
        self._runs = together[:, np.argsort(together[0], kind="stable")]
        self._batch = lru_cache(OPEN_BATCHES)(self._opened)

    def of(self, prefix: str) -> list[pa.RecordBatch]:
        """What begins with `prefix`, of `depth` digits; cheapest when asked in order."""
        value = int(prefix, 16)
        first, last = np.searchsorted(self._runs[0], np.array([value, value + 1], dtype=np.int32))
        return [self._batch(batch).slice(start, end - start) for _, batch, start, end in self._runs[:, first:last].T]

    def _opened(self, batch: int) -> pa.RecordBatch:
        path, number = self._batches[batch]
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).get_batch(number)


def _runs(values: NDArray[np.uint64], batch: int) -> NDArray[np.int32]:
    """Value, batch, first row and the row after the last of each run of equal `values`, [4, runs]."""
    starts = np.flatnonzero(np.diff(values, prepend=~values[:1]))
    ends = np.append(starts[1:], len(values))
    return np.stack([values[starts], np.full(len(starts), batch), starts, ends[: len(starts)]]).astype(np.int32)


def _rows(parts: Sequence[pa.RecordBatch]) -> pa.Table:
    """All rows, in memory, each id once, sorted."""
    if not parts:
        return ROWS.empty_table()
    table = pa.Table.from_batches([pa.concat_batches(parts)])
    ids = table.column("id").chunk(0)
    first = IdIndex([id_words(ids)]).find(ids) == np.arange(len(ids))
    return table.filter(pa.array(first)).combine_chunks().sort_by("id")


def _without(rows: pa.Table, paths: Sequence[Path]) -> pa.Table:
    """Those of `rows` that no file of `paths` has."""
    if not len(rows) or not paths:
        return rows
    known = IdIndex([words for path in paths for words in read_ids(path)])
    return rows.filter(pa.array(known.find(rows.column("id").chunk(0)) < 0))


def _prefix(path: Path) -> str:
    """The bucket of a file; nothing for a fresh one."""
    named = NAME.fullmatch(path.name)
    return (named and named[1]) or ""


def _named(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if NAME.fullmatch(path.name)]


def _count(path: Path) -> int:
    with pa.memory_map(str(path)) as source:
        return int(pa.ipc.open_file(source).count_rows())


def _remove_abandoned(files: LabelFiles) -> None:
    """What a killed process had begun to write. Only this compaction writes into the buckets now."""
    for path in files.buckets.glob(".*"):
        path.unlink()
    for path in files.fresh.glob(".*"):
        if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
            path.unlink()
