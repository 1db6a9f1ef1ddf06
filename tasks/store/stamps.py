"""Files that need no digest again: their size, times and inode are as they were. For both stores."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from stat import S_ISREG

from containers.contract import write_atomic
from tasks.store.locks import try_hold

STAMPS = "stamps.json"

log = logging.getLogger(__name__)


def stamp_of(path: Path) -> list[int] | None:
    """Size, times and inode; None when there is no plain file. `--verify` does not trust them."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] if S_ISREG(stat.st_mode) else None


def read_stamps(folder: Path) -> dict[str, list[int] | None]:
    """The stamps kept in `folder`: file name -> stamp. None of them where they cannot be read."""
    try:
        stamps = json.loads((folder / STAMPS).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def write_stamps(folder: Path, stamps: dict[str, list[int] | None]) -> None:
    """Keep the stamps of files for the next run."""
    write_atomic(folder / STAMPS, json.dumps(stamps, sort_keys=True).encode())


class Stamps:
    """Stamps of the files below `folder`, to which other runs add meanwhile.

    Best effort: a stamp that is lost costs one digest. With `verify`, those of other runs are not trusted.
    """

    def __init__(self, folder: Path, verify: bool) -> None:
        self._folder, self._verify = folder, verify
        self._ours: dict[str, list[int] | None] = {}

    def load(self) -> None:
        """Take over what other runs kept."""
        if not self._verify:
            self._ours = {**read_stamps(self._folder), **self._ours}

    def trusts(self, path: Path) -> bool:
        """Return True if the content of `path` was compared, and the file is as it was then."""
        stamp = stamp_of(path)
        return stamp is not None and self._ours.get(self._name(path)) == stamp

    def trust(self, path: Path, stamp: list[int] | None) -> None:
        """`path` was compared with its digest after `stamp` was taken."""
        self._ours[self._name(path)] = stamp

    def save(self) -> None:
        """Keep for the next run what this one and those beside it have compared."""
        lock = try_hold(self._folder / "stamps.lock")
        if lock is None:
            return
        try:
            before = read_stamps(self._folder)
            stamps = {name: stamp for name, stamp in {**before, **self._ours}.items() if (self._folder / name).exists()}
            if stamps != before:
                write_stamps(self._folder, stamps)
        except OSError as error:  # a full disk, say: the next run compares digests again
            log.warning("%s: %s; the next run reads these files whole", self._folder / STAMPS, error.strerror)
        finally:
            lock.release()

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
