"""What a structure or a label from outside must satisfy; each failure is one sentence with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from containers.contract import BadInput

SMALLEST_WIDTH = 1e-3
"""Å. Periodic cell vectors closer to linear dependence than this have no volume (area, length) to repeat."""
MEND = "mend or remove the frame"
HIDDEN = ("numbers", "positions", "group", "family")


def check_structure(atoms: Atoms, place: str) -> None:
    """Raise `BadInput` unless there are atoms of known elements at finite places in a cell that can repeat.

    Args:
        atoms: N atoms, positions in Å; any mixture of periodic directions.
        place: file and frame, the beginning of the message.
    """
    if len(atoms) == 0:
        raise BadInput(f"{place}: zero atoms; {MEND}")
    unknown = (atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols))
    if unknown.any():
        first = int(np.argmax(unknown))
        raise BadInput(f"{place}: atom {first} (from 0) is of no known element (number {atoms.numbers[first]}); {MEND}")
    astray = ~np.isfinite(atoms.positions).all(axis=1)
    if astray.any():
        first = int(np.argmax(astray))
        where = " ".join(map(str, atoms.positions[first].tolist()))
        raise BadInput(f"{place}: atom {first} (from 0) has a position that is not finite ({where}); {MEND}")
    _check_cell(atoms, place)


def _check_cell(atoms: Atoms, place: str) -> None:
    if not np.isfinite(atoms.cell.array).all():
        raise BadInput(f"{place}: the cell is not finite ({atoms.cell.array.ravel().tolist()}); {MEND}")
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and np.linalg.svd(periodic, compute_uv=False).min() < SMALLEST_WIDTH:
        flags = " ".join("FT"[int(flag)] for flag in atoms.pbc)
        raise BadInput(
            f"{place}: periodic (pbc {flags}) with a cell of zero volume ({atoms.cell.array.ravel().tolist()});"
            " give the cell or pbc F F F"
        )


def checked_labels(
    atoms: Atoms, energy_key: str, forces_key: str, stress_key: str | None, place: str
) -> dict[str, Any]:
    """Labels of one structure, looked for in info, arrays and calculator results.

    Returns:
        `energy` (eV, total), `forces` (N x 3, eV/Å) and, when asked for, present and the structure is periodic in all
        three directions, `stress` (6, eV/Å³, ASE sign, Voigt xx yy zz yz xz xy).

    Raises:
        BadInput: energy or forces missing, of another shape, or not finite.
    """
    found = _everything(atoms)
    energy = _numbers(found, energy_key, "energy_key", place)
    if energy.shape not in ((), (1,)):
        raise BadInput(f"{place}: {energy_key} must be one number, its shape is {energy.shape}; {MEND}")
    forces = _numbers(found, forces_key, "forces_key", place)
    if forces.shape not in ((len(atoms), 3), (3 * len(atoms),)):
        raise BadInput(f"{place}: {forces_key} must be {len(atoms)} x 3 numbers, its shape is {forces.shape}; {MEND}")
    labels = {"energy": float(energy.reshape(())), "forces": forces.reshape(-1, 3)}
    if stress_key and stress_key in found and atoms.pbc.all():
        labels["stress"] = _voigt(_numbers(found, stress_key, "stress_key", place), stress_key, place)
    return labels


def _everything(atoms: Atoms) -> Mapping[str, Any]:
    """Info and arrays first: ASE moves keys of its own (`energy`, `forces`, `stress`) to the calculator."""
    results = {} if atoms.calc is None else atoms.calc.results
    return {**results, **atoms.arrays, **atoms.info}


def _numbers(found: Mapping[str, Any], key: str, setting: str, place: str) -> np.ndarray:
    if found.get(key) is None:
        there = ", ".join(sorted(set(found) - set(HIDDEN))) or "nothing but the structure"
        raise BadInput(f"{place}: no {key!r}; set {setting} to a name that is there ({there})")
    try:
        numbers = np.asarray(found[key])
        if numbers.dtype.kind not in "iuf":
            raise ValueError(f"{str(found[key])[:40]!r} is not a number")
        numbers = numbers.astype(float)
    except ValueError as error:
        raise BadInput(f"{place}: {key}: {error}; {MEND}") from error
    if not np.isfinite(numbers).all():
        raise BadInput(f"{place}: {key} is not finite{_first_bad(numbers)}; {MEND}")
    return numbers


def _first_bad(numbers: np.ndarray) -> str:
    if numbers.ndim != 2:
        return ""
    return f" at atom {int(np.argmax(~np.isfinite(numbers).all(axis=1)))} (from 0)"


def _voigt(stress: np.ndarray, key: str, place: str) -> np.ndarray:
    if stress.shape == (6,):
        return stress
    if stress.size != 9:
        raise BadInput(f"{place}: {key} must be 6 (Voigt) or 9 numbers, its shape is {stress.shape}; {MEND}")
    return stress.reshape(9)[[0, 4, 8, 5, 2, 1]]
