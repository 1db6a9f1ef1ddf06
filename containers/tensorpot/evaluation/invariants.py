"""Invariants of a potential, checked on training structures of every element by the calculator that the user gets.

Energy and forces do not depend on how a structure is turned, moved or ordered, and forces are the negative gradient of
the energy. Where `lmp` is installed, LAMMPS gives the same. `student.yace` compares .yaml and .yace. A miss is an
error: such a potential is not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from scipy.spatial.transform import Rotation

from containers.arrays import Floats, Indices
from containers.contract import Closed, StepError
from containers.structures.cells import bare
from containers.tensorpot.student.calculator import Student
from containers.tensorpot.student.lammps import Files, LammpsFails, run_lammps

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none

SEED = 14
MOST_ATOMS = 40  # of a structure; a larger one is taken where an element has no other
STEPS_A = (1e-4, 1e-5)
"""Å, of the central differences. A wrong force is wrong at both. The nearer of the two counts: the first has the larger
error of the formula (h²), the second the larger one of rounding."""


class Limit(NamedTuple):
    """Largest difference: `absolute`, and `relative` times the energy (of an atom) or the largest force."""

    absolute: float
    relative: float


LIMITS = {
    # float64 sums of some thousand terms: up to 3e-11 meV/atom and 2e-9 meV/Å seen on 19 potentials of 1 to 9 elements
    "rotation_energy_meV_per_atom": Limit(1e-6, 1e-12),
    "rotation_force_meV_per_A": Limit(1e-4, 1e-9),
    "translation_energy_meV_per_atom": Limit(1e-6, 1e-12),
    "translation_force_meV_per_A": Limit(1e-4, 1e-9),
    "permutation_energy_meV_per_atom": Limit(1e-6, 1e-12),
    "permutation_force_meV_per_A": Limit(1e-4, 1e-9),
    # h² times the third derivative: up to 3e-3 meV/Å seen
    "gradient_force_meV_per_A": Limit(0.1, 1e-5),
    # LAMMPS tabulates the pair terms: 1e-6 eV; without them 1e-10 eV/Å seen
    "lammps_energy_meV_per_atom": Limit(0.01, 1e-12),
    "lammps_force_meV_per_A": Limit(0.1, 1e-5),
}
"""By figure, with the reason. Each is far below the error of any fit, and far above what the arithmetic does."""


class Figure(Closed):
    """The largest difference of one kind, relative to its limit, over all structures."""

    value: float
    limit: float
    structure: str


class Invariants(Closed):
    """Figures of the checks with their limits, and the structures that were used."""

    figures: dict[str, Figure] = {}  # by the names of LIMITS
    structures: dict[str, str] = {}  # id of a structure -> the elements that it stands for
    lammps_missing: str = ""  # why LAMMPS was not compared


class InvariantBroken(StepError):
    """A potential that depends on how its structure is turned, moved or ordered, or whose forces are not its own."""


class Probe(NamedTuple):
    """A structure that stands for an element."""

    element: str
    name: str
    atoms: Atoms


def check(student: Student, frame: pd.DataFrame, files: Files) -> Invariants:
    """Check the student on structures of its training frame.

    Args:
        files: the same student as LAMMPS reads it.

    Raises `InvariantBroken` for the first miss, with invariant, structure, figure and limit.
    """
    probes = representatives(frame)
    figures: dict[str, Figure] = {}
    for probe in probes:
        for name, value, size in differences(student, probe):
            judge(figures, probe, name, value, size)
    structures, missing = [probe.atoms for probe in probes], ""
    try:
        for probe, answer in zip(probes, run_lammps(files, structures, float(student.ace.cutoff)), strict=True):
            energy, forces = evaluated(student, answer.atoms)
            e0s = sum(student.e0s_eV[symbol] for symbol in answer.atoms.symbols)
            per_atom = 1000 * abs(answer.energy_eV + e0s - energy) / len(answer.atoms)
            judge(figures, probe, "lammps_energy_meV_per_atom", per_atom, 1000 * abs(energy) / len(answer.atoms))
            worst, size = 1000 * np.abs(answer.forces - forces).max(), 1000 * np.abs(forces).max()
            judge(figures, probe, "lammps_force_meV_per_A", worst, size)
    except LammpsFails as error:
        missing = str(error)
    stand_for: dict[str, list[str]] = {}
    for probe in probes:
        stand_for.setdefault(probe.name, []).append(probe.element)
    return Invariants(
        figures=figures,
        structures={name: ", ".join(elements) for name, elements in stand_for.items()},
        lammps_missing=missing,
    )


def representatives(frame: pd.DataFrame) -> list[Probe]:
    """Return of each element the structure with most distinct environments of it, and the first by its id.

    Environments are distinct where the force on the atom is, to 1 meV/Å. One of the structures comes without its
    periodic images too: open cells go another way through the calculator.
    """
    rows = sorted(zip(frame["name"], frame["ase_atoms"], frame["forces"], strict=True), key=lambda row: row[0])
    probes: list[Probe] = []
    for element in sorted({symbol for _, atoms, _ in rows for symbol in atoms.symbols}):
        having = [row for row in rows if element in row[1].symbols]
        small = [row for row in having if len(row[1]) <= MOST_ATOMS] or [min(having, key=lambda row: len(row[1]))]
        most = max(small, key=lambda row: _environments(element, row[1], row[2]))  # the first of equal ones
        for name, atoms, _ in {row[0]: row for row in (most, small[0])}.values():
            probes.append(Probe(element, name, bare(atoms)))
    largest = max(probes, key=lambda probe: len(probe.atoms))
    alone = largest.atoms.copy()
    alone.set_pbc(False)
    return [*probes, Probe(largest.element, f"{largest.name} (without images)", alone)]


def _environments(element: str, atoms: Atoms, forces: Floats) -> int:
    lengths = np.linalg.norm(np.asarray(forces), axis=1)[np.array(atoms.symbols) == element]
    return len(set(np.round(lengths, 3).tolist()))


def differences(student: Calculator, probe: Probe) -> Iterator[tuple[str, float, float]]:
    """Yield names of LIMITS, values, and the size that the relative limit is of, for one structure."""
    atoms, random = probe.atoms, np.random.default_rng(SEED)
    energy, forces = evaluated(student, atoms)
    energy_size, force_size = 1000 * abs(energy) / len(atoms), 1000 * float(np.abs(forces).max())
    for invariant, other, expected in transformed(atoms, forces, random):
        found, found_forces = evaluated(student, other)
        yield f"{invariant}_energy_meV_per_atom", 1000 * abs(found - energy) / len(atoms), energy_size
        yield f"{invariant}_force_meV_per_A", 1000 * float(np.abs(found_forces - expected).max()), force_size
    mine = np.flatnonzero(np.array(atoms.symbols) == probe.element)
    atom = int(mine[np.linalg.norm(forces[mine], axis=1).argmax()])
    for axis in range(3):
        apart = [abs(forces[atom, axis] + slope(student, atoms, atom, axis, step)) for step in STEPS_A]
        yield "gradient_force_meV_per_A", 1000 * float(min(apart)), force_size


def transformed(atoms: Atoms, forces: Floats, random: np.random.Generator) -> Iterator[tuple[str, Atoms, Floats]]:
    """Yield the invariant, the structure turned, moved or in another order, and the forces that it must have."""
    turn = Rotation.from_quat(random.normal(size=4)).as_matrix()
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.set_positions(atoms.positions @ turn.T)
    yield "rotation", turned, forces @ turn.T
    moved = atoms.copy()
    moved.positions += random.uniform(-5, 5, 3)
    moved.wrap()
    yield "translation", moved, forces
    order = cycle(np.arange(len(atoms)), random)
    yield "permutation", atoms[order], forces[order]
    exchanged, places = atoms.copy(), np.arange(len(atoms))
    for number in set(atoms.numbers.tolist()):
        equal = np.flatnonzero(atoms.numbers == number)
        places[equal] = cycle(equal, random)
    exchanged.set_positions(atoms.positions[places])
    yield "permutation", exchanged, forces[places]


def cycle(places: Indices, random: np.random.Generator) -> Indices:
    """Return the sorted places in an order that leaves none where it was."""
    order, moved = random.permutation(len(places)), np.empty_like(places)
    moved[order] = places[np.roll(order, 1)]
    return moved


def slope(student: Calculator, atoms: Atoms, atom: int, axis: int, step: float) -> float:
    """Return the derivative of the energy (eV/Å) by central differences."""
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * step
        energies.append(evaluated(student, moved)[0])
    return (energies[0] - energies[1]) / (2 * step)


def evaluated(student: Calculator, atoms: Atoms) -> tuple[float, Floats]:
    """Return energy (eV) and forces (eV/Å)."""
    student.calculate(atoms)
    return float(student.results["energy"]), np.array(student.results["forces"], dtype=float)


def judge(figures: dict[str, Figure], probe: Probe, name: str, value: float, size: float) -> None:
    """Keep the value if it is the nearest to its limit so far; raise `InvariantBroken` when it is beyond."""
    allowed = LIMITS[name]
    limit = allowed.absolute + allowed.relative * size
    if not value <= limit:
        invariant = name.partition("_")[0]
        raise InvariantBroken(
            f"{MEANINGS[invariant]}: {name} is {value:.3g}, at most {limit:.3g} is allowed. Structure"
            f" {probe.name} ({probe.atoms.get_chemical_formula()}). No data cause that: the fault is in python-ace, in"
            " LAMMPS or in this program. Do not use the potential; report it with this folder."
        )
    if name not in figures or value / limit > figures[name].value / figures[name].limit:
        figures[name] = Figure(value=value, limit=limit, structure=probe.name)


MEANINGS = {
    "rotation": "the potential changes when the structure is turned",
    "translation": "the potential changes when the structure is moved",
    "permutation": "the potential changes with the order of the atoms",
    "gradient": "the forces are not the negative gradient of the energy",
    "lammps": "LAMMPS gives other values than the calculator",
}
