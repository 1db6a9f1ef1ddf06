"""B-projections of structures and their active sets, element by element. Imports pyace: only for use inside `run`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from pyace import ACEBBasisSet
from pyace.activelearning import compute_B_projections, compute_number_of_functions
from pyace.basisextension import construct_bbasisconfiguration

from containers.contract import Progress
from containers.tensorpot.active_rows import Floats, Indices, active_rows
from containers.tensorpot.pacemaker_input import Potential

BLOCK_BYTES = 256 * 2**20
"""Projections held at once; MaxVol copies them about three times."""
CHUNK = 50
"""Structures between two messages of progress."""


@dataclass(frozen=True)
class Active:
    """The active set of one element.

    Attributes:
        rows: (R, F) projections of the active atoms, R at most F.
        owners: (R,) place of the structure that each belongs to.
        environments: atoms of the element that were looked at.
    """

    rows: Floats
    owners: Indices
    environments: int

    @property
    def functions(self) -> int:
        """F, basis functions of the element."""
        return self.rows.shape[1]

    @property
    def scarce(self) -> bool:
        """Whether there are fewer environments than functions, so that MaxVol has no choice."""
        return self.environments < self.functions


def unfitted_basis(potential: Potential) -> ACEBBasisSet:
    """The basis as pacemaker sets it up before a fit (its `target_potential.yaml`); coefficients are zero."""
    return ACEBBasisSet(construct_bbasisconfiguration(deepcopy(potential.section())))


def functions_per_element(basis: ACEBBasisSet) -> dict[str, int]:
    """Number of basis functions by element, in the order of the basis."""
    return dict(zip(basis.elements_name, map(int, compute_number_of_functions(basis)), strict=True))


def project(basis: ACEBBasisSet, structures: Sequence[Atoms]) -> tuple[dict[str, Floats], dict[str, Indices]]:
    """Element -> (N, F) projections of its atoms, and element -> (N,) places of their structures."""
    rows, owners = compute_B_projections(basis, list(structures), return_structure_ind_dict=True)
    names = basis.elements_name
    return {names[k]: rows[k] for k in rows}, {names[k]: owners[k] for k in owners}


def active_sets(
    basis: ACEBBasisSet,
    structures: Sequence[Atoms],
    tolerance: float,
    progress: Progress,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Active]:
    """The active set of every element of the basis over all atoms of the structures.

    Projections are made in blocks of bounded size; with more than one block MaxVol is cumulative (the active rows so
    far and the next block), as pyace's own batch mode is.
    """
    functions = functions_per_element(basis)
    sets = {
        name: Active(np.zeros((0, size)), np.zeros(0, dtype=np.int64), 0) for name, size in sorted(functions.items())
    }
    most = block_bytes // (8 * max(functions.values()))
    for start, block in blocks(structures, most):
        rows, owners = _project_in_chunks(basis, block, start, len(structures), progress)
        sets = {name: _joined(sets[name], rows[name], owners[name], tolerance) for name in sets}
    return sets


def blocks(structures: Sequence[Atoms], most_atoms: int) -> Iterator[tuple[int, Sequence[Atoms]]]:
    """Runs of structures with at most so many atoms (one alone may have more), each with the place of its first."""
    start, atoms = 0, 0
    for place, structure in enumerate(structures):
        if atoms and atoms + len(structure) > most_atoms:
            yield start, structures[start:place]
            start, atoms = place, 0
        atoms += len(structure)
    if atoms:
        yield start, structures[start:]


def _project_in_chunks(
    basis: ACEBBasisSet, block: Sequence[Atoms], start: int, total: int, progress: Progress
) -> tuple[dict[str, Floats], dict[str, Indices]]:
    pieces = []
    for place in range(0, len(block), CHUNK):
        rows, owners = project(basis, block[place : place + CHUNK])
        pieces.append((rows, {name: indices + start + place for name, indices in owners.items()}))
        progress(start + min(place + CHUNK, len(block)), total, "projections")
    names = basis.elements_name
    joined = {name: np.concatenate([rows[name] for rows, _ in pieces]) for name in names}
    return joined, {name: np.concatenate([owners[name] for _, owners in pieces]) for name in names}


def _joined(active: Active, rows: Floats, owners: Indices, tolerance: float) -> Active:
    all_rows = np.concatenate([active.rows, rows]) if len(active.rows) else rows
    all_owners = np.concatenate([active.owners, owners])
    picked = active_rows(all_rows, tolerance)
    return Active(all_rows[picked], all_owners[picked], active.environments + len(rows))
