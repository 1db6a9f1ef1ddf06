"""Our labels per second against the loop over mace-torch's ASE calculator: `python -m benchmarks.labelling`.

Same model, structures, dtype and process, one thread, alternating; imports, files and a warm-up are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import mace  # noqa: F401  first: it sets how e3nn and torch unpickle
import numpy as np
from ase import Atoms
from ase.io import read
from mace.calculators import MACECalculator

from containers.contract import no_progress
from containers.mace.label import EDGES_PER_BATCH, Dtype
from containers.mace.labeller import Labeller, Settings, label_structures

EXAMPLE = Path(__file__).parents[1] / "examples" / "silicon"
WARM_UP = 10  # structures that let torch compile what it compiles

Work = Callable[[list[Atoms]], object]


def ase_loop(model: Path, dtype: Dtype) -> Work:
    """Energy, forces and stress of one structure after the other."""
    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype=dtype)

    def work(structures: list[Atoms]) -> None:
        for atoms in structures:
            calculator.calculate(atoms)

    return work


def our_batches(model: Path, head: str, dtype: Dtype) -> Work:
    """The step's own way, in one process."""
    labeller = Labeller(Settings(model, head, dtype, EDGES_PER_BATCH))
    return lambda structures: label_structures(labeller, structures, no_progress)


def seconds(work: Work, structures: list[Atoms]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work(structures)
    return time.perf_counter() - started


def measure(first: Work, second: Work, structures: list[Atoms], repeats: int) -> tuple[float, float]:
    """Median seconds of both, each repeat one after the other so that a busy machine disturbs both."""
    for work in (first, second):
        work(structures[:: max(len(structures) // WARM_UP, 1)])
    pairs = [(seconds(first, structures), seconds(second, structures)) for _ in range(repeats)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def evenly(path: Path, count: int) -> list[Atoms]:
    """`count` structures of a file, evenly spaced."""
    pool = read(path, index=":")
    return [pool[place] for place in np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)]


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "teacher.model")
    parser.add_argument("--head", default="Default")
    parser.add_argument("--pool", type=Path, default=EXAMPLE / "pool.extxyz")
    parser.add_argument("--structures", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    structures = evenly(options.pool, options.structures)
    atoms = sum(map(len, structures))
    dtypes: tuple[Dtype, ...] = ("float32", "float64")
    for dtype in dtypes:
        works = our_batches(options.model, options.head, dtype), ase_loop(options.model, dtype)
        ours, theirs = measure(*works, structures, options.repeats)
        print(f"labelling {dtype} ours: {atoms / ours:.0f} atoms/s, {len(structures) / ours:.1f} structures/s")
        print(f"labelling {dtype} ASE calculator: {atoms / theirs:.0f} atoms/s")
        print(f"labelling {dtype} speed-up: {theirs / ours:.2f} (at least 1.5)")


if __name__ == "__main__":
    main()
