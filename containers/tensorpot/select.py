"""`pace_select`: which of the labelled structures to train on, by D-optimality of their environments.

MaxVol looks at the projections of every atom on the basis that is going to be fitted (coefficients do not enter) and
finds, element by element, the environments that span the largest volume; the structures that hold them are taken, and
the set is filled up to `max_structures` by hash. Only the training side of the split takes part.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.split import Split, rows_of_side, side
from containers.structures import atoms_from_table, write_table
from containers.tensorpot.frames import energy_corrected, energy_problem, fit_ready
from containers.tensorpot.pacemaker_input import Potential

if TYPE_CHECKING:
    from containers.tensorpot.projections import Active

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {"labels": "labelled structures (Parquet, containers.structures.LABELS)"}
OUTPUTS = {"selection": "selection.parquet"}
SELECTION = pa.schema([("id", pa.string()), ("order", pa.int32()), ("how", pa.string())])


class Params(Closed):
    """How to choose."""

    potential: Potential = Field(description="the basis that will be fitted")
    method: Literal["d_optimal", "random", "all"] = Field("d_optimal", description="how structures are chosen")
    max_structures: int = Field(300, ge=1, description="at most so many; `all` takes everything")
    split: Split = Field(Split(), description="the sides; only training structures are candidates")
    seed: int = Field(42, description="of the hash that draws structures at random")
    gamma_tolerance: float = Field(
        1.01, ge=1, description="MaxVol stops when no environment has a larger extrapolation grade; pacemaker's value"
    )
    e0s_eV: dict[str, float] | None = Field(
        None, description="eV; when given, structures whose corrected energy pacemaker cannot take are no candidates"
    )


@dataclass(frozen=True)
class Choice:
    """One chosen structure and why: `d_optimal`, `scarce`, `fill`, `random` or `all`."""

    id: str
    how: str


def candidates(table: pa.Table, params: Params) -> list[Atoms]:
    """Structures that training could use, made ready for pacemaker, sorted by id (`info["id"]`)."""
    labelled = sorted(atoms_from_table(rows_of_side(table, params.split, "train")), key=lambda a: str(a.info["id"]))
    ready = []
    for atoms in labelled:
        fit = _usable(atoms, params)
        if isinstance(fit, Atoms):
            fit.info["id"] = atoms.info["id"]
            ready.append(fit)
    return ready


def _usable(atoms: Atoms, params: Params) -> Atoms | str:
    known = params.potential.elements
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(known)):
        return f"has {', '.join(unknown)}, which the potential does not"
    if params.e0s_eV is not None:
        corrected = energy_corrected(atoms.get_potential_energy(), atoms, params.e0s_eV)
        if reason := energy_problem(corrected, len(atoms)):
            return reason
    return fit_ready(atoms, params.potential.cutoff)


def by_hash(ids: Sequence[str], seed: int) -> list[str]:
    """The ids in an order that depends on the seed and on each id alone."""
    return sorted(ids, key=lambda key: hashlib.sha256(f"fill:{seed}:{key}".encode()).hexdigest())


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `selection.parquet`: id, order (from 0, most important first), how."""
    started = time.monotonic()
    structures = _candidates_of(inputs, params)
    facts: dict[str, Any] = {"scarce_elements": [], "functions": {}, "environments": {}}
    ids = [str(atoms.info["id"]) for atoms in structures]
    if params.method == "d_optimal":
        choices, facts = _d_optimal(structures, ids, params, machine)
    else:
        choices = _drawn(ids, params)
    return _write(outputs, choices, len(ids), facts) | {"seconds": round(time.monotonic() - started, 3)}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """A valid selection, drawn by hash."""
    structures = _candidates_of(inputs, params)
    ids = by_hash([str(atoms.info["id"]) for atoms in structures], params.seed)[: params.max_structures]
    functions = dict.fromkeys(params.potential.elements, params.potential.functions_per_element)
    facts = {"scarce_elements": [], "functions": functions, "environments": {}}
    return _write(outputs, [Choice(key, "fill") for key in ids], len(structures), facts) | {"seconds": 0.0}


def _candidates_of(inputs: Inputs, params: Params) -> list[Atoms]:
    table = pq.read_table(inputs.one("labels"))
    structures = candidates(table, params)
    if structures:
        return structures
    families = table.column("family").to_pylist()
    training = [family for family in families if side(family, params.split) == "train"]
    raise BadInput(
        f"no structure is left to train on: {table.num_rows} labelled, {len(training)} of them on the training side"
        f" of the split ({len(set(families))} families), none of which pacemaker can use at a cutoff of"
        f" {params.potential.cutoff:g} Å. Add structures of more families, lower the shares of split.validation and"
        " split.test, or raise the cutoff."
    )


def _drawn(ids: Sequence[str], params: Params) -> list[Choice]:
    if params.method == "all":
        return [Choice(key, "all") for key in ids]
    return [Choice(key, "random") for key in by_hash(ids, params.seed)[: params.max_structures]]


def _d_optimal(
    structures: list[Atoms], ids: list[str], params: Params, machine: Machine
) -> tuple[list[Choice], dict[str, Any]]:
    from containers.tensorpot.projections import active_sets, unfitted_basis

    basis = unfitted_basis(params.potential)
    sets = active_sets(basis, structures, params.gamma_tolerance, machine.progress)
    scarce = [name for name, active in sets.items() if active.scarce]
    important = _important(structures, sets, basis, params.max_structures)
    facts = {
        "scarce_elements": scarce,
        "functions": {name: active.functions for name, active in sets.items()},
        "environments": {name: active.environments for name, active in sets.items()},
        "spanned": {name: len(active.rows) for name, active in sets.items()},
    }
    rare = {key for key, atoms in zip(ids, structures, strict=True) if set(scarce) & set(atoms.get_chemical_symbols())}
    return ranked([ids[place] for place in important], rare, ids, params.max_structures, params.seed), facts


def ranked(important: Sequence[str], rare: set[str], ids: Sequence[str], most: int, seed: int) -> list[Choice]:
    """At most `most` choices: the D-optimal ones in their order, the rest of the scarce, then the fill.

    Args:
        important: ids that hold active environments, most important first.
        rare: ids with an element of too few environments for MaxVol to choose from: all are wanted.
        ids: every candidate.
    """
    chosen = [Choice(key, "scarce" if key in rare else "d_optimal") for key in important]
    chosen += [Choice(key, "scarce") for key in by_hash(sorted(rare - set(important)), seed)]
    taken = {choice.id for choice in chosen}
    chosen += [Choice(key, "fill") for key in by_hash([key for key in ids if key not in taken], seed)]
    return chosen[:most]


def _important(structures: Sequence[Atoms], sets: dict[str, Active], basis: Any, most: int) -> list[int]:
    """Places of the structures that hold active environments, by how many they hold; when there are more than `most`,
    by how much each adds to those before it."""
    counts: dict[int, int] = {}
    for active in sets.values():
        for owner in active.owners.tolist():
            counts[owner] = counts.get(owner, 0) + 1
    places = sorted(counts, key=lambda place: (-counts[place], place))
    if len(places) <= most:
        return places
    return [places[k] for k in _by_addition([structures[place] for place in places], places, sets, basis)]


def _by_addition(held: list[Atoms], places: list[int], sets: dict[str, Active], basis: Any) -> list[int]:
    """Order of `held` by `greedy_order`; the elements' coordinates stand side by side."""
    import numpy as np

    from containers.tensorpot.active_rows import greedy_order
    from containers.tensorpot.projections import project

    total = sum(len(active.rows) for active in sets.values())
    coordinates = [np.zeros((len(atoms), total)) for atoms in held]
    own: list[list[int]] = [[] for _ in held]
    index = {place: k for k, place in enumerate(places)}
    rows, owners = project(basis, held)
    filled, first = [0] * len(held), 0
    for name, active in sets.items():
        back = np.linalg.pinv(active.rows)
        for row, k in zip(rows[name] @ back, owners[name].tolist(), strict=True):
            coordinates[k][filled[k], first : first + len(row)] = row
            filled[k] += 1
        for offset, place in enumerate(active.owners.tolist()):
            own[index[place]].append(first + offset)
        first += len(active.rows)
    return greedy_order(coordinates, [np.array(indices, dtype=np.int64) for indices in own])


def _write(outputs: Path, choices: list[Choice], pool: int, facts: dict[str, Any]) -> dict[str, Any]:
    how = [choice.how for choice in choices]
    columns = {"id": [choice.id for choice in choices], "order": list(range(len(choices))), "how": how}
    write_table(outputs / OUTPUTS["selection"], pa.Table.from_pydict(columns, schema=SELECTION))
    return {
        "candidates": pool,
        "selected": len(choices),
        "d_optimal": how.count("d_optimal"),
        "scarce": how.count("scarce"),
        "filled": how.count("fill"),
    } | facts
