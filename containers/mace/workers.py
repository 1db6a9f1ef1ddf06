"""Label a list of structures, in this process or in several. Imports torch and mace."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from ase import Atoms

from containers.contract import OutOfMemory, Progress
from containers.mace.batches import windows
from containers.mace.labeller import Labelled, Labeller, Settings

EDGES_PER_ATOM = 4  # a window has edges_per_batch / 4 atoms: some six batches in a solid
WORTHWHILE = 30.0  # seconds of work left that pay for starting processes (each imports torch: 5-10 s)
WARM_UP = 2  # windows, the first of which is slow

_labeller: Labeller | None = None  # of a worker process


def label_structures(
    labeller: Labeller, structures: Sequence[Atoms], processes: int, progress: Progress, worthwhile: float = WORTHWHILE
) -> tuple[Labelled, float]:
    """Label all, in `processes` processes of one thread each when more than `worthwhile` seconds are left to do.

    Torch's own threads are slower than one on such small tensors. The windows and so the labels are the same
    however many processes there are.

    Returns:
        Answers in order with the seconds summed over the processes, and the wall-clock seconds.

    Raises:
        OutOfMemory: a worker process was killed.
    """
    total = Labelled([])
    started = time.monotonic()
    places = windows([len(atoms) for atoms in structures], max(labeller.bound // EDGES_PER_ATOM, 1))
    parts = [[structures[place] for place in window] for window in places]
    for part in _labelled(labeller, parts, processes, worthwhile):
        total.add(part)
        progress(len(total.answers), len(structures), f"{len(total.answers)} of {len(structures)} structures labelled")
    return total, time.monotonic() - started


def _labelled(labeller: Labeller, parts: list[list[Atoms]], processes: int, worthwhile: float) -> Iterator[Labelled]:
    seconds = 0.0  # of the last window
    for done, part in enumerate(parts):
        left = len(parts) - done
        if done == WARM_UP and processes > 1 and seconds * left > worthwhile:
            yield from _in_processes(parts[done:], labeller.settings, min(processes, left))
            return
        started = time.monotonic()
        yield labeller.label(part)
        seconds = time.monotonic() - started


def _in_processes(parts: list[list[Atoms]], settings: Settings, processes: int) -> Iterator[Labelled]:
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an unknown state
    try:
        with ProcessPoolExecutor(processes, spawn, _start_worker, (settings,)) as pool:
            yield from pool.map(_label_in_worker, parts)
    except BrokenProcessPool:
        raise OutOfMemory(
            f"one of {processes} labelling processes was killed, most likely for memory;"
            " use fewer threads, or a smaller edges_per_batch"
        ) from None


def _start_worker(settings: Settings) -> None:
    global _labeller
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _labeller = Labeller(settings)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _label_in_worker(part: list[Atoms]) -> Labelled:
    assert _labeller is not None, "the pool starts every worker with _start_worker"
    return _labeller.label(part)
