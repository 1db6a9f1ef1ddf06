"""Step `ingest`: structure files of any kind into one checked table, each structure once, sorted by content id."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.distances import shortest_distance
from containers.frame_checks import check_structure, checked_labels
from containers.structures import labels_table, structure_id, structures_table, write_table

if TYPE_CHECKING:
    from containers.readers import Frame

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {"files": "structure files in the user's order: extended XYZ, Parquet, ASE databases, what else ASE reads"}
OUTPUTS = {"structures": "structures.parquet", "duplicates": "duplicates.parquet"}

DUPLICATES = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int32()),
        ("kept_source", pa.string()),
        ("kept_row", pa.int32()),
    ]
)
CHUNK = 2_000  # structures held as Atoms before they become a table
TELL_EVERY = 200  # frames
FARTHEST = 4.0  # Å; a shortest distance beyond it is of no interest to a potential


class Params(Closed):
    """What `ingest` is told."""

    file_names: tuple[str, ...] = Field(
        min_length=1, description="the user's names of the files, in their order; ending = format, and `source`"
    )
    energy_key: str | None = Field(None, description="name of the total energy (eV) in DFT data; none for a pool")
    forces_key: str | None = Field(None, description="name of the forces (N x 3, eV/Å) in DFT data; none for a pool")
    stress_key: str | None = Field(
        None, description="name of the stress (eV/Å³, ASE sign, 6 Voigt or 9 numbers); optional, frames may lack it"
    )

    @model_validator(mode="after")
    def _energy_with_forces(self) -> Params:
        if (self.energy_key is None) != (self.forces_key is None) or (self.stress_key and not self.energy_key):
            raise ValueError("give energy_key and forces_key together (stress_key only with them), or none")
        return self

    @property
    def labelled(self) -> bool:
        """Whether the files hold reference labels that are to be read."""
        return self.energy_key is not None


class _Origin(NamedTuple):
    source: str
    row: int


@dataclass
class _Collection:
    """Structures so far, each once; the first by file order is kept."""

    labelled: bool
    kept: dict[str, _Origin] = field(default_factory=dict)
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    atoms: int = 0
    elements: set[str] = field(default_factory=set)
    shortest: float = FARTHEST
    _waiting: list[Atoms] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)

    def add(self, structure: Atoms) -> None:
        """Keep a structure with the info of a table row, or note it as a duplicate."""
        origin = _Origin(structure.info["source"], structure.info["row"])
        first = self.kept.setdefault(structure.info["id"], origin)
        if first is not origin:
            self.duplicates.append(
                {"id": structure.info["id"], **origin._asdict(), "kept_source": first.source, "kept_row": first.row}
            )
            return
        self.atoms += len(structure)
        self.elements.update(structure.symbols.species())
        self.shortest = min(self.shortest, shortest_distance(structure, self.shortest))
        self._waiting.append(structure)
        if len(self._waiting) >= CHUNK:
            self._pack()

    def _pack(self) -> None:
        self._tables.append((labels_table if self.labelled else structures_table)(self._waiting))
        self._waiting = []

    def table(self) -> pa.Table:
        """Every kept structure, sorted by id."""
        self._pack()
        table = pa.concat_tables(self._tables)
        return table.take(pc.sort_indices(table.column("id"))).combine_chunks()

    def metrics(self, files: int) -> dict[str, Any]:
        """Figures of the collection."""
        return {
            "structures": len(self.kept),
            "atoms": self.atoms,
            "duplicates": len(self.duplicates),
            "files": files,
            "elements": sorted(self.elements),
            "shortest_distance_A": round(self.shortest, 6) if self.shortest < FARTHEST else None,
        }


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Read, check and number every structure; write the table and the list of duplicates.

    Raises:
        BadInput: a file cannot be read or a frame is wrong; the message names file and frame.
    """
    collection = _Collection(params.labelled)
    work = outputs.parent / "work"
    work.mkdir(exist_ok=True)
    try:
        for frame, name in _told(_frames(inputs, params, work), inputs, machine):
            collection.add(_entry(frame, name, params))
    finally:
        shutil.rmtree(work)
    _write(outputs, collection)
    return collection.metrics(len(params.file_names))


def _frames(inputs: Inputs, params: Params, work: Path) -> Iterator[tuple[Frame, str, int]]:
    """Every frame with the user's name and the number of its file."""
    from containers.readers import read_frames  # here, because the flow imports this module for Params only

    files = inputs.all("files")
    if len(files) != len(params.file_names):
        raise BadInput(f"{len(files)} files were given but {len(params.file_names)} file_names")
    for number, (path, name) in enumerate(zip(files, params.file_names, strict=True)):
        for frame in read_frames(path, name, work):
            yield frame, name, number


def _told(frames: Iterator[tuple[Frame, str, int]], inputs: Inputs, machine: Machine) -> Iterator[tuple[Frame, str]]:
    """The frames and their file's name; tells how many bytes are read as they pass."""
    sizes = [path.stat().st_size if path.is_file() else 0 for path in inputs.all("files")]
    for count, (frame, name, number) in enumerate(frames):
        if count % TELL_EVERY == 0:
            machine.progress(sum(sizes[:number]) + frame.bytes_read, sum(sizes), f"{count} structures, {name}")
        yield frame, name
    machine.progress(sum(sizes), sum(sizes), "read")


def _entry(frame: Frame, name: str, params: Params) -> Atoms:
    """The checked structure with the info of a table row, and its labels when they are wanted."""
    read, place = frame.atoms, frame.place(name)
    check_structure(read, place)
    atoms = Atoms(numbers=read.numbers, positions=read.positions, cell=read.cell.array, pbc=read.pbc)
    identity = structure_id(atoms)
    group, family = (str(read.info.get(key, "")) for key in ("group", "family"))
    atoms.info = {"id": identity, "source": name, "row": frame.row, "group": group, "family": family or identity}
    if params.energy_key and params.forces_key:
        labels = checked_labels(read, params.energy_key, params.forces_key, params.stress_key, place)
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def _write(outputs: Path, collection: _Collection) -> None:
    write_table(outputs / OUTPUTS["structures"], collection.table())
    write_table(outputs / OUTPUTS["duplicates"], pa.Table.from_pylist(collection.duplicates, schema=DUPLICATES))


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Forty strained silicon cells, whatever the files hold; with labels when they are wanted."""
    collection = _Collection(params.labelled)
    for row in range(40):
        atoms = _stub_cell(5.2 + 0.01 * row + 0.004 * params.labelled)
        identity = structure_id(atoms)
        name = params.file_names[0]
        atoms.info = {"id": identity, "source": name, "row": row, "group": "stub", "family": f"stub{row}"}
        if params.labelled:
            atoms.calc = SinglePointCalculator(atoms, energy=-10.8 + (0.01 * row - 0.2) ** 2, forces=np.zeros((2, 3)))
        collection.add(atoms)
    _write(outputs, collection)
    return collection.metrics(len(params.file_names))


def _stub_cell(lattice_constant: float) -> Atoms:
    half = lattice_constant / 2
    cell = [[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]
    return Atoms("Si2", positions=[[0.0] * 3, [half / 2] * 3], cell=cell, pbc=True)
