"""Make the benchmarks' pools from their DFT structures: benchmarks/data/SYSTEM/pool.extxyz, the same each time.

python benchmarks/data/make_pools.py [silicon nial]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1] / "examples"))

from make_pool import EXAMPLES, copies, lattice_constant  # noqa: E402

SHORTEST_A = {"silicon": 1.5, "nial": 1.5}  # of a pair; the shortest of the training structures are longer
COPIES = {"silicon": 6, "nial": 5}  # of a DFT structure


def silicon(random: np.random.Generator) -> list[Atoms]:
    """716 cells of one to eight atoms."""
    cells = {
        "diamond": (490, lambda: bulk("Si", a=5.45, cubic=bool(random.integers(2)))),
        "sc": (71, lambda: bulk("Si", "sc", a=2.53) * (1, 1, int(random.integers(1, 5)))),
        "bcc": (86, lambda: bulk("Si", "bcc", a=3.09, cubic=True)),
        "fcc": (69, lambda: bulk("Si", "fcc", a=3.87, cubic=True)),
    }
    return [named(make(), group, f"{group}{n}") for group, (count, make) in cells.items() for n in range(count)]


def nial(random: np.random.Generator) -> list[Atoms]:
    """270 alloy cells of eight atoms on fcc and bcc."""
    made = []
    for number in range(270):
        count = int(random.integers(0, 9))
        length = lattice_constant(count / 8)
        lattice, a = ("fcc", length) if number % 2 else ("bcc", length / 2 ** (1 / 3))
        atoms = bulk("Ni", lattice, a=a) * (2, 2, 2)
        for place in random.permutation(8)[:count]:
            atoms.symbols[place] = "Al"
        made.append(named(atoms, "random", f"prototype{number}"))
    return made


def named(atoms: Atoms, group: str, family: str) -> Atoms:
    """The bare structure with its group and family."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info = {"group": group, "family": family}
    return bare


CELLS = {"silicon": silicon, "nial": nial}


def make_pool(system: str) -> list[Atoms]:
    """Strained and rattled copies of the DFT training structures, which share a family, and one of each small cell."""
    random, (_, rattle, _) = np.random.default_rng(0), EXAMPLES[system]
    made = []
    for number, atoms in enumerate(read(FOLDER / system / "dft_train.extxyz", ":")):
        parent = named(atoms, atoms.info["group"], atoms.info.get("family", f"dft{number}"))
        made += copies(parent, COPIES[system], random, rattle, SHORTEST_A[system])
    for cell in CELLS[system](random):
        made += list(copies(cell, 2, random, rattle, SHORTEST_A[system]))[1:]  # rattled
    return made


def main() -> None:
    """Write the pools of the systems named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"{', '.join(CELLS)}; all of them by default")
    for system in parser.parse_args().systems or CELLS:
        write(FOLDER / system / "pool.extxyz", make_pool(system), format="extxyz")


if __name__ == "__main__":
    main()
