"""Changes of a structure: repeated, strained, displaced, cut, alloyed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from containers.arrays import Floats, Indices, Mask
from containers.structures.cells import bare, continues, heights, lattice
from containers.structures.distances import shortest_per_pair

GAP_A = 6.0  # Å without an atom: matter ends there
WIDTH_A = 8.0  # Å between opposite faces of a supercell at least, where the limit of atoms allows it
SLAB_A, VACUUM_A = 8.0, 12.0  # Å, at least
VOLUME = (0.88, 1.15)  # of strained cells, by that of the seed
SHAPE = 0.06  # largest component of a strain of the shape
SWEEP_A, TRIES = 0.25, 20  # Å of one move of an atom at most; draws before the atom stays
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, less their integers, cover 0 to 1 evenly


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


Miller = tuple[int, int, int]


def face_name(index: Miller) -> str:
    """Return the first words of the names of slabs of a face."""
    return f"slab ({' '.join(map(str, index))})"


def faces(crystal: Atoms, further: Sequence[Miller] = ()) -> list[tuple[str, Atoms]]:
    """Return slabs of every termination of the faces of low index of a conventional cell, the lowest first, and of
    `further` faces."""
    from pymatgen.core.surface import SlabGenerator, get_symmetrically_distinct_miller_indices
    from pymatgen.io.ase import AseAtomsAdaptor

    structure, found = AseAtomsAdaptor.get_structure(crystal), []
    indices = get_symmetrically_distinct_miller_indices(structure, 1)
    for index in sorted({*indices, *further}, key=lambda index: (np.abs(index).sum(), index)):
        generator = SlabGenerator(structure, index, SLAB_A, VACUUM_A, center_slab=True, primitive=True)
        for cut, slab in enumerate(generator.get_slabs()):
            found.append((f"{face_name(index)} cut {cut}", bare(AseAtomsAdaptor.get_atoms(slab, msonable=False))))
    return found


def widened(slab: Atoms, atoms: int, most_atoms: int) -> Atoms:
    """Repeat a slab in its plane."""
    return enlarged(slab, continues(slab, GAP_A), atoms, WIDTH_A, most_atoms)


def alloyed(
    atoms: Atoms,
    exchange: Mapping[str, tuple[str, ...]],
    volumes_A3: Mapping[str, float],
    random: np.random.Generator,
    share: float | None = None,
) -> Atoms:
    """Exchange atoms at random places, and scale the volume as the mean atomic volumes of the compositions say.

    Args:
        exchange: element -> elements that take its sites.
        volumes_A3: mean atomic volume of each element; where one is missing, the volume stays.
        share: of the sites of each element that others take, all equally many; None: random shares.
    """
    made, symbols = bare(atoms), np.array(atoms.get_chemical_symbols(), dtype=object)
    for element, partners in sorted(exchange.items()):
        sites, count = random.permutation(np.flatnonzero(atoms.symbols == element)), len(partners)
        shares = random.dirichlet(np.ones(count + 1))[1:] if share is None else np.full(count, share / count)
        ends = np.round(np.cumsum(shares) * len(sites)).astype(int).tolist()
        for partner, start, end in zip(partners, [0, *ends], ends, strict=False):
            symbols[sites[start:end]] = partner
    made.symbols = symbols.tolist()
    if {*symbols, *atoms.symbols} <= set(volumes_A3):
        volume, before = (sum(volumes_A3[symbol] for symbol in each) for each in (symbols, atoms.symbols))
        made.set_cell(made.cell.array * (volume / before) ** (1 / 3), scale_atoms=True)
    return made


def atomic_volumes(crystals: Iterable[Atoms]) -> dict[str, float]:
    """Return Å³ an atom of each element: of crystals of pure elements, where all have one, else fitted to all crystals.

    Empty where the crystals do not determine them.
    """
    crystals = list(crystals)
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
