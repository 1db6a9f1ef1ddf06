"""Kinds of copies of a seed: strained, repeated, with a vacancy, cut to a slab, alloyed or disordered, and displaced.

A maker of a kind yields pairs of a family's name and a structure, without end or until it has no more. A parent is a
clean structure; copies that differ from it by displacements alone share its family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count, cycle, islice

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from containers.arrays import Floats, Mask
from containers.ingest.families import LIKENESS_A
from containers.properties.crystals import conventional, primitive
from containers.properties.molecules import BOND
from containers.structures.cells import bare, continues, heights
from containers.tensorpot.exploration.changes import (
    GAP_A,
    WIDTH_A,
    alloyed,
    enlarged,
    pair_distances,
    rattled,
    strained,
    widened,
)

SYMMETRY_A = 0.01  # Å by which atoms may lie off their symmetric places
FEW = 4  # atoms of a strained cell at least: displacements mean nothing in a cell of one atom
MILD = 0.5  # share of the strains of cells in supercells, slabs and defects
RATTLES_A = (0.02, 0.15, 0.1, 0.3, 0.05, 0.2)
"""Å, standard deviations of each coordinate, in turn."""
USUAL_A = 2.3
"""Where atoms are nearer than this, displacements are smaller in proportion."""
DISORDER = (0.15, 0.25, 0.35)  # the same of disordered structures, by the shortest distance
COPIES = 2  # of a parent
CLOSEST, CLOSEST_DISORDERED = 0.8, 0.85
"""No two atoms come nearer than this share of the seed's shortest distance of their elements. It is larger where atoms
move far: they come as near as they may."""
STRETCHES = (0.92, 1.1, 1.2, 1.3)  # of a bond

Named = Iterator[tuple[str, Atoms]]


@dataclass(frozen=True)
class Seed:
    """A structure of the user.

    Attributes:
        state: see `containers.structures.state`.
        most_atoms: limit of every structure made of it.
    """

    atoms: Atoms
    id: str
    place: str
    family: str
    state: str
    most_atoms: int

    @cached_property
    def along(self) -> Mask:
        """(3,) cell vectors along which matter continues."""
        return continues(self.atoms, GAP_A)

    @cached_property
    def primitive(self) -> Atoms:
        """The primitive cell of a crystal."""
        return primitive(self.atoms, SYMMETRY_A)

    @cached_property
    def small(self) -> Atoms:
        """The primitive cell of a crystal, or the given one, repeated to FEW atoms unless that would change a state."""
        if self.state:
            return self.atoms
        cell = self.primitive if self.along.all() else self.atoms
        return enlarged(cell, self.along, FEW, 0.0, self.most_atoms)

    def supercell(self, atoms: int, most_atoms: int) -> Atoms:
        """Repeat a crystal to `atoms` and WIDTH_A: the primitive or the conventional cell, which needs fewer."""
        cells = [self.primitive, conventional(self.atoms, SYMMETRY_A)]
        large = [enlarged(cell, self.along, atoms, WIDTH_A, most_atoms) for cell in cells if len(cell) <= most_atoms]
        short = [max(0.0, round(WIDTH_A - float(heights(cell).min()), 6)) for cell in large]
        return min(zip(large, short, strict=True), key=lambda one: (len(one[0]) < atoms, one[1], len(one[0])))[0]

    @cached_property
    def usual(self) -> Atoms:
        """The supercell of the pool."""
        return self.supercell(1, self.most_atoms)

    @cached_property
    def distances(self) -> Floats:
        """(119, 119) Å, see `pair_distances`."""
        return pair_distances(self.atoms)

    @property
    def shortest_A(self) -> float:
        """Shortest distance of two atoms."""
        return float(self.distances[self.distances > 0].min())

    def sizes_A(self) -> Iterator[float]:
        """Return sizes of displacements without end."""
        return cycle([size * min(1.0, self.shortest_A / USUAL_A) for size in RATTLES_A])


@dataclass(frozen=True)
class Plan:
    """Settings of all makers.

    Attributes:
        seed: of the strains.
        faces: slabs by the id of the crystal, see `faces`.
        exchange: element -> elements that may take its sites.
        volumes_A3: mean atomic volume of each element, where the seeds show it.
    """

    seed: int
    faces: Mapping[str, list[tuple[str, Atoms]]]
    exchange: Mapping[str, tuple[str, ...]]
    volumes_A3: Mapping[str, float]


def rattles(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield the seed and displaced copies. One displaced farther than near duplicates are is a family of its own."""
    yield "rattle", bare(seed.small)
    for number, size in enumerate(seed.sizes_A()):
        far = size * 3**0.5 > LIKENESS_A
        yield f"rattle {number}" if far else "rattle", rattled(seed.small, size, CLOSEST * seed.distances, random)


def strains(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield strained cells, each clean and displaced."""
    sizes = seed.sizes_A()
    for number in count():
        parent = strained(seed.small, seed.along, number, plan.seed)
        yield f"strain {number}", parent
        for size in islice(sizes, COPIES):
            yield f"strain {number}", rattled(parent, size, CLOSEST * seed.distances, random)


def supercells(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield displaced supercells, mildly strained but the first, whose family is that of the cell without strain."""
    sizes = seed.sizes_A()
    for number in count():
        parent = strained(seed.usual, seed.along, number, plan.seed, MILD)
        for size in islice(sizes, COPIES):
            yield (
                f"supercell {number}" if number else "strain 0",
                rattled(parent, size, CLOSEST * seed.distances, random),
            )


def vacancies(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield displaced supercells without one atom, of each element in turn, mildly strained after the first round."""
    sizes = seed.sizes_A()
    for number in count() if len(seed.usual) > FEW else ():
        for element in sorted(set(seed.usual.symbols)):
            parent = strained(seed.usual, seed.along, number, plan.seed, MILD)
            del parent[int(random.choice(np.flatnonzero(parent.symbols == element)))]
            for size in islice(sizes, COPIES):
                yield f"vacancy {element} {number}", rattled(parent, size, CLOSEST * seed.distances, random)


def slabs(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield displaced slabs of each face of low index in turn, mildly strained in their plane after the first round."""
    sizes = seed.sizes_A()
    wide = [(name, widened(slab, 1, seed.most_atoms)) for name, slab in plan.faces.get(seed.id, [])]
    for number in count() if wide else ():
        for name, slab in wide:
            parent = strained(slab, continues(slab, GAP_A), number, plan.seed, MILD)
            for size in islice(sizes, COPIES):
                yield f"{name} {number}", rattled(parent, size, CLOSEST * seed.distances, random)


def alloys(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield displaced supercells of random compositions; those of one composition are a family.

    A parent of one element, or with every atom on its own place, is another kind's: it is drawn anew.
    """
    sizes = seed.sizes_A()
    while not set(plan.exchange).isdisjoint(seed.usual.symbols):
        parent = alloyed(seed.usual, plan.exchange, plan.volumes_A3, random)
        if len(set(parent.symbols)) == 1 or (parent.numbers == seed.usual.numbers).all():
            continue
        closest = CLOSEST * pair_distances(parent)
        for size in islice(sizes, COPIES):
            yield f"alloy {parent.get_chemical_formula()}", rattled(parent, size, closest, random)


def disordered(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield strongly displaced supercells, every second in a half around one atom only; each is a family."""
    for number, size in enumerate(cycle(DISORDER)):
        parent = strained(seed.usual, seed.along, number, plan.seed, MILD)
        centre = int(random.integers(len(parent)))
        near = np.argsort(parent.get_distances(centre, range(len(parent)), mic=True), kind="stable")
        moving = near[: len(near) // 2] if number % 2 else near
        bounds = CLOSEST_DISORDERED * seed.distances
        yield f"disordered {number}", rattled(parent, size * seed.shortest_A, bounds, random, moving)


def stretches(seed: Seed, plan: Plan, random: np.random.Generator) -> Named:
    """Yield molecules with one bond longer or shorter, clean and displaced. In a ring one atom moves, else a part."""
    first, second = neighbor_list("ij", seed.atoms, natural_cutoffs(seed.atoms, mult=BOND))
    bonds = [(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True) if i < j]
    sizes, bounds = seed.sizes_A(), CLOSEST * seed.distances
    for i, j, factor in random.permutation([(*bond, factor) for bond in bonds for factor in STRETCHES]):
        others = np.array([bond for bond in bonds if bond != (i, j)], dtype=int).reshape(-1, 2).T
        graph = coo_array((np.ones(others.shape[1]), tuple(others)), shape=[len(seed.atoms)] * 2)
        _, part = connected_components(graph, directed=False)
        moving = part == part[int(j)] if part[int(i)] != part[int(j)] else np.arange(len(part)) == j
        parent = bare(seed.atoms)
        parent.positions[moving] += (factor - 1) * parent.get_distance(int(i), int(j), mic=True, vector=True)
        found = pair_distances(parent)
        if ((found < bounds) & (found > 0)).any():
            continue
        name = f"stretch {i:.0f}-{j:.0f} {factor:g}"
        yield name, parent
        for size in islice(sizes, COPIES):
            yield name, rattled(parent, size, bounds, random)


Maker = Callable[[Seed, Plan, np.random.Generator], Named]
OF_CRYSTALS: dict[str, Maker] = {
    "strain": strains,
    "supercell": supercells,
    "vacancy": vacancies,
    "slab": slabs,
    "alloy": alloys,
    "disordered": disordered,
}
OF_SLABS: dict[str, Maker] = {"rattle": rattles, "strain": strains}
OF_MOLECULES: dict[str, Maker] = {"rattle": rattles, "stretch": stretches}
