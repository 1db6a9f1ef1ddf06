"""B-projections of atoms on a basis, element by element. Imports pyace: only for use inside `run`.

Linear: the basis functions themselves (N, F); coefficients do not enter. Full: the derivatives of an atom's energy by
all coefficients (N, P*F), density by density: the basis functions times the slope of the embedding in each of the P
densities, which depends on the fitted coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import numpy as np
from ase import Atoms
from pyace import ACEBBasisSet, ACEBEvaluator, ACECalculator
from pyace.activelearning import compute_number_of_functions
from pyace.atomicenvironment import aseatoms_to_atomicenvironment
from pyace.basisextension import construct_bbasisconfiguration

from containers.arrays import Floats, Indices
from containers.tensorpot.pacemaker.input import Potential

Kind = Literal["linear", "full"]


def unfitted_basis(potential: Potential) -> ACEBBasisSet:
    """Return the basis as pacemaker sets it up before a fit (its `target_potential.yaml`); coefficients are zero."""
    return ACEBBasisSet(construct_bbasisconfiguration(deepcopy(potential.section())))


def functions_per_element(basis: ACEBBasisSet, kind: Kind = "linear") -> dict[str, int]:
    """Return the number of columns of the projections by element, in the order of the basis."""
    numbers = dict(zip(basis.elements_name, map(int, compute_number_of_functions(basis)), strict=True))
    if kind == "linear":
        return numbers
    embeddings = basis.map_embedding_specifications
    return {name: number * int(embeddings[k].ndensity) for k, (name, number) in enumerate(numbers.items())}


class Projector:
    """Projection of structures on one basis. Its evaluator is set up once: that takes as long as some structures do."""

    def __init__(self, basis: ACEBBasisSet, kind: Kind = "linear") -> None:
        self.functions = functions_per_element(basis, kind)
        self._basis, self._kind = basis, kind
        self._evaluator = ACEBEvaluator(basis)  # kept: the calculator only points at it
        self._calculator = ACECalculator(self._evaluator)

    def project(self, structures: Sequence[Atoms]) -> tuple[dict[str, Floats], dict[str, Indices]]:
        """Return by element the (N, F) projections of its atoms, and the (N,) places of their structures."""
        found: dict[str, list[Floats]] = {name: [] for name in self.functions}
        owners: dict[str, list[int]] = {name: [] for name in self.functions}
        for place, atoms in enumerate(structures):
            environment = aseatoms_to_atomicenvironment(atoms, self._basis.cutoffmax, self._basis.elements_to_index_map)
            self._calculator.compute(environment, compute_projections=True)
            projections, slopes = self._calculator.projections, self._calculator.dF_drhos
            symbols = np.array(atoms.get_chemical_symbols())
            for symbol in sorted(set(symbols.tolist())):
                mine = np.flatnonzero(symbols == symbol).tolist()
                linear = np.array([projections[k] for k in mine])
                if self._kind == "full":
                    # pyace's own `dE_dc` is this product, but it is zero until an active set of this size is loaded
                    of_density = np.array([slopes[k] for k in mine])
                    linear = (of_density[:, :, None] * linear[:, None, :]).reshape(len(mine), -1)
                found[symbol].append(linear)
                owners[symbol] += [place] * len(mine)
        rows = {name: np.concatenate([np.zeros((0, size)), *found[name]]) for name, size in self.functions.items()}
        return rows, {name: np.array(owners[name], dtype=np.int64) for name in owners}


def project(
    basis: ACEBBasisSet, structures: Sequence[Atoms], kind: Kind = "linear"
) -> tuple[dict[str, Floats], dict[str, Indices]]:
    """See `Projector.project`."""
    return Projector(basis, kind).project(structures)
