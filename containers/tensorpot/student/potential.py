"""A fitted potential: checked, stripped of time and user, written, and compared with data.

Needs pyace, imported inside the functions; nothing here needs TensorFlow. Energies are without the E0s.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from containers.arrays import Floats
from containers.contract import BadInput
from containers.metrics import errors
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import Student

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none
    from pyace import ACEBBasisSet

KEPT_METADATA = ("ace_evaluator_version", "pacemaker_version", "tensorpot_version")


def load(path: Path) -> Any:
    """Return the `BBasisConfiguration` of a B-basis file; None when the file is cut off or none of pyace's."""
    from pyace import BBasisConfiguration

    try:
        return BBasisConfiguration(str(path))
    except (RuntimeError, ValueError, IndexError):  # what pyace raises on a broken file
        return None


def shape_of(configuration: Any) -> tuple[int, int]:
    """Return the numbers of functions and of parameters."""
    return configuration.total_number_of_functions, len(configuration.get_all_coeffs())


def functions_offered(section: dict[str, Any]) -> int:
    """Count the functions of the basis that pacemaker makes of a potential section."""
    from pyace.basisextension import construct_bbasisconfiguration

    return int(construct_bbasisconfiguration(section).total_number_of_functions)


def has_core(configuration: Any) -> bool:
    """Return whether a core repulsion was added."""
    return any(block.inner_cutoff_type == "zbl" or block.r_in > 0 for block in configuration.funcspecs_blocks)


def elements_of(configuration: Any) -> tuple[str, ...]:
    """Return the chemical symbols, sorted."""
    return tuple(sorted({element for block in configuration.funcspecs_blocks for element in block.elements_vec}))


def cutoff_of(configuration: Any) -> float:
    """Return the largest rcut (Å)."""
    return float(max(block.rcutij for block in configuration.funcspecs_blocks if len(block.elements_vec) <= 2))


def usable(path: Path, shapes: Iterable[tuple[int, int]], probe: Atoms) -> bool:
    """Return whether a file holds a whole potential of one of these shapes, with finite energy and forces on `probe`.

    A file that its program was writing when it died is whole by chance only; the shapes show it.
    """
    if not path.is_file() or (configuration := load(path)) is None or shape_of(configuration) not in set(shapes):
        return False
    energy, forces = predict(configuration, [probe])
    return bool(np.isfinite(energy).all() and np.isfinite(forces[0]).all())


def write_stripped(configuration: Any, path: Path) -> None:
    """Save without what differs between two equal fits: times and the user's name."""
    for name in [name for name, _ in configuration.metadata.items() if name not in KEPT_METADATA]:
        del configuration.metadata[name]
    configuration.save(str(path))


def predict(potential: Any, structures: list[Atoms], recursive: bool = False) -> tuple[Floats, list[Floats]]:
    """Predict energies (eV) and forces (eV/Å, each (N, 3)) of the structures, without the E0s.

    Args:
        potential: a `BBasisConfiguration`, or the path of a .yaml or .yace file, as text.
        recursive: by the evaluator of LAMMPS's `pair_style pace recursive`, which reads a .yace.
    """
    from pyace import PyACECalculator

    options = {"recursive_evaluator": True, "recursive": True} if recursive else {}
    calculator = PyACECalculator(potential, **options)
    calculator.compute_projections = False
    energies, forces = [], []
    for atoms in structures:
        calculator.calculate(atoms)
        energies.append(calculator.results["energy"])
        forces.append(calculator.results["forces"])
    return np.array(energies), forces


def errors_on(potential: Path, frame: pd.DataFrame) -> dict[str, float | None]:
    """Return errors against a pacemaker frame: energies in meV/atom, force components in meV/Å."""
    structures = list(frame["ase_atoms"])
    atoms = np.array([len(structure) for structure in structures])
    energies, forces = predict(str(potential), structures)
    found, reference = np.concatenate(forces), np.concatenate([np.asarray(each) for each in frame["forces"]])
    target = frame["energy_corrected"].to_numpy() / atoms
    return {
        **errors("energy", "meV_per_atom", target, energies / atoms),
        **errors("force", "meV_per_A", reference, found),
    }


def load_student(potential: Path, asi: Path, baseline: Path) -> Student:
    """Load the student as an ASE calculator that also gives `gamma`: total energies on the teacher's scale."""
    from pyace import PyACECalculator

    ace = PyACECalculator(load_basis(potential))
    ace.set_active_set(str(asi))
    return Student(ace, Baseline.read(baseline).model_dump())


def load_basis(path: Path) -> ACEBBasisSet:
    """Load the B-basis in a potential file; `BadInput` when it is none."""
    from pyace import ACEBBasisSet, BBasisConfiguration

    try:
        return ACEBBasisSet(BBasisConfiguration(str(path)))
    except RuntimeError as error:
        raise BadInput(f"{path} is not a B-basis potential of pacemaker (.yaml): {error}") from None
