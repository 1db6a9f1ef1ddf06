"""Copies of a seed: strained, repeated, with a vacancy, cut to a slab, alloyed or disordered, and displaced.

A maker of a kind yields pairs of a family's name and a structure, without end or until it has no more. A parent is a
clean structure; copies that differ from it by displacements alone share its family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count, cycle, islice, product

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from containers.arrays import Floats, Indices, Mask
from containers.ingest.families import LIKENESS_A
from containers.properties.crystals import conventional, primitive
from containers.properties.molecules import BOND
from containers.structures.cells import bare, continues, heights, lattice
from containers.structures.distances import shortest_per_pair

GAP_A = 6.0  # Å without an atom: matter ends there
SYMMETRY_A = 0.01  # Å by which atoms may lie off their symmetric places
FEW = 4  # atoms of a strained cell at least: displacements mean nothing in a cell of one atom
WIDTH_A = 8.0  # Å between opposite faces of a supercell at least, where most_atoms allows it
SLAB_A, VACUUM_A = 8.0, 12.0  # Å, at least
VOLUME = (0.88, 1.15)  # of strained cells, by that of the seed
SHAPE = 0.06  # largest component of a strain of the shape
MILD = 0.5  # share of these strains in supercells, slabs and defects
RATTLES_A = (0.02, 0.15, 0.1, 0.3, 0.05, 0.2)
"""Å, standard deviations of each coordinate, in turn."""
USUAL_A = 2.3
"""Where atoms are nearer than this, displacements are smaller in proportion."""
DISORDER = (0.15, 0.25, 0.35)  # the same of disordered structures, by the shortest distance
COPIES = 2  # of a parent
CLOSEST, CLOSEST_DISORDERED = 0.8, 0.85
"""No two atoms come nearer than this share of the seed's shortest distance of their elements. It is larger where atoms
move far: they come as near as they may."""
SWEEP_A, TRIES = 0.25, 20  # Å of one move of an atom at most; draws before the atom stays
STRETCHES = (0.92, 1.1, 1.2, 1.3)  # of a bond
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, less their integers, cover 0 to 1 evenly

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
    """Yield displaced supercells, mildly strained but the first."""
    sizes = seed.sizes_A()
    for number in count():
        parent = strained(seed.usual, seed.along, number, plan.seed, MILD)
        for size in islice(sizes, COPIES):
            yield f"supercell {number}", rattled(parent, size, CLOSEST * seed.distances, random)


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
    """Yield displaced supercells of random compositions; those of one composition are a family."""
    sizes = seed.sizes_A()
    while not set(plan.exchange).isdisjoint(seed.usual.symbols):
        parent = alloyed(seed.usual, plan, lambda partners: random.dirichlet(np.ones(partners + 1))[1:], random)
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


def enlarged(atoms: Atoms, along: Mask, count: int, width_A: float, most_atoms: int) -> Atoms:
    """Repeat along some cell vectors to `count` atoms and `width_A`, always the lowest, within `most_atoms`."""
    times, high = np.ones(3, dtype=int), heights(Atoms(cell=lattice(atoms)))
    while len(atoms) * times.prod() < count or (high * times)[along].min(initial=np.inf) < width_A - 1e-6:
        more = times.copy()
        more[np.argmin(np.where(along, np.round(high * times, 6), np.inf))] += 1
        if not along.any() or len(atoms) * more.prod() > most_atoms:
            break
        times = more
    return bare(atoms) * tuple(times.tolist())


def strained(atoms: Atoms, along: Mask, number: int, seed: int, share: float = 1.0) -> Atoms:
    """Return the structure in the strain state of a number; state 0 is none.

    Volumes cover `share` of VOLUME evenly; every second state has another shape too. A strain acts in the plane, or
    along the line, in which matter continues.
    """
    made = bare(atoms)
    if number == 0:
        return made
    square = np.random.default_rng([seed, number]).uniform(-1, 1, (3, 3))
    shape = np.eye(3) + (number % 2) * share * SHAPE * (square + square.T) / 2
    volume = 1 + share * (VOLUME[0] - 1 + (VOLUME[1] - VOLUME[0]) * (number * GOLDEN % 1))
    change = shape * (volume / np.linalg.det(shape)) ** (1 / 3)
    if not along.all():
        plane = np.linalg.qr(atoms.cell.array[along].T)[0]
        change = np.eye(3) + plane @ plane.T @ (change - np.eye(3)) @ plane @ plane.T
    made.positions, made.cell = atoms.positions @ change, atoms.cell.array @ change
    return made


def rattled(
    atoms: Atoms, size_A: float, closest_A: Floats, random: np.random.Generator, moving: Indices | None = None
) -> Atoms:
    """Displace atoms by `size_A` (standard deviation of each coordinate) in small random moves.

    Args:
        closest_A: (119, 119) by atomic numbers; a move that brings two atoms nearer is refused and drawn anew.
        moving: atoms that move; None: all.
    """
    made, cell = bare(atoms), lattice(atoms)
    inverse, bounds = np.linalg.inv(cell), closest_A[np.ix_(atoms.numbers, atoms.numbers)]
    copies = np.where(atoms.pbc, np.ceil(0.5 + bounds.max() * np.linalg.norm(inverse, axis=0)), 0).astype(int)
    images = np.array(list(product(*(range(-n, n + 1) for n in copies)))) @ cell
    sweeps = max(1, int(np.ceil((size_A / SWEEP_A) ** 2)))
    everyone = np.arange(len(atoms))
    for _ in range(sweeps):
        for one in random.permutation(everyone if moving is None else moving):
            others = everyone != one
            for _ in range(TRIES):
                place = made.positions[one] + random.normal(scale=size_A / sweeps**0.5, size=3)
                apart = (made.positions[others] - place) @ inverse
                apart = (apart - np.where(atoms.pbc, np.round(apart), 0.0)) @ cell
                distances = np.linalg.norm(apart[:, None] + images, axis=2).min(axis=1)
                if (distances >= bounds[one, others]).all():
                    made.positions[one] = place
                    break
    return made


def faces(crystal: Atoms) -> list[tuple[str, Atoms]]:
    """Return slabs of every termination of the faces of low index of a conventional cell, the lowest first."""
    from pymatgen.core.surface import SlabGenerator, get_symmetrically_distinct_miller_indices
    from pymatgen.io.ase import AseAtomsAdaptor

    structure, found = AseAtomsAdaptor.get_structure(crystal), []
    indices = get_symmetrically_distinct_miller_indices(structure, 1)
    for index in sorted(indices, key=lambda index: (np.abs(index).sum(), index)):
        generator = SlabGenerator(structure, index, SLAB_A, VACUUM_A, center_slab=True, primitive=True)
        for cut, slab in enumerate(generator.get_slabs()):
            name = f"slab ({' '.join(map(str, index))}) cut {cut}"
            found.append((name, bare(AseAtomsAdaptor.get_atoms(slab, msonable=False))))
    return found


def widened(slab: Atoms, atoms: int, most_atoms: int) -> Atoms:
    """Repeat a slab in its plane."""
    return enlarged(slab, continues(slab, GAP_A), atoms, WIDTH_A, most_atoms)


def alloyed(atoms: Atoms, plan: Plan, shares: Callable[[int], Floats], random: np.random.Generator) -> Atoms:
    """Exchange atoms at random places, and scale the volume as the mean atomic volumes of the compositions say.

    Args:
        shares: how much of the sites of an element each of so many partners takes.
    """
    made, symbols = bare(atoms), np.array(atoms.get_chemical_symbols(), dtype=object)
    for element, partners in sorted(plan.exchange.items()):
        sites = random.permutation(np.flatnonzero(atoms.symbols == element))
        ends = np.round(np.cumsum(shares(len(partners))) * len(sites)).astype(int).tolist()
        for partner, start, end in zip(partners, [0, *ends], ends, strict=False):
            symbols[sites[start:end]] = partner
    made.symbols = symbols.tolist()
    if {*symbols, *atoms.symbols} <= set(plan.volumes_A3):
        volume, before = (sum(plan.volumes_A3[symbol] for symbol in each) for each in (symbols, atoms.symbols))
        made.set_cell(made.cell.array * (volume / before) ** (1 / 3), scale_atoms=True)
    return made


def atomic_volumes(seeds: list[Seed]) -> dict[str, float]:
    """Return Å³ an atom of each element: of crystals of pure elements, where all have one, else fitted to all crystals.

    Empty where the crystals do not determine them.
    """
    crystals = [seed.atoms for seed in seeds if seed.along.all()]
    elements = sorted({symbol for atoms in crystals for symbol in atoms.symbols})
    pure = [atoms for atoms in crystals if len(set(atoms.symbols)) == 1]
    used = pure if {atoms.symbols[0] for atoms in pure} == set(elements) else crystals
    if not used:
        return {}
    matrix = np.array([[np.mean(atoms.symbols == element) for element in elements] for atoms in used])
    volumes, _, rank, _ = np.linalg.lstsq(matrix, [atoms.get_volume() / len(atoms) for atoms in used], rcond=None)
    known = rank == len(elements) and (volumes > 0).all()
    return dict(zip(elements, volumes.tolist(), strict=True)) if known else {}


def pair_distances(atoms: Atoms) -> Floats:
    """Return (119, 119) Å: the shortest distance of two elements by atomic numbers; 0 where none is within GAP_A."""
    found = np.zeros((119, 119))
    for pair, distance in shortest_per_pair([atoms], GAP_A).items():
        first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
        found[first, second] = found[second, first] = distance
    return found
