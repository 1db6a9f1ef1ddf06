"""Molecules and pairs of atoms: bond lengths, angles, vibrations and dimer curves from any ASE calculator.

A molecule has no elastic constants; this is what applies to it. Lengths in Å, energies in eV.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, combinations_with_replacement

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.neighborlist import natural_cutoffs

from containers.arrays import Floats
from containers.contract import Closed, StepError
from containers.structures.cells import bare, is_isolated
from containers.structures.distances import shortest_per_pair, touching

LARGEST = 16  # atoms
GAP_A = 6.0  # Å without an atom around a molecule
BOND = 1.25  # times the sum of the covalent radii: the longest bond
FORCE_TOLERANCE = 1e-3  # eV/Å, of a relaxed molecule
RELAX_STEPS = 500
STEP_A = 0.01  # of the central differences of the vibrations
NEAREST = 0.8  # times the sum of the covalent radii: where a dimer curve begins
POINTS = 25  # of a dimer curve
MOST_PAIRS = 21  # of six elements


class Molecule(Closed):
    """A relaxed molecule and what was measured on it."""

    name: str  # H2O molecule
    numbers: tuple[int, ...]
    positions_A: tuple[tuple[float, float, float], ...]
    energy_eV: float
    bonds_A: dict[str, float]  # by pair of elements, the shortest
    angles_degrees: dict[str, float]  # by elements, such as H-O-H, the smallest
    vibrations_THz: tuple[float, ...]  # rising; imaginary ones are negative

    def atoms(self) -> Atoms:
        """The molecule, in no cell."""
        return Atoms(numbers=self.numbers, positions=self.positions_A)


class Dimer(Closed):
    """Energy of two atoms over their distance, less that of the same atoms alone."""

    distance_A: tuple[float, ...]
    energy_eV: tuple[float, ...]


def lowest_molecules(labelled: Iterable[Atoms], at_most: int) -> list[Atoms]:
    """Return the molecule of the lowest energy (of its calculator) of each composition, small ones first.

    A molecule is 2 to LARGEST atoms in one piece, with GAP_A of empty space around it or in no cell.
    """
    lowest: dict[str, tuple[float, Atoms]] = {}
    for atoms in labelled:
        if not 2 <= len(atoms) <= LARGEST or not is_isolated(atoms, GAP_A):
            continue
        whole, name = in_one_piece(atoms), atoms.get_chemical_formula("hill")
        energy = atoms.get_potential_energy()
        if whole is not None and (name not in lowest or energy < lowest[name][0]):
            lowest[name] = (energy, whole)
    return sorted((atoms for _, atoms in lowest.values()), key=lambda one: (len(one), one.get_chemical_formula()))[
        :at_most
    ]


def in_one_piece(atoms: Atoms) -> Atoms | None:
    """Return the molecule in no cell, its atoms brought together across the faces; None where it is in pieces."""
    vectors = atoms.get_all_distances(mic=True, vector=True)
    bonded = bonds(atoms, mic=True)
    placed = {0: np.zeros(3)}
    waiting = [0]
    while waiting:
        here = waiting.pop()
        for other in np.flatnonzero(bonded[here]).tolist():
            if other not in placed:
                placed[other] = placed[here] + vectors[here, other]
                waiting.append(other)
    if len(placed) < len(atoms):
        return None
    return Atoms(numbers=atoms.numbers, positions=[placed[place] for place in range(len(atoms))])


def bonds(atoms: Atoms, mic: bool = False) -> np.ndarray:
    """Return (N, N) booleans: which atoms are within BOND times the sum of their covalent radii."""
    radii = np.array(natural_cutoffs(atoms, mult=BOND))
    found: np.ndarray = atoms.get_all_distances(mic=mic) < radii[:, None] + radii
    return found & ~np.eye(len(atoms), dtype=bool)


def measure_molecules(
    molecules: Iterable[Atoms], calculator: Calculator, left_out: dict[str, str]
) -> tuple[Molecule, ...]:
    """Relax and measure molecules. One that does not relax goes to `left_out` with the reason."""
    found = []
    for atoms in molecules:
        name = f"{atoms.get_chemical_formula('hill')} molecule"
        try:
            found.append(measure_molecule(name, atoms, calculator))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  a potential that is wrong makes the libraries fail in any way
            left_out[name] = str(error) or type(error).__name__
    return tuple(found)


def measure_molecule(name: str, atoms: Atoms, calculator: Calculator) -> Molecule:
    """Relax a molecule and measure it. Raises `StepError` where it does not come to rest, or falls apart."""
    from ase.optimize import LBFGS

    rest = bare(atoms)
    rest.calc = calculator
    if not LBFGS(rest, logfile=None).run(fmax=FORCE_TOLERANCE, steps=RELAX_STEPS):
        raise StepError(f"does not come to rest within {RELAX_STEPS} steps")
    if in_one_piece(rest) is None:
        raise StepError("falls apart as it relaxes")
    return Molecule(
        name=name,
        numbers=tuple(map(int, rest.numbers)),
        positions_A=tuple((float(x), float(y), float(z)) for x, y, z in rest.positions),
        energy_eV=float(rest.get_potential_energy()),
        bonds_A=bond_lengths(rest),
        angles_degrees=angles(rest),
        vibrations_THz=tuple(map(float, vibrations(rest))),
    )


def bond_lengths(atoms: Atoms) -> dict[str, float]:
    """Return the shortest bond (Å) of each pair of elements that has one."""
    found = shortest_per_pair([atoms], 10.0)
    return {pair: length for pair, length in found.items() if length < BOND * touching(pair)}


def angles(atoms: Atoms) -> dict[str, float]:
    """Return the smallest angle (degrees) between two bonds of an atom, by the three elements."""
    bonded, symbols = bonds(atoms), atoms.get_chemical_symbols()
    found: dict[str, float] = {}
    for centre in range(len(atoms)):
        for one, other in combinations(np.flatnonzero(bonded[centre]).tolist(), 2):
            first, last = sorted((symbols[one], symbols[other]))
            name, angle = f"{first}-{symbols[centre]}-{last}", float(atoms.get_angle(one, centre, other))
            found[name] = min(found.get(name, angle), angle)
    return dict(sorted(found.items()))


def vibrations(atoms: Atoms) -> Floats:
    """Return the frequencies (THz, rising; imaginary ones negative) of a molecule at rest.

    The Hessian comes from central differences of the forces; translations and rotations are projected out of it, so
    3N-6 are left, 3N-5 of a linear molecule.
    """
    count = len(atoms)
    hessian = np.empty((3 * count, 3 * count))
    moved = atoms.copy()
    moved.calc = atoms.calc
    for place in range(3 * count):
        forces = []
        for sign in (1, -1):
            moved.positions = atoms.positions
            moved.positions[place // 3, place % 3] += sign * STEP_A
            forces.append(moved.get_forces().ravel())
        hessian[place] = (forces[1] - forces[0]) / (2 * STEP_A)
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    weighted = (hessian + hessian.T) / 2 / np.outer(root, root)
    centred = atoms.positions - atoms.get_center_of_mass()
    shifts = [np.tile(axis, (count, 1)) for axis in np.eye(3)]
    rigid = np.array([(one.ravel() * root) for one in [*shifts, *(np.cross(axis, centred) for axis in np.eye(3))]])
    _, sizes, axes = np.linalg.svd(rigid)  # the rows of `axes` beyond the rank are the vibrations
    inner = axes[int((sizes > 1e-3 * sizes[0]).sum()) :]
    squares = np.linalg.eigvalsh(inner @ weighted @ inner.T)  # eV/Å²/u, (angular frequency)²
    return np.asarray(np.sign(squares) * np.sqrt(np.abs(squares)) / (2 * np.pi) * units.s * 1e-12)


def pair_distances(elements: Iterable[str], reach_A: float) -> dict[str, tuple[float, ...]]:
    """Return the distances of each pair's dimer curve, from NEAREST times the sum of the covalent radii to the reach.

    Keys are like `Al-Ni`, in alphabetic order, pairs of one element first; at most MOST_PAIRS.
    """
    pairs = sorted(combinations_with_replacement(sorted(elements), 2), key=lambda pair: pair[0] != pair[1])
    return {
        name: tuple(np.linspace(NEAREST * touching(name), reach_A, POINTS).round(4).tolist())
        for name in map("-".join, pairs[:MOST_PAIRS])
        if NEAREST * touching(name) < reach_A
    }


def dimers(distances: dict[str, tuple[float, ...]], calculator: Calculator) -> dict[str, Dimer]:
    """Return the curves where they are finite; energies are less those of the atoms alone, by the same calculator."""

    def energy(symbols: Sequence[str], distance: float = 0.0) -> float:
        atoms = Atoms(symbols, positions=[[place * distance, 0, 0] for place in range(len(symbols))])
        atoms.calc = calculator
        return float(atoms.get_potential_energy())

    alone = {symbol: energy([symbol]) for pair in distances for symbol in pair.split("-")}
    found = {}
    for pair, along in distances.items():
        symbols = pair.split("-")
        apart = sum(alone[symbol] for symbol in symbols)
        curve = [(distance, energy(symbols, distance) - apart) for distance in along]
        finite = [point for point in curve if np.isfinite(point[1])]
        found[pair] = Dimer(distance_A=tuple(one for one, _ in finite), energy_eV=tuple(one for _, one in finite))
    return found
