"""Step `teacher_properties`: crystals and molecules that a potential is judged on, and the teacher's properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from pydantic import Field

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.properties.crystals import GAP_A, Prototype, distinct, lowest_of_each_composition
from containers.properties.measure import measure_all
from containers.properties.molecules import dimers, lowest_molecules, measure_molecules, pair_distances
from containers.properties.results import Properties, Settings
from containers.properties.speed import Speed
from containers.structures.cells import is_solid
from containers.structures.table import read_atoms

IMAGE: Image = "mace"
VERSION = 5
INPUTS = {
    "model": "the teacher, a MACE model; several are a committee",
    "structures": Optional("labelled structures to choose crystals from (Parquet of LABELS)"),
    "crystals": Optional("crystals of the user's files (Parquet of STRUCTURES)"),
}
OUTPUTS = {"properties": "properties.json"}


class Params(Closed):
    """Crystals, and the properties to measure."""

    head: str = Field(description="readout of the teacher, one of those in teacher.json (see `choose_head`)")
    prototypes: tuple[Prototype, ...] = Field((), description="crystals by the name of their structure")
    at_most: int = Field(6, ge=0, description="crystals, and molecules, that are taken from the labelled structures")
    settings: Settings = Settings()


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    crystals: int
    names: list[str]  # of crystals
    molecule_names: list[str]
    speed: Speed = Speed()  # of the first model of a committee


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Relax crystals and molecules with the teacher, measure them, and write `properties.json`.

    Crystals of elements come first: they give the chemical potentials of the others' vacancies. All arithmetic is
    float64.

    Raises:
        BadInput: a file is not a MACE model, a prototype does not fit its formula, or a file has what is no crystal.
    """
    from containers.mace.properties.teacher_speed import teacher_speed
    from containers.mace.teacher.calculator import teacher_calculator

    device = machine.resources.device
    teacher = teacher_calculator(inputs.all("model"), params.head, device)
    given = [prototype.atoms() for prototype in params.prototypes]
    given += [crystal_of_file(atoms) for path in inputs.all("crystals") for atoms in read_atoms(path)]
    labelled = read_atoms(inputs.one("structures")) if inputs.all("structures") else []
    left_out: dict[str, str] = {}
    chosen = distinct(given, lowest_of_each_composition(labelled), teacher, params.at_most, left_out)
    molecules = measure_molecules(lowest_molecules(labelled, params.at_most), teacher, left_out)
    elements = {symbol for atoms in (*given, *labelled) for symbol in atoms.symbols}
    properties = measure_all(chosen, teacher, params.settings, machine.progress)
    further = {
        "molecules": molecules,
        "dimers": dimers(pair_distances(elements, teacher.r_max), teacher),
        "left_out": {**left_out, **properties.left_out},
    }
    found = write(outputs, properties.model_copy(update=further))
    speed = teacher_speed(inputs.all("model")[0], params.head, properties.crystals, device)
    return found | {"speed": speed.model_dump()}


def crystal_of_file(atoms: Atoms) -> Atoms:
    """Return a structure of the user's files; `BadInput` for a molecule, a wire or a slab."""
    if not is_solid(atoms, GAP_A):
        info = atoms.info
        raise BadInput(
            f"properties.files: {info['source']}, structure {info['row']} ({atoms.get_chemical_formula()}) is not a"
            f" crystal: it is not periodic in three directions, or has {GAP_A:g} Å without an atom. Take it out."
        )
    return atoms


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write properties of no crystal."""
    return write(outputs, Properties(crystals=())) | {"speed": Speed().model_dump()}


def write(outputs: Path, properties: Properties) -> dict[str, Any]:
    """Write the properties; return the metrics."""
    (outputs / OUTPUTS["properties"]).write_text(properties.model_dump_json(indent=1))
    failed = {crystal.name: crystal.failed for crystal in properties.crystals if crystal.failed}
    names = {
        "names": [crystal.name for crystal in properties.crystals],
        "molecule_names": [molecule.name for molecule in properties.molecules],
    }
    return {"crystals": len(properties.crystals), **names, "failed": failed, "left_out": properties.left_out}
