"""The files of one teacher's label store: Arrow files named by the digest of their content.

::

    fresh/DIGEST.arrow            the rows of a shard as they were committed, or of many shards joined
    buckets/PREFIX-DIGEST.arrow   of version 0.1, rows whose id begins with PREFIX: read, but no longer written
    damaged/                      files whose content is not what their name says, kept aside

All are uncompressed (memory-mapped when read), of schema ROWS, in any order of rows.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EIO
from itertools import accumulate
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.contract import StepError, file_digest
from containers.labels.rows import ROWS, IdIndex, read_ids
from tasks.errors import StoreError
from tasks.store.locks import alone, shared
from tasks.store.stamps import Stamps, stamp_of

BATCH_ROWS = 10_000
MOST_FRESH = 16  # files; beyond, the small ones become one
ABANDONED_SECONDS = 86_400.0  # no file takes a day to be written
NAME = re.compile(r"(?:[0-9a-f]+-)?([0-9a-f]{64})\.arrow")

log = logging.getLogger(__name__)


class LabelFiles:
    """The files in one teacher's `folder`; with `verify` every digest is compared once by this object."""

    def __init__(self, folder: Path, verify: bool = False) -> None:
        self.folder, self.fresh, self.reading_lock = folder, folder / "fresh", folder / "reading.lock"
        self._stamps = Stamps(folder, verify)

    def make(self) -> None:
        """Make the folders; `StoreError` when the work root cannot be written."""
        try:
            for folder in (self.fresh, self.folder / "claims"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {error.filename}: {error.strerror}. Choose another --work-root.") from None

    @contextmanager
    def reading(self) -> Iterator[tuple[Path, ...]]:
        """The valid files (for `LabelRows`); none is removed meanwhile. No file before the first commit."""
        if not self.folder.is_dir():
            yield ()
            return
        with shared(self.reading_lock):
            yield self.valid()

    def valid(self) -> tuple[Path, ...]:
        """The files whose content is what their name says; others are moved aside and logged."""
        self._stamps.load()
        folders = [folder for folder in (self.fresh, self.folder / "buckets") if folder.is_dir()]
        paths = [path for folder in folders for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name)]
        good = tuple(path for path in paths if self._stamps.trusts(path) or self._compare(path))
        self._stamps.save()
        return good

    def ids(self, paths: Iterable[Path]) -> dict[Path, list[NDArray[np.uint64]]]:
        """The ids of `paths` as `read_ids`; a file that cannot be opened, though trusted, is moved aside and logged."""
        found = {}
        for path in paths:
            try:
                found[path] = read_ids(path)
            except StepError as error:
                self._set_aside(path, f"cannot be opened ({error})")
        return found

    def write(self, tables: Iterable[pa.Table]) -> Path:
        """Write the rows (ROWS) of `tables` to a new file of `fresh`, complete or absent.

        When this returns, the file would survive a power cut. Another run may move its rows as soon as it has its name.
        """
        partial = self.fresh / f".{uuid4().hex}"
        try:
            with partial.open("wb") as file, pa.ipc.new_file(file, ROWS) as writer:
                for rows in tables:
                    writer.write_table(rows, max_chunksize=BATCH_ROWS)
            _sync(partial)
            path = self.fresh / f"{file_digest(partial)}.arrow"
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self._stamps.trust(path, stamp_of(path))
        _sync(self.fresh)
        self._stamps.save()
        return path

    def compact(self) -> None:
        """Write the small files of `fresh` again as one when there are many, unless somebody reads.

        The new file is in place before the old ones go. What is killed, or finds the disk full, in between leaves rows
        twice, which readers do not mind and the next compaction drops.
        """
        if not self.folder.is_dir() or len(list(self.fresh.glob("*.arrow"))) <= MOST_FRESH:
            return
        with alone(self.reading_lock) as free:
            if not free:
                return
            for path in self.fresh.glob(".*"):  # what a killed process had begun to write
                with suppress(FileNotFoundError):  # another run has just finished it
                    if path.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                        path.unlink()
            ids = self.ids(self.valid())
            rows = {path: sum(map(len, words)) for path, words in ids.items() if path.parent == self.fresh}
            small = sorted(rows, key=lambda path: rows[path])
            small = small[: small_files([rows[path] for path in small])]
            sources = [path for path in small if self._compare(path)]  # what is written again gets a new digest
            if len(sources) > 1:
                others = [path for path in ids if path not in small]
                index = IdIndex([words for path in (*others, *sources) for words in ids[path]])
                written = self.write(_rows(sources, index, sum(len(words) for path in others for words in ids[path])))
                for path in sources:
                    if path != written:  # it may be one of those that it was made of
                        path.unlink(missing_ok=True)
            self._stamps.save()

    def _compare(self, path: Path) -> bool:
        """True when the content is what the name says; no stamp is trusted. Another file is moved aside."""
        stamp, fault = stamp_of(path), None
        try:
            if file_digest(path) != path.stem[-64:]:
                fault = "is not what was written"
            else:
                read_ids(path)
        except FileNotFoundError:  # another run has moved it aside
            return False
        except StepError as error:
            fault = f"cannot be opened ({error})"
        except OSError as error:
            if error.errno != EIO:
                raise
            fault = f"cannot be read ({error.strerror})"
        if fault:
            self._set_aside(path, fault)
        else:
            self._stamps.trust(path, stamp)
        return fault is None

    def _set_aside(self, path: Path, fault: str) -> None:
        damaged = self.folder / "damaged"
        damaged.mkdir(exist_ok=True)
        aside = damaged / f"{time.time_ns()}-{path.name}"
        try:
            path.rename(aside)
        except FileNotFoundError:  # another run was faster
            return
        log.warning("%s %s: moved to %s, its structures are labelled again", path, fault, aside)


def small_files(rows: Sequence[int]) -> int:
    """How many of the files with so many `rows` (ascending) to join, from the first.

    The last of them has no more rows than those before it together, so a row whose file is written again lies in one of
    twice the size at least: it is written again at most log2(rows of the store) times.
    """
    return max((n + 2 for n, before in enumerate(accumulate(rows[:-1])) if rows[n + 1] <= before), default=0)


def _rows(paths: Sequence[Path], index: IdIndex, start: int) -> Iterator[pa.Table]:
    """The rows of `paths`, which `index` counts from place `start`; without those whose id has an earlier place."""
    pending: list[pa.RecordBatch] = []
    for path in paths:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                first = index.find(batch.column("id")) == np.arange(start, start + len(batch))
                pending.append(batch.filter(pa.array(first)))
                start += len(batch)
                if sum(map(len, pending)) >= BATCH_ROWS:
                    yield pa.Table.from_batches(pending, ROWS).combine_chunks()
                    pending = []
    yield pa.Table.from_batches(pending, ROWS).combine_chunks()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
