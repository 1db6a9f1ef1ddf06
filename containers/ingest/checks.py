"""Checks of structures and labels from outside; each failure is one sentence with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from containers.contract import BadInput
from containers.formats.text import FIX, MOST_ATOMS, too_many
from containers.structures.cells import bare, heights
from containers.structures.distances import nearest, shortest_per_pair, touching

SMALLEST_WIDTH = 1e-3
"""Å. Periodic cell vectors closer to linear dependence than this have no volume (area, length) to repeat."""
FARTHEST_A = 1e6
"""Coordinates and cell vectors beyond it (0.1 mm) are a damaged file or another unit."""
MOST_IMAGES = 2_000_000
"""Atoms and their images within NEAR_A: a cell with more is too small to be one of atoms, and would take gigabytes."""
NEAR_A = 4.0  # as far as distances are looked for
HIDDEN = ("numbers", "positions", "group", "family")

AUTO = "auto"
"""As a key: REF_energy and REF_forces where a frame has one of them, else the names of the file's format."""
REFERENCE = "REF_"

SAME_ENERGY_eV_per_atom = 1e-5
"""Two labels of one structure that differ by less are one label, rounded: of float32 computations, or of files with
five decimals. Other settings of a DFT program, or another teacher, differ by more."""
SAME_FORCE_eV_per_A = 1e-4
"""The same for each component of the forces."""
CLOSEST_A = 0.3
"""No two atoms of a material come closer; where every atom of a structure does, the lengths are in another unit."""
CROWDED = 0.7
"""Share of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008, 2832, as ASE has them) below which two
atoms are not taken for neighbours: N2 is at 0.77, H2 at 1.19, silicon at 1.06; fractional coordinates are below 0.5."""
TOUCHING_A = 4.0  # beyond CROWDED of the largest atoms
WITHIN = (-0.6, 1.1)
"""Range of fractional coordinates, from 0 to 1 or about 0, also of atoms shaken across the border of the cell."""
NARROWEST_CELL_A = 1.5
"""Perpendicular width; real cells are wider (beryllium: 1.98), and narrower ones make fractions and Å the same."""
SPARSEST_A3 = 150.0
"""Volume of an atom; caesium has 115. A molecule in a large box is sparser, and in fractions of its box so dense that
`CLOSEST_A` shows it; two atoms pushed together in one would otherwise look like fractions of a sound structure."""
LARGEST_FORCE_eV_per_A = 1000.0
LARGEST_ENERGY_eV_per_atom = 1e6  # all electrons of the heaviest elements: 0.8e6
NET_FORCE_eV_per_A = 0.1
"""Forces of all atoms sum to zero. Their sum per atom is 1e-9 eV/Å in published VASP data (its digits), 1e-15 of a
MACE model, a few meV/Å where a plane-wave code does not take its drift off: beyond this they are not forces of this
structure, or not all of them."""
NET_FORCE_SHARE = 0.1  # of the mean length of a force; both bounds must be passed

ASYMMETRY = 0.1
"""Share of the largest component by which two sides of a stress tensor may differ: digits, and noise of a program."""


def check_structure(atoms: Atoms, place: str) -> None:
    """Raise `BadInput` unless there are atoms of known elements at finite places in a cell that can repeat.

    Args:
        atoms: N atoms, positions in Å; any mixture of periodic directions.
        place: file and frame, the beginning of the message.
    """
    if len(atoms) == 0:
        raise BadInput(f"{place}: zero atoms; {FIX}")
    if len(atoms) > MOST_ATOMS:
        raise BadInput(f"{place}: {too_many(len(atoms))}")
    unknown = (atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))
    if unknown.any():
        first = int(np.argmax(unknown))
        raise BadInput(f"{place}: atom {first} (from 0) is of no known element (number {atoms.numbers[first]}); {FIX}")
    astray = ~(np.abs(atoms.positions) <= FARTHEST_A).all(axis=1)
    if astray.any():
        first = int(np.argmax(astray))
        where = " ".join(map(str, atoms.positions[first].tolist()))
        why = "is beyond 1e6 Å" if np.isfinite(atoms.positions[first]).all() else "is not finite"
        raise BadInput(f"{place}: atom {first} (from 0) has a position that {why} ({where}); {FIX}")
    if not np.isfinite(atoms.cell.array).all():
        raise BadInput(f"{place}: the cell is not finite ({atoms.cell.array.ravel().tolist()}); {FIX}")
    if np.abs(atoms.cell.array).max() > FARTHEST_A:
        raise BadInput(f"{place}: the cell is beyond 1e6 Å ({atoms.cell.array.ravel().tolist()}); {FIX}")
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and np.linalg.svd(periodic, compute_uv=False).min() < SMALLEST_WIDTH:
        flags = " ".join("FT"[int(flag)] for flag in atoms.pbc)
        raise BadInput(
            f"{place}: periodic (pbc {flags}) with a cell of zero volume ({atoms.cell.array.ravel().tolist()});"
            " give the cell or pbc F F F"
        )
    widths = 1 / np.linalg.norm(np.linalg.pinv(periodic), axis=0) if len(periodic) else np.empty(0)
    images = int(np.prod(2 * np.ceil(NEAR_A / widths) + 1))
    if images > 1000 and images * len(atoms) > MOST_IMAGES:
        raise BadInput(
            f"{place}: the cell is {' x '.join(f'{width:.2g}' for width in widths)} Å wide, too small for atoms;"
            f" lengths in nm would explain it: give positions and cell in Å, or {FIX}"
        )


def _crowded(atoms: Atoms) -> bool:
    """Return whether two atoms are nearer than CROWDED allows."""
    pairs = shortest_per_pair([atoms], TOUCHING_A)
    return any(distance < CROWDED * touching(pair) for pair, distance in pairs.items())


def check_lengths(atoms: Atoms, shortest: float, place: str) -> None:
    """Raise `BadInput` when the distances can only be in another unit than Å, or are fractions of the cell.

    Args:
        atoms: a structure that `check_structure` passes.
        shortest: its shortest distance, Å, or infinity; most structures need no more than that.
        place: file and frame, the beginning of the message.
    """
    low, high = WITHIN
    inside = len(atoms) > 1 and atoms.pbc.any() and atoms.positions.min() >= low and atoms.positions.max() <= high
    solid = inside and atoms.cell.rank == 3 and atoms.cell.volume <= SPARSEST_A3 * len(atoms)
    by_fractions = bare(atoms)
    by_fractions.positions = atoms.positions @ atoms.cell.array
    # A crowded structure is not enough, neither are positions up to 1 Å: a small molecule in a corner has them. What is
    # taken for fractions wrongly is two atoms pushed together in a small box: the message says what then helps.
    if solid and heights(atoms).min() >= NARROWEST_CELL_A and _crowded(atoms) and not _crowded(by_fractions):
        raise BadInput(
            f"{place}: every coordinate is at most about 1 and atoms are {nearest(atoms, TOUCHING_A).min():.3g} Å"
            " apart, while as fractions of the cell the positions are a sound structure: these look like fractional"
            " coordinates; multiply them by the cell (ASE: atoms.set_scaled_positions), give positions in Å. Where they"
            " are in Å, shift the atoms by half the cell"
        )
    if shortest >= CLOSEST_A or (len(atoms) <= 2 and not atoms.pbc.any()):  # a dimer may be pushed together on purpose
        return
    farthest = float(nearest(atoms, CLOSEST_A).max())
    if np.isfinite(farthest):
        raise BadInput(
            f"{place}: every atom has a neighbour within {farthest:.3g} Å: lengths in nm or fractional coordinates"
            " would explain it; give positions and cell in Å"
        )


def checked_labels(
    atoms: Atoms, energy_key: str, forces_key: str, stress_key: str | None, place: str
) -> dict[str, Any]:
    """Return the labels of one structure, searched in info, arrays and calculator results.

    Each key is a name or `auto` (see `AUTO`).

    Returns:
        `energy` (eV, total), `forces` (N x 3, eV/Å) and, with `stress_key`, where it is present and the structure is
        periodic in all three directions, `stress` (6, eV/Å³, ASE sign, Voigt xx yy zz yz xz xy).

    Raises:
        BadInput: energy or forces missing, of another shape, not finite, of another unit; forces that do not sum to
            about zero where no atom is fixed. Missing forces of a single atom are zero.
    """
    # info and arrays win: ASE moves keys of its own (`energy`, `forces`, `stress`) to the calculator
    found = {**({} if atoms.calc is None else atoms.calc.results), **atoms.arrays, **atoms.info}
    prefix = REFERENCE if any(f"{REFERENCE}{name}" in found for name in ("energy", "forces")) else ""
    key, by_forces = _name(energy_key, "energy", prefix), _name(forces_key, "forces", prefix)
    numbers = _numbers(found, key, "energy_key", place)
    if numbers.shape not in ((), (1,)):
        raise BadInput(f"{place}: {key} must be one number, its shape is {numbers.shape}; {FIX}")
    energy = float(numbers.reshape(()))
    if abs(energy) / len(atoms) > LARGEST_ENERGY_eV_per_atom:
        per_atom = energy / len(atoms)
        raise BadInput(
            f"{place}: {key} is {per_atom:.3g} eV per atom; meV or J/mol would explain it: give the total in eV"
        )
    forces = _forces(found, by_forces, len(atoms), place)
    net, mean = float(np.linalg.norm(forces.mean(axis=0))), float(np.linalg.norm(forces, axis=1).mean())
    # some programs write zero for atoms that are held
    if not atoms.constraints and net > max(NET_FORCE_eV_per_A, NET_FORCE_SHARE * mean):
        raise BadInput(
            f"{place}: {by_forces} do not sum to zero: {net:.3g} eV/Å per atom, where their mean length is {mean:.3g};"
            " atoms are missing, forces belong to another structure or are gradients of another unit, or some atoms"
            " are held (then say so in the file, by move_mask or constraints); correct or remove the frame"
        )
    labels: dict[str, Any] = {"energy": energy, "forces": forces}
    stress = _name(stress_key, "stress", prefix) if stress_key else None
    if stress is not None and found.get(stress) is not None and atoms.pbc.all():
        labels["stress"] = _voigt(_numbers(found, stress, "stress_key", place), stress, place)
    return labels


def check_one_label(first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise `BadInput` when the labels of two rows of one structure differ by more than rounding.

    Args:
        first, other: source, row, energy (eV, total), forces (3 N numbers, eV/Å); rows on their way into the data set
            also have id, origin and version (0: not in the set yet).
    """
    apart = np.abs(np.subtract(first["forces"], other["forces"]))
    per_atom = abs(first["energy"] - other["energy"]) / (len(apart) / 3)
    if per_atom <= SAME_ENERGY_eV_per_atom and apart.max() <= SAME_FORCE_eV_per_A:
        return
    since = f" (in the set since version {first['version']})" if first.get("version") else ""
    which = f" of the same origin ({first['origin']})" if "origin" in first else ""
    structure = f" (structure {first['id'][:12]})" if "origin" in first else ""
    raise BadInput(
        f"{other['source']}: frame {other['row']} (from 0) is the structure of {first['source']}: frame {first['row']}"
        f" (from 0){since} with another label{which}: energies differ by {per_atom:.3g} eV/atom, forces by up to"
        f" {apart.max():.3g} eV/Å{structure}; {'remove it' if since else 'remove one of the two'}"
    )


def _name(key: str, quantity: str, prefix: str) -> str:
    return f"{prefix}{quantity}" if key == AUTO else key


def _forces(found: Mapping[str, Any], key: str, atoms: int, place: str) -> np.ndarray:
    if atoms == 1 and found.get(key) is None:  # alone, or with its own images on all sides: nothing pulls it
        return np.zeros((1, 3))
    forces = _numbers(found, key, "forces_key", place)
    if forces.shape not in ((atoms, 3), (3 * atoms,)):
        raise BadInput(f"{place}: {key} must be {atoms} x 3 numbers, its shape is {forces.shape}; {FIX}")
    forces = forces.reshape(-1, 3)
    largest = np.abs(forces).max(axis=1)
    if largest.max() > LARGEST_FORCE_eV_per_A:
        raise BadInput(
            f"{place}: {key} of atom {int(largest.argmax())} (from 0) is {largest.max():.6g} eV/Å;"
            f" meV/Å would explain it: give eV/Å, or remove the frame"
        )
    return forces


def _numbers(found: Mapping[str, Any], key: str, setting: str, place: str) -> np.ndarray:
    if found.get(key) is None:
        there = ", ".join(sorted(set(found) - set(HIDDEN))) or "nothing but the structure"
        corrected = "energy_corrected" in found and setting == "energy_key"
        why = "; energy_corrected lacks the reference energies, the total is needed" if corrected else ""
        if setting == "energy_key" and not any("energy" in name.lower() for name in found):
            raise BadInput(
                f"{place}: no {key!r}: a file without energies, such as a LAMMPS dump, cannot be DFT data (pool.files"
                f" can hold it); where the energy has another name, set energy_key to that name ({there})"
            )
        raise BadInput(f"{place}: no {key!r}; set {setting} to a name that is there ({there}){why}")
    try:
        numbers = np.asarray(found[key])
        if numbers.dtype.kind not in "iuf":
            raise ValueError(f"{str(found[key])[:40]!r} is not a number")
        numbers = numbers.astype(float)
    except ValueError as error:
        raise BadInput(f"{place}: {key}: {error}; {FIX}") from error
    if not np.isfinite(numbers).all():
        first = f" at atom {int(np.argmax(~np.isfinite(numbers).all(axis=1)))} (from 0)" if numbers.ndim == 2 else ""
        raise BadInput(f"{place}: {key} is not finite{first}; {FIX}")
    return numbers


def _voigt(stress: np.ndarray, key: str, place: str) -> np.ndarray:
    if stress.shape == (6,):
        return stress
    if stress.size != 9:
        raise BadInput(f"{place}: {key} must be 6 (Voigt) or 9 numbers, its shape is {stress.shape}; {FIX}")
    tensor = stress.reshape(3, 3)
    if np.abs(tensor - tensor.T).max() > ASYMMETRY * np.abs(tensor).max():
        raise BadInput(f"{place}: the nine numbers of {key} are no symmetric tensor ({tensor.ravel().tolist()}); {FIX}")
    return tensor.ravel()[[0, 4, 8, 5, 2, 1]]
