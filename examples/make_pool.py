"""Make an example's pool: small strained and rattled crystals, the same for the same seed.

python examples/make_pool.py silicon --out examples/silicon/pool.extxyz --seed 0
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


class Kind(NamedTuple):
    """A crystal to start from."""

    group: str
    families: int
    make: Callable[[np.random.Generator], Atoms]


class Example(NamedTuple):
    """The crystals of a system and how they are disturbed."""

    kinds: dict[str, Kind]
    rattle: tuple[float, float]  # Å, standard deviation of a copy's displacements
    shortest: float  # Å; closer pairs are drawn again


LENGTHS = {"Ni": 3.49, "Al": 4.03}  # Å, fcc lattice constants; those of alloys lie between them


def beta_tin() -> Atoms:
    """Four atoms of silicon's first high-pressure phase (a = 4.80 Å, c = 2.65 Å)."""
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.25), (0.5, 0, 0.75)]
    return Atoms("Si4", scaled_positions=places, cell=(4.80, 4.80, 2.65), pbc=True)


def lattice_constant(share_al: float) -> float:
    """Å, of an fcc cell of four atoms; linear in the share of aluminium (Vegard)."""
    return (1 - share_al) * LENGTHS["Ni"] + share_al * LENGTHS["Al"]


def element(symbol: str, lattice: str) -> Atoms:
    """A cubic cell of fcc (4 atoms) or bcc (2 atoms, with the volume an atom of fcc)."""
    length = LENGTHS[symbol]
    return bulk(symbol, lattice, a=length if lattice == "fcc" else length / 2 ** (1 / 3), cubic=True)


def b2(repeat: int) -> Atoms:
    """NiAl, `repeat` cells of two atoms along each axis."""
    return Atoms("NiAl", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[2.88] * 3, pbc=True).repeat(repeat)


def l1_2(major: str, minor: str) -> Atoms:
    """Ni3Al or NiAl3: the minor element at the corners of fcc, the major one on the faces."""
    share_al = 0.25 if minor == "Al" else 0.75
    atoms = bulk(major, "fcc", a=lattice_constant(share_al), cubic=True)
    atoms.symbols[0] = minor
    return atoms


def solution(random: np.random.Generator) -> Atoms:
    """Eight places of fcc with one to seven aluminium atoms at random."""
    count = int(random.integers(1, 8))
    atoms = bulk("Ni", "fcc", a=lattice_constant(count / 8)) * (2, 2, 2)
    for place in random.permutation(8)[:count]:
        atoms.symbols[place] = "Al"
    return atoms


def vacancy(atoms: Atoms) -> Atoms:
    """The crystal less its first atom."""
    del atoms[0]
    return atoms


SILICON = {
    "diamond2": Kind("diamond", 12, lambda _: bulk("Si", a=5.45)),
    "diamond8": Kind("diamond", 17, lambda _: bulk("Si", a=5.45, cubic=True)),
    "diamond16": Kind("diamond", 5, lambda _: bulk("Si", a=5.45) * (2, 2, 2)),
    "vacancy15": Kind("vacancy", 5, lambda _: vacancy(bulk("Si", a=5.45) * (2, 2, 2))),
    "sc8": Kind("sc", 3, lambda _: bulk("Si", "sc", a=2.53) * (2, 2, 2)),
    "bcc2": Kind("bcc", 6, lambda _: bulk("Si", "bcc", a=3.09, cubic=True)),
    "fcc4": Kind("fcc", 6, lambda _: bulk("Si", "fcc", a=3.87, cubic=True)),
    "betatin4": Kind("beta_tin", 6, lambda _: beta_tin()),
}
NIAL = {
    "ni_fcc": Kind("fcc", 5, lambda _: element("Ni", "fcc")),
    "al_fcc": Kind("fcc", 5, lambda _: element("Al", "fcc")),
    "ni_bcc": Kind("bcc", 3, lambda _: element("Ni", "bcc")),
    "al_bcc": Kind("bcc", 3, lambda _: element("Al", "bcc")),
    "nial_2": Kind("B2", 6, lambda _: b2(1)),
    "nial_16": Kind("B2", 4, lambda _: b2(2)),
    "ni3al": Kind("L12", 7, lambda _: l1_2("Ni", "Al")),
    "nial3": Kind("L12", 5, lambda _: l1_2("Al", "Ni")),
    "solution": Kind("random", 17, solution),
    "nial_vacancy": Kind("vacancy", 5, lambda _: vacancy(b2(2))),
}
EXAMPLES = {
    "silicon": Example(SILICON, (0.02, 0.15), 1.8),  # the teacher saw nothing below 1.83 Å
    "nial": Example(NIAL, (0.02, 0.12), 1.95),
}


def make_pool(example: Example, seed: int) -> list[Atoms]:
    """300 structures in 60 families; `group` is the crystal, `family` the parent that copies share."""
    random, made = np.random.default_rng(seed), []
    for name, kind in example.kinds.items():
        for number in range(kind.families):
            parent = kind.make(random)
            parent.set_initial_magnetic_moments(None)  # ASE gives nickel some
            parent.set_cell(parent.cell.array * (1 + random.uniform(-SCALE, SCALE)), scale_atoms=True)
            parent.info = {"group": kind.group, "family": f"{name}_{number}"}
            made += copies(parent, COPIES, random, example.rattle, example.shortest)
    return made


def copies(
    parent: Atoms, count: int, random: np.random.Generator, rattle: tuple[float, float], shortest: float
) -> Iterator[Atoms]:
    """Strained copies of a structure, all but the first rattled too, drawn again while a pair is too close.

    Args:
        rattle: Å, bounds of the standard deviation of a copy's displacements.
        shortest: Å, of a pair.
    """
    for copy in range(count):
        while True:
            atoms = parent.copy()
            strain = random.uniform(-STRAIN, STRAIN, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
            if copy > 0:
                atoms.positions += random.normal(0.0, random.uniform(*rattle), (len(atoms), 3))
            if len(neighbor_list("d", atoms, shortest)) == 0:
                break
        yield atoms


def main() -> None:
    """Write the pool to the file named on the command line."""
    parser = argparse.ArgumentParser(description="Make an example's pool of small structures.")
    parser.add_argument("example", choices=EXAMPLES)
    parser.add_argument("--out", type=Path, required=True, help="file to write (.extxyz)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pool (default 0, the bundled one)")
    arguments = parser.parse_args()
    write(arguments.out, make_pool(EXAMPLES[arguments.example], arguments.seed), format="extxyz")


if __name__ == "__main__":
    main()
