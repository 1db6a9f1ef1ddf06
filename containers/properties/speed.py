"""Speed of a runtime on a cell that teacher and student share: one core, energy, forces and stress of one structure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from ase import Atoms

from containers.contract import Closed
from containers.properties.results import Crystal
from containers.structures.cells import grown

TIMED_ATOMS, REPEATS = 64, 3
MOST_S = 5.0  # of one runtime, after which no further repetition begins


class Speed(Closed):
    """Timings of one cell. They differ from run to run, so they are metrics of a step and stand in no file."""

    cell: str = ""  # empty: there is no crystal to time
    atoms: int = 0
    device: str = "cpu"
    atoms_per_s: dict[str, float] = {}  # by runtime
    missing: dict[str, str] = {}  # runtime -> why it was not timed


def timed_cell(crystals: Sequence[Crystal]) -> tuple[str, Atoms] | None:
    """Return name and atoms of the first crystal, repeated to TIMED_ATOMS atoms or more."""
    if not crystals:
        return None
    atoms = grown(crystals[0].atoms(), TIMED_ATOMS, 0.0)
    return f"{crystals[0].name}, {len(atoms)} atoms", atoms


def atoms_per_s(compute: Callable[[], object], atoms: int, device: str = "cpu") -> float:
    """Return atoms per second of `compute`, the median of REPEATS calls after a first one.

    On a CPU its own time counts, so that others on the machine disturb little; it must have one thread.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    compute()  # fills the caches
    taken: list[float] = []
    while len(taken) < REPEATS and sum(taken) < MOST_S:
        started = clock()
        compute()
        taken.append(max(clock() - started, 1e-9))
    return atoms / statistics.median(taken)
