"""`frames`: what pacemaker trains on and stops by, and the test frame that it never sees.

The training frame has the selected structures of the pool, the DFT structures of the training side, and strained
copies with the teacher's labels; the other frames have their whole side. A DFT label replaces the teacher's label of
the same structure. Structures that pacemaker would drop, or that would change its reference energies, are set aside
with the reason.

The weight of a structure is that of its group, times `weight_dft` for a DFT structure, times what the selection gives
it. With `energy_weights` high energies and large forces count less (see `frame_weights`). Stress is learned from the
energies of strained copies: all of them together weigh loss_stress / loss_energy times as much as the other energies of
the training frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, StepError
from containers.formats.extxyz import write_frames
from containers.structures.cells import bare
from containers.structures.distances import nearest
from containers.structures.split import SIDES, Side
from containers.structures.table import Origin, atoms_from_table, write_table
from containers.tensorpot.dataset.admission import aside_table
from containers.tensorpot.frames.frame_file import (
    Labelled,
    energy_corrected,
    energy_problem,
    fit_ready,
    frame,
    overlap,
    write_frame,
)
from containers.tensorpot.frames.lammps_structure import SKIN_A, example, most_neighbours, write_structure
from containers.tensorpot.frames.rows import (
    Read,
    Row,
    as_labelled,
    counts,
    energies_less_e0s,
    pair_figures,
    pure_table,
    refuse_empty,
    refuse_untrained,
    side_summary,
)
from containers.tensorpot.frames.weights import energy_weighted
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import pair_terms

IMAGE: Image = "tensorpot"
VERSION = 2
INPUTS = {
    "dataset": "the labelled structures with their sides (Parquet, from the dataset step)",
    "selection": "training structures of the pool (Parquet with id and weight, from pace_select)",
    "baseline": "what is taken from the labels before the fit (baseline.json)",
    "strains": "strained structures with the teacher's labels (optional; Parquet, containers.structures.table.LABELS)",
    "dataset_set_aside": "what the dataset step set aside (optional; Parquet, SET_ASIDE), passed on",
}
OUTPUTS = {
    "train": "train.pckl.gzip",
    "validation": "validation.pckl.gzip",
    "test": "test.pckl.gzip",
    "extxyz": "frames.extxyz",  # all sides as labelled: not padded, forces with the pair terms
    "structure": "structure.data",  # a training structure for LAMMPS, see lammps_structure
    "pure": "pure.parquet",  # LABELS and origin: of each element the structure of the lowest energy, all sides
    "set_aside": "set_aside.parquet",
    "summary": "frames.json",
}
AT_ONCE = 1_000  # structures read at a time
IN_COMMENT = ("side", "origin", "source", "row", "group", "family", "w_energy", "w_forces")


class Params(Closed):
    """What the frames hold."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="Å; cutoff of the potential")
    weight_dft: float = Field(10.0, gt=0, description="weight of a DFT structure over one that the teacher labelled")
    weights: dict[str, float] = Field({}, description="group -> weight of its structures; others have 1")
    energy_weights: bool = Field(True, description="high energies and large forces count less, see frame_weights")
    loss_energy: float = Field(0.7, ge=0, description="share of the energies in the loss")
    loss_stress: float = Field(
        0.0, ge=0, description="energies of the strained structures in the loss, relative to loss_energy"
    )

    @model_validator(mode="after")
    def _possible(self) -> Params:
        if bad := [group for group, weight in self.weights.items() if weight <= 0]:
            raise ValueError(f"weights: the weight of {bad[0]!r} must be above 0")
        if self.loss_stress > 0 and self.loss_energy == 0:
            raise ValueError("stress is learned from energies: with loss_stress, loss_energy must be above 0")
        return self


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the three frames, all sides as extended XYZ, a structure for LAMMPS, what was set aside, and `frames.json`.

    The metrics are `counts`, where the structure for LAMMPS comes from, the most neighbours that LAMMPS lists for an
    atom of the training side (cutoff and skin), and the energies of that side less the reference energies.
    """
    baseline = Baseline.read(inputs.one("baseline"))
    read = read_dataset(inputs.one("dataset"), _chosen(inputs.one("selection")), params, baseline, machine)
    _refuse_unknown_groups(params.weights, read.groups)
    for path in inputs.all("strains"):
        read_strains(path, params, baseline, read)
    sides = {name: _of_side(read.rows, name) for name in SIDES}
    refuse_empty(sides, read.aside)
    refuse_untrained(sides, read.aside, params.elements)
    if params.energy_weights:
        sides = energy_weighted(sides)
    sides["train"] = stress_weighted(sides["train"], params)
    for path in inputs.all("dataset_set_aside"):
        read.aside += pq.read_table(path).to_pylist()
    for name in SIDES:
        write_frame(outputs / OUTPUTS[name], frame([row.label for row in sides[name]]))
    with (outputs / OUTPUTS["extxyz"]).open("wb") as file:
        for rows in sides.values():
            write_frames(file, as_labelled(rows), IN_COMMENT)
    write_table(outputs / OUTPUTS["pure"], pure_table(read.pure))
    write_table(outputs / OUTPUTS["set_aside"], aside_table(read.aside))
    pairs = pair_figures(sides, params.elements, params.cutoff)
    facts = summary(sides, read.aside, params, baseline, pairs)
    (outputs / OUTPUTS["summary"]).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    shown = example(sides["train"])
    write_structure(outputs / OUTPUTS["structure"], shown.label.atoms, params.elements)
    return {
        **counts(sides, read.aside),
        "lammps_structure": f"{shown.atoms.info['source']}, row {shown.atoms.info['row']} (from 0)",
        "lammps_neighbours": most_neighbours([row.label.atoms for row in sides["train"]], params.cutoff + SKIN_A),
        "pairs": pairs,
        "energy_less_e0s_eV_per_atom": energies_less_e0s(sides["train"], params.elements, baseline.e0s_eV),
    }


def summary(
    sides: Mapping[Side, Sequence[Row]],
    aside: Sequence[Mapping[str, Any]],
    params: Params,
    baseline: Baseline,
    pairs: Mapping[str, Any],
) -> dict[str, Any]:
    """What `frames.json` says: counts, ranges and shortest distances (Å) of each side, pairs, weights, the baseline."""
    return {
        "sides": {
            name: side_summary(
                sides[name],
                {pair: one[name]["shortest_A"] for pair, one in pairs.items() if one[name]["structures"]},
            )
            for name in SIDES
        },
        "pairs": pairs,
        "set_aside": dict(sorted(Counter(str(one["side"]) for one in aside).items())),
        "baseline": baseline.model_dump(mode="json"),
        **params.model_dump(
            mode="json", include={"weight_dft", "weights", "energy_weights", "loss_energy", "loss_stress"}
        ),
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """The same frames: the step needs no heavy package and takes milliseconds on little data."""
    return run(inputs, outputs, params, machine)


def _chosen(path: Path) -> dict[str, float]:
    """Weight of every selected structure by its id."""
    table = pq.read_table(path, columns=["id", "weight"])
    return dict(zip(table["id"].to_pylist(), table["weight"].to_pylist(), strict=True))


def read_dataset(path: Path, chosen: Mapping[str, float], params: Params, baseline: Baseline, machine: Machine) -> Read:
    """Every structure of the data set that a frame takes, a piece of the file at a time.

    Args:
        chosen: weight of the selected structures by id; raises `StepError` when the training side lacks one.
    """
    read, places = Read([], [], set()), _places(path)
    if strangers := sorted(
        set(chosen) - {key for key, origin, side in places if (origin, side) == ("teacher", "train")}
    ):
        raise StepError(f"the selection names {strangers[0]}, which the training side of the data set does not have")
    by_dft = {key for key, origin, side in places if origin == "dft" and side != "test"}
    for done, (atoms, origin, side) in enumerate(_structures(path)):
        machine.progress(done + 1, len(places), "structures")
        read.groups.add(str(atoms.info["group"]))
        key = str(atoms.info["id"])
        row = _kept_out(key, origin, side, by_dft) or _labelled(
            atoms, origin, side, chosen.get(key, 1.0), params, baseline
        )
        if isinstance(row, str):  # also when it could not be selected: nothing goes without a word
            read.set_aside(atoms, side, row)
            continue
        read.offer_pure(row, atoms, origin)
        if origin == "dft" or side != "train" or key in chosen:
            read.rows.append(Row(atoms, origin, side, row))
    return read


def read_strains(path: Path, params: Params, baseline: Baseline, read: Read) -> None:
    """Add the strained structures to the training side; a strain that the data set has already is not added."""
    known = {row.label.name for row in read.rows}
    for atoms in atoms_from_table(pq.read_table(path)):
        row = _labelled(atoms, "teacher", "train", 1.0, params, baseline)
        if isinstance(row, str):
            read.set_aside(atoms, "train", row)
        elif row.name not in known:
            read.rows.append(Row(atoms, "teacher", "train", row, strained=True))


def _places(path: Path) -> list[tuple[str, str, str]]:
    """Id, origin and side of every row."""
    return list(
        zip(*(column.to_pylist() for column in pq.read_table(path, columns=["id", "origin", "side"])), strict=True)
    )


def _structures(path: Path) -> Iterator[tuple[Atoms, Origin, Side]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=AT_ONCE):
            table = pa.Table.from_batches([batch])
            yield from zip(atoms_from_table(table), table["origin"].to_pylist(), table["side"].to_pylist(), strict=True)


def _kept_out(key: str, origin: Origin, side: Side, by_dft: set[str]) -> str | None:
    if origin == "dft" and side == "test":
        return "a DFT structure on the test side of the split: kept from training"
    if origin == "teacher" and side != "test" and key in by_dft:
        return "its DFT label is used instead of the teacher's"
    return None


def _labelled(
    atoms: Atoms, origin: Origin, side: Side, chosen: float, params: Params, baseline: Baseline
) -> Labelled | str:
    """The row of a frame, or why there is none; energies of DFT are brought to the teacher's scale."""
    if unknown := sorted(set(atoms.get_chemical_symbols()) - set(params.elements)):
        return f"has {', '.join(unknown)}, which the potential does not"
    fit = _evaluable(atoms, params.cutoff) if side == "test" else fit_ready(atoms, params.cutoff)
    if isinstance(fit, str):
        return fit
    total = atoms.get_potential_energy()
    energy = baseline.on_teachers_scale(float(total), Counter(atoms.get_chemical_symbols()), origin)
    forces = atoms.get_forces()
    corrected, to_fit = energy_corrected(energy, atoms, baseline.e0s_eV), forces
    if baseline.pairs:
        pair_energy, pair_forces, _ = pair_terms(atoms, {name: p.model_dump() for name, p in baseline.pairs.items()})
        corrected, to_fit = corrected - pair_energy, forces - pair_forces
    if reason := energy_problem(corrected, len(atoms)):
        return reason
    stress = atoms.calc.results.get("stress") if atoms.pbc.all() else None
    weight = (
        chosen * params.weights.get(str(atoms.info["group"]), 1.0) * (params.weight_dft if origin == "dft" else 1.0)
    )
    group = str(atoms.info["group"])
    return Labelled(str(atoms.info["id"]), fit, energy, corrected, to_fit, stress, weight, forces, group=group)


def _evaluable(atoms: Atoms, cutoff: float) -> Atoms | str:
    """Test structures stay as they are, lonely atoms and open cells too: pacemaker never sees them."""
    return overlap(atoms, nearest(atoms, cutoff)) or bare(atoms)


def _of_side(rows: Iterable[Row], side: Side) -> list[Row]:
    """Teacher's, DFT's, then strained ones, each by id: the order in which data came in does not matter."""
    return sorted(
        (row for row in rows if row.side == side), key=lambda r: (r.strained, r.origin != "teacher", r.label.name)
    )


def stress_weighted(rows: Sequence[Row], params: Params) -> list[Row]:
    """The training rows, the strained ones weighing loss_stress / loss_energy times what the others weigh in all."""
    if not (strained := sum(row.label.weight for row in rows if row.strained)):
        return list(rows)
    if params.loss_stress == 0:
        raise StepError("strained structures are given, but loss_stress is 0: leave them out or raise it")
    others = sum(row.label.weight for row in rows if not row.strained)
    factor = params.loss_stress / params.loss_energy * others / strained
    return [_times(row, factor) if row.strained else row for row in rows]


def _times(row: Row, factor: float) -> Row:
    label = row.label
    return replace(row, label=replace(label, weight=label.weight * factor, weight_forces=label.w_forces))


def _refuse_unknown_groups(weights: Mapping[str, float], groups: Iterable[str]) -> None:
    if unknown := sorted(set(weights) - set(groups)):
        there = ", ".join(repr(group) for group in sorted(groups))
        raise BadInput(f"weights names the group {unknown[0]!r}, which no structure has; there are {there}")
