"""Copies of pacemaker's interim potential, each with the iteration that it is of.

pacemaker overwrites one file in place at every iteration, so a kill can leave half of one. It appends the row of an
iteration to metrics.txt, looks at the validation frame when it is due, and then writes the potential: a file younger
than metrics.txt is of the last row, an older one of the iteration before.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from containers.tensorpot.fit.history import MetricsFile, iterations
from containers.tensorpot.fit.validation_error import ranked

NAME = re.compile(r"kept_(\d+)\.yaml")
LATEST = 3  # copies that are kept: one may be of half a file
BEST = 2  # and of those that the validation frame likes best
WAIT_S, LOOK_EVERY_S = 0.25, 0.005
"""How long to wait for the file after its row: milliseconds, unless the validation frame is looked at first."""


def kept(folder: Path) -> dict[int, Path]:
    """The copies in a folder by iteration, the latest first. Links are none of ours."""
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
    }
    return dict(sorted(found.items(), reverse=True))


@dataclass(frozen=True)
class _Look:
    """When a file was written (ns) and its size; 0 for one that is not there. `newest`: when the last row was."""

    stamp: int = 0
    size: int = 0
    newest: int = 0

    @classmethod
    def at(cls, path: Path) -> _Look:
        if not path.is_file():
            return cls()
        stat = path.stat()
        return cls(stat.st_mtime_ns, stat.st_size)


class Copies:
    """Keeps few copies in the working folder: the latest, and the best on the validation frame."""

    def __init__(self, work: Path, train: MetricsFile, before: int = 0) -> None:
        """`before`: iterations done by earlier runs of the same fit, from which ours count on."""
        self.work, self.train, self.before = work, train, before

    def take(self, wait_s: float = WAIT_S) -> None:
        """Copy the potential of the last row when it comes within `wait_s`, else that of the iteration before.

        It must look the same twice: when it is seen first, it is often just being written.
        """
        until, before = time.monotonic() + wait_s, _Look()
        while True:
            look = self._look()
            late = time.monotonic() >= until
            settled = look == before and look.stamp >= look.newest
            if look.size and (settled or late) and self._copied(look):
                return
            if late:
                return
            before = look
            time.sleep(LOOK_EVERY_S)

    def forget(self, errors: Mapping[int, float]) -> None:
        """Remove copies that are neither among the latest nor the best; `errors`: iteration -> validation error."""
        copies = kept(self.work)
        best = [iteration for iteration in ranked(errors) if iteration in copies][:BEST]
        for iteration in set(copies) - set(list(copies)[:LATEST]) - set(best):
            copies[iteration].unlink()

    def _look(self) -> _Look:
        """When the potential and its row were written. Reads the rows on."""
        newest = _Look.at(self.train.path).stamp
        self.train.follow()
        return replace(_Look.at(self._source()), newest=newest)

    def _source(self) -> Path:
        return self.work / f"interim_potential_{self.train.rows[-1].cycle if self.train.rows else 0}.yaml"

    def _copied(self, look: _Look) -> bool:
        """Copy; False when pacemaker went on meanwhile, so that nobody knows what the copy is."""
        partial = self.work / "copy.partial"
        shutil.copyfile(self._source(), partial)
        if self._look() != look:
            return False
        begun = self.train.rows[-1].step_iteration == 0  # of a step: the potential is still the last one's
        iteration = iterations(self.train.rows) - (look.stamp < look.newest and not begun)
        if iteration > 0:
            partial.replace(self.work / f"kept_{self.before + iteration:06d}.yaml")
        return True
