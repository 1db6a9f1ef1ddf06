"""Our labels per second against mace-torch's ASE calculator and `mace_eval_configs`, and whether they are equal.

python benchmarks/labelling.py [--pool FILE] [--model FILE] [--structures 500]

Same structures on the same cores, in turn so that a busy machine disturbs both; told are medians after a warm-up.
Imports, loading the model and files are not counted. Exit 1 when labels differ by more, or are made more
slowly, than is promised.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read
from contestants import Arena, Contestant, Dtype, Labels, arena  # the file beside this one

EXAMPLE = Path(__file__).parents[1] / "examples" / "silicon"
DTYPES: tuple[Dtype, Dtype] = ("float64", "float32")
TIMES_THE_LOOP, TIMES_THE_PROGRAM = 3.0, 1.5
BOUNDS: dict[Dtype, tuple[float, float]] = {"float64": (1e-9, 1e-8), "float32": (1e-4, 1e-3)}
"""Largest difference to the ASE calculator in float64: eV/atom, eV/Å."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
SWEPT = 2  # the best batch size is looked for on every second structure


@dataclass(frozen=True)
class Bench:
    """What every comparison shares."""

    model: Path
    head: str
    structures: list[Atoms]
    repeats: int
    cores: int

    @property
    def atoms(self) -> int:
        """Atoms of all structures."""
        return sum(map(len, self.structures))

    def contestant(self, kind: str, dtype: Dtype, processes: int = 1, threads: int | None = None) -> Contestant:
        """One of `contestants.Contestant` for this model."""
        return Contestant(kind, self.model, self.head, dtype, processes, threads)  # type: ignore[arg-type]

    def ours(self, dtype: Dtype) -> Contestant:
        """All cores."""
        return self.contestant("ours", dtype, threads=self.cores)

    def race(self, ours: Arena, theirs: Arena, batch_size: int = 0) -> tuple[float, float]:
        """Median seconds of both, in turn."""
        for runner in (ours, theirs):
            runner.seconds(self.structures[::SWEPT], batch_size)
        pairs = [
            (ours.seconds(self.structures), theirs.seconds(self.structures, batch_size)) for _ in range(self.repeats)
        ]
        mine, other = zip(*pairs, strict=True)
        return statistics.median(mine), statistics.median(other)

    def tell(self, ours: str, theirs: str, seconds: tuple[float, float], wanted: float | None = None) -> bool:
        """One line; whether ours is as many times faster as is wanted."""
        mine, other = seconds
        ratio = other / mine
        met = wanted is None or ratio >= wanted
        verdict = "" if wanted is None else f", wanted at least {wanted:g}: {'met' if met else 'MISSED'}"
        print(
            f"labelling {ours}: {self.atoms / mine:.0f} atoms/s, {len(self.structures) / mine:.1f} structures/s;"
            f" {theirs}: {self.atoms / other:.0f} atoms/s; {ratio:.2f} times{verdict}",
            flush=True,
        )
        return met


def against_the_loop(bench: Bench) -> bool:
    """Speed against the plain loop over the ASE calculator, and equality with it; whether both are as promised."""
    with ExitStack() as stack:
        loop = stack.enter_context(arena(bench.contestant("ase", "float64")))
        ours = {dtype: stack.enter_context(arena(bench.ours(dtype))) for dtype in DTYPES}
        theirs = "ASE loop float64, default threads"
        met = [bench.tell(f"{dtype} ours", theirs, bench.race(ours[dtype], loop), TIMES_THE_LOOP) for dtype in DTYPES]
        reference = loop.labels(bench.structures)
        met += [_equal(dtype, reference, ours[dtype].labels(bench.structures), bench.structures) for dtype in DTYPES]
        alone = stack.enter_context(arena(bench.contestant("ase", "float64", threads=1)))
        bench.tell("float64 ours", "ASE loop float64, one thread", bench.race(ours["float64"], alone))
        single = stack.enter_context(arena(bench.contestant("ase", "float32")))
        bench.tell("float32 ours", "ASE loop float32, default threads", bench.race(ours["float32"], single))
    return all(met)


def _equal(dtype: Dtype, reference: Labels, found: Labels, structures: Sequence[Atoms]) -> bool:
    pairs = list(zip(structures, reference, found, strict=True))
    energy = max(abs(label[0] - wanted[0]) / len(atoms) for atoms, wanted, label in pairs)
    force = max(float(np.abs(label[1] - wanted[1]).max()) for _, wanted, label in pairs)
    met = energy <= BOUNDS[dtype][0] and force <= BOUNDS[dtype][1]
    print(
        f"labelling {dtype} ours, largest difference to the ASE calculator in float64: {energy:.1e} eV/atom (at most"
        f" {BOUNDS[dtype][0]:g}), {force:.1e} eV/Å (at most {BOUNDS[dtype][1]:g}): {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def against_the_program(bench: Bench, dtype: Dtype) -> bool:
    """Speed against `mace_eval_configs` at its best batch size and the better use of the cores; whether as promised."""
    ways = dict.fromkeys([(1, bench.cores), (bench.cores, 1)])
    with ExitStack() as stack:
        ours = stack.enter_context(arena(bench.ours(dtype)))
        programs = {way: stack.enter_context(arena(bench.contestant("eval", dtype, *way))) for way in ways}
        sample = bench.structures[::SWEPT]
        for program in programs.values():
            program.seconds(sample, BATCH_SIZES[-1])
        tried = {(size, way): programs[way].seconds(sample, size) for size in BATCH_SIZES for way in ways}
        for way in ways:
            sizes = ", ".join(f"{size}: {sum(map(len, sample)) / tried[size, way]:.0f}" for size in BATCH_SIZES)
            print(f"  mace_eval_configs {dtype}, {_way(way)}, atoms/s by batch size: {sizes}")
        size, way = min(tried, key=lambda key: tried[key])
        seconds = bench.race(ours, programs[way], size)
        theirs = f"mace_eval_configs {dtype}, {_way(way)}, batch size {size}"
        return bench.tell(f"{dtype} ours", theirs, seconds, TIMES_THE_PROGRAM)


def _way(way: tuple[int, int]) -> str:
    return f"processes: {way[0]}, threads of each: {way[1]}"


def evenly(path: Path, count: int) -> list[Atoms]:
    """`count` structures of a file, evenly spaced, without labels."""
    pool = read(path, index=":")
    places = np.linspace(0, len(pool) - 1, min(count, len(pool))).astype(int)
    return [Atoms(pool[n].numbers, pool[n].positions, cell=pool[n].cell, pbc=pool[n].pbc) for n in places]


def main() -> int:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=EXAMPLE / "teacher.model")
    parser.add_argument("--head", default="Default")
    parser.add_argument("--pool", type=Path, default=EXAMPLE / "pool.extxyz")
    parser.add_argument("--structures", type=int, default=500, help="of the pool, evenly spaced")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    structures = evenly(options.pool, options.structures)
    bench = Bench(options.model, options.head, structures, options.repeats, len(os.sched_getaffinity(0)))
    print(f"labelling {len(structures)} structures, {bench.atoms} atoms, of {options.pool}, on {bench.cores} cores")
    met = [against_the_loop(bench), *(against_the_program(bench, dtype) for dtype in DTYPES)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
