"""Make the example pool: small strained and rattled silicon crystals, the same for the same seed.

python examples/silicon/make_pool.py --out examples/silicon/pool.extxyz --seed 0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.neighborlist import neighbor_list

COPIES = 5  # structures in a family: one strained only, the others rattled too
SCALE = 0.03  # a family's linear scale lies in 1 ± this
STRAIN = 0.03  # each component of a copy's strain lies in ± this, so lengths change by 6 % at most
RATTLE = (0.02, 0.15)  # Å, standard deviation of a copy's displacements
SHORTEST = 1.8  # Å; closer pairs are drawn again: the teacher saw none below 1.83 Å


class Kind(NamedTuple):
    """A crystal to start from."""

    group: str
    families: int
    make: Callable[[], Atoms]


def beta_tin() -> Atoms:
    """Four atoms of the first high-pressure phase (a = 4.80 Å, c = 2.65 Å)."""
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.25), (0.5, 0, 0.75)]
    return Atoms("Si4", scaled_positions=places, cell=(4.80, 4.80, 2.65), pbc=True)


def vacancy() -> Atoms:
    """Sixteen places of diamond, fifteen atoms."""
    atoms = bulk("Si", a=5.45) * (2, 2, 2)
    del atoms[0]
    return atoms


KINDS = {
    "diamond2": Kind("diamond", 12, lambda: bulk("Si", a=5.45)),
    "diamond8": Kind("diamond", 17, lambda: bulk("Si", a=5.45, cubic=True)),
    "diamond16": Kind("diamond", 5, lambda: bulk("Si", a=5.45) * (2, 2, 2)),
    "vacancy15": Kind("vacancy", 5, vacancy),
    "sc8": Kind("sc", 3, lambda: bulk("Si", "sc", a=2.53) * (2, 2, 2)),
    "bcc2": Kind("bcc", 6, lambda: bulk("Si", "bcc", a=3.09, cubic=True)),
    "fcc4": Kind("fcc", 6, lambda: bulk("Si", "fcc", a=3.87, cubic=True)),
    "betatin4": Kind("beta_tin", 6, beta_tin),
}


def make_pool(seed: int) -> list[Atoms]:
    """300 structures in 60 families; `group` is the crystal, `family` the parent that copies share."""
    random = np.random.default_rng(seed)
    return [
        copy
        for name, kind in KINDS.items()
        for number in range(kind.families)
        for copy in _family(f"{name}_{number}", kind, random)
    ]


def _family(name: str, kind: Kind, random: np.random.Generator) -> Iterator[Atoms]:
    parent = kind.make()
    parent.set_cell(parent.cell.array * (1 + random.uniform(-SCALE, SCALE)), scale_atoms=True)
    parent.info = {"group": kind.group, "family": name}
    for copy in range(COPIES):
        yield _spaced(parent, rattled=copy > 0, random=random)


def _spaced(parent: Atoms, rattled: bool, random: np.random.Generator) -> Atoms:
    """A strained (and rattled) copy, drawn again until no pair is closer than SHORTEST."""
    while True:
        atoms = parent.copy()
        strain = random.uniform(-STRAIN, STRAIN, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        if rattled:
            atoms.positions += random.normal(0.0, random.uniform(*RATTLE), (len(atoms), 3))
        if len(neighbor_list("d", atoms, SHORTEST)) == 0:
            return atoms


def main() -> None:
    """Write the pool to the file named on the command line."""
    parser = argparse.ArgumentParser(description="Make the example pool of small silicon structures.")
    parser.add_argument("--out", type=Path, required=True, help="file to write (.extxyz)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pool (default 0, the bundled one)")
    arguments = parser.parse_args()
    write(arguments.out, make_pool(arguments.seed), format="extxyz")


if __name__ == "__main__":
    main()
