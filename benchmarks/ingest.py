"""What ingesting costs beside reading alone.

python benchmarks/ingest.py [--structures 100000] [--likeness]

Structures of 50 atoms are written as extended XYZ to a scratch folder, without and with labels: six rattled copies of
each parent. Each file is ingested, and read by `ase.io.iread`, in a new process of one thread; processor time is told,
because other work on the machine does not change it. `--likeness` leaves the families to be found. Exit 1 when up to
100,000 structures take more memory than is promised.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.io import iread
from processes import peak_MB

from containers.contract import Inputs, Machine
from containers.ingest import ingest

COPIES = 6  # of each parent
LIMITED = 100_000
MOST_MB = 1_000  # for up to so many structures
LABELS = {"energy_key": "REF_energy", "forces_key": "REF_forces"}


def write_pool(path: Path, count: int, likeness: bool) -> None:
    """`count` structures of 50 atoms; labels that sum to zero stand beside every atom."""
    lattice = bulk("Si", cubic=True, a=5.43) * (2, 2, 2)
    places, cell = lattice.positions[:50], lattice.cell.array
    random = np.random.default_rng(0)
    with path.open("w") as file:
        for number in range(count):
            if number % COPIES == 0:
                parent = places + random.normal(scale=0.3, size=places.shape)
            positions = parent + random.normal(scale=0.03, size=places.shape)
            forces = random.normal(size=places.shape)
            forces -= forces.mean(axis=0)
            family = "" if likeness else f" family=parent{number // COPIES}"
            vectors = " ".join(map(str, cell.ravel().tolist()))
            file.write(f'50\nLattice="{vectors}" Properties=species:S:1:pos:R:3:REF_forces:R:3 group=bulk{family}')
            file.write(f' REF_energy={-250 + random.normal():.8f} pbc="T T T"\n')
            rows = np.hstack([positions, forces]).tolist()
            file.writelines("Si {:.8f} {:.8f} {:.8f} {:.8f} {:.8f} {:.8f}\n".format(*row) for row in rows)


def ingest_it(path: Path, labelled: bool) -> None:
    """In a process of its own: print structures, seconds, processor seconds, and peak memory after and before."""
    before, began, used = peak_MB(), time.perf_counter(), time.process_time()
    params = ingest.Params(file_names=(path.name,), **(LABELS if labelled else {}))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        outputs = Path(folder) / "outputs"
        outputs.mkdir()
        found = ingest.run(Inputs({"files": (path,)}), outputs, params, Machine())["structures"]
    print(found, time.perf_counter() - began, time.process_time() - used, peak_MB(), before)


def read_it(path: Path) -> None:
    """The same for reading alone, as ASE does."""
    before, began, used = peak_MB(), time.perf_counter(), time.process_time()
    found = sum(1 for _ in iread(str(path), index=":"))
    print(found, time.perf_counter() - began, time.process_time() - used, peak_MB(), before)


def measured(what: str, path: Path) -> list[float]:
    """One of the two in a new process."""
    command = [sys.executable, __file__, f"--{what}", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return [float(word) for word in subprocess.check_output(command, env=environment, text=True).split()]


def compare(count: int, likeness: bool, folder: Path | None) -> bool:
    """Print one line per figure; whether the memory is as promised."""
    met = True
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "pool.extxyz"
        write_pool(path, count, likeness)
        tell(count, f"{path.stat().st_size / 1e6:.0f} MB of extended XYZ, 50 atoms each")
        plain = measured("read", path)
        tell(count, f"ase.io.iread: {1e3 * plain[2] / count:.3f} ms a structure, peak {plain[3]:.0f} MB")
        for what in ("pool", "dft"):
            found, seconds, processor, peak, before = measured(what, path)
            if found != count:
                sys.exit(f"{found:.0f} of {count} structures were kept")
            per, times = 1e3 * processor / count, processor / plain[2]
            labels = "with labels" if what == "dft" else "without labels"
            tell(
                count, f"ingested {labels}: {count / seconds:.0f} structures/s, {per:.3f} ms each, {times:.1f} x iread"
            )
            told = f"ingested {labels}: peak {peak:.0f} MB, {before:.0f} MB before the first"
            if count <= LIMITED:
                met &= (kept := peak <= MOST_MB)
                told += f", wanted at most {MOST_MB} MB: {'met' if kept else 'MISSED'}"
            tell(count, told)
    return met


def tell(count: int, what: str) -> None:
    """One line."""
    print(f"ingest, {count} structures: {what}", flush=True)


def main() -> int:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=100_000)
    parser.add_argument("--likeness", action="store_true", help="the file names no families")
    parser.add_argument("--folder", type=Path, help="where the scratch files are made (500 MB for 100,000)")
    for what in ("pool", "dft", "read"):
        parser.add_argument(f"--{what}", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_it(options.read)
    elif options.pool or options.dft:
        ingest_it(options.pool or options.dft, labelled=options.dft is not None)
    else:
        return 0 if compare(options.structures, options.likeness, options.folder) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
