"""`weak_spots`: training structures that the student does worst on, or extrapolates on, join the selection.

Candidates are the teacher's structures of the training side that are not selected and that `pace_select` could have
taken; the validation and the test side are never looked at. Of what is added

- up to half has an extrapolation grade γ above 1, the largest first: there the student guesses, and the error that the
  label shows is one draw of many;
- the rest has the largest error: force RMSE or energy error an atom, each over its limit, whichever is the larger.

Families take turns of `of_family` structures: a third copy of one frame is added only when every other family with a
candidate of the same kind had its two. A selection that is weighted is weighted anew, see `representation`; in others
all weights are 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, StepMetrics
from containers.metrics import MILLI
from containers.processes import forked_map
from containers.structures.cells import bare
from containers.structures.table import write_table
from containers.tensorpot.selection.candidates import DataSet, read_given
from containers.tensorpot.selection.grades import INSIDE
from containers.tensorpot.selection.pace_select import SELECTION
from containers.tensorpot.selection.representatives import features_of, representing
from containers.tensorpot.student.baseline import Baseline

if TYPE_CHECKING:
    from containers.tensorpot.student.calculator import Student

IMAGE: Image = "tensorpot"
VERSION = 2
INPUTS = {
    "dataset": "the labelled structures with their sides (Parquet, from the dataset step)",
    "selection": "what the student was trained on (Parquet, from pace_select or an earlier round)",
    "baseline": "what the fit left out (baseline.json)",
    "potential": "the student (B-basis .yaml with its core)",
    "asi": "its active set (.asi)",
}
OUTPUTS = {"selection": "selection.parquet"}  # select.SELECTION: the rows that were there, then the new ones
How = Literal["extrapolates", "error"]
SHOWN = 5
"""Candidates that the metrics name."""
PIECE = 20
"""Structures that a process is given at a time."""


class Params(Closed):
    """How many to add, and what counts as bad."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="Å; cutoff of the potential")
    structures: int = Field(ge=1, description="so many are added, or all candidates when there are fewer")
    force_limit_meV_per_A: float = Field(gt=0, description="meV/Å; the unit in which force errors are ranked")
    energy_limit_meV_per_atom: float = Field(gt=0, description="meV/atom; the unit in which energy errors are ranked")
    of_family: int = Field(2, ge=1, description="of one family before the next: its copies are much alike")


@dataclass(frozen=True)
class Spot:
    """Errors of the student on one candidate.

    Attributes:
        force_mae, force_rmse, force_max: meV/Å, of the Cartesian components.
        energy: meV/atom, absolute error.
        gamma: largest extrapolation grade of its atoms.
    """

    id: str
    family: str
    group: str
    place: str
    atoms: int
    force_mae: float
    force_rmse: float
    force_max: float
    energy: float
    gamma: float


class Metrics(StepMetrics):
    """Figures of the selection with what was added."""

    selected: int
    how: dict[str, int]
    added: int
    added_by: dict[str, int]


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `selection.parquet`; the metrics have the errors on the candidates and what was added."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from containers.tensorpot.student.potential import load_student

    data, before, spots = _data_set(inputs, params, machine), _selection(inputs), list[Spot]()
    weighted = any(weight != 1 for weight in before["weight"].to_pylist())
    features = features_of(data, inputs.one("potential"), outputs, machine) if weighted else None
    candidates = len(data.ids("candidate"))
    with threadpool_limits(1):  # processes share the work, not threads
        student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
        for spot in evaluate_each(data.labelled("candidate"), student, machine.resources.threads):
            spots.append(spot)
            machine.progress(len(spots), candidates, "candidates")
    chosen = choose(spots, params)
    ids = [*before["id"].to_pylist(), *(spot.id for spot, _ in chosen)]
    weights = representing(data, features, ids) if features is not None else {}
    return _write(before, outputs, chosen, weights) | figures(spots, chosen, params)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Add the first candidates by id, as if the student erred on them; nothing is evaluated."""
    candidates = sorted(_data_set(inputs, params, machine).ids("candidate"))
    spots = [Spot(key, key, "", "", 1, 1.0, 1.0, 1.0, 1.0, 0.0) for key in candidates]
    chosen = choose(spots, params)
    return _write(_selection(inputs), outputs, chosen, {}) | figures(spots, chosen, params)


def _data_set(inputs: Inputs, params: Params, machine: Machine) -> DataSet:
    selected, baseline = read_given(inputs.one("selection")), Baseline.read(inputs.one("baseline"))
    return DataSet(inputs.one("dataset"), params.elements, params.cutoff, baseline, selected, machine.progress)


def _selection(inputs: Inputs) -> pa.Table:
    return pq.read_table(inputs.one("selection")).select(SELECTION.names).cast(SELECTION).sort_by("order")


def evaluate_each(structures: Iterator[Atoms], student: Student, processes: int) -> Iterator[Spot]:
    """Yield the student's errors on each structure, in their order.

    Args:
        processes: how many share the work.

    Raises:
        OutOfMemory: a process was killed.
    """
    pieces = iter(lambda: list(islice(structures, PIECE)), [])
    for spots in forked_map(partial(_evaluate_piece, student), pieces, processes, "looks for weak spots"):
        yield from spots


def _evaluate_piece(student: Student, structures: list[Atoms]) -> list[Spot]:
    return [evaluate_one(atoms, student) for atoms in structures]


def evaluate_one(atoms: Atoms, student: Student) -> Spot:
    """Compare student and label on one structure of any periodicity."""
    student.calculate(bare(atoms))
    label, found = atoms.calc.results, student.results
    forces = MILLI * np.abs(np.ravel(found["forces"]) - np.ravel(label["forces"]))
    return Spot(
        id=str(atoms.info["id"]),
        family=str(atoms.info["family"] or atoms.info["id"]),
        group=str(atoms.info["group"]),
        place=f"{atoms.info['source']}, row {atoms.info['row']}",
        atoms=len(atoms),
        force_mae=float(forces.mean()),
        force_rmse=float(np.sqrt((forces**2).mean())),
        force_max=float(forces.max()),
        energy=MILLI * abs(float(found["energy"]) - float(label["energy"])) / len(atoms),
        gamma=float(np.max(found["gamma"])),
    )


def score(spot: Spot, params: Params) -> float:
    """Return the larger of force RMSE and energy error, each in units of its limit."""
    return max(spot.force_rmse / params.force_limit_meV_per_A, spot.energy / params.energy_limit_meV_per_atom)


def choose(spots: Sequence[Spot], params: Params) -> list[tuple[Spot, How]]:
    """Return what to add and why: those that extrapolate first. Ties go by id: the order of the rows means nothing."""
    far = sorted((spot for spot in spots if spot.gamma > INSIDE), key=lambda spot: (-spot.gamma, spot.id))
    chosen: list[tuple[Spot, How]] = [
        (spot, "extrapolates") for spot in spread(far, Counter(), params.of_family)[: params.structures // 2]
    ]
    taken = {spot.id for spot, _ in chosen}
    worst = sorted((spot for spot in spots if spot.id not in taken), key=lambda spot: (-score(spot, params), spot.id))
    held = Counter(spot.family for spot, _ in chosen)
    left = params.structures - len(chosen)
    return chosen + [(spot, "error") for spot in spread(worst, held, params.of_family)[:left]]


def spread(order: Sequence[Spot], held: Mapping[str, int], of_family: int) -> list[Spot]:
    """Sort the spots: the first `of_family` of each family in their order, then the next `of_family` of each, ...

    Args:
        held: how many of a family are taken already.
    """
    counts, turns = Counter(held), list[int]()
    for spot in order:
        turns.append(counts[spot.family] // of_family)
        counts[spot.family] += 1
    return [order[place] for place in sorted(range(len(order)), key=turns.__getitem__)]


def _write(
    before: pa.Table, outputs: Path, chosen: Sequence[tuple[Spot, How]], weights: Mapping[str, float]
) -> dict[str, Any]:
    """Write the rows that were there, then the new ones; return how many there are, also by reason."""
    first = max(before["order"].to_pylist(), default=-1) + 1
    new = [{"id": spot.id, "order": n, "how": how, "weight": 1.0} for n, (spot, how) in enumerate(chosen, first)]
    rows = before.to_pylist() + new
    for row in rows:
        row["weight"] = weights.get(row["id"], row["weight"])
    write_table(outputs / OUTPUTS["selection"], pa.Table.from_pylist(rows, schema=SELECTION))
    return {"selected": len(rows), "how": dict(sorted(Counter(row["how"] for row in rows).items()))}


def figures(spots: Sequence[Spot], chosen: Sequence[tuple[Spot, How]], params: Params) -> dict[str, Any]:
    """Return counts, errors of the candidates and of what was added, and the worst of all (rows from 0)."""
    worst = sorted(spots, key=lambda spot: (-score(spot, params), spot.id))[:SHOWN]
    added_by = Counter(how for _, how in chosen)
    return {
        "candidates": len(spots),
        "added": len(chosen),
        "added_by": dict(sorted(added_by.items())),
        "added_groups": dict(sorted(Counter(spot.group for spot, _ in chosen).items())),
        "added_families": len({spot.family for spot, _ in chosen}),
        **_errors("candidate", spots),
        **_errors("added", [spot for spot, _ in chosen]),
        "worst": [
            {
                "structure": spot.place,
                "group": spot.group,
                "force_rmse_meV_per_A": spot.force_rmse,
                "energy_error_meV_per_atom": spot.energy,
                "gamma": spot.gamma,
            }
            for spot in worst
        ],
    }


def _errors(name: str, spots: Sequence[Spot]) -> dict[str, float | None]:
    """Return errors and grades over some structures; None where there are none."""
    keys = ("force_mae_meV_per_A", "force_max_meV_per_A", "energy_mae_meV_per_atom", "gamma_max", "share_above_1")
    if not spots:
        return {f"{name}_{key}": None for key in keys}
    values = (
        sum(spot.force_mae * spot.atoms for spot in spots) / sum(spot.atoms for spot in spots),
        max(spot.force_max for spot in spots),
        fmean(spot.energy for spot in spots),
        max(spot.gamma for spot in spots),
        fmean(spot.gamma > INSIDE for spot in spots),
    )
    return {f"{name}_{key}": value for key, value in zip(keys, values, strict=True)}
