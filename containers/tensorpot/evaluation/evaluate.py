"""`evaluate`: how well the student does on structures that training never saw, against the teacher and against DFT.

What is judged is the sum of potential, pair terms and reference energies, by the calculator that the user gets; DFT
energies are brought to the teacher's scale. Stress is compared where structure and reference have one. Errors by group
and composition, and formation energies, say where the student fails (see `error_tables`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ase import Atoms
from ase.calculators.calculator import Calculator
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.metrics import errors
from containers.structures.cells import bare
from containers.structures.distances import nearest
from containers.structures.table import atoms_from_table, read_atoms, write_table
from containers.tensorpot.evaluation.error_tables import Judged, Pure, lowest_pure, tables
from containers.tensorpot.frames.frame_file import ONE_PLACE, atoms_of_frame, overlap, read_frame
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.potential import load_student

IMAGE: Image = "tensorpot"
VERSION = 4
INPUTS = {
    "potential": "the student (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "test": "test frame with the teacher's labels (.pckl.gzip of the frames step)",
    "yace": Optional("the same for LAMMPS, whose speed is measured (.yace)"),
    "pure": Optional("of each element the structure of the lowest energy (Parquet, LABELS and origin, of frames)"),
    "dft_test": Optional("DFT data for evaluation (Parquet, containers.structures.table.LABELS)"),
}
OUTPUTS = {"evaluation": "evaluation.json", "parity": "parity.parquet"}
PARITY = pa.schema(
    [
        ("against", pa.string()),  # teacher | dft
        ("id", pa.string()),
        ("quantity", pa.string()),  # energy_eV_per_atom | force_eV_per_A | stress_eV_per_A3
        ("reference", pa.float64()),
        ("predicted", pa.float64()),
        ("gamma", pa.float64()),  # largest extrapolation grade of the structure's atoms
    ]
)
UNITS = {
    "energy_eV_per_atom": ("energy", "meV_per_atom"),
    "force_eV_per_A": ("force", "meV_per_A"),
    "stress_eV_per_A3": ("stress", "meV_per_A3"),
}


class Params(Closed):
    """What may be evaluated."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")


@dataclass(frozen=True)
class Compared:
    """One structure: reference and student.

    Attributes:
        values: quantity of PARITY -> (reference, predicted), flat arrays of equal length.
        gamma: (N,) extrapolation grade of each atom.
        group: class of the structure; empty where it has none.
        counts: atoms by element.
    """

    id: str
    values: dict[str, tuple[np.ndarray, np.ndarray]]
    gamma: np.ndarray
    group: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> Judged:
        """Energies and forces for the tables of errors."""
        energies, forces = self.values["energy_eV_per_atom"], self.values["force_eV_per_A"]
        return Judged(self.group, self.counts, (float(energies[0][0]), float(energies[1][0])), np.stack(forces))


class Metrics(StepMetrics):
    """Errors against the teacher on the test side; those against DFT have the same names after `dft_`."""

    teacher_force_mae_meV_per_A: float | None = None
    teacher_energy_mae_meV_per_atom: float | None = None
    teacher_gamma_share_above_1: float  # of the atoms
    student_us_per_atom: float | None = None  # microseconds of LAMMPS' evaluator


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `evaluation.json` and `parity.parquet`; the metrics are the figures after `teacher_` or `dft_`.

    With the `yace`, the metric `student_us_per_atom` (see `us_per_atom`), a timing, is there too and in no file.
    """
    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    sets = _reference_sets(inputs, params)
    total = sum(map(len, sets.values()))
    compared: dict[str, list[Compared]] = {}
    done = 0
    for against, structures in sets.items():
        compared[against] = []
        for atoms in structures:
            compared[against].append(compare(atoms, student))
            done += 1
            machine.progress(done, total, f"against {against}")
    pure = pure_structures(inputs, sets)
    elements = {
        against: {symbol: _pure(compare(atoms, student)) for symbol, atoms in found.items()}
        for against, found in pure.items()
    }
    return {**_write(outputs, compared, elements), **_speed(inputs, sets["teacher"])}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """The evaluation of a student without errors."""
    sets = _reference_sets(inputs, params)
    compared = {against: [_perfect(atoms) for atoms in structures] for against, structures in sets.items()}
    elements = {
        against: {symbol: _pure(_perfect(atoms)) for symbol, atoms in found.items()}
        for against, found in pure_structures(inputs, sets).items()
    }
    return {**_write(outputs, compared, elements), **({"student_us_per_atom": 1.0} if inputs.all("yace") else {})}


def _speed(inputs: Inputs, structures: Sequence[Atoms]) -> dict[str, float]:
    from containers.tensorpot.student.yace import us_per_atom

    return {"student_us_per_atom": us_per_atom(inputs.one("yace"), structures)} if inputs.all("yace") else {}


def compare(atoms: Atoms, student: Calculator) -> Compared:
    """Reference (the structure's own calculator) and student on one structure of any periodicity."""
    student.calculate(bare(atoms))
    results = student.results
    return _compared(atoms, results, np.asarray(results["gamma"], dtype=float))


def _compared(atoms: Atoms, predicted: dict[str, Any], gamma: np.ndarray) -> Compared:
    group, counts = str(atoms.info.get("group", "")), dict(Counter(atoms.get_chemical_symbols()))
    return Compared(str(atoms.info["id"]), paired(atoms, predicted), gamma, group, counts)


def _pure(one: Compared) -> Pure:
    return Pure(one.id, one.judged.energies)


def paired(atoms: Atoms, predicted: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reference and prediction of each quantity in the units of PARITY; stress only where both have one."""
    reference = atoms.calc.results
    per_atom = 1 / len(atoms)
    values = {
        "energy_eV_per_atom": (np.array([reference["energy"] * per_atom]), np.array([predicted["energy"] * per_atom])),
        "force_eV_per_A": (np.ravel(reference["forces"]), np.ravel(predicted["forces"])),
    }
    if reference.get("stress") is not None and predicted.get("stress") is not None:
        values["stress_eV_per_A3"] = (np.ravel(reference["stress"]), np.ravel(predicted["stress"]))
    return values


def figures(compared: Sequence[Compared]) -> dict[str, Any]:
    """Errors, counts and extrapolation of one set; None where nothing can be compared."""
    gamma = np.concatenate([one.gamma for one in compared])
    found: dict[str, Any] = {"structures": len(compared), "atoms": len(gamma)}
    for quantity, (name, unit) in UNITS.items():
        pairs = [one.values[quantity] for one in compared if quantity in one.values]
        reference, predicted = (np.concatenate([pair[k] for pair in pairs] or [np.zeros(0)]) for k in (0, 1))
        found |= errors(name, unit, reference, predicted)
    return found | {"gamma_max": float(gamma.max()), "gamma_share_above_1": float((gamma > 1).mean())}


def _reference_sets(inputs: Inputs, params: Params) -> dict[str, list[Atoms]]:
    sets = {"teacher": atoms_of_frame(read_frame(inputs.one("test")))}
    if inputs.all("dft_test"):
        baseline = Baseline.read(inputs.one("baseline"))
        sets["dft"] = [atoms for path in inputs.all("dft_test") for atoms in read_atoms(path)]
        for atoms in sets["dft"]:
            _refuse_unusable(atoms, params.elements)
            labels = atoms.calc.results
            labels["energy"] = baseline.on_teachers_scale(labels["energy"], Counter(atoms.symbols), "dft")
    return sets


def pure_structures(inputs: Inputs, sets: Mapping[str, Sequence[Atoms]]) -> dict[str, dict[str, Atoms]]:
    """For each set the structure that stands for each element: the lowest in energy of all that have such labels."""
    read = [pq.read_table(path) for path in inputs.all("pure")]
    found = {}
    for against, structures in sets.items():
        known = [atoms for table in read for atoms in atoms_from_table(table.filter(pc.field("origin") == against))]
        found[against] = lowest_pure([*known, *structures])
    return found


def _refuse_unusable(atoms: Atoms, elements: Sequence[str]) -> None:
    if reason := overlap(atoms, nearest(atoms, 2 * ONE_PLACE)):
        raise BadInput(f"{atoms.info['source']}, row {atoms.info['row']} (from 0): {reason}. Mend it or take it out.")
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise BadInput(
            f"{atoms.info['source']}, row {atoms.info['row']} (from 0) has {', '.join(unknown)}, which the potential"
            f" ({', '.join(elements)}) does not: take it out of the DFT test files."
        )


def _perfect(atoms: Atoms) -> Compared:
    reference = atoms.calc.results
    predicted = {key: reference.get(key) for key in ("energy", "forces", "stress")}
    return _compared(atoms, predicted, np.zeros(len(atoms)))


def _write(
    outputs: Path, compared: dict[str, list[Compared]], elements: Mapping[str, Mapping[str, Pure]]
) -> dict[str, Any]:
    found = {against: figures(ones) for against, ones in compared.items() if ones}
    with_tables = {
        against: values | tables([one.judged for one in compared[against]], elements[against])
        for against, values in found.items()
    }
    evaluation = {"teacher": with_tables["teacher"], "dft": with_tables.get("dft")}
    (outputs / OUTPUTS["evaluation"]).write_text(json.dumps(evaluation, indent=1, sort_keys=True) + "\n")
    parity = [_parity(against, one) for against, ones in compared.items() for one in ones]
    write_table(outputs / OUTPUTS["parity"], pa.concat_tables(parity).combine_chunks())
    return {f"{against}_{key}": value for against, values in found.items() for key, value in values.items()}


def _parity(against: str, one: Compared) -> pa.Table:
    quantities = [name for name, (reference, _) in one.values.items() for _ in reference]
    count = len(quantities)
    columns = {
        "against": [against] * count,
        "id": [one.id] * count,
        "quantity": quantities,
        "reference": np.concatenate([reference for reference, _ in one.values.values()]),
        "predicted": np.concatenate([predicted for _, predicted in one.values.values()]),
        "gamma": np.full(count, one.gamma.max()),
    }
    return pa.Table.from_pydict(columns, schema=PARITY)
