"""`committee`: the spread of students that differ by chance alone, and how it goes with their error.

On the test structures, against the teacher. Deviations are population standard deviations over the students; those
of forces, and their errors, are per Cartesian component: the root of an atom's mean square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.calculators.calculator import Calculator

from containers.arrays import Floats
from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.metrics import MILLI, errors
from containers.structures.cells import bare
from containers.structures.table import write_table
from containers.tensorpot.frames.frame_file import atoms_of_frame, read_frame
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import Student
from containers.tensorpot.student.committee_calculator import Committee, per_atom

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {
    "potentials": "the students (B-basis .yaml), two or more of the same elements",
    "baseline": "what their fits left out (baseline.json)",
    "test": "test frame with the teacher's labels (.pckl.gzip of the frames step)",
}
OUTPUTS = {"committee": "committee.parquet"}
SPREAD = pa.schema(
    [
        ("id", pa.string()),
        ("atom", pa.int64()),  # from 0
        ("force_std_eV_per_A", pa.float64()),
        ("force_error_eV_per_A", pa.float64()),  # of the students' mean
        ("energy_std_eV_per_atom", pa.float64()),  # of the structure, the same for its atoms
        ("energy_error_eV_per_atom", pa.float64()),
    ]
)


class Params(Closed):
    """A committee has no settings."""


@dataclass(frozen=True)
class Deviation:
    """One test structure of N atoms.

    Attributes:
        energies: reference and the students' mean, eV/atom. forces: the same, (N, 3) eV/Å.
        energy_std: eV/atom. force_std: (N,) eV/Å.
    """

    id: str
    energies: tuple[float, float]
    forces: tuple[Floats, Floats]
    energy_std: float
    force_std: Floats


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a row of SPREAD for each test atom; see `figures` for the metrics."""
    from pyace import PyACECalculator

    from containers.tensorpot.student.potential import load_basis

    paths, baseline = _paths(inputs), Baseline.read(inputs.one("baseline")).model_dump()
    together = Committee([Student(PyACECalculator(load_basis(path)), baseline) for path in paths])
    structures = atoms_of_frame(read_frame(inputs.one("test")))
    found = []
    for place, atoms in enumerate(structures, start=1):
        found.append(judge(atoms, together))
        machine.progress(place, len(structures), f"{len(paths)} students")
    return _write(outputs, found, len(paths))


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the spread of students that all agree with the teacher."""
    structures = atoms_of_frame(read_frame(inputs.one("test")))
    agreed = {"energy_std": 0.0, "force_std": 0.0}
    found = [_deviation(atoms, {**atoms.calc.results, **agreed}) for atoms in structures]
    return _write(outputs, found, len(_paths(inputs)))


def _paths(inputs: Inputs) -> tuple[Path, ...]:
    paths = inputs.all("potentials")
    if len(paths) < 2:
        raise BadInput(f"potentials: {len(paths)} given, but a spread is that of two students or more")
    return paths


def judge(atoms: Atoms, committee: Calculator) -> Deviation:
    """Compare reference (the structure's own calculator) and committee on one structure."""
    committee.calculate(bare(atoms))
    return _deviation(atoms, committee.results)


def _deviation(atoms: Atoms, predicted: dict[str, Any]) -> Deviation:
    reference, count = atoms.calc.results, len(atoms)
    return Deviation(
        id=str(atoms.info["id"]),
        energies=(reference["energy"] / count, predicted["energy"] / count),
        forces=(np.asarray(reference["forces"]), np.asarray(predicted["forces"])),
        energy_std=predicted["energy_std"] / count,
        force_std=np.broadcast_to(np.asarray(predicted["force_std"], dtype=float), count),
    )


def figures(judged: Sequence[Deviation], students: int) -> dict[str, Any]:
    """Return counts, spread, errors of the mean, and how spread and error go together.

    A correlation is None where one of the two is the same everywhere; `_pearson` is that of the values, `_spearman`
    that of their ranks. `force_rmse_over_std`: by how much errors exceed deviations (1: they are as large).
    """
    stds, wrong = _forces(judged)
    energy_stds = np.array([one.energy_std for one in judged])
    energy_wrong = np.array([abs(one.energies[1] - one.energies[0]) for one in judged])
    pairs = [np.concatenate([one.forces[k] for one in judged]) for k in (0, 1)]
    energies = [[one.energies[k] for one in judged] for k in (0, 1)]
    spread = float(np.sqrt((stds**2).mean()))

    def mean_and_max(values: Floats) -> dict[str, float]:
        return {"mean": MILLI * float(values.mean()), "max": MILLI * float(values.max())}

    return {
        "students": students,
        "structures": len(judged),
        "atoms": len(stds),
        **{f"force_std_{key}_meV_per_A": value for key, value in mean_and_max(stds).items()},
        **{f"energy_std_{key}_meV_per_atom": value for key, value in mean_and_max(energy_stds).items()},
        **errors("force", "meV_per_A", *pairs),
        **errors("energy", "meV_per_atom", *energies),
        **{f"force_std_error_{key}": value for key, value in _correlations(stds, wrong).items()},
        **{f"energy_std_error_{key}": value for key, value in _correlations(energy_stds, energy_wrong).items()},
        "force_rmse_over_std": float(np.sqrt((wrong**2).mean())) / spread if spread else None,
    }


def _forces(judged: Sequence[Deviation]) -> tuple[Floats, Floats]:
    """Return deviation and error of the force on every atom."""
    wrong = [per_atom(one.forces[1] - one.forces[0]) for one in judged]
    return np.concatenate([one.force_std for one in judged]), np.concatenate(wrong)


def _correlations(one: Floats, other: Floats) -> dict[str, float | None]:
    """Return Pearson's and Spearman's; None where there is none."""
    from scipy.stats import pearsonr, spearmanr

    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return {"pearson": None, "spearman": None}
    return {"pearson": float(pearsonr(one, other).statistic), "spearman": float(spearmanr(one, other).statistic)}


def _write(outputs: Path, judged: Sequence[Deviation], students: int) -> dict[str, Any]:
    stds, wrong = _forces(judged)
    counts = [len(one.force_std) for one in judged]
    columns = {
        "id": np.repeat([one.id for one in judged], counts),
        "atom": np.concatenate([np.arange(count) for count in counts]),
        "force_std_eV_per_A": stds,
        "force_error_eV_per_A": wrong,
        "energy_std_eV_per_atom": np.repeat([one.energy_std for one in judged], counts),
        "energy_error_eV_per_atom": np.repeat([abs(one.energies[1] - one.energies[0]) for one in judged], counts),
    }
    write_table(outputs / OUTPUTS["committee"], pa.Table.from_pydict(columns, schema=SPREAD))
    return figures(judged, students)
