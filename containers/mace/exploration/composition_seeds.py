"""Step `composition_seeds`: crystals of a composition, found by chance and relaxed by the teacher.

Random crystals of random space groups are drawn by assyst and pyxtal and relaxed: the volume first, then everything
(method ASSYST, https://doi.org/10.1038/s41524-025-01669-4). The lowest become seeds of `seed_pool`.
The same inputs and params give the same bytes with the same number of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, Progress, StepMetrics
from containers.mace.exploration.formulas import check_compositions, counts, name_of
from containers.mace.exploration.random_crystals import (
    CLOSEST,
    DRAWN,
    RELAXED,
    Stage,
    closeness,
    draw_crystals,
    energy,
    stages_of,
)
from containers.properties.crystals import COARSE_A, GAP_A, LARGEST, distinct, primitive
from containers.properties.measure import unused
from containers.structures.cells import bare, is_solid
from containers.structures.table import STATE, read_atoms, structure_id, structures_table, write_table

IMAGE: Image = "mace"
VERSION = 2
INPUTS = {
    "model": "the teacher, a MACE model; several are a committee",
    "known": Optional("crystals of the user's files (Parquet of STRUCTURES): their copies are left out"),
}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES, by id
    "seeds": "seeds.parquet",  # the same columns; the lowest crystals at rest
}
SAME_EV_PER_ATOM, SAME_VOLUME = 0.01, 0.02  # two crystals of one space group that differ by less are the same


class Params(Closed):
    """Compositions, and how many crystals are drawn and kept."""

    head: str = Field(description="readout of the teacher, one of those in teacher.json (see `choose_head`)")
    compositions: tuple[str, ...] = Field(min_length=1, description="formulas such as Si, NiAl, Ni3Al")
    crystals: int = Field(40, ge=1, description="random crystals of each composition")
    kept: int = Field(3, ge=1, description="lowest crystals of each composition that become seeds")
    most_atoms: int = Field(12, ge=1, le=100, description="of a drawn cell, which has one or more formula units")
    energy_above_eV_per_atom: float = Field(
        1.0,
        gt=0,
        description="eV/atom above the lowest crystal of the composition; structures above it are left out. A melt at"
        " 2,000 K lies 0.5 to 0.8 above",  # 3 kT is 0.5 eV, the heat of fusion 0.1 to 0.5 eV
    )
    seed: int = Field(42, ge=0, description="of space groups, cells, positions and displacements")

    @model_validator(mode="after")
    def _formulas(self) -> Params:
        check_compositions(self.compositions, self.most_atoms)
        return self


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    structures: int
    atoms: int
    by_kind: dict[str, int]
    families: int
    seeds_eV_per_atom: dict[str, float]  # name of a seed -> energy
    left_out: dict[str, dict[str, int]]  # composition -> reason -> crystals or stages of them
    failed: dict[str, str]  # stage of a crystal -> the error


@dataclass
class Found:
    """Structures and seeds of all compositions, and what was left out (see `Metrics`)."""

    structures: list[Atoms] = field(default_factory=list)
    seeds: dict[str, tuple[Atoms, float]] = field(default_factory=dict)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Draw, relax and filter crystals of every composition; all arithmetic is float64.

    Raises:
        BadInput: a file is not a MACE model, or no crystal of a composition is left.
    """
    from containers.mace.teacher.calculator import teacher_calculator

    teacher = teacher_calculator(inputs.all("model"), params.head, machine.resources.device)
    known = [atoms for path in inputs.all("known") for atoms in read_atoms(path)]
    found = Found()
    for place, composition in enumerate(params.compositions):
        explore_composition(composition, known, teacher, params, found, within(machine.progress, place, params))
    return write(outputs, found)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a cubic crystal of each composition, its atoms on a line, as a seed and expanded as structures."""
    found = Found()
    for composition in params.compositions:
        symbols = [symbol for symbol, count in counts(composition).items() for _ in range(count)]
        places = np.arange(len(symbols))[:, None] / len(symbols) * np.ones(3)
        atoms = Atoms(symbols, scaled_positions=places, cell=[3.0 * len(symbols)] * 3, pbc=True)
        found.seeds[name_of(composition)] = (atoms, 0.0)
        for number in range(params.crystals):
            larger = atoms.copy()
            larger.set_cell(atoms.cell * (1.01 + number / 100), scale_atoms=True)
            found.structures.append(named(larger, composition, DRAWN, number))
        found.left_out[composition] = Counter()
    return write(outputs, found)


def within(progress: Progress, place: int, params: Params) -> Progress:
    """Return the progress of one composition as a part of that of all."""

    def report(done: float, total: float, text: str = "", figures: Any = None) -> None:
        progress(place + done / total, len(params.compositions), text)

    return report


def explore_composition(
    composition: str, known: Iterable[Atoms], teacher: Calculator, params: Params, found: Found, progress: Progress
) -> None:
    """Add structures and seeds of one composition to `found`.

    Args:
        known: crystals of the user, of any composition; no seed or structure is a copy of one.

    Raises:
        BadInput: no crystal is left.
    """
    name, window = name_of(composition), params.energy_above_eV_per_atom
    left_out = found.left_out[composition] = Counter()
    drawn = draw_crystals(composition, params.crystals, params.most_atoms, params.seed, left_out)
    stages: list[Stage] = []
    for number, atoms in enumerate(drawn):
        progress(number, len(drawn), f"{composition}: crystal {number + 1} of {len(drawn)}")
        stages += stages_of(name, number, atoms, teacher, params.seed, found.failed)
    usable: list[Stage] = []
    for stage in sorted(stages, key=lambda stage: stage.energy_eV_per_atom):
        why = odd(stage.atoms)  # first: atoms that fused may have the lowest energy
        if not why and usable and stage.energy_eV_per_atom > usable[0].energy_eV_per_atom + window:
            why = "energy too far above the lowest"
        if why:
            left_out[f"{stage.kind}: {why}"] += 1
        else:
            usable.append(stage)
    own = [atoms for atoms in known if is_crystal_of(atoms, name)]
    reasons: dict[str, str] = {}
    given = distinct(own, [], teacher, 0, reasons)
    seen = [signature(atoms, energy(atoms, teacher)) for atoms in given]
    marks, rising = list(seen), list[Atoms]()
    for stage in usable:
        mark = signature(stage.atoms, stage.energy_eV_per_atom)
        if stage.kind == RELAXED and not any(same(mark, other) for other in marks):
            marks.append(mark)
            rising.append(primitive(stage.atoms, COARSE_A))
    new = [atoms for atoms in distinct(given, rising, teacher, params.kept, reasons)[len(given) :] if not odd(atoms)]
    for text in reasons.values():
        found.failed[unused(f"{name} on the way to rest", found.failed)] = text
    for atoms in sorted(new, key=lambda atoms: energy(atoms, teacher)):
        mark = signature(atoms, energy(atoms, teacher))
        if any(same(mark, other) for other in seen):
            left_out["seed: a near copy of a lower one or of the user's"] += 1
            continue
        seen.append(mark)
        found.seeds[unused(f"{name} {space_group(atoms)[0]}", found.seeds)] = (atoms, mark[2])
    if not given and not new:
        raise BadInput(none_left(composition, len(drawn), left_out, found.failed))
    for stage in usable:
        mark = signature(stage.atoms, stage.energy_eV_per_atom)
        if any(same(mark, other) for other in seen):
            left_out[f"{stage.kind}: a near copy of a lower one or of a seed"] += 1
            continue
        seen.append(mark)
        found.structures.append(named(stage.atoms, name, stage.kind, stage.crystal))


def none_left(composition: str, drawn: int, left_out: Counter[str], failed: dict[str, str]) -> str:
    """Return the message for a composition without a crystal."""
    reasons = [f"{text}: {count}" for text, count in sorted(left_out.items())]
    reasons += [f"{stage}: {text}" for stage, text in list(failed.items())[:1]]
    return (
        f"explore.compositions: none of {drawn} random crystals of {composition} is left ({'; '.join(reasons)}). Raise"
        " explore.drawn_crystals or explore.drawn_atoms, or give a crystal in explore.seeds"
    )


def odd(atoms: Atoms) -> str:
    """Return why a structure is no crystal that the potential needs; nothing for one that is."""
    if closeness(atoms) < CLOSEST:
        return "atoms too close"
    return "" if is_solid(atoms, GAP_A) else f"{GAP_A:g} Å without an atom"


def is_crystal_of(atoms: Atoms, name: str) -> bool:
    """Return whether a structure is a crystal of the composition, small enough to be a seed, without a state."""
    if name_of(atoms.get_chemical_formula()) != name or atoms.info.get(STATE) or not is_solid(atoms, GAP_A):
        return False
    return len(primitive(atoms, COARSE_A)) <= LARGEST


def space_group(atoms: Atoms) -> tuple[str, int]:
    """Return symbol and number of the space group within COARSE_A; P1 where spglib finds none."""
    import spglib

    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=COARSE_A)
    return (str(found.international), int(found.number)) if found else ("P1", 1)


Signature = tuple[int, float, float]  # space group, Å³/atom, eV/atom


def signature(atoms: Atoms, energy_eV_per_atom: float) -> Signature:
    """Return the figures by which copies are recognized."""
    return space_group(atoms)[1], atoms.get_volume() / len(atoms), energy_eV_per_atom


def same(one: Signature, other: Signature) -> bool:
    """Return whether two crystals of one composition are the same."""
    close = abs(one[1] / other[1] - 1) < SAME_VOLUME and abs(one[2] - other[2]) < SAME_EV_PER_ATOM
    return one[0] == other[0] and close


def named(atoms: Atoms, name: str, kind: str, number: int, family: str | None = None) -> Atoms:
    """Return the structure with id, source, row, group and family: the stages of one crystal share it."""
    made = bare(atoms)
    made.info = {"id": structure_id(made), "source": f"{name}, {kind}", "row": number, "group": kind}
    made.info["family"] = family or f"{name} crystal {number}"
    return made


def write(outputs: Path, found: Found) -> dict[str, Any]:
    """Write both tables; return the metrics."""
    structures = sorted(found.structures, key=lambda atoms: str(atoms.info["id"]))
    seeds: Sequence[Atoms] = [
        named(atoms, name, "seed", place, name) for place, (name, (atoms, _)) in enumerate(found.seeds.items())
    ]
    write_table(outputs / OUTPUTS["structures"], structures_table(structures))
    write_table(outputs / OUTPUTS["seeds"], structures_table(seeds))
    return {
        "structures": len(structures),
        "atoms": sum(map(len, structures)),
        "by_kind": dict(sorted(Counter(str(atoms.info["group"]) for atoms in structures).items())),
        "families": len({atoms.info["family"] for atoms in structures}),
        "seeds_eV_per_atom": {name: energy_eV for name, (_, energy_eV) in found.seeds.items()},
        "left_out": {composition: dict(sorted(why.items())) for composition, why in found.left_out.items()},
        "failed": found.failed,
    }
