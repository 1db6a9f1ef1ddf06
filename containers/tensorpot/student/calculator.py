"""The student as an ASE calculator: ACE potential, pair terms and reference energies together.

This file needs nothing but numpy, scipy, ASE and pyace (python-ace). Beside `potential.yaml`, `potential.asi` and
`baseline.json` it works alone::

    from calculator import calculator
    atoms.calc = calculator()
    atoms.get_potential_energy()    # eV, total, on the teacher's scale
    atoms.calc.results["gamma"]     # extrapolation grade of each atom: above 1 it extrapolates

Units: Å, eV, eV/Å, stress eV/Å³ (ASE sign, Voigt xx yy zz yz xz xy).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from ase.geometry import complete_cell
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

ZBL_WEIGHTS = np.array([0.18175, 0.50986, 0.28022, 0.02817])
ZBL_EXPONENTS = np.array([3.19980, 0.94229, 0.40290, 0.20162])
COULOMB = 14.399645351950543
"""eV Å, e²/(4 pi eps0), with the digits that pyace uses."""


def zbl(z_i: int, z_j: int, distances: Floats) -> tuple[Floats, Floats]:
    """Universal screened nuclear repulsion (Ziegler, Biersack, Littmark 1985): energies (eV) and slopes (eV/Å)."""
    exponents = ZBL_EXPONENTS * (z_i**0.23 + z_j**0.23) / 0.46850
    parts = np.exp(-np.outer(distances, exponents)) * ZBL_WEIGHTS
    scale = COULOMB * z_i * z_j / distances
    energies = scale * parts.sum(axis=1)
    return energies, -energies / distances - scale * (parts @ exponents)


def lennard_jones(epsilon: float, sigma: float, distances: Floats) -> tuple[Floats, Floats]:
    """Energies (eV) and slopes (eV/Å) of a well of depth `epsilon` (eV) that crosses zero at `sigma` (Å)."""
    sixth = (sigma / distances) ** 6
    return 4 * epsilon * (sixth**2 - sixth), -24 * epsilon * (2 * sixth**2 - sixth) / distances


def switch(distances: Floats, inner: float, outer: float) -> tuple[Floats, Floats]:
    """1 up to `inner`, 0 from `outer`, between them a fifth-order step with two continuous derivatives; its slope."""
    x = np.clip((distances - inner) / (outer - inner), 0.0, 1.0)
    return 1 - x**3 * (10 - 15 * x + 6 * x**2), -30 * (x * (1 - x)) ** 2 / (outer - inner)


def pair_term(pair: str, term: Mapping[str, Any], distances: Floats) -> tuple[Floats, Floats]:
    """Energies (eV) and slopes (eV/Å) of one pair term at distances (Å).

    Args:
        pair: `Al-Ni`.
        term: `form` (zbl or lj), `epsilon_eV` and `sigma_A` for lj, `inner_A`, `outer_A`.
    """
    first, second = (atomic_numbers[symbol] for symbol in pair.split("-"))
    if term["form"] == "zbl":
        energies, slopes = zbl(first, second, distances)
    else:
        energies, slopes = lennard_jones(term["epsilon_eV"], term["sigma_A"], distances)
    whole, falling = switch(distances, term["inner_A"], term["outer_A"])
    return energies * whole, slopes * whole + energies * falling


def pair_terms(atoms: Atoms, pairs: Mapping[str, Mapping[str, Any]]) -> tuple[float, Floats, Floats]:
    """The pair potential of a structure of any periodicity.

    Args:
        pairs: terms by the elements of the pair in alphabetic order, see `pair_term`; a pair without one has none.

    Returns:
        energy (eV), forces (N, 3) in eV/Å, stress (6,) in eV/Å³ (zero unless periodic in three directions).
    """
    energy, forces, virial = 0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3))
    for pair, first, vectors in _pairs_within(atoms, pairs):
        distances = np.linalg.norm(vectors, axis=1)
        energies, slopes = pair_term(pair, pairs[pair], distances)
        pulls = (slopes / distances)[:, None] * vectors
        for axis in range(3):
            forces[:, axis] += np.bincount(first, weights=pulls[:, axis], minlength=len(atoms))
        energy += 0.5 * float(energies.sum())
        virial += 0.5 * vectors.T @ pulls
    stress = virial / atoms.get_volume() if atoms.pbc.all() else np.zeros((3, 3))
    return energy, forces, stress.ravel()[[0, 4, 8, 5, 2, 1]]


def _pairs_within(atoms: Atoms, pairs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Indices, Floats]]:
    """For each pair term the first atoms and the vectors (Å) to the second ones; every pair comes both ways round."""
    present = set(atoms.get_chemical_symbols())
    reach = {name: float(term["outer_A"]) for name, term in pairs.items() if set(name.split("-")) <= present}
    if not reach:
        return []
    i, j, vectors = neighbours(atoms, max(reach.values()))
    low, high = np.minimum(atoms.numbers[i], atoms.numbers[j]), np.maximum(atoms.numbers[i], atoms.numbers[j])
    distances = np.linalg.norm(vectors, axis=1)
    found = []
    for name, outer in reach.items():
        one, other = sorted(atomic_numbers[symbol] for symbol in name.split("-"))
        mine = (low == one) & (high == other) & (distances < outer)
        found.append((name, i[mine], vectors[mine]))
    return found


def neighbours(atoms: Atoms, reach: float) -> tuple[Indices, Indices, Floats]:
    """Every ordered pair of atoms, images included, within `reach` (Å): first, second, and the vector between (Å).

    (ASE's own list takes ten times as long, more than the potential itself.)
    """
    cell = lattice(atoms)
    inverse = np.linalg.inv(cell)
    inside = atoms.positions @ inverse
    inside = np.where(atoms.pbc, inside - np.floor(inside), inside)
    margin = reach * np.linalg.norm(inverse, axis=0)  # the width of `reach` in units of the cell
    copies = np.where(atoms.pbc, np.ceil(margin), 0).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in copies), indexing="ij"), axis=-1).reshape(-1, 1, 3)
    images = inside + steps
    near = (~atoms.pbc | ((images >= -margin) & (images <= 1 + margin))).all(axis=2)
    owner = np.broadcast_to(np.arange(len(atoms)), near.shape)[near]
    is_image = np.broadcast_to((steps != 0).any(axis=2), near.shape)[near]
    points, own = images[near] @ cell, inside @ cell
    found = cKDTree(own).sparse_distance_matrix(cKDTree(points), reach, output_type="coo_matrix")
    itself = (owner[found.col] == found.row) & ~is_image[found.col]
    first, second = found.row[~itself], found.col[~itself]
    return first, owner[second], points[second] - own[first]


def lattice(atoms: Atoms) -> Floats:
    """The cell (3, 3) in Å with unit vectors, perpendicular to the rest, in the directions that are not periodic."""
    return np.asarray(complete_cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)), dtype=float)


def padded(atoms: Atoms, cutoff: float) -> Atoms:
    """A bare copy made periodic in three directions by empty space that no interaction of `cutoff` (Å) crosses.

    Positions and the periodic lattice are unchanged, so a potential of this cutoff gives the same energies and forces.
    (pacemaker stops at cells that are periodic in one or two directions, pyace at left-handed ones.)
    """
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
    if not atoms.pbc.all():
        cell = lattice(atoms)
        extent = np.ptp(bare.positions @ np.linalg.inv(cell), axis=0)
        bare.set_cell(cell * np.where(bare.pbc, 1.0, extent + 2 * cutoff)[:, None])
        bare.set_pbc(True)
    if np.linalg.det(bare.cell.array) < 0:
        turned = int(np.argmin(atoms.pbc))  # an open direction where there is one; a and -a make the same lattice
        bare.set_cell(np.where(np.arange(3)[:, None] == turned, -1.0, 1.0) * bare.cell.array)
    return bare


class Student(Calculator):  # type: ignore[misc]  # ASE has no types
    """ACE, pair terms and reference energies as one calculator.

    `results` also has `gamma`, (N,): the extrapolation grade of each atom, when an active set is given. Stress is
    there for structures periodic in three directions.
    """

    implemented_properties: Sequence[str] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, ace: Calculator, baseline: Mapping[str, Any]) -> None:
        """`ace` is a `PyACECalculator`; `baseline` is the content of baseline.json."""
        super().__init__()
        self.ace = ace
        self.e0s_eV: dict[str, float] = dict(baseline["e0s_eV"])
        self.pairs: dict[str, dict[str, Any]] = dict(baseline["pairs"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Student:
        """A student with results of its own; both share pyace's evaluator, which cannot be copied."""
        return copy.copy(self)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`; raises `ValueError` for an element that the potential does not know."""
        super().calculate(atoms, properties, system_changes)
        symbols = self.atoms.get_chemical_symbols()
        if unknown := sorted(set(symbols) - set(self.e0s_eV)):
            raise ValueError(f"the potential knows {', '.join(self.e0s_eV)}, not {', '.join(unknown)}")
        self.ace.calculate(padded(self.atoms, float(self.ace.cutoff)))
        energy, forces, stress = pair_terms(self.atoms, self.pairs)
        found = self.ace.results
        total = found["energy"] + energy + sum(self.e0s_eV[name] * symbols.count(name) for name in sorted(set(symbols)))
        self.results = {"energy": total, "free_energy": total, "forces": found["forces"] + forces}
        if self.atoms.pbc.all():
            self.results["stress"] = found["stress"] + stress
        if "gamma" in found and len(found["gamma"]) == len(self.atoms):
            self.results["gamma"] = np.asarray(found["gamma"], dtype=float)


def calculator(folder: Path | str | None = None, device: str = "cpu", default_dtype: str = "float64") -> Student:
    """The student in `folder`, or in the folder of this file: potential.yaml, baseline.json and potential.asi.

    Validation suites pass every model a device and a type of numbers. Both are ignored: pyace computes on a CPU in
    float64.
    """
    where = Path(folder) if folder is not None else Path(__file__).resolve().parent
    return load(where / "potential.yaml", where / "baseline.json", where / "potential.asi")


def load(potential: Path, baseline: Path, asi: Path | None) -> Student:
    """The student of these files; without an active set (.asi) it gives no `gamma`."""
    from pyace import PyACECalculator

    ace = PyACECalculator(str(potential))
    ace.compute_projections = asi is not None
    if asi is not None:
        ace.set_active_set(str(asi))
    return Student(ace, json.loads(baseline.read_text()))
