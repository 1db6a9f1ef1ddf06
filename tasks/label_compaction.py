"""Turns many small files of a label store into few, by the first digits of the ids, without ever losing a row.

New files are in place before old ones go. What is killed, or finds the disk full, in between leaves rows twice, which
readers do not mind and the next compaction drops.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from containers.label_rows import ROWS, IdIndex, id_words, read_ids
from tasks.label_files import NAME, READING, LabelFiles
from tasks.label_locks import alone

MOST_FRESH = 16  # files of single shards
MOST_FILES = 8  # of one bucket
BUCKET_ROWS = 20_000  # beyond, buckets are split: a bucket is what is held in memory
WORTHWHILE_ROWS = 500  # for each bucket, before many of them are written: until then fresh files are joined
DEEPEST = 3  # hex digits, 4096 buckets
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
    path = files.write(files.fresh, (_rows(sources, prefix) for prefix in _prefixes(depth)))
    files.sync(files.fresh, [path])
    _remove(sources, [path])


def _distribute(files: LabelFiles, moved: Sequence[Path], buckets: Sequence[Path], depth: int) -> None:
    """Move the rows of some files into the buckets of `depth`; those that then have too many files become one."""
    moved = files.intact(moved)
    written: list[Path] = []
    for prefix in _prefixes(depth):
        sources = [path for path in moved if prefix.startswith(_prefix(path))]
        here = [path for path in buckets if _prefix(path) == prefix]
        if len(here) < MOST_FILES:
            rows = _without(_rows(sources, prefix), here)
        else:
            here = files.intact(here)
            rows = _rows([*here, *sources], prefix)
            moved += here
        if len(rows):
            written.append(files.write(files.buckets, [rows], prefix))
    files.sync(files.buckets, written)
    _remove(moved, set(written))


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


def _rows(paths: Sequence[Path], prefix: str) -> pa.Table:
    """The rows of `paths` whose id begins with `prefix`, in memory, each id once, sorted."""
    parts = [part for path in paths for part in _slices(path, prefix)]
    if not parts:
        return ROWS.empty_table()
    table = pa.Table.from_batches([pa.concat_batches(parts)])
    ids = table.column("id").chunk(0)
    first = IdIndex([id_words(ids)]).find(ids) == np.arange(len(ids))
    return table.filter(pa.array(first)).combine_chunks().sort_by("id")


def _slices(path: Path, prefix: str) -> Iterator[pa.RecordBatch]:
    """Files are sorted, so what begins with `prefix` is one run of each batch."""
    free_bits = 64 - 4 * len(prefix)
    first = int(prefix, 16) << free_bits
    bounds = np.array([first, first + (1 << free_bits) - 1], dtype=np.uint64)
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            keys = id_words(batch.column("id"))[:, 0]
            start, end = np.searchsorted(keys, bounds[0]), np.searchsorted(keys, bounds[1], side="right")
            if start < end:
                yield batch.slice(start, end - start)


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
