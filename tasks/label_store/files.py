"""The files of one teacher's label store: Arrow files named by the digest of their content.

::

    fresh/DIGEST.arrow            one for each shard, as it was committed
    buckets/PREFIX-DIGEST.arrow   rows whose id begins with PREFIX (hex digits)
    damaged/                      files whose content is not what their name says, kept aside

All are uncompressed (memory-mapped when read), of schema ROWS, sorted by id.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from errno import EIO
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from containers.contract import StepError, file_digest
from containers.labels.rows import ROWS, IdIndex, read_ids
from tasks.errors import StoreError
from tasks.store.locks import shared
from tasks.store.stamps import Stamps, stamp_of

BATCH_ROWS = 10_000
SYNCED_AT_ONCE = 32
NAME = re.compile(r"(?:([0-9a-f]+)-)?([0-9a-f]{64})\.arrow")
READING = "reading.lock"

log = logging.getLogger(__name__)


class LabelFiles:
    """The files in one teacher's `folder`; with `verify` every digest is compared once by this object."""

    def __init__(self, folder: Path, verify: bool = False) -> None:
        self.folder = folder
        self.fresh, self.buckets, self.damaged = (folder / name for name in ("fresh", "buckets", "damaged"))
        self._stamps = Stamps(folder, verify)

    def make(self) -> None:
        """Make the folders; `StoreError` when the work root cannot be written."""
        try:
            for folder in (self.fresh, self.buckets, self.folder / "claims"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {error.filename}: {error.strerror}. Choose another --work-root.") from None

    @contextmanager
    def reading(self) -> Iterator[tuple[Path, ...]]:
        """The valid files, which no compaction removes meanwhile; none before the first commit."""
        if not self.folder.is_dir():
            yield ()
            return
        with shared(self.folder / READING):
            yield self.valid(self.fresh, self.buckets)

    def valid(self, *folders: Path) -> tuple[Path, ...]:
        """The files whose content is what their name says; others are moved aside and logged."""
        self._stamps.load()
        paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
        good = tuple(path for path in paths if NAME.fullmatch(path.name) and self._is_valid(path))
        self._stamps.save()
        return good

    def index(self, paths: Iterable[Path]) -> IdIndex:
        """The ids of `paths`; a file that cannot be opened, though trusted, is moved aside and logged."""
        ids = []
        for path in paths:
            try:
                ids += read_ids(path)
            except StepError as error:
                self._set_aside(path, f"cannot be opened ({error})")
        return IdIndex(ids)

    def intact(self, paths: Iterable[Path]) -> list[Path]:
        """Like `valid`, but no stamp is trusted: what is written again gets a new digest, right or wrong."""
        return [path for path in paths if self._compare(path)]

    def write(self, folder: Path, files: Iterable[tuple[str, Iterable[pa.Table]]]) -> list[Path]:
        """New files in `folder`, each complete or absent; when this returns, they would survive a power cut.

        Args:
            folder: `fresh` or `buckets`.
            files: prefix (or nothing) and rows (ROWS, sorted by id) of each. They are asked for one after the other,
                while the disk takes those before: many together.
        """
        with ThreadPoolExecutor(SYNCED_AT_ONCE) as disk:
            written = [disk.submit(self._keep, _begun(folder, tables), prefix) for prefix, tables in files]
        paths = [one.result() for one in written]
        _sync(folder)
        return paths

    def keep_stamps(self) -> None:
        """Spare the next run the digests of what was written."""
        self._stamps.save()

    def _keep(self, partial: Path, prefix: str) -> Path:
        """Give a file its name once the disk has its content; another run may move its rows from then on."""
        try:
            _sync(partial)
            path = partial.with_name(f"{prefix}{'-' if prefix else ''}{file_digest(partial)}.arrow")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # a compaction was faster
            self._stamps.trust(path, stamp_of(path))
        return path

    def _is_valid(self, path: Path) -> bool:
        try:
            return self._stamps.trusts(path) or self._compare(path)
        except FileNotFoundError:  # another run was faster to move it aside
            return False

    def _compare(self, path: Path) -> bool:
        stamp, fault = stamp_of(path), _fault(path)
        if fault is None:
            self._stamps.trust(path, stamp)
        else:
            self._set_aside(path, fault)
        return fault is None

    def _set_aside(self, path: Path, fault: str) -> None:
        self.damaged.mkdir(exist_ok=True)
        aside = self.damaged / f"{time.time_ns()}-{path.name}"
        path.rename(aside)
        log.warning("%s %s: moved to %s, its structures are labelled again", path, fault, aside)


def _begun(folder: Path, tables: Iterable[pa.Table]) -> Path:
    """A file of all rows that has no name yet."""
    partial = folder / f".{uuid4().hex}"
    try:
        with partial.open("wb") as file, pa.ipc.new_file(file, ROWS) as writer:
            for rows in tables:
                writer.write_table(rows, max_chunksize=BATCH_ROWS)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return partial


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fault(path: Path) -> str | None:
    """What is wrong with a file, or None."""
    named = NAME.fullmatch(path.name)
    try:
        if named is None or file_digest(path) != named[2]:
            return "is not what was written"
        read_ids(path)
    except StepError as error:
        return f"cannot be opened ({error})"
    except OSError as error:
        if error.errno != EIO:
            raise
        return f"cannot be read ({error.strerror})"
    return None
