"""Which files of a label store need no digest again: those whose size, times and inode are as they were."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from containers.contract import write_atomic
from tasks.store.locks import try_hold

FILE = "stamps.json"

log = logging.getLogger(__name__)


class Stamps:
    """Stamps of the files below `folder`, kept in `stamps.json` for the next run.

    Best effort: a stamp that is lost costs one digest. With `verify`, those of other runs are not trusted.
    """

    def __init__(self, folder: Path, verify: bool) -> None:
        self._folder, self._verify = folder, verify
        self._ours: dict[str, list[int]] = {}

    def load(self) -> None:
        """Take over what other runs kept."""
        if not self._verify:
            self._ours = {**self._on_disk(), **self._ours}

    def trusts(self, path: Path) -> bool:
        """Whether the content of `path` was compared, and the file is as it was then."""
        return self._ours.get(self._name(path)) == stamp_of(path)

    def trust(self, path: Path, stamp: list[int]) -> None:
        """`path` was compared with its digest after `stamp` was taken."""
        self._ours[self._name(path)] = stamp

    def save(self) -> None:
        """Keep for the next run what this one and those beside it have compared."""
        lock = try_hold(self._folder / "stamps.lock")
        if lock is None:
            return
        try:
            before = self._on_disk()
            stamps = {name: stamp for name, stamp in {**before, **self._ours}.items() if (self._folder / name).exists()}
            if stamps != before:
                write_atomic(self._folder / FILE, json.dumps(stamps, sort_keys=True).encode())
        except OSError as error:  # a full disk, say: the next run compares digests again
            log.warning("%s: %s; the next run reads these files whole", self._folder / FILE, error.strerror)
        finally:
            lock.release()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _on_disk(self) -> dict[str, list[int]]:
        try:
            stamps = json.loads((self._folder / FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return stamps if isinstance(stamps, dict) else {}


def stamp_of(path: Path) -> list[int]:
    """Size, times and inode of a file."""
    stat = path.lstat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
