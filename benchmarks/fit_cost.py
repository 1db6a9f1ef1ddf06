"""What the step `pace_train` costs over bare `pacemaker input.yaml`, and its memory. One line a figure.

python benchmarks/fit_cost.py [--data benchmarks/data/silicon] [--repeats 3] [--iterations 150] [--threads 2]

The step and the program fit the same frames with the same input.yaml, threads and iterations, in turn; medians of the
wall time of whole processes are compared. The losses of 50 iterations with one TensorFlow thread must be the same. The
memory is the proportional set size (PSS) of the step and all below it on the largest 300 structures of the pool that
have up to 64 atoms. Exit 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from processes import cpu_seconds, pss_below
from silicon_frames import DATA, Labelled, labelled, pool

from containers.contract import Resources
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.history import MetricsFile
from containers.tensorpot.pacemaker.input import TRAIN_FILE, VALIDATION_FILE, Potential
from containers.tensorpot.pacemaker.program import INPUT_FILE, child_environment, find_program
from tasks.artefact import Artefact
from tasks.settings import Settings
from tasks.workspace import Workspace

LONGER = 1.05
SAME = 1e-6
LOSS_ITERATIONS = 50
MEMORY_GB = 3.0
STRUCTURES, ATOMS = 300, 64
POTENTIAL = Potential(elements=("Si",), cutoff=5.0, functions_per_element=250)
EVERY_S = 0.2


@dataclass(frozen=True)
class Case:
    """A training set with its frames, and the fit."""

    data: Labelled
    frames: Artefact

    def step(self, iterations: int, threads: int, root: Path) -> Artefact:
        """The fit by the step, in a store that has the frames alone."""
        asked = pace_train.Params(potential=POTENTIAL, maxiter=iterations)
        data = Labelled(self._fresh(root), threads, self.data.dataset, self.data.baseline)
        return data.run("pace_train", asked, train=self.frames.file("train"), validation=self.frames.file("validation"))

    def bare(self, given: Path, threads: int, folder: Path) -> None:
        """The fit by the program, with the input.yaml that the step gave it."""
        folder.mkdir()
        (folder / INPUT_FILE).write_bytes(given.read_bytes())
        for side, name in (("train", TRAIN_FILE), ("validation", VALIDATION_FILE)):
            (folder / name).symlink_to(self.data.place.store.path(self.frames.file(side)))
        environment = child_environment(Resources(threads=threads))
        command = [str(find_program()), INPUT_FILE]
        with (folder / "stdout.txt").open("w") as log:
            subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)

    def _fresh(self, root: Path) -> Workspace:
        """A workspace whose store has no fit."""
        (root / "store").mkdir(parents=True)
        (root / "store" / "frames").symlink_to(self.data.place.store.root / "frames")
        return Workspace(root=root, settings=self.data.place.settings)


def stored(root: Path, artefact: Artefact, name: str) -> Path:
    """An output of a fit."""
    return Workspace(root=root, settings=Settings()).store.path(artefact.file(name))


def cost(case: Case, folder: Path, repeats: int, iterations: int, threads: int) -> bool:
    """Print both times; whether the step's wall time is short enough."""
    steps: list[tuple[float, float]] = []
    programs: list[tuple[float, float]] = []
    for turn in range(repeats):
        root = folder / f"step-{turn}"
        with timed(steps):
            fitted = case.step(iterations, threads, root)
        with timed(programs):
            case.bare(stored(root, fitted, "input"), threads, folder / f"bare-{turn}")
        print(
            f"  step {steps[-1][0]:.1f} s ({steps[-1][1]:.1f} s of CPU), program {programs[-1][0]:.1f} s"
            f" ({programs[-1][1]:.1f} s of CPU); load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    ours, theirs = ([statistics.median(column) for column in zip(*runs, strict=True)] for runs in (steps, programs))
    met = ours[0] <= LONGER * theirs[0]
    print(
        f"pace_train of {iterations} iterations, {threads} threads: {ours[0]:.1f} s, bare pacemaker {theirs[0]:.1f} s,"
        f" ratio {ours[0] / theirs[0]:.3f} (of CPU {ours[1] / theirs[1]:.3f}), wanted at most {LONGER:g}:"
        f" {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


@contextmanager
def timed(runs: list[tuple[float, float]]) -> Iterator[None]:
    """Adds wall and CPU seconds of the block."""
    began, spent = time.monotonic(), cpu_seconds()
    yield
    runs.append((time.monotonic() - began, cpu_seconds() - spent))


def losses(case: Case, folder: Path) -> bool:
    """Print the largest relative difference of the losses with one thread; whether it is small enough."""
    root = folder / "step"
    fitted = case.step(LOSS_ITERATIONS, 1, root)
    case.bare(stored(root, fitted, "input"), 1, folder / "bare")
    history = pq.read_table(stored(root, fitted, "history")).to_pylist()
    ours = [row["loss"] for row in history if row["side"] == "train"]
    theirs = [row.loss for row in MetricsFile(folder / "bare" / "metrics.txt").follow()]
    pairs = list(zip(ours, theirs, strict=True))
    difference = max(abs(mine - other) / other for mine, other in pairs)
    met = difference <= SAME and len(pairs) > LOSS_ITERATIONS
    print(
        f"loss over {len(pairs) - 1} iterations, one thread: largest relative difference {difference:.1e}, wanted at"
        f" most {SAME:g}: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def memory(case: Case, folder: Path, threads: int) -> bool:
    """Print the peak of a short fit; whether it is low enough."""
    with peak() as seen:
        fitted = case.step(5, threads, folder / "step")
    gigabytes = max(seen) / 1e9
    met = gigabytes <= MEMORY_GB
    print(
        f"memory of pace_train, {fitted.metrics['structures']} structures of up to {ATOMS} atoms"
        f" ({fitted.metrics['atoms']} atoms, batches of {fitted.metrics['batch_size']}): {gigabytes:.2f} GB, wanted at"
        f" most {MEMORY_GB:g}: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


@contextmanager
def peak() -> Iterator[list[int]]:
    """Bytes of all below this process, looked at several times a second."""
    over, seen = threading.Event(), [0]

    def watch() -> None:
        while not over.wait(EVERY_S):
            seen.append(pss_below())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def usual(data: Path, root: Path, threads: int) -> Case:
    """100 structures, selected from the first 500 of the pool by id."""
    return _case(labelled(_place(root), data, pool(data)[:500], POTENTIAL.cutoff, threads), "combined", 100)


def large(data: Path, root: Path, threads: int) -> Case:
    """STRUCTURES of the largest with up to ATOMS atoms."""
    small = sorted(pool(data, lambda atoms: len(atoms) <= ATOMS), key=len, reverse=True)
    prepared = labelled(_place(root), data, small[: 2 * STRUCTURES], POTENTIAL.cutoff, threads)
    return _case(prepared, "random", STRUCTURES)


def _place(root: Path) -> Workspace:
    root.mkdir(parents=True)
    return Workspace(root=root, settings=Settings(runner="subprocess", device="cpu"))


def _case(prepared: Labelled, method: str, structures: int) -> Case:
    return Case(prepared, prepared.frames(POTENTIAL, prepared.selection(POTENTIAL, method, structures)))


def main() -> int:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if not (options.data / "pool.extxyz").is_file():
        print(f"no pool at {options.data}: python benchmarks/data/make_pools.py, or give --data", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("cost", "losses", "memory"):
            (root / part).mkdir()
        data, threads = options.data.resolve(), options.threads
        case = usual(data, root / "usual", threads)
        met = [losses(case, root / "losses"), cost(case, root / "cost", options.repeats, options.iterations, threads)]
        met.append(memory(large(data, root / "large", threads), root / "memory", threads))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
