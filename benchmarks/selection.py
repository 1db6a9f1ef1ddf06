"""One pass of D-optimal selection against pacemaker's program `pace_select`: time, memory, volume of what is chosen.

python benchmarks/selection.py [--pool FILE] [--repeats 3] [--copies 10] [--threads 2]

Whole processes are timed, imports and reading included, in turn so that a busy machine disturbs both. Memory is the
proportional set size (PSS) summed over a process and its children, looked at ten times a second. Labels play no part.
Then the pool is repeated with noise to see that time grows with it and memory does not. The combined choice, by its
step, is told for both and promises nothing: its memory grows with the structures. Exit 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread

from containers.structures.table import LABELS, labels_table, read_atoms, structure_id
from containers.tensorpot.frames.frame_file import Labelled, fit_ready, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection.candidates import DataSet
from containers.tensorpot.student.baseline import Baseline

REPOSITORY = Path(__file__).parents[1]
POOL = REPOSITORY / "benchmarks" / "data" / "silicon" / "pool.extxyz"
POTENTIAL = Potential(elements=("Si",), cutoff=5.0, functions_per_element=250)
COMBINED = 150
"""Structures that the combined method chooses."""
TOLERANCE = 1.01
MEMORY_SHARE = 0.5
LINEAR = 1.3
"""How much longer than the number of copies the repeated pool may take, start-up taken off."""
NOISE_A = 0.03
EVERY_S = 0.1


@dataclass(frozen=True)
class Measured:
    """One run of a process."""

    seconds: float
    cpu_s: float
    peak_MB: float


def measure(command: list[str], folder: Path, threads: int) -> Measured:
    """Run a command to its end; raises when it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
    started, cpu_before, peak = time.monotonic(), _cpu_of_children(), 0
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _pss(process.pid))
            time.sleep(EVERY_S)
    seconds = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{(folder / 'log.txt').read_text()}")
    return Measured(seconds, _cpu_of_children() - cpu_before, peak / 2**20)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _pss(pid: int) -> int:
    """Bytes of a process and all below it; 0 when it ended while it was looked at."""
    here = Path(f"/proc/{pid}")
    try:
        lines = (here / "smaps_rollup").read_text().splitlines()
        children = [int(child) for file in here.glob("task/*/children") for child in file.read_text().split()]
    except OSError:
        return 0
    own = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(_pss(child) for child in children)


def write_dataset(path: Path, structures: Iterable[Atoms]) -> int:
    """A data set of training structures with labels of no meaning; returns how many."""
    count, schema = 0, pa.schema([*LABELS, ("origin", pa.string()), ("side", pa.string()), ("version", pa.int32())])
    with pq.ParquetWriter(path, schema) as writer:
        for block in batched(structures, 1000):
            for atoms in block:
                key = structure_id(atoms)
                atoms.info = {"id": key, "source": "pool", "row": count, "group": "", "family": key}
                atoms.calc = SinglePointCalculator(atoms, energy=-float(len(atoms)), forces=np.zeros((len(atoms), 3)))
                count += 1
            rows = labels_table(block)
            for name, value in (("origin", "teacher"), ("side", "train"), ("version", 0)):
                rows = rows.append_column(schema.field(name), pa.array([value] * len(block), schema.field(name).type))
            writer.write_table(rows)
    return count


def batched(structures: Iterable[Atoms], size: int) -> Iterator[list[Atoms]]:
    """Lists of so many structures."""
    several = iter(structures)
    while block := list(islice(several, size)):
        yield block


def repeated(pool: Path, copies: int) -> Iterable[Atoms]:
    """Every structure of the pool so many times, moved by noise from the second time on."""
    for copy in range(copies):
        for number, atoms in enumerate(iread(pool, index=":")):
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
            if copy:
                noise = np.random.default_rng([copy, number]).normal(scale=NOISE_A, size=(len(bare), 3))
                bare.positions += noise
            yield bare


def ours(folder: Path, threads: int) -> None:
    """One pass over `folder`/dataset.parquet, as the step makes it; writes `ours.json`."""
    from containers.contract import Machine, Resources, no_progress
    from containers.tensorpot.active_set.piece_sizes import sizes_for
    from containers.tensorpot.active_set.projection_files import projections
    from containers.tensorpot.active_set.projections import Projector, unfitted_basis
    from containers.tensorpot.selection.d_optimal import Search, first_pass

    data = DataSet(folder / "dataset.parquet", POTENTIAL.elements, POTENTIAL.cutoff, Baseline(e0s_eV={"Si": 0.0}))
    projector = Projector(unfitted_basis(POTENTIAL))
    sizes = sizes_for(Resources(threads=threads), max(projector.functions.values()))
    machine, free = Machine(Resources(threads=threads)), np.ones(len(data.usable), dtype=bool)
    with projections(data.structures(), len(free), projector, folder / "outputs", machine, sizes) as found:
        search = Search(found, free, ~free, np.zeros_like(free), TOLERANCE, sizes.one_shot_bytes, no_progress)
        first = first_pass(search, len(free), ranked=False)
        active = first.sets["Si"]
    told = {"ids": [data.usable[k].id for k in first.places], "log_det": active.log_det, "passes": active.passes}
    (folder / "ours.json").write_text(json.dumps(told | {"environments": active.environments}))


def combined(folder: Path, threads: int) -> None:
    """The combined choice from `folder`/dataset.parquet by the step itself."""
    from containers.contract import Inputs, Machine, Resources
    from containers.tensorpot.selection import pace_select

    (outputs := folder / "outputs").mkdir(exist_ok=True)
    Baseline(e0s_eV={"Si": 0.0}).write(folder / "baseline.json")
    files = {"dataset": (folder / "dataset.parquet",), "baseline": (folder / "baseline.json",)}
    params = pace_select.Params(potential=POTENTIAL, max_structures=COMBINED, grades=False)
    pace_select.run(Inputs(files), outputs, params, Machine(Resources(threads=threads)))


def combined_choice(folder: Path, structures: int, threads: int) -> None:
    """One line about `combined`."""
    found = measure([sys.executable, __file__, "--combined", str(folder), "--threads", str(threads)], folder, threads)
    print(
        f"combined choice of {COMBINED} of {structures} structures, {POTENTIAL.functions_per_element} functions:"
        f" {found.seconds:.1f} s ({found.cpu_s:.1f} s of CPU), peak PSS {found.peak_MB:.0f} MB",
        flush=True,
    )


def write_theirs(folder: Path) -> None:
    """The same structures and basis as `pace_select` takes them."""
    from pyace.basisextension import construct_bbasisconfiguration

    rows = []
    for atoms in read_atoms(folder / "dataset.parquet"):
        fit = fit_ready(atoms, POTENTIAL.cutoff)
        if isinstance(fit, Atoms):
            rows.append(Labelled(str(atoms.info["id"]), fit, 0.0, 0.0, np.zeros((len(fit), 3)), None))
    write_frame(folder / "pool.pckl.gzip", frame(rows))
    construct_bbasisconfiguration(POTENTIAL.section()).save(str(folder / "target.yaml"))


def log_dets(folder: Path, choices: dict[str, list[str]]) -> dict[str, float]:
    """log det of the active set of the rows of each choice of structures, all by one function."""
    from containers.tensorpot.active_set.active_rows import active_rows
    from containers.tensorpot.active_set.maxvol import maxvol_from
    from containers.tensorpot.active_set.projections import project, unfitted_basis

    basis, found = unfitted_basis(POTENTIAL), {}
    structures = {str(atoms.info["id"]): atoms for atoms in read_atoms(folder / "dataset.parquet")}
    for name, ids in choices.items():
        ready = [fit_ready(structures[key], POTENTIAL.cutoff) for key in ids]
        rows = project(basis, [one for one in ready if isinstance(one, Atoms)])[0]["Si"]
        best = maxvol_from(rows, active_rows(rows, TOLERANCE), 1.0001)
        found[name] = float(np.linalg.slogdet(rows[best])[1])
    return found


def verdict(met: bool) -> str:
    """Whether a bound was kept."""
    return "met" if met else "MISSED"


def against_the_program(folder: Path, repeats: int, threads: int) -> tuple[bool, Measured]:
    """One line per figure; whether all bounds were kept, and our medians."""
    import pandas as pd

    mine = [sys.executable, __file__, "--ours", str(folder), "--threads", str(threads)]
    program = str(Path(sys.executable).parent / "pace_select")
    theirs = [program, "-p", "target.yaml", "-o", "theirs.pkl", "pool.pckl.gzip"]
    pairs = [(measure(mine, folder, threads), measure(theirs, folder, threads)) for _ in range(repeats)]
    us, them = (_median(runs) for runs in zip(*pairs, strict=True))
    told: dict[str, Any] = json.loads((folder / "ours.json").read_text())
    frame_of_theirs = pd.read_pickle(folder / "theirs.pkl")
    what = f"selection of {told['environments']} environments, {POTENTIAL.functions_per_element} functions"
    fast, small = us.seconds <= them.seconds, us.peak_MB <= MEMORY_SHARE * them.peak_MB
    print(
        f"{what}: {us.seconds:.1f} s ({us.cpu_s:.1f} s of CPU), pace_select {them.seconds:.1f} s"
        f" ({them.cpu_s:.1f} s of CPU), wanted no slower: {verdict(fast)}"
    )
    print(
        f"{what}: peak PSS {us.peak_MB:.0f} MB, pace_select {them.peak_MB:.0f} MB, ratio"
        f" {us.peak_MB / them.peak_MB:.2f}, wanted at most {MEMORY_SHARE:g}: {verdict(small)}"
    )
    found = log_dets(folder, {"ours": told["ids"], "pace_select": frame_of_theirs["name"].tolist()})
    wide = found["ours"] >= found["pace_select"]
    print(
        f"{what}: log det {found['ours']:.2f} ({len(told['ids'])} structures, {told['passes']} readings; of the pass"
        f" itself {told['log_det']:.2f}), pace_select {found['pace_select']:.2f} ({len(frame_of_theirs)} structures),"
        f" wanted at least as large: {verdict(wide)}",
        flush=True,
    )
    return fast and small and wide, us


def _median(runs: Iterable[Measured]) -> Measured:
    runs = list(runs)
    return Measured(*(statistics.median(values) for values in zip(*map(astuple, runs), strict=True)))


def repeated_pool(folder: Path, pool: Path, copies: int, once: Measured, threads: int) -> bool:
    """Time and memory on the repeated pool; whether they are linear and the same."""
    count = write_dataset(folder / "dataset.parquet", repeated(pool, copies))
    nothing = measure([sys.executable, "-c", "import pyace, pyarrow.parquet"], folder, threads)
    many = measure([sys.executable, __file__, "--ours", str(folder), "--threads", str(threads)], folder, threads)
    told = json.loads((folder / "ours.json").read_text())
    ratio = (many.seconds - nothing.seconds) / (once.seconds - nothing.seconds)
    linear, same = ratio <= LINEAR * copies, many.peak_MB <= 1.2 * once.peak_MB
    print(
        f"selection of {count} structures ({told['environments']} environments): {many.seconds:.1f} s,"
        f" {ratio:.1f} times those of a {copies}th without start-up ({told['passes']} readings), wanted at most"
        f" {LINEAR * copies:.1f}: {verdict(linear)}; peak PSS {many.peak_MB:.0f} MB, {many.peak_MB / once.peak_MB:.2f}"
        f" times, wanted at most 1.2: {verdict(same)}",
        flush=True,
    )
    combined_choice(folder, count, threads)
    return linear and same


def main() -> int:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, default=POOL)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int, default=10, help="0: leave the repeated pool out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    for process in (ours, combined):  # what is measured
        parser.add_argument(f"--{process.__name__}", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if folder := chosen.ours or chosen.combined:
        (ours if chosen.ours else combined)(folder, chosen.threads)
        return 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        count = write_dataset(folder / "dataset.parquet", repeated(chosen.pool, 1))
        write_theirs(folder)
        good, once = against_the_program(folder, chosen.repeats, chosen.threads)
        combined_choice(folder, count, chosen.threads)
        if chosen.copies:
            good &= repeated_pool(folder, chosen.pool, chosen.copies, once, chosen.threads)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
