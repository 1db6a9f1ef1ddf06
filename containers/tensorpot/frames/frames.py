"""`frames`: the structures that pacemaker trains on and stops by, and the test frame that it never sees.

The training frame has the selected structures of the pool, the DFT structures of the training side, and strained
copies with the teacher's labels; the other frames have their whole side. A DFT label replaces the teacher's label of
the same structure. Structures that pacemaker would drop, or that would change its reference energies, are set aside
with the reason.

The weight of a structure is that of its group, times `weight_dft` for a DFT structure, times what the selection gives
it. With `energy_weights` high energies and large forces count less (see `weights`). Stress is learned from the
energies of strained copies: all of them together weigh loss_stress / loss_energy times as much as the other energies of
the training frame.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepError, StepMetrics
from containers.formats.extxyz import write_frames
from containers.properties.compare import GROUP_NAMES, Group
from containers.structures.split import SIDES
from containers.structures.table import atoms_from_table, labels_table, write_table
from containers.tensorpot.dataset.admission import aside_table
from containers.tensorpot.dataset.roles import REPLACED, read_roles, read_rows
from containers.tensorpot.frames.frame_file import Labelled, fit_label, frame, write_frame
from containers.tensorpot.frames.lammps_structure import SKIN_A, example, most_neighbours, write_structure
from containers.tensorpot.frames.rows import (
    Read,
    TrainingRow,
    as_labelled,
    energies_less_e0s,
    energy_per_atom,
    pair_figures,
    refuse_empty,
    refuse_untrained,
    side_summary,
)
from containers.tensorpot.frames.weights import ENERGY_SCALE, FORCE_SCALE, energy_weighted, made_weighted
from containers.tensorpot.student.baseline import Baseline

IMAGE: Image = "tensorpot"
VERSION = 3
INPUTS = {
    "dataset": "the labelled structures with their sides (Parquet, from the dataset step)",
    "selection": "training structures of the pool (Parquet with id and weight, from pace_select)",
    "baseline": "what is taken from the labels before the fit (baseline.json)",
    "strains": Optional("strained structures with the teacher's labels (Parquet, containers.structures.table.LABELS)"),
    "properties": Optional("structures that decide properties, with the teacher's labels (Parquet, LABELS)"),
    "dataset_set_aside": Optional("what the dataset step set aside (Parquet, SET_ASIDE), passed on"),
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
PROPERTY_SHARES: dict[Group, float] = {"elastic": 1.5, "phonon": 0.1, "vacancy": 0.2, "surface": 0.1, "molecule": 0.1}
"""Chosen on silicon, see docs/use/properties.md."""
IN_COMMENT = ("side", "origin", "source", "row", "group", "family", "w_energy", "w_forces")


class Params(Closed):
    """Content of the frames."""

    elements: tuple[str, ...] = Field(min_length=1, description="elements of the potential")
    cutoff: float = Field(gt=0, description="Å; cutoff of the potential")
    weight_dft: float = Field(10.0, gt=0, description="weight of a DFT structure over one that the teacher labelled")
    weights: dict[str, float] = Field({}, description="group -> weight of its structures; others have 1")
    property_shares: dict[Group, float] = Field(
        PROPERTY_SHARES, description="weight of all structures that decide a group of properties, over the others'"
    )
    energy_weights: bool = Field(True, description="high energies and large forces count less, see `weights`")
    energy_scale_eV_per_atom: float = Field(ENERGY_SCALE, gt=0, description="height at which a structure counts 1/4")
    force_scale_eV_per_A: float = Field(FORCE_SCALE, gt=0, description="force at which the forces count half")
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


class Metrics(StepMetrics):
    """Figures of the sides."""

    train_structures: int
    train_atoms: int
    set_aside: int
    pairs: dict[str, dict[str, dict[str, Any]]]  # pair -> side -> structures with it within the cutoff, distances


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the three frames, all sides as extended XYZ, a structure for LAMMPS, what was set aside, and `frames.json`.

    The metrics are counts, where the structure for LAMMPS comes from, the most neighbours that LAMMPS lists for an
    atom of the training side (cutoff and skin), and the energies of that side less the reference energies.
    """
    baseline = Baseline.read(inputs.one("baseline"))
    selection = pq.read_table(inputs.one("selection"), columns=["id", "weight"])
    chosen = dict(zip(selection["id"].to_pylist(), selection["weight"].to_pylist(), strict=True))
    read = read_dataset(inputs.one("dataset"), chosen, params, baseline, machine)
    if unknown := sorted(set(params.weights) - read.groups):
        there = ", ".join(repr(group) for group in sorted(read.groups))
        raise BadInput(f"weights names the group {unknown[0]!r}, which no structure has; there are {there}")
    for path in inputs.all("strains"):
        read_made(path, params, baseline, read, "stress")
    for path in inputs.all("properties"):
        read_made(path, params, baseline, read)
    # teacher's, DFT's, then those made for something, each by id: the order in which data came in does not matter
    rows = sorted(read.rows, key=lambda row: (row.made_for is not None, row.origin != "teacher", row.label.name))
    sides = {name: [row for row in rows if row.side == name] for name in SIDES}
    refuse_empty(sides, read.aside)
    refuse_untrained(sides, read.aside, params.elements)
    if params.energy_weights:
        sides = energy_weighted(sides, params.energy_scale_eV_per_atom, params.force_scale_eV_per_A)
    if params.loss_stress == 0 and any(row.made_for == "stress" for row in rows):
        raise StepError("strained structures are given, but loss_stress is 0: leave them out or raise it")
    stress = params.loss_stress / params.loss_energy if params.loss_stress else 0.0
    shares = {"stress": stress} | {str(group): share for group, share in params.property_shares.items()}
    sides["train"] = made_weighted(sides["train"], shares)
    for path in inputs.all("dataset_set_aside"):
        read.aside += pq.read_table(path).to_pylist()
    for name in SIDES:
        write_frame(outputs / OUTPUTS[name], frame([row.label for row in sides[name]]))
    with (outputs / OUTPUTS["extxyz"]).open("wb") as file:
        for name in sides:
            write_frames(file, as_labelled(sides[name]), IN_COMMENT)
    origins, structures = [origin for origin, _ in sorted(read.pure)], [read.pure[key] for key in sorted(read.pure)]
    pure = labels_table(structures).append_column("origin", pa.array(origins, pa.string()))
    write_table(outputs / OUTPUTS["pure"], pure)
    write_table(outputs / OUTPUTS["set_aside"], aside_table(read.aside))
    pairs = pair_figures(sides, params.elements, params.cutoff)
    figures = {}
    for name in SIDES:
        shortest = {pair: one[name]["shortest_A"] for pair, one in pairs.items() if one[name]["structures"]}
        figures[name] = side_summary(sides[name], shortest)
    facts = {
        "sides": figures,
        "pairs": pairs,
        "set_aside": dict(sorted(Counter(str(one["side"]) for one in read.aside).items())),
        "baseline": baseline.model_dump(mode="json"),
        **params.model_dump(
            mode="json", include={"weight_dft", "weights", "energy_weights", "loss_energy", "loss_stress"}
        ),
    }
    (outputs / OUTPUTS["summary"]).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    shown = example(sides["train"])
    write_structure(outputs / OUTPUTS["structure"], shown.label.atoms, params.elements)
    return {
        **{f"{name}_{key}": figures[name][key] for name in SIDES for key in ("structures", "atoms")},
        "set_aside": len(read.aside),
        "strained_structures": figures["train"]["strained"],
        "property_structures": figures["train"]["for_properties"],
        "dft_structures": figures["train"]["dft"],
        "lammps_structure": f"{shown.atoms.info['source']}, row {shown.atoms.info['row']} (from 0)",
        "lammps_neighbours": most_neighbours([row.label.atoms for row in sides["train"]], params.cutoff + SKIN_A),
        "pairs": pairs,
        "energy_less_e0s_eV_per_atom": energies_less_e0s(sides["train"], params.elements, baseline.e0s_eV),
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Make the same frames: the step needs no heavy package and takes milliseconds on little data."""
    return run(inputs, outputs, params, machine)


def read_dataset(path: Path, chosen: Mapping[str, float], params: Params, baseline: Baseline, machine: Machine) -> Read:
    """Read every structure of the data set that a frame takes, a piece of the file at a time.

    Args:
        chosen: weight of the selected structures by id; raises `StepError` when the training side lacks one.
    """
    read, roles = Read(), read_roles(path)
    if strangers := sorted(set(chosen) - {role.id for role in roles if role.of_pool}):
        raise StepError(f"the selection names {strangers[0]}, which the training side of the data set does not have")
    for done, (role, atoms) in enumerate(zip(roles, read_rows(path), strict=True), 1):
        machine.progress(done, len(roles), "structures")
        read.groups.add(str(atoms.info["group"]))
        label: Labelled | str = REPLACED
        if not role.replaced:
            label = fit_label(atoms, role.origin, params.elements, params.cutoff, baseline, fitted=role.side != "test")
        if isinstance(label, str):  # also when it could not be selected: nothing goes without a word
            read.set_aside(atoms, role.side, label)
            continue
        if len(symbols := set(atoms.get_chemical_symbols())) == 1:
            key, alone = (role.origin, symbols.pop()), atoms.copy()
            alone.calc = SinglePointCalculator(alone, **{**atoms.calc.results, "energy": label.energy})
            lowest = read.pure.get(key, alone)
            read.pure[key] = min(lowest, alone, key=lambda one: (energy_per_atom(one), one.info["id"]))
        if not role.of_pool or role.id in chosen:
            weight = chosen.get(role.id, 1.0) * params.weights.get(label.group, 1.0)
            weight *= params.weight_dft if role.origin == "dft" else 1.0
            read.rows.append(TrainingRow(atoms, role.origin, role.side, replace(label, weight=weight)))
    return read


def read_made(
    path: Path, params: Params, baseline: Baseline, read: Read, made_for: Literal["stress"] | None = None
) -> None:
    """Add structures that were made for the training side; one that the data set has already is not added.

    Args:
        made_for: what for; None: the group of each structure says for which properties.
    """
    known = {row.label.name for row in read.rows}
    for atoms in atoms_from_table(pq.read_table(path)):
        label = fit_label(atoms, "teacher", params.elements, params.cutoff, baseline)
        if isinstance(label, str):
            read.set_aside(atoms, "train", label)
        elif label.name not in known:
            known.add(label.name)
            label = replace(label, weight=params.weights.get(label.group, 1.0))
            purpose = made_for or GROUP_NAMES[label.group]
            read.rows.append(TrainingRow(atoms, "teacher", "train", label, purpose))
