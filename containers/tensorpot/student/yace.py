"""The `.yace` that LAMMPS reads: written, compared with the `.yaml` it was made from, measured.

Needs pyace, imported inside the functions. Energies are without the E0s.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from containers.contract import StepError
from containers.structures.cells import grown
from containers.tensorpot.student.calculator import padded
from containers.tensorpot.student.potential import predict

TOLERANCE = 1e-5  # eV/atom between .yaml and .yace, which tabulates the radial functions; equal code differs by 1e-14
FORCE_TOLERANCE = 1e-4  # eV/Å, and as a share of the largest force
PROBES = 20  # structures on which the two are compared
TIMED_ATOMS, REPEATS = 64, 9


class ExportDiffers(StepError):
    """The .yace does not give the energies and forces of the .yaml it was made from."""


def write_yace(potential: Path, yace: Path, structures: Sequence[Atoms]) -> dict[str, Any]:
    """Write the .yace of a .yaml; return the metrics of both files.

    They are compared on up to PROBES of the structures (as a frame has them), evenly spread from the smallest to the
    largest, both included: energies and forces, by both evaluators of a .yace. Raises `ExportDiffers`.
    """
    from pyace import ACEBBasisSet

    basis = ACEBBasisSet(str(potential))
    basis.to_ACECTildeBasisSet().save_yaml(str(yace))
    probes = spread(structures, PROBES)
    energies, forces = predict(str(potential), probes)
    worst_eV, worst_force = 0.0, 0.0
    for recursive in (False, True):
        of_yace, forces_of_yace = predict(str(yace), probes, recursive)
        for place, atoms in enumerate(probes):
            energy = abs(of_yace[place] - energies[place]) / len(atoms)
            force = np.abs(forces_of_yace[place] - forces[place]).max()
            if not (energy <= TOLERANCE and force <= FORCE_TOLERANCE * (1 + np.abs(forces[place]).max())):
                raise ExportDiffers(
                    f"{yace.name} differs from {potential.name} by {energy:.2e} eV/atom and {force:.2e} eV/Å on a"
                    f" training structure of {len(atoms)} atoms (allowed {TOLERANCE:g} and {FORCE_TOLERANCE:g})"
                )
            worst_eV, worst_force = max(worst_eV, energy), max(worst_force, force)
    each = zip(basis.elements_name, basis.basis_rank1, basis.basis, strict=True)
    return {
        "yace_difference_eV_per_atom": float(worst_eV),
        "yace_force_difference_eV_per_A": float(worst_force),
        "yace_compared_structures": len(probes),
        "functions": {name: len(pairs) + len(many) for name, pairs, many in each},  # of each element
        "parameters": len(basis.all_coeffs),
        "yaml_bytes": potential.stat().st_size,
        "yace_bytes": yace.stat().st_size,
    }


def spread(structures: Sequence[Atoms], count: int) -> list[Atoms]:
    """Return so many of the structures at most, evenly spread over their order by size."""
    by_size = sorted(structures, key=len)
    places = np.unique(np.linspace(0, len(by_size) - 1, min(count, len(by_size))).round().astype(int))
    return [by_size[place] for place in places]


def us_per_atom(yace: Path, structures: Sequence[Atoms]) -> float:
    """Measure the µs of one core for energy and forces of an atom: the cost of the student in LAMMPS.

    By the evaluator that LAMMPS takes (`pair_style pace recursive`), on the largest of the structures, repeated to
    TIMED_ATOMS atoms or more; the median of REPEATS evaluations. Neighbours are found before: LAMMPS keeps its list
    for many steps. CPU time, so that others on the machine disturb little; no two runs give the same.
    """
    from pyace import PyACECalculator

    calculator = PyACECalculator(str(yace), recursive_evaluator=True, recursive=True)
    largest = padded(max(structures, key=len), float(calculator.cutoff))
    environment = calculator.get_atomic_env(atoms := grown(largest, TIMED_ATOMS, 0.0))
    taken = []
    for _ in range(1 + REPEATS):  # the first one fills the caches
        started = time.process_time()
        calculator.ace.compute(environment, compute_projections=False)
        taken.append(time.process_time() - started)
    return 1e6 * statistics.median(taken[1:]) / len(atoms)
