"""Who labels what now: two runs whose pools overlap share the work instead of doing it twice.

::

    plan.lock            held shortly while a run decides what it takes
    claims/NAME.lock     held by the run as long as it works: gone with its process
    claims/NAME/         ids.npy, and whatever the run puts beside it
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.labels.rows import IdIndex, firsts, id_words
from tasks.store.locks import held, is_held, try_hold

POLL_SECONDS = 0.25
IDS = "ids.npy"

Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]  # see id_words


@dataclass(frozen=True)
class Claim:
    """Structures that a run may label: nobody else does so while its block lasts."""

    mine: Mask  # neither stored nor claimed by another live run; the first of equal ids only
    elsewhere: int  # not stored, but claimed by others
    folder: Path  # for this run's own files; gone when the block is left


class Claims:
    """The claims on structures of one teacher, in its `folder`."""

    def __init__(self, folder: Path) -> None:
        self._plan, self._folder = folder / "plan.lock", folder / "claims"
        self._own: set[str] = set()

    @contextmanager
    def claim(self, ids: pa.Array, missing: Callable[[pa.Array], Mask]) -> Iterator[Claim]:
        """Claim those of `ids` that are `missing` and that no other live run has claimed."""
        name = uuid4().hex
        folder, lock = self._folder / name, self._lock(name)
        with ExitStack() as undo:
            with held(self._plan):
                live = [other for other in sorted(self._names()) if not self._remove_dead(other)]
                taken = _among(ids, map(self._ids, live))  # first: who ends in between has committed by then
                open_ = missing(ids) & firsts(ids)
                claim = Claim(open_ & ~taken, int((open_ & taken).sum()), folder)
                undo.callback(lock.unlink, missing_ok=True)
                undo.enter_context(held(lock))
                self._own.add(name)
                undo.callback(self._own.discard, name)
                undo.callback(shutil.rmtree, folder, ignore_errors=True)  # what stays goes with the next claim
                folder.mkdir()
                partial = folder / f"new-{IDS}"  # in one piece: those who wait read it without holding the plan
                np.save(partial, id_words(ids)[claim.mine], allow_pickle=False)
                partial.rename(folder / IDS)
            yield claim

    def wait(self, ids: pa.Array, seconds: float) -> None:
        """Until no other run has a claim on any of `ids`, or for `seconds`."""
        end = time.monotonic() + seconds
        names = [name for name in self._names() - self._own if _among(ids, [self._ids(name)]).any()]
        while any(is_held(self._lock(name)) for name in names) and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))

    def _remove_dead(self, name: str) -> bool:
        """Remove a claim whose run has ended; False where the run lives. Hold the plan."""
        lock = try_hold(self._lock(name))
        if lock is None:
            return False
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._lock(name).unlink(missing_ok=True)
        lock.release()
        return True

    def _names(self) -> set[str]:
        return {path.stem for path in self._folder.iterdir()} if self._folder.is_dir() else set()

    def _ids(self, name: str) -> Words:
        """The ids of a claim; none once its run has ended."""
        try:
            return np.load(self._folder / name / IDS, allow_pickle=False)
        except FileNotFoundError:
            return np.empty((0, 4), dtype=np.uint64)

    def _lock(self, name: str) -> Path:
        return self._folder / f"{name}.lock"


def _among(ids: pa.Array, claimed: Iterable[Words]) -> Mask:
    return IdIndex(list(claimed)).find(ids) >= 0
