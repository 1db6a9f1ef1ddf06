"""Step `ingest`: structure files of any kind into one checked table, each structure once, sorted by content id.

Structures pass through in turns: they wait on disk, and memory holds their ids and what families are known by.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from pydantic import Field, field_validator, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.formats.scf import UNCONVERGED
from containers.ingest.checks import CLOSEST_A, check_lengths, check_structure, checked_labels
from containers.ingest.collection import Collection
from containers.ingest.constant_energy import ConstantEnergies
from containers.ingest.families import LIKENESS_A, Families
from containers.structures.cells import bare
from containers.structures.distances import shortest_distance
from containers.structures.state import Quantity, States, read_state
from containers.structures.table import STATE, atoms_from_table, read_structures, structure_id, write_table

if TYPE_CHECKING:
    from containers.formats.reading import Frame

IMAGE: Image = "tensorpot"
VERSION = 5
INPUTS = {
    "files": "structure files in the user's order: extended XYZ, Parquet, ASE databases, VASP's, what else ASE reads",
    "known": Optional("Parquet tables, in order, whose structures keep their families and found them for new ones"),
}
OUTPUTS = {"structures": "structures.parquet", "duplicates": "duplicates.parquet", "set_aside": "set_aside.parquet"}

SET_ASIDE = pa.schema([("source", pa.string()), ("row", pa.int32()), ("reason", pa.string())])
"""Frames of DFT files whose SCF did not converge: nothing learns from them."""
REPORT_EVERY = 200  # frames


class Params(Closed):
    """Files and keys."""

    file_names: tuple[str, ...] = Field(
        min_length=1, description="the user's names of the files, in their order; ending = format, and `source`"
    )
    energy_key: str | None = Field(
        None,
        description="name of the total energy (eV) in DFT data; auto: REF_energy where a frame has REF_ labels, else"
        " what its format calls the energy (VASP: extrapolated to sigma 0); none for a pool",
    )
    forces_key: str | None = Field(
        None, description="name of the forces (N x 3, eV/Å) in DFT data, or auto; none for a pool"
    )
    stress_key: str | None = Field(
        None,
        description="name of the stress (eV/Å³, ASE sign, 6 Voigt or 9 numbers), or auto; optional, frames may lack it",
    )
    likeness_A: float = Field(
        LIKENESS_A,
        ge=0,
        description="root mean square displacement (Å) up to which structures without a family of their own share one;"
        " 0: each is its own. The default is measured, see docs/use/datasets.md",
    )
    joins: bool = Field(
        False, description="a structure that is alike a known one is of its family, unless the given one is known too"
    )
    compare: Literal["founders", "every"] = Field(
        "founders",
        description="what of the known tables a structure is compared with: those that families are named after, or"
        " every one, which finds the copy of a copy too and takes longer",
    )
    type_elements: tuple[str, ...] = Field(
        (),
        description="elements of the types, in their order, in files of MLIP (from type 0) and LAMMPS (from type 1)"
        " that do not say",
    )
    reads: dict[str, Quantity] = Field(
        {}, description="what the teacher reads of a frame beside its geometry, by MACE's name (total_charge, ...)"
    )

    @field_validator("type_elements")
    @classmethod
    def _elements_are_known(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [element for element in elements if element not in chemical_symbols[1:]]:
            raise ValueError(f"{unknown[0]!r} is no element")
        return elements

    @model_validator(mode="after")
    def _energy_with_forces(self) -> Params:
        if (self.energy_key is None) != (self.forces_key is None) or (self.stress_key and not self.energy_key):
            raise ValueError("give energy_key and forces_key together (stress_key only with them), or none")
        return self

    @property
    def labelled(self) -> bool:
        """True where the files hold reference labels that are to be read."""
        return self.energy_key is not None


class Metrics(StepMetrics):
    """Figures of the structures."""

    structures: int
    atoms: int
    duplicates: int
    elements: list[str]
    frames_with_given_family: int
    states: dict[str, Any]  # see containers.structures.state.States
    some_without_cell: dict[str, list[int]] = {}  # file -> how many frames, and the first of them from 0
    files_without_cell: dict[str, int] = {}  # file -> frames
    unconverged: int = 0  # frames whose SCF did not converge
    unconverged_first: str | None = None


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Read, check and number every structure; write the table and the list of duplicates.

    Raises:
        BadInput: a file cannot be read, a frame is wrong, a structure has two labels or two states that the teacher
            reads, or energies of a file never change or none of them is converged; names file and frame.
    """
    work = outputs.parent / "work"
    work.mkdir(exist_ok=True)
    try:
        families, states = Families(params.likeness_A, every=params.compare == "every"), States(params.reads)
        for path in inputs.all("known"):
            families.learn(table := read_structures(path))
            for atoms in atoms_from_table(table) if params.reads else ():
                place = f"{atoms.info['source']}: frame {atoms.info['row']} (from 0)"
                states.learn(structure_id(atoms), atoms.info.get(STATE, ""), place)
        given, unconverged, used = 0, list[dict[str, Any]](), set[str]()
        collection, energies = Collection(params.file_names, params.labelled, work), ConstantEnergies()
        for frame, number in _frames(inputs, params, work, machine):
            name = params.file_names[number]
            if params.labelled and (reason := frame.atoms.info.get(UNCONVERGED)):
                unconverged.append({"source": name, "row": frame.row, "reason": str(reason)})
                continue
            given += bool(str(frame.atoms.info.get("family", "")))
            place = frame.place(name)
            check_structure(frame.atoms, place)
            shortest = shortest_distance(frame.atoms, max(collection.reach, CLOSEST_A))
            check_lengths(frame.atoms, shortest, place)
            entry = _entry(frame, name, params, families, states)
            used.add(name)
            if params.labelled:
                energies.add(entry, name)
            collection.add(entry, number, shortest)
        if lost := [row for row in unconverged if row["source"] not in used]:
            raise BadInput(
                f"{_sentence(lost[0])}; no frame of the file has a converged SCF: none of its labels can be used. Give"
                " converged calculations (VASP: a larger NELM or another ALGO); pool.files needs no labels"
            )
        energies.check()
        return _write(outputs, collection, unconverged, given, states)
    finally:
        shutil.rmtree(work)


def _frames(inputs: Inputs, params: Params, work: Path, machine: Machine) -> Iterator[tuple[Frame, int]]:
    """Yield every frame with the number of its file; report how many bytes are read."""
    from containers.formats.reading import read_frames  # here, because the flow imports this module for Params only

    files, names = inputs.all("files"), params.file_names
    if len(files) != len(names):
        raise BadInput(f"{len(files)} files were given but {len(names)} file_names")
    sizes, count = [path.stat().st_size if path.is_file() else 0 for path in files], 0
    for number, (path, name) in enumerate(zip(files, names, strict=True)):
        for frame in read_frames(path, name, work, params.type_elements):
            if count % REPORT_EVERY == 0:
                machine.progress(sum(sizes[:number]) + frame.bytes_read, sum(sizes), f"{count} structures, {name}")
            count += 1
            yield frame, number
    machine.progress(sum(sizes), sum(sizes), "read")


def _entry(frame: Frame, name: str, params: Params, families: Families, states: States) -> Atoms:
    """Return a checked structure with the info of a table row, and its labels when they are wanted."""
    read, place = frame.atoms, frame.place(name)
    atoms = bare(read)
    group, given = (str(read.info.get(key, "")) for key in ("group", "family"))
    if params.energy_key and params.forces_key:
        labels = checked_labels(read, params.energy_key, params.forces_key, params.stress_key, place)
        atoms.calc = SinglePointCalculator(atoms, **labels)
    state = read_state(read.info, params.reads, place)
    states.count(read, state, place)
    states.learn(structure_id(atoms), state, place)
    identity = structure_id(atoms, state)
    atoms.info = {"id": identity, "source": name, "row": frame.row, "group": group, STATE: state}
    atoms.info["family"] = families.family(atoms, given, name, params.joins)
    return atoms


def _sentence(row: dict[str, Any]) -> str:
    return f"{row['source']}: frame {row['row']} (from 0): the SCF did not converge ({row['reason']})"


def _write(
    outputs: Path, collection: Collection, unconverged: list[dict[str, Any]], given: int, states: States
) -> dict[str, Any]:
    collection.write(outputs / OUTPUTS["structures"], outputs / OUTPUTS["duplicates"])
    write_table(outputs / OUTPUTS["set_aside"], pa.Table.from_pylist(unconverged, schema=SET_ASIDE))
    return {
        **collection.metrics(),
        "unconverged": len(unconverged),
        "unconverged_first": _sentence(unconverged[0]) if unconverged else None,
        "frames_with_given_family": given,
        "states": states.metrics(),
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write forty strained silicon cells, shared out to the files, whatever they hold; with labels when wanted."""
    work = outputs.parent / "work"
    work.mkdir(exist_ok=True)
    collection = Collection(params.file_names, params.labelled, work)
    made = params.file_names[0].endswith(".parquet")  # tables of other steps differ by their names
    shift = 0.004 * params.labelled + 1e-5 * (made * zlib.crc32(params.file_names[0].encode()) % 97)
    for row in range(40):
        half = (5.2 + 0.01 * row + shift) / 2
        cell = [[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]
        atoms = Atoms("Si2", positions=[[0.0] * 3, [half / 2] * 3], cell=cell, pbc=True)
        name = params.file_names[row * len(params.file_names) // 40]
        atoms.info = {"id": structure_id(atoms), "source": name, "row": row, "group": "stub", "family": f"stub{row}"}
        if params.labelled:
            atoms.calc = SinglePointCalculator(atoms, energy=-10.8 + (0.01 * row - 0.2) ** 2, forces=np.zeros((2, 3)))
        collection.add(atoms, 0, shortest_distance(atoms, collection.reach))
    metrics = _write(outputs, collection, [], 40, States({}))
    shutil.rmtree(work)
    return metrics
