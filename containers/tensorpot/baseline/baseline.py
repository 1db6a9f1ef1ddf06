"""`baseline`: constants and pair energies, taken from every label before the fit and given back after it.

Reference energies (E0) of the elements; constants that bring DFT energies to the teacher's zero; and, where the student
learns a difference, the pair potential that is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.structures.split import Split
from containers.structures.table import read_atoms
from containers.tensorpot.baseline import dft_agreement, pair_potentials
from containers.tensorpot.baseline import reference_energies as energies
from containers.tensorpot.baseline.force_check import check_forces
from containers.tensorpot.baseline.pair_potentials import LennardJones, Reference
from containers.tensorpot.baseline.rows import BaselineLabels
from containers.tensorpot.baseline.stress_check import check_stress
from containers.tensorpot.student.baseline import Baseline, E0Source, PairTerm, pair_names

IMAGE: Image = "tensorpot"
VERSION = 4
INPUTS = {
    "labels": "the teacher's labels of the pool (Parquet, containers.structures.table.LABELS)",
    "dft": Optional("DFT data that may be trained on (LABELS)"),
    "dft_test": Optional("DFT data that only the evaluation sees (LABELS)"),
    "base": Optional("baseline.json of an earlier run whose data set this run continues"),
    "base_set": Optional("that data set (Parquet, DATASET), whose labels count beside the new ones"),
    "dft_teacher": Optional("the teacher's labels of the DFT structures (LABELS); some may be missing"),
    "dft_rejected": Optional("why they are (Parquet, containers.labels.pool_labels.REJECTED)"),
}
OUTPUTS = {"baseline": "baseline.json"}

__all__ = ["IMAGE", "INPUTS", "OUTPUTS", "VERSION", "LennardJones", "Params", "run", "stub"]


class Params(Closed):
    """Where the reference energies come from and which pair potential is taken off."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="cutoff of the potential, Å")
    teacher_e0s_eV: dict[str, float] = Field(description="the teacher's own reference energies, eV an atom")
    e0s: Literal["teacher", "isolated_atoms", "least_squares"] | dict[str, float] = Field(
        "teacher",
        description="teacher: its own; isolated_atoms: energies of single atoms in the data, DFT's before the"
        " teacher's; least_squares: fitted to the labels of the training side; or given, eV an atom",
    )
    dft_energies: Literal["refuse", "align"] = Field(
        "refuse", description="DFT energies whose zero differs from the teacher's by a constant for each element"
    )
    reference_potential: Reference = Field("none", description="pair potential that helps the student")
    difference: bool = Field(
        False, description="learn the labels less ZBL, instead of ZBL at short distances; lj is always a difference"
    )
    lj: Literal["auto"] | dict[str, LennardJones] = Field(
        "auto", description="parameters by pair; auto: fitted to the labels of the training side"
    )
    split: Split = Field(Split(), description="tells the training side, which alone is fitted to")

    @property
    def takes_pairs(self) -> bool:
        """True where the student learns the difference to a pair potential."""
        return self.reference_potential == "lj" or (self.reference_potential == "zbl" and self.difference)


class Metrics(StepMetrics):
    """Doubts about the DFT labels."""

    dft_warnings: list[str] = []
    dft_not_compared: int = 0  # DFT structures whose units nothing shows to be right
    dft_not_compared_first: str | None = None


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `baseline.json`; raises `BadInput` for other units or another zero of energy, or missing energies.

    The metrics have E0s, offsets, how many DFT structures were compared with the teacher and how many could not be
    (`dft_not_compared_first`: file, frame and reason of the first), what is doubtful about DFT labels
    (`dft_warnings`), the teacher's own errors against DFT (`teacher_*` on the training files' structures,
    `teacher_test_*` on those of the test files), and the range of the corrected energies where a pair potential is
    taken off.
    """
    labels = BaselineLabels(inputs.one("labels"), next(iter(inputs.all("base_set")), None), params.split)
    earlier = Baseline.read(inputs.one("base")) if inputs.all("base") else None
    constants, compared, figures = _dft_offsets(inputs, params, earlier)
    e0s, source = _e0s(inputs, labels, params, constants)
    if params.reference_potential == "lj" and params.lj == "auto":
        pairs = pair_potentials.fitted_lj(labels, e0s, params.elements, params.cutoff)
    else:
        pairs = _given_pairs(params, params.lj if isinstance(params.lj, dict) else {})
    found = Baseline(e0s_eV=e0s, e0s_from=source, dft_offsets_eV=constants, dft_compared=compared, pairs=pairs)
    metrics = _write(outputs, found)
    if pairs:
        figures |= pair_potentials.check_range(pair_potentials.shifts(labels, pairs, e0s))
    return metrics | figures


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the given or the teacher's E0s, no offsets; no label is read."""
    source: E0Source = "given" if isinstance(params.e0s, dict) else "teacher"
    e0s = energies.given(params.e0s if isinstance(params.e0s, dict) else params.teacher_e0s_eV, params.elements, "e0s")
    depth = LennardJones(epsilon_eV=0.01, sigma_A=2.0)
    parameters = dict.fromkeys(pair_names(params.elements), depth)
    pairs = _given_pairs(params, params.lj if isinstance(params.lj, dict) else parameters)
    figures: dict[str, Any] = {"dft_compared": 0, "dft_warnings": [], **dft_agreement.not_compared([], [], {})}
    for side in ("teacher", "teacher_test"):
        figures |= {f"{side}_{name}": value for name, value in dft_agreement.teachers_errors([], {}).items()}
    return _write(outputs, Baseline(e0s_eV=e0s, e0s_from=source, pairs=pairs)) | figures


def _write(outputs: Path, found: Baseline) -> dict[str, Any]:
    found.write(outputs / OUTPUTS["baseline"])
    return {
        "e0s_eV": found.e0s_eV,
        "e0s_from": found.e0s_from,
        "dft_offsets_eV": found.dft_offsets_eV,
        "pairs": {name: term.model_dump(mode="json") for name, term in found.pairs.items()},
    }


def _read(inputs: Inputs, name: str) -> list[Atoms]:
    return [atoms for path in inputs.all(name) for atoms in read_atoms(path)]


def _dft_offsets(
    inputs: Inputs, params: Params, earlier: Baseline | None
) -> tuple[dict[str, float], int, dict[str, Any]]:
    """Return constants (eV an atom) to take from DFT energies, empty where none are needed, on how many training
    structures they were found, and the teacher's errors.

    Those of an earlier run stay where it had DFT data: they are in the set, on that zero. Isolated atoms are left out:
    a MACE model is unreliable there.
    """
    by_teacher = _read(inputs, "dft_teacher")
    dft = {
        name: [
            one
            for one in _read(inputs, name)
            if set(one.get_chemical_symbols()) <= set(params.elements) and not energies.isolated(one, params.cutoff)
        ]
        for name in ("dft", "dft_test")
    }
    train, test = (dft_agreement.matched(structures, by_teacher) for structures in dft.values())
    both = [*train, *test]
    dft_agreement.check_units(both)
    warnings = [*check_forces(both), *check_stress(both)]
    settled = earlier.dft_compared if earlier else 0
    constants: dict[str, float] = {}
    figures: dict[str, Any] = {"dft_compared": len(train or test)}
    if earlier and settled:
        constants = dict(earlier.dft_offsets_eV)
        if train:
            dft_agreement.check_zero(train, params.elements, constants, "DFT training files", "earlier run's DFT data")
    elif judged := train or test:
        found, before, after = dft_agreement.offsets(judged, params.elements)
        dft_agreement.check_energies(judged, found)
        figures["dft_difference_q75_meV_per_atom"] = 1000 * before
        figures["dft_difference_q75_after_offsets_meV_per_atom"] = 1000 * after
        if dft_agreement.other_reference(before, after):
            if params.dft_energies == "refuse":
                raise BadInput(dft_agreement.refused(found, before, after, len(judged)))
            constants = found
    if test and (train or settled):
        dft_agreement.check_zero(test, params.elements, constants, "DFT test files", "DFT training files")
    if both:
        warnings += dft_agreement.check_outliers(both, dft_agreement.offsets(both, params.elements)[0])
    figures["dft_warnings"] = warnings
    rejected = [pq.read_table(path, columns=["id", "reason"]) for path in inputs.all("dft_rejected")]
    reasons = {row["id"]: row["reason"] for table in rejected for row in table.to_pylist()}
    figures |= dft_agreement.not_compared([*dft["dft"], *dft["dft_test"]], by_teacher, reasons)
    figures |= {f"teacher_{name}": value for name, value in dft_agreement.teachers_errors(train, constants).items()}
    figures |= {f"teacher_test_{name}": value for name, value in dft_agreement.teachers_errors(test, constants).items()}
    return constants, settled + len(train), figures


def _e0s(
    inputs: Inputs, labels: BaselineLabels, params: Params, constants: dict[str, float]
) -> tuple[dict[str, float], E0Source]:
    elements = params.elements
    if isinstance(params.e0s, dict):
        return energies.given(params.e0s, elements, "reference_energies"), "given"
    if params.e0s == "isolated_atoms":
        found = _isolated(inputs, labels, params.cutoff, constants)
        return energies.of_isolated_atoms(found, elements, params.cutoff), "isolated_atoms"
    teachers = energies.given(params.teacher_e0s_eV, elements, "the teacher")
    if params.e0s == "teacher":
        return teachers, "teacher"
    return energies.by_least_squares(labels, teachers, elements), "least_squares"


def _isolated(inputs: Inputs, labels: BaselineLabels, cutoff: float, constants: dict[str, float]) -> Iterator[Atoms]:
    """Yield DFT's on the teacher's scale, then the teacher's; of each the earlier set's first, so that its E0s stay."""
    new = (atoms for atoms in _read(inputs, "dft") if energies.isolated(atoms, cutoff))
    for atoms in chain(energies.lone_atoms(labels.of_base("dft"), cutoff), new):
        atoms.calc.results["energy"] -= constants.get(atoms.get_chemical_symbols()[0], 0.0)
        yield atoms
    yield from energies.lone_atoms(labels.of_teacher(), cutoff)


def _given_pairs(params: Params, parameters: dict[str, LennardJones]) -> dict[str, PairTerm]:
    if not params.takes_pairs:
        return {}
    if params.reference_potential == "zbl":
        return pair_potentials.zbl_terms(params.elements, params.cutoff)
    return pair_potentials.lj_terms(parameters, params.elements, params.cutoff)
