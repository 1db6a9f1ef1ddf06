"""The structures of the three frames between reading and writing, and their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from ase import Atoms

from containers.contract import BadInput
from containers.properties.compare import Group
from containers.structures.distances import shortest_per_pair
from containers.structures.split import SIDES, Side
from containers.structures.table import Origin, labels_table
from containers.tensorpot.dataset.admission import why_aside
from containers.tensorpot.frames.frame_file import Labelled, energy_corrected
from containers.tensorpot.student.baseline import pair_names


@dataclass(frozen=True)
class TrainingRow:
    """A structure with its label on its way into a frame; pacemaker is given `label`."""

    atoms: Atoms
    origin: Origin
    side: Side
    label: Labelled
    made_for: Group | Literal["stress"] | None = None


@dataclass
class Read:
    """Rows for the frames, records of SET_ASIDE, the groups that there are, and by origin and element the structure of
    this element alone that is lowest in energy an atom."""

    rows: list[TrainingRow] = field(default_factory=list)
    aside: list[dict[str, Any]] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    pure: dict[tuple[Origin, str], Atoms] = field(default_factory=dict)

    def set_aside(self, atoms: Atoms, side: Side, reason: str) -> None:
        """Remember why a structure is in no frame."""
        self.aside.append({key: atoms.info[key] for key in ("id", "source", "row")} | {"side": side, "reason": reason})


def refuse_empty(sides: Mapping[Side, Sequence[TrainingRow]], aside: Sequence[Mapping[str, Any]]) -> None:
    """Raise `BadInput` when a side has no structure; those made for a property or stress do not count."""
    empty = [name for name in SIDES if all(row.made_for for row in sides[name])]
    if not empty:
        return
    raise BadInput(
        f"no structure is left on the {' and the '.join(empty)} side.{why_aside(aside, empty)} Give structures of"
        " more families, or raise the share of that side in `split`."
    )


def refuse_untrained(
    sides: Mapping[Side, Sequence[TrainingRow]], aside: Sequence[Mapping[str, Any]], elements: Sequence[str]
) -> None:
    """Raise `BadInput` when no structure of the training frame has an element of the potential."""
    trained = {symbol for row in sides["train"] for symbol in row.atoms.get_chemical_symbols()}
    if not (missing := [element for element in elements if element not in trained]):
        return
    others = [row for name in SIDES for row in sides[name] if missing[0] in row.atoms.get_chemical_symbols()]
    info = others[0].atoms.info if others else {}
    where = (
        f" {missing[0]} is in {len(others)} structures of the other sides; the first: {info['source']}: frame"
        f" {info['row']} (from 0), of the family {info['family']!r} on the {others[0].side} side."
        if others
        else ""
    )
    because = why_aside(aside, ("train",), "structures of the training side are set aside")
    raise BadInput(
        f"no structure that is trained on has {', '.join(missing)}, so the potential would know nothing of it.{where}"
        f"{because} Structures whose labels break the bounds of `labels` are not trained on either."
        " Give more structures with it, put a family on the training side (split.train), or take those structures out."
    )


def pair_figures(sides: Mapping[Side, Sequence[TrainingRow]], elements: Sequence[str], cutoff: float) -> dict[str, Any]:
    """Count each side's structures with every pair of elements within the cutoff (Å); the shortest distance (Å).

    `{"Al-Ni": {"train": {"structures": 12, "shortest_A": 2.31}, ...}}`; None where a side has no such pair.
    """
    found: dict[str, Any] = {
        pair: {name: {"structures": 0, "shortest_A": None} for name in SIDES} for pair in pair_names(elements)
    }
    for name in SIDES:
        for row in sides[name]:
            for pair, distance in shortest_per_pair([row.label.atoms], cutoff).items():
                one = found[pair][name]
                one["structures"] += 1
                one["shortest_A"] = min(distance, one["shortest_A"] or distance)
    return found


def energy_per_atom(atoms: Atoms) -> float:
    """Return the label's energy, eV/atom."""
    return float(atoms.calc.results["energy"]) / len(atoms)


def as_labelled(rows: Sequence[TrainingRow]) -> pa.Table:
    """Return LABELS of the rows as they came (not padded, forces with the pair terms; energies of DFT on the teacher's
    scale), with side, origin, w_energy and w_forces."""
    table = labels_table([row.atoms for row in rows])
    energies = pa.array([row.label.energy for row in rows], pa.float64())
    table = table.set_column(table.schema.get_field_index("energy"), "energy", energies)
    more = {
        "side": [row.side for row in rows],
        "origin": [row.origin for row in rows],
        "w_energy": [float(row.label.weight) for row in rows],
        "w_forces": [row.label.w_forces for row in rows],
    }
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    return table


def side_summary(rows: Sequence[TrainingRow], shortest_A: Mapping[str, float]) -> dict[str, Any]:
    """Return counts, ranges of what is fitted (eV/atom, eV/Å) and the shortest distances (Å) by pair of one side."""
    labels = [row.label for row in rows]
    per_atom = [label.energy_corrected / len(label.atoms) for label in labels]
    return {
        "structures": len(rows),
        "strained": sum(row.made_for == "stress" for row in rows),
        "for_properties": sum(row.made_for not in (None, "stress") for row in rows),
        "dft": sum(row.origin == "dft" for row in rows),
        "atoms": sum(len(label.atoms) for label in labels),
        "energy_corrected_min_eV_per_atom": min(per_atom),
        "energy_corrected_max_eV_per_atom": max(per_atom),
        "force_max_eV_per_A": max(float(abs(label.forces).max()) for label in labels),
        "shortest_distance_A": dict(shortest_A),
    }


def energies_less_e0s(
    rows: Sequence[TrainingRow], elements: Sequence[str], e0s_eV: Mapping[str, float]
) -> dict[str, float | None]:
    """Return the median of (total energy - Σ E0) / atoms in eV/atom: of `all` rows, and by element, weighted by share.

    Isolated atoms' E0s leave the binding energy. E0s that are averages over such structures leave about zero.
    """
    per_atom = np.array(
        [energy_corrected(row.label.energy, row.atoms, e0s_eV) / len(row.atoms) for row in rows], dtype=float
    )
    shares = {
        symbol: np.array([row.atoms.get_chemical_symbols().count(symbol) / len(row.atoms) for row in rows])
        for symbol in elements
    }
    order = np.argsort(per_atom, kind="stable")
    medians = dict[str, float | None]()
    for name, weights in {"all": np.ones(len(rows)), **shares}.items():
        passed = np.cumsum(weights[order])
        median = per_atom[order][np.searchsorted(passed, passed[-1] / 2)] if weights.any() else None
        medians[name] = None if median is None else float(median)
    return medians
