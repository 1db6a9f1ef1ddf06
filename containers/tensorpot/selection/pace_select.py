"""`pace_select`: choose the labelled structures to train on.

MaxVol looks at the projections of every atom on the basis that is going to be fitted and finds, element by element, the
environments that span the largest volume; the structures that hold them are D-optimal and guard the tails. The combined
method fills the rest of the budget with structures that represent the pool (see `representatives`). Only the training
side takes part; DFT structures of that side and what was selected before are in the set from the beginning. Whatever
the method, every element that the training side has is in what is selected.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, Resources, StepMetrics
from containers.structures.table import write_table
from containers.tensorpot.active_set.piece_sizes import Sizes, features_bytes, sizes_for
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection.candidates import DataSet, read_given
from containers.tensorpot.selection.combined import How, choose, no_room, with_every_element
from containers.tensorpot.selection.d_optimal import Search
from containers.tensorpot.selection.grades import grade_all, summary
from containers.tensorpot.student.baseline import Baseline

if TYPE_CHECKING:
    from pyace import ACEBBasisSet

IMAGE: Image = "tensorpot"
VERSION = 4
INPUTS = {
    "dataset": "the labelled structures with their sides (Parquet, from the dataset step)",
    "baseline": "what is taken from the labels before the fit (baseline.json)",
    "given": Optional("what an earlier run selected (Parquet): it stays selected"),
    "potential": Optional("a B-basis potential (.yaml) whose basis, and coefficients for full projections, are used"),
}
OUTPUTS = {"selection": "selection.parquet"}
SELECTION = pa.schema([("id", pa.string()), ("order", pa.int32()), ("how", pa.string()), ("weight", pa.float64())])


class Params(Closed):
    """How to choose."""

    potential: Potential = Field(description="the basis that will be fitted")
    method: Literal["combined", "d_optimal", "random", "all"] = Field(
        "combined",
        description="combined: D-optimal structures for the tails and representatives for the bulk; d_optimal: passes"
        " of MaxVol alone",
    )
    max_structures: int | None = Field(
        None, ge=1, description="at most so many, those selected before included; `all` takes everything"
    )
    fraction: float | None = Field(None, gt=0, le=1, description="the same as a share of the structures to choose from")
    projections: Literal["linear", "full"] = Field(
        "linear",
        description="linear: on the basis functions; full: derivatives of the energy by all coefficients, which needs a"
        " fitted potential",
    )
    seed: int = Field(42, description="of the hash that draws structures at random")
    gamma_tolerance: float = Field(
        1.01, ge=1, description="MaxVol stops when no environment has a larger extrapolation grade; pacemaker's value"
    )
    grades: bool = Field(
        True, description="tell the extrapolation grades before and after; costs the projections for random and all"
    )

    @model_validator(mode="after")
    def _has_one_budget(self) -> Params:
        if (self.max_structures is None) == (self.fraction is None):
            raise ValueError("give either max_structures or fraction")
        return self

    def budget(self, candidates: int) -> int:
        """How many structures of so many to choose from (those selected before included)."""
        if self.method == "all":
            return candidates
        if self.max_structures is not None:
            return min(self.max_structures, candidates)
        return max(1, round((self.fraction or 0.0) * candidates))


@dataclass(frozen=True)
class Choice:
    """One chosen structure, why, and how much it counts in the fit."""

    id: str
    how: How
    weight: float = 1.0


class Metrics(StepMetrics):
    """Figures of the selection."""

    candidates: int
    selected: int
    how: dict[str, int]  # structures by the reason of their choice
    scarce_elements: list[str]
    grades: dict[str, Any]  # extrapolation grades before and after


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `selection.parquet`: id, order (from 0, most important first), how, weight."""
    started = time.monotonic()
    data = _data_set(inputs, params, machine)
    if params.method in ("random", "all") and not params.grades:
        choices, facts = _drawn(data, params), dict[str, Any]()
    else:
        choices, facts = _with_projections(data, inputs, outputs, params, machine)
    return _write(outputs, choices, data, facts) | {"seconds": round(time.monotonic() - started, 3)}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a valid selection, drawn by hash."""
    data = _data_set(inputs, params, machine)
    choices = _drawn(data, params.model_copy(update={"method": "random"} if params.method != "all" else {}))
    functions = dict.fromkeys(params.potential.elements, params.potential.functions_per_element)
    facts: dict[str, Any] = {"functions": functions, "seconds": 0.0}
    if params.method in ("d_optimal", "combined"):
        volumes = dict.fromkeys(params.potential.elements, 0.0)
        facts |= {"spanned": functions, "log_det": volumes, "structures_of_one_pass": 0, "passes": 0}
    return _write(outputs, choices, data, facts)


def _data_set(inputs: Inputs, params: Params, machine: Machine) -> DataSet:
    given = read_given(inputs.one("given")) if inputs.all("given") else ()
    wanted, baseline = params.potential, Baseline.read(inputs.one("baseline"))
    return DataSet(inputs.one("dataset"), wanted.elements, wanted.cutoff, baseline, given, machine.progress)


def _given(data: DataSet) -> list[Choice]:
    """Return what was selected before and still can be used, in its order."""
    usable = set(data.ids("given"))
    return [Choice(key, "given") for key in data.given if key in usable]


def _budget(data: DataSet, params: Params) -> int:
    """Return how many structures to add."""
    given = len(data.ids("given"))
    return max(0, params.budget(given + len(data.ids("candidate"))) - given)


def _drawn(data: DataSet, params: Params) -> list[Choice]:
    if params.method == "all":
        return _given(data) + [Choice(key, "all") for key in sorted(data.ids("candidate"))]
    room, elements = _budget(data, params), {one.id: one.elements for one in data.usable}
    there = [one.elements for one in data.usable if one.part in ("given", "dft")]
    # an order that depends on the seed and on each id alone
    hashes = {key: hashlib.sha256(f"fill:{params.seed}:{key}".encode()).hexdigest() for key in data.ids("candidate")}
    order = sorted(hashes, key=hashes.__getitem__)
    drawn = with_every_element(order, room, elements.__getitem__, set[str]().union(*there))
    if len(drawn) > room:
        raise BadInput(no_room(room, len(drawn)))
    return _given(data) + [Choice(key, "random") for key in drawn]


def _with_projections(
    data: DataSet, inputs: Inputs, outputs: Path, params: Params, machine: Machine
) -> tuple[list[Choice], dict[str, Any]]:
    from containers.tensorpot.active_set.projection_files import projections
    from containers.tensorpot.active_set.projections import Projector

    projector = Projector(_basis(inputs, params), params.projections)
    sizes = _sizes(params, machine.resources, data.rows, projector.functions)
    features, parts = params.method == "combined", np.array([one.part for one in data.usable])
    free, given, dft = parts == "candidate", np.isin(parts, ("given", "dft")), parts == "dft"
    with projections(data.structures(), len(parts), projector, outputs, machine, sizes, features) as found:
        search = Search(found, free, given, dft, params.gamma_tolerance, sizes.one_shot_bytes, machine.progress)
        if params.method in ("random", "all"):
            choices, facts = _drawn(data, params), dict[str, Any]()
        else:
            chosen = choose(search, _budget(data, params), features, [one.elements for one in data.usable])
            place_of = {one.id: k for k, one in enumerate(data.usable) if given[k] or free[k]}
            choices = [Choice(one.id, "given", chosen.weight(place_of[one.id])) for one in _given(data)]
            choices += [Choice(data.usable[k].id, how, chosen.weight(k)) for k, how in chosen.how.items()]
            facts = chosen.facts
        if params.grades:
            ids = {choice.id for choice in choices}
            chosen_places = given | (free & np.array([one.id in ids for one in data.usable]))
            before = grade_all(search, search.active_sets(given)) if given.any() else None
            after = grade_all(search, search.active_sets(chosen_places))
            facts["grades"] = {
                name: {"before": None if before is None else summary(before, mask), "after": summary(after, mask)}
                for name, mask in (("pool", ~dft), ("test", parts == "test"))
            }
        return choices, facts


def _sizes(params: Params, resources: Resources, rows: int, functions: Mapping[str, int]) -> Sizes:
    """Return sizes of the pieces; refuses what the limit cannot hold before the work."""
    held = features_bytes(resources, rows, sum(functions.values())) if params.method == "combined" else 0
    return sizes_for(resources, max(functions.values()), held)


def _basis(inputs: Inputs, params: Params) -> ACEBBasisSet:
    """Return the basis of the potential that was given, else the one that pacemaker would set up."""
    from containers.tensorpot.active_set.projections import unfitted_basis
    from containers.tensorpot.student.potential import load_basis

    if not inputs.all("potential"):
        if params.projections == "full":
            raise BadInput(
                "projections: full needs a fitted potential: as long as all coefficients are zero, the derivatives of"
                " the energy are the basis functions times constants, the same as linear. Give the potential of an"
                " earlier fit, or use linear."
            )
        return unfitted_basis(params.potential)
    basis = load_basis(path := inputs.one("potential"))
    if sorted(basis.elements_name) != sorted(params.potential.elements):
        raise BadInput(
            f"{path} is a potential of {', '.join(basis.elements_name)}, the one to be fitted is of"
            f" {', '.join(params.potential.elements)}: give one of the same elements"
        )
    unfitted = unfitted_basis(params.potential)
    if _shape(basis) != _shape(unfitted):
        raise BadInput(
            f"{path} has another basis ({_describe(basis)}) than the one to be fitted ({_describe(unfitted)}): give a"
            " potential of the same basis"
        )
    return basis


def _shape(basis: ACEBBasisSet) -> tuple[float, dict[str, int]]:
    """Return cutoff (Å), and functions by element."""
    from containers.tensorpot.active_set.projections import functions_per_element

    return float(basis.cutoffmax), functions_per_element(basis)


def _describe(basis: ACEBBasisSet) -> str:
    cutoff, functions = _shape(basis)
    return f"cutoff {cutoff:g} Å, functions {', '.join(f'{name} {count}' for name, count in functions.items())}"


def _write(outputs: Path, choices: Sequence[Choice], data: DataSet, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the selection; return the metrics."""
    reasons = [choice.how for choice in choices]
    columns = {
        "id": [choice.id for choice in choices],
        "order": list(range(len(choices))),
        "how": reasons,
        "weight": [choice.weight for choice in choices],
    }
    write_table(outputs / OUTPUTS["selection"], pa.Table.from_pydict(columns, schema=SELECTION))
    return {
        "candidates": len(data.ids("candidate")) + len(data.ids("given")),
        "dft": len(data.ids("dft")),
        "given_unusable": len(data.given) - reasons.count("given"),
        "selected": len(choices),
        "how": {how: reasons.count(how) for how in get_args(How) if how in reasons},
        "scarce_elements": [],
        "functions": {},
        "environments": {},
        "grades": {},
    } | facts
