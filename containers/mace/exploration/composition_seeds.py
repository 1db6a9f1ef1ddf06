"""Step `composition_seeds`: crystals of a composition, found by chance and relaxed by the teacher.

Random crystals of random space groups are drawn by assyst and pyxtal and relaxed: the volume first, then everything
(Poul et al., npj Computational Materials 11, 174 (2025), the method ASSYST). The lowest become seeds of `seed_pool`.
The same inputs and params give the same bytes with the same number of threads.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.formula import Formula
from pydantic import Field, field_validator, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, Progress, StepError, StepMetrics
from containers.properties.crystals import COARSE_A, GAP_A, LARGEST, distinct, primitive
from containers.properties.measure import VOLUMES, reason, unused
from containers.structures.cells import bare, is_solid
from containers.structures.distances import shortest_per_pair, touching
from containers.structures.table import STATE, read_atoms, structure_id, structures_table, write_table

IMAGE: Image = "mace"
VERSION = 1
INPUTS = {
    "model": "the teacher, a MACE model; several are a committee",
    "known": Optional("crystals of the user's files (Parquet of STRUCTURES): their copies are left out"),
}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES, by id
    "seeds": "seeds.parquet",  # the same columns; the lowest crystals at rest
}
DRAWN, VOLUME, RELAXED = "drawn", "volume relaxed", "relaxed"
DRAWS = 30  # for each crystal wanted, at most: many space groups do not fit a small cell
REACH_A = 4.0  # Å within which distances are checked
CLOSEST = 0.75
"""No two atoms come nearer than this share of the sum of their covalent radii: bonds of N2 and O2 have 0.77 and 0.91."""
DRAWN_VOLUMES = (0.8, 1.25)  # of a drawn crystal, by the relaxed volume; others are scaled to these bounds
DISPLACEMENT_A = 0.05  # Å, before everything relaxes: a drawn symmetry would hold otherwise
VOLUME_STEPS, FULL_STEPS, FORCE_TOLERANCE = 20, 80, 0.05  # eV/Å; the pool needs no crystals at rest
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

    @field_validator("compositions")
    @classmethod
    def _each_once(cls, compositions: tuple[str, ...]) -> tuple[str, ...]:
        check_compositions(compositions)
        return compositions

    @model_validator(mode="after")
    def _fits(self) -> Params:
        for composition in self.compositions:
            if (atoms := sum(counts(composition).values())) > self.most_atoms:
                raise ValueError(
                    f"one formula unit of {composition} has {atoms} atoms, more than the limit of a drawn cell"
                    f" ({self.most_atoms}): raise the limit or give a crystal as a seed"
                )
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


@dataclass(frozen=True)
class Stage:
    """A crystal as drawn, or after a relaxation."""

    kind: str
    crystal: int
    atoms: Atoms
    energy_eV_per_atom: float


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
        BadInput: the teacher lacks an element, a file is not a MACE model, or a composition gives no crystal.
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


def counts(composition: str) -> dict[str, int]:
    """Return element -> atoms of the smallest formula unit; `ValueError` for a formula that ASE does not read."""
    try:
        formula = Formula(composition, strict=True)
        found = formula.reduce()[0].count()
    except (ValueError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{composition!r} is no formula that ASE reads: {error}. Write Si, NiAl, Ni3Al") from None
    if not found or "X" in found:
        raise ValueError(f"{composition!r} is no formula of elements. Write Si, NiAl, Ni3Al")
    return {symbol: int(count) for symbol, count in sorted(found.items())}


def name_of(composition: str) -> str:
    """Return the formula of the smallest unit in Hill's order: Si of Si2, AlNi of NiAl."""
    return str(Formula.from_dict(counts(composition)).format("hill"))


def check_compositions(compositions: Iterable[str]) -> None:
    """Raise `ValueError` for what is no formula, or two formulas of one composition."""
    seen: dict[str, str] = {}
    for composition in compositions:
        if (same := seen.setdefault(name_of(composition), composition)) is not composition:
            raise ValueError(f"{composition} is the same composition as {same}: give each once")


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
        BadInput: the calculator lacks an element, or no crystal is left.
    """
    name = name_of(composition)
    left_out = found.left_out[composition] = Counter()
    drawn = draw_crystals(composition, params, left_out)
    stages: list[Stage] = []
    for number, atoms in enumerate(drawn):
        progress(number, len(drawn), f"{composition}: crystal {number + 1} of {len(drawn)}")
        stages += stages_of(name, number, atoms, teacher, params, found.failed)
    lowest = min((stage.energy_eV_per_atom for stage in stages), default=0.0)
    usable = []
    for stage in sorted(stages, key=lambda stage: stage.energy_eV_per_atom):
        if why := unusable(stage, lowest + params.energy_above_eV_per_atom):
            left_out[f"{stage.kind}: {why}"] += 1
        else:
            usable.append(stage)
    own = [atoms for atoms in known if is_crystal_of(atoms, name)]
    reasons: dict[str, str] = {}
    given = distinct(own, [], teacher, 0, reasons)
    rising = [primitive(stage.atoms, COARSE_A) for stage in usable if stage.kind == RELAXED]
    at_rest = distinct(given, rising, teacher, params.kept, reasons)
    found.failed.update({f"{unused(f'{name} at rest', found.failed)}": why for why in reasons.values()})
    seen = [signature(atoms, energy(atoms, teacher)) for atoms in at_rest]
    new = [(atoms, energy(atoms, teacher)) for atoms in at_rest[len(given) :]]
    for atoms, energy_eV in sorted(new, key=lambda one: one[1]):
        found.seeds[unused(f"{name} {space_group(atoms)[0]}", found.seeds)] = (atoms, energy_eV)
    for stage in usable:
        mark = signature(stage.atoms, stage.energy_eV_per_atom)
        if any(same(mark, other) for other in seen):
            left_out[f"{stage.kind}: a near copy of a lower one or of a seed"] += 1
            continue
        seen.append(mark)
        found.structures.append(named(stage.atoms, name, stage.kind, stage.crystal))
    if not at_rest:
        why = "; ".join(f"{count} {text}" for text, count in left_out.items()) or "none could be drawn"
        raise BadInput(
            f"explore.compositions: no crystal of {composition} is left of {len(drawn)} drawn ({why}). Raise"
            " explore.drawn_crystals or explore.energy_above_eV_per_atom, or give a crystal in explore.seeds"
        )


def draw_crystals(composition: str, params: Params, left_out: Counter[str]) -> list[Atoms]:
    """Return random crystals, the same for the same seed whatever other compositions there are."""
    from assyst.crystals import pyxtal
    from pyxtal.tolerance import Tol_matrix

    unit, name = counts(composition), name_of(composition)
    units = params.most_atoms // sum(unit.values())
    distances, made = Tol_matrix(prototype="metallic"), list[Atoms]()
    for number in range(DRAWS * params.crystals):
        random = np.random.default_rng([params.seed, number, *name.encode()])
        times, group = int(random.integers(1, units + 1)), int(random.integers(1, 231))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # pyxtal warns of each cell that it enlarges
                atoms = pyxtal(group, tuple(unit), tuple(times * n for n in unit.values()), tm=distances, rng=random)
        except (ValueError, RuntimeError):  # incompatible; no valid crystal in pyxtal's own number of attempts
            left_out["draw: the space group has no such crystal"] += 1
            continue
        made.append(bare(atoms))
        if len(made) == params.crystals:
            break
    return made


def stages_of(
    name: str, number: int, drawn: Atoms, teacher: Calculator, params: Params, failed: dict[str, str]
) -> list[Stage]:
    """Return a crystal as drawn, of relaxed volume, and relaxed; as far as it gets."""
    from assyst.relaxations import FullRelax, VolumeRelax

    stages, kind = [], VOLUME
    try:
        atoms = relaxed(drawn, teacher, VolumeRelax(), VOLUME_STEPS)
        stages.append(Stage(kind, number, bare(atoms), energy(atoms, teacher)))
        kind, volume = DRAWN, atoms.get_volume()
        scaled = drawn.copy()
        share = float(np.clip(drawn.get_volume() / volume, *DRAWN_VOLUMES))
        scaled.set_cell(drawn.cell * (share * volume / drawn.get_volume()) ** (1 / 3), scale_atoms=True)
        stages.append(Stage(kind, number, scaled, energy(scaled, teacher)))
        kind = RELAXED
        atoms.positions += np.random.default_rng([params.seed, number]).normal(0, DISPLACEMENT_A, atoms.positions.shape)
        atoms = relaxed(atoms, teacher, FullRelax(), FULL_STEPS)
        stages.append(Stage(kind, number, bare(atoms), energy(atoms, teacher)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  far from its data a potential makes the libraries fail in any way
        failed[f"{name} crystal {number}, {kind}"] = reason(error)
    return stages


def relaxed(atoms: Atoms, teacher: Calculator, relaxation: Any, steps: int) -> Atoms:
    """Return a copy after some steps of one of assyst's relaxations.

    Raises `StepError` when a number is not finite, or when the volume leaves VOLUMES times that of the beginning.
    """
    from ase.optimize import LBFGS

    found, begun = bare(atoms), atoms.get_volume()
    found.calc = teacher
    for _ in LBFGS(relaxation.apply_filter_and_constraints(found), logfile=None).irun(FORCE_TOLERANCE, steps):
        if not VOLUMES[0] < found.get_volume() / begun < VOLUMES[1]:
            raise StepError(f"its volume went from {begun:.3g} to {found.get_volume():.3g} Å³")
        if not np.isfinite(found.get_potential_energy()):
            raise StepError("its energy is no number")
    return bare(found)


def energy(atoms: Atoms, teacher: Calculator) -> float:
    """Return eV/atom; `StepError` when it is no number."""
    alone = bare(atoms)
    alone.calc = teacher
    if not np.isfinite(found := float(alone.get_potential_energy()) / len(alone)):
        raise StepError("its energy is no number")
    return found


def unusable(stage: Stage, highest_eV_per_atom: float) -> str:
    """Return why a stage is left out; nothing for one that stays."""
    if stage.energy_eV_per_atom > highest_eV_per_atom:
        return "energy too far above the lowest"
    shortest = shortest_per_pair([stage.atoms], REACH_A)
    if any(distance < CLOSEST * touching(pair) for pair, distance in shortest.items()):
        return "atoms too close"
    return "" if is_solid(stage.atoms, GAP_A) else f"{GAP_A:g} Å without an atom"


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
