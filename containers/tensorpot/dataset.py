"""`dataset`: the frames that pacemaker trains on and stops by, and the test frame that it never sees.

Sides: a pool structure is on the side of its family; a DFT structure too, unless the pool holds the very same
structure, whose side then counts. A DFT label replaces the teacher's label of the same structure. DFT structures of
the test side, and all that the DFT test files hold, stay out of training. Structures that pacemaker would drop, or
that would change its reference energies, are set aside with the reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.distances import nearest, shortest_per_pair
from containers.split import SIDES, Side, Split, empty_sides_message, side
from containers.structures import read_atoms, write_table
from containers.tensorpot.frames import (
    Labelled,
    energy_corrected,
    energy_problem,
    fit_ready,
    frame,
    geometry,
    overlap,
    write_frame,
)

IMAGE: Image = "tensorpot"
VERSION = 2
INPUTS = {
    "labels": "the pool with the teacher's labels (Parquet, containers.structures.LABELS)",
    "selection": "the training structures (Parquet with id, from pace_select)",
    "dft": "DFT data to train on (optional; Parquet, LABELS)",
    "dft_test": "DFT data kept for evaluation (optional; Parquet, LABELS)",
}
OUTPUTS = {
    "train": "train.pckl.gzip",
    "validation": "validation.pckl.gzip",
    "test": "test.pckl.gzip",
    "set_aside": "set_aside.parquet",
    "summary": "dataset.json",
}
SET_ASIDE = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("row", pa.int32()), ("side", pa.string()), ("reason", pa.string())]
)


class Params(Closed):
    """What the frames hold."""

    e0s_eV: dict[str, float] = Field(description="eV an atom; reference energies, the teacher's own")
    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="Å; cutoff of the potential")
    split: Split = Field(Split(), description="shares of the sides")
    weight_dft: float = Field(10.0, gt=0, description="weight of a DFT structure over one that the teacher labelled")


@dataclass(frozen=True)
class SetAside:
    """A structure that is in no frame, and why."""

    atoms: Atoms
    side: str
    reason: str


@dataclass(frozen=True)
class Source:
    """One structure with its label on its way into a side."""

    atoms: Atoms
    side: Side
    dft: bool

    @property
    def id(self) -> str:
        """Content id of the structure."""
        return str(self.atoms.info["id"])


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the three frames, what was set aside, and `dataset.json`."""
    pool = read_atoms(inputs.one("labels"))
    selected = set(pq.read_table(inputs.one("selection")).column("id").to_pylist())
    dft = [atoms for path in inputs.all("dft") for atoms in read_atoms(path)]
    reserved = {str(atoms.info["id"]) for path in inputs.all("dft_test") for atoms in read_atoms(path)}
    sources, aside = placed(pool, dft, reserved, params.split)
    rows: dict[Side, list[Labelled]] = {name: [] for name in SIDES}
    for done, source in enumerate(sources):
        row = _row(source, params)
        if isinstance(row, str):  # also when it could not be selected: nothing of the pool goes without a word
            aside.append(SetAside(source.atoms, source.side, row))
        elif source.dft or source.side != "train" or source.id in selected:
            rows[source.side].append(row)
        machine.progress(done + 1, len(sources), "structures")
    _refuse_empty(rows, pool, dft, aside, params)
    for name in SIDES:
        write_frame(outputs / OUTPUTS[name], frame(rows[name]))
    write_table(outputs / OUTPUTS["set_aside"], _aside_table(aside))
    facts = summary(rows, aside, params)
    (outputs / OUTPUTS["summary"]).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return _metrics(rows, aside)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """The same frames: the step needs no heavy package and takes milliseconds on little data."""
    return run(inputs, outputs, params, machine)


def placed(
    pool: Sequence[Atoms], dft: Sequence[Atoms], reserved: set[str], split: Split
) -> tuple[list[Source], list[SetAside]]:
    """Every structure with its side, by id, and those that must not enter training.

    Args:
        pool: labelled by the teacher.
        dft: labelled by DFT.
        reserved: ids of the DFT test files.
    """
    sides = {str(atoms.info["id"]): side(str(atoms.info["family"]), split) for atoms in pool}
    ours = [Source(atoms, sides[str(atoms.info["id"])], dft=False) for atoms in pool]
    theirs = [
        Source(atoms, sides.get(str(atoms.info["id"]), side(str(atoms.info["family"]), split)), dft=True)
        for atoms in dft
    ]
    replaced = {source.id for source in theirs if source.side != "test"} - reserved
    kept, aside = [], []
    for source in sorted(ours + theirs, key=lambda one: (one.dft, one.id)):
        if reason := _kept_out(source, reserved, replaced):
            aside.append(SetAside(source.atoms, source.side, reason))
        else:
            kept.append(source)
    return kept, aside


def _kept_out(source: Source, reserved: set[str], replaced: set[str]) -> str | None:
    if source.side != "test" and source.id in reserved:
        return "it is in the DFT test files, so training must not see it"
    if source.dft and source.side == "test":
        return "a DFT structure on the test side of the split: kept from training"
    if not source.dft and source.side != "test" and source.id in replaced:
        return "its DFT label is used instead of the teacher's"
    return None


def _row(source: Source, params: Params) -> Labelled | str:
    """The row of a frame, or why there is none."""
    atoms = source.atoms
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(params.elements)):
        return f"has {', '.join(unknown)}, which the potential does not"
    energy = float(atoms.get_potential_energy())
    corrected = energy_corrected(energy, atoms, params.e0s_eV)
    if reason := energy_problem(corrected, len(atoms)):
        return reason
    fit = _evaluable(atoms, params.cutoff) if source.side == "test" else fit_ready(atoms, params.cutoff)
    if isinstance(fit, str):
        return fit
    stress = atoms.calc.results.get("stress") if atoms.pbc.all() else None
    weight = params.weight_dft if source.dft else 1.0
    return Labelled(source.id, fit, energy, corrected, atoms.get_forces(), stress, weight)


def _evaluable(atoms: Atoms, cutoff: float) -> Atoms | str:
    """Test structures stay as they are, lonely atoms and open cells too: pacemaker never sees them."""
    return overlap(atoms, nearest(atoms, cutoff)) or geometry(atoms)


def _refuse_empty(
    rows: Mapping[Side, list[Labelled]],
    pool: Sequence[Atoms],
    dft: Sequence[Atoms],
    aside: Sequence[SetAside],
    params: Params,
) -> None:
    empty = [name for name in SIDES if not rows[name]]
    if not empty:
        return
    families = {str(atoms.info["family"]) for atoms in [*pool, *dft]}
    reasons = Counter(one.reason for one in aside if one.side in empty).most_common(1)
    because = f" {reasons[0][1]} set aside because: {reasons[0][0]}." if reasons else ""
    raise BadInput(f"{empty_sides_message(empty, families, params.split)}{because}")


def _aside_table(aside: Sequence[SetAside]) -> pa.Table:
    ordered = sorted(aside, key=lambda one: (one.atoms.info["id"], one.reason))
    columns = {key: [one.atoms.info[key] for one in ordered] for key in ("id", "source", "row")}
    columns |= {"side": [one.side for one in ordered], "reason": [one.reason for one in ordered]}
    return pa.Table.from_pydict(columns, schema=SET_ASIDE)


def summary(rows: Mapping[Side, list[Labelled]], aside: Sequence[SetAside], params: Params) -> dict[str, Any]:
    """What `dataset.json` says: counts, ranges and shortest distances (Å) of each side."""
    return {
        "sides": {name: _side_summary(rows[name], params.cutoff) for name in SIDES},
        "set_aside": dict(sorted(Counter(one.side for one in aside).items())),
        "e0s_eV": params.e0s_eV,
        "weight_dft": params.weight_dft,
    }


def _side_summary(rows: Sequence[Labelled], cutoff: float) -> dict[str, Any]:
    per_atom = [row.energy_corrected / len(row.atoms) for row in rows]
    return {
        "structures": len(rows),
        "atoms": sum(len(row.atoms) for row in rows),
        "energy_corrected_min_eV_per_atom": min(per_atom),
        "energy_corrected_max_eV_per_atom": max(per_atom),
        "force_max_eV_per_A": max(float(abs(row.forces).max()) for row in rows),
        "shortest_distance_A": shortest_per_pair([row.atoms for row in rows], cutoff),
    }


def _metrics(rows: Mapping[Side, list[Labelled]], aside: Sequence[SetAside]) -> dict[str, Any]:
    counts = {f"{name}_structures": len(rows[name]) for name in SIDES}
    counts |= {f"{name}_atoms": sum(len(row.atoms) for row in rows[name]) for name in SIDES}
    return counts | {"set_aside": len(aside)}
