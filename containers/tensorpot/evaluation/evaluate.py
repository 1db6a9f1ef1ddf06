"""`evaluate`: how well the student does on structures that training never saw, against the teacher and against DFT.

What is judged is the sum of potential, pair terms and reference energies, by the calculator that the user gets; DFT
energies are brought to the teacher's scale. Stress is compared where structure and reference have one. Errors by
element, group, composition and size, and formation energies, say where the student fails (see `error_tables`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from containers.tensorpot.evaluation.error_tables import Compared, lowest_pure, tables
from containers.tensorpot.frames.frame_file import ONE_PLACE, atoms_of_frame, overlap, read_frame
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.potential import load_student

IMAGE: Image = "tensorpot"
VERSION = 5
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
    """Elements that may be evaluated."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")


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
    from containers.tensorpot.student.yace import us_per_atom

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
    metrics = _write(inputs, outputs, sets, compared, lambda atoms: compare(atoms, student))
    if inputs.all("yace"):
        metrics["student_us_per_atom"] = us_per_atom(inputs.one("yace"), sets["teacher"])
    return metrics


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Evaluate a student without errors."""
    sets = _reference_sets(inputs, params)
    compared = {against: [perfect(atoms) for atoms in structures] for against, structures in sets.items()}
    metrics = _write(inputs, outputs, sets, compared, perfect)
    return {**metrics, **({"student_us_per_atom": 1.0} if inputs.all("yace") else {})}


def compare(atoms: Atoms, student: Calculator) -> Compared:
    """Compare reference (the structure's own calculator) and student on one structure of any periodicity."""
    student.calculate(bare(atoms))
    return _compared(atoms, student.results)


def perfect(atoms: Atoms) -> Compared:
    """Compare a structure with its own label."""
    predicted = {key: atoms.calc.results.get(key) for key in ("energy", "forces", "stress")}
    return _compared(atoms, {**predicted, "gamma": np.zeros(len(atoms))})


def _compared(atoms: Atoms, predicted: dict[str, Any]) -> Compared:
    """Pair the quantities in the units of PARITY; stress only where both have one."""
    reference, per_atom = atoms.calc.results, 1 / len(atoms)
    values = {
        "energy_eV_per_atom": (np.array([reference["energy"] * per_atom]), np.array([predicted["energy"] * per_atom])),
        "force_eV_per_A": (np.ravel(reference["forces"]), np.ravel(predicted["forces"])),
    }
    if reference.get("stress") is not None and predicted.get("stress") is not None:
        values["stress_eV_per_A3"] = (np.ravel(reference["stress"]), np.ravel(predicted["stress"]))
    gamma, symbols = np.asarray(predicted["gamma"], dtype=float), atoms.get_chemical_symbols()
    return Compared(str(atoms.info["id"]), values, gamma, str(atoms.info.get("group", "")), Counter(symbols), symbols)


def figures(compared: Sequence[Compared]) -> dict[str, Any]:
    """Return errors, counts and extrapolation of one set; None where nothing can be compared."""
    gamma = np.concatenate([one.gamma for one in compared])
    found: dict[str, Any] = {"structures": len(compared), "atoms": len(gamma)}
    for quantity, (name, unit) in UNITS.items():
        pairs = [one.values[quantity] for one in compared if quantity in one.values]
        reference, predicted = (np.concatenate([pair[k] for pair in pairs] or [np.zeros(0)]) for k in (0, 1))
        found |= errors(name, unit, reference, predicted)
    return found | {"gamma_max": float(gamma.max()), "gamma_share_above_1": float((gamma > 1).mean())}


def _reference_sets(inputs: Inputs, params: Params) -> dict[str, list[Atoms]]:
    """Read the structures by reference; raises `BadInput` for a DFT structure that cannot be compared."""
    sets = {"teacher": atoms_of_frame(read_frame(inputs.one("test")))}
    if inputs.all("dft_test"):
        baseline = Baseline.read(inputs.one("baseline"))
        sets["dft"] = [atoms for path in inputs.all("dft_test") for atoms in read_atoms(path)]
        for atoms in sets["dft"]:
            place = f"{atoms.info['source']}, row {atoms.info['row']} (from 0)"
            if reason := overlap(atoms, nearest(atoms, 2 * ONE_PLACE)):
                raise BadInput(f"{place}: {reason}. Correct it or take it out.")
            if unknown := sorted(set(atoms.get_chemical_symbols()) - set(params.elements)):
                raise BadInput(
                    f"{place} has {', '.join(unknown)}, which the potential ({', '.join(params.elements)}) does not:"
                    " take it out of the DFT test files."
                )
            labels = atoms.calc.results
            labels["energy"] = baseline.on_teachers_scale(labels["energy"], Counter(atoms.symbols), "dft")
    return sets


def _write(
    inputs: Inputs,
    outputs: Path,
    sets: Mapping[str, Sequence[Atoms]],
    compared: Mapping[str, Sequence[Compared]],
    compare_one: Callable[[Atoms], Compared],
) -> dict[str, Any]:
    """Write both files. Each element is represented by the structure of the lowest energy that has such labels."""
    read = [pq.read_table(path) for path in inputs.all("pure")]
    evaluation: dict[str, Any] = {"teacher": None, "dft": None}
    metrics, parity = dict[str, Any](), []
    for against, ones in compared.items():
        known = [atoms for table in read for atoms in atoms_from_table(table.filter(pc.field("origin") == against))]
        pure = {symbol: compare_one(atoms) for symbol, atoms in lowest_pure([*known, *sets[against]]).items()}
        if ones:
            found = figures(ones)
            evaluation[against] = found | tables(ones, pure)
            metrics |= {f"{against}_{key}": value for key, value in found.items()}
        for one in ones:
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
            parity.append(pa.Table.from_pydict(columns, schema=PARITY))
    (outputs / OUTPUTS["evaluation"]).write_text(json.dumps(evaluation, indent=1, sort_keys=True) + "\n")
    write_table(outputs / OUTPUTS["parity"], pa.concat_tables(parity).combine_chunks())
    return metrics
