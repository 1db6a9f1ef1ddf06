"""Step `property_structures`: structures that decide the properties which a student misses.

A property of a crystal is measured on cells that training never sees: strains of other sizes and directions, other
supercells, slabs of another thickness, no cell at rest. The structures here teach the same physics:

- elastic: frozen long waves and cells strained at random (see `waves`);
- phonon: supercells with random displacements of a few sizes;
- vacancy: a supercell without one atom, on the way to rest and displaced at random from it;
- surface: slabs of the faces of low index, the same;
- molecule: the molecule with random displacements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, StepMetrics
from containers.properties.compare import Group
from containers.properties.molecules import Molecule
from containers.properties.results import Crystal, Properties, Settings
from containers.properties.waves import waves
from containers.structures.cells import bare, grown, heights
from containers.structures.table import structure_id, structures_table, write_table

IMAGE: Image = "mace"
VERSION = 3
INPUTS = {
    "model": "the teacher, a MACE model; several are a committee",
    "properties": "the teacher's properties of the crystals (properties.json of teacher_properties)",
}
OUTPUTS = {"structures": "structures.parquet"}  # containers.structures.table.STRUCTURES

WAVE_LENGTHS_A = (16.0, 21.0)  # least
WAVE_FORCE = 0.15  # eV/Å, the largest on an atom
STRAINED, STRAIN = 16, 0.025  # cells, largest component of their strains
DISPLACEMENTS_A = (0.01, 0.02, 0.04, 0.06)
EACH = 3  # molecules of each size of displacement
NEAR_REST_A = (0.02, 0.04)  # displacements from rest of defects
WIDER = 1.25
"""Cells of defects and displacements are so much wider and slabs so much thicker than those of the test: by one
repetition at least."""
NARROWER = 0.8
"""Cells of vacancies are so much narrower than those of the test: in fewer atoms, a vacancy is a larger share of the
energy, and the fit is faster."""
FEWEST = 16  # atoms of such a cell
MOST_STEPS = 80  # to rest


class Params(Closed):
    """Missed properties by crystal, and the cells to make."""

    head: str = Field(description="readout of the teacher")
    missed: dict[str, tuple[Group, ...]] = Field(description="crystal or molecule -> groups of its properties")
    settings: Settings = Settings()
    seed: int = Field(42, ge=0, description="of strains and displacements")


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    structures: int
    by_group: dict[str, int]
    failed: dict[str, str]  # group and crystal -> why there is none


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the structures; those of one crystal and kind are a family."""
    from containers.mace.teacher.calculator import teacher_calculator

    teacher = teacher_calculator(inputs.all("model"), params.head, machine.resources.device)
    found = Properties.read(inputs.one("properties"))
    crystals = {crystal.name: crystal for crystal in found.crystals}
    molecules = {molecule.name: molecule for molecule in found.molecules}
    made: list[Atoms] = []
    failed: dict[str, str] = {}
    for name, groups in sorted(params.missed.items()):
        for group in groups:
            machine.progress(len(made), 0, f"{name}: {group}")
            random = np.random.default_rng(params.seed)
            try:
                if group == "molecule":
                    structures = list(molecule(molecules[name], random))
                else:
                    structures = list(MAKERS[group](crystals[name], teacher, params.settings, random))
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  the libraries fail in any way where a crystal is odd
                failed[f"{group} of {name}"] = f"{type(error).__name__}: {error}"
                continue
            for number, atoms in enumerate(structures):
                atoms.info = {
                    "id": structure_id(atoms),
                    "source": f"{group} of {name}",
                    "row": number,
                    "group": f"property {group}",
                    "family": f"{group} of {name}",
                }
                made.append(atoms)
    write_table(outputs / OUTPUTS["structures"], structures_table(made))
    by_group = Counter(str(atoms.info["group"]).removeprefix("property ") for atoms in made)
    return {
        "structures": len(made),
        "atoms": sum(map(len, made)),
        "by_group": dict(sorted(by_group.items())),
        "failed": failed,
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write no structure."""
    write_table(outputs / OUTPUTS["structures"], structures_table([]))
    return {"structures": 0, "atoms": 0, "by_group": {}, "failed": {}}


def elastic(crystal: Crystal, teacher: Calculator, settings: Settings, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield waves whose largest force is WAVE_FORCE, and strained primitive cells."""
    conventional = crystal.conventional()
    shortest = crystal.shortest_A()
    for length in WAVE_LENGTHS_A:
        for wave in waves(conventional, length, WAVE_FORCE, (crystal.bulk_GPa or {"B": 100.0})["B"]):
            trial = wave.structure
            trial.calc = teacher
            force = float(np.abs(trial.get_forces()).max())
            yield bare(wave.at(wave.amplitude_A * min(WAVE_FORCE / force, 0.1 * shortest / wave.amplitude_A)))
    for _ in range(STRAINED):
        square = random.uniform(-STRAIN, STRAIN, (3, 3))
        strained = crystal.atoms()
        strained.set_cell(strained.cell.array @ (np.eye(3) + (square + square.T) / 2), scale_atoms=True)
        yield strained


def phonon(crystal: Crystal, teacher: Calculator, settings: Settings, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield supercells with displacements."""
    rest = wider(crystal, settings)
    for size in DISPLACEMENTS_A:
        moved = rest.copy()
        moved.rattle(size, rng=random)
        yield moved


def vacancy(crystal: Crystal, teacher: Calculator, settings: Settings, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield a supercell without one atom of each element: narrower than the tested one, or wider if it is small."""
    tested = len(grown(crystal.atoms(), 1, settings.supercell_A))
    narrow = grown(crystal.atoms(), FEWEST, NARROWER * settings.supercell_A)
    rest = narrow if len(narrow) < tested else wider(crystal, settings)
    for number in sorted(set(rest.numbers.tolist())):
        lacking = rest.copy()
        del lacking[int(np.flatnonzero(rest.numbers == number)[0])]
        yield from around_rest(lacking, teacher, random)


def wider(crystal: Crystal, settings: Settings) -> Atoms:
    """Return a supercell WIDER than the tested one, by one repetition at least."""
    tested = len(grown(crystal.atoms(), 1, settings.supercell_A))
    return grown(crystal.atoms(), tested + 1, WIDER * settings.supercell_A)


def surface(crystal: Crystal, teacher: Calculator, settings: Settings, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield slabs of every termination of the faces of low index."""
    from pymatgen.core.surface import get_symmetrically_distinct_miller_indices
    from pymatgen.io.ase import AseAtomsAdaptor

    conventional = AseAtomsAdaptor.get_structure(crystal.conventional())
    for index in get_symmetrically_distinct_miller_indices(conventional, 1):
        for slab in thicker(conventional, index, settings):
            yield from around_rest(slab, teacher, random)


def thicker(conventional: Any, index: tuple[int, ...], settings: Settings) -> list[Atoms]:
    """Return the slabs of a face, WIDER than the tested ones, by one layer at least."""
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor

    layer = AseAtomsAdaptor.get_atoms(SlabGenerator(conventional, index, 1, 1).oriented_unit_cell, msonable=False)
    height = heights(layer)[2]
    thickness = max(WIDER * settings.slab_A, (np.ceil(settings.slab_A / height) + 0.5) * height)
    made = SlabGenerator(conventional, index, thickness, settings.vacuum_A, center_slab=True, primitive=True)
    return [bare(AseAtomsAdaptor.get_atoms(slab, msonable=False)) for slab in made.get_slabs()]


def molecule(given: Molecule, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield the molecule with random displacements, several of each size."""
    for size in DISPLACEMENTS_A * EACH:
        moved = given.atoms()
        moved.rattle(size, rng=random)
        yield moved


def around_rest(atoms: Atoms, teacher: Calculator, random: np.random.Generator) -> Iterator[Atoms]:
    """Yield a structure at first, a third of the way to rest, and displaced from rest; never at rest itself."""
    from ase.optimize import LBFGS

    moving = atoms.copy()
    moving.calc = teacher
    way: list[Atoms] = []
    optimizer = LBFGS(moving, logfile=None)
    optimizer.attach(lambda: way.append(bare(moving)))
    optimizer.run(fmax=0.01, steps=MOST_STEPS)
    yield bare(atoms)
    if len(way) > 3:
        yield way[len(way) // 3]
    for size in NEAR_REST_A:
        displaced = way[-1].copy()
        displaced.rattle(size, rng=random)
        yield displaced


MAKERS = {"elastic": elastic, "phonon": phonon, "vacancy": vacancy, "surface": surface}
