"""Step `mace_label`: energy, forces and stress of every structure from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, field_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.mace.answers import Answer, Label, labels_table, rejected_table
from containers.mace.extxyz import write_extxyz
from containers.structures import atoms_from_table, write_table

IMAGE: Image = "mace"
VERSION = 1
INPUTS = {"structures": "Parquet of STRUCTURES to label", "model": "the teacher, a MACE model"}
OUTPUTS = {"labels": "labels.parquet", "rejected": "rejected.parquet", "extxyz": "labels.extxyz"}

Dtype = Literal["float32", "float64"]
EDGES_PER_BATCH = 8_000
STUB_ENERGY = -1.0  # eV per atom


class Params(Closed):
    """How the teacher is asked."""

    head: str = Field(description="readout of the teacher, one of those in teacher.json (see `choose_head`)")
    dtype: Dtype = Field(
        "float32",
        description="arithmetic of the teacher; float32 is about twice as fast and differs by some 1e-5 eV/atom,"
        " a hundredth of what an ACE fit leaves",
    )
    edges_per_batch: Literal["auto"] | int = Field(
        "auto",
        description="neighbour pairs that the model sees at once; auto is 8000, the fastest measured on a CPU in both"
        " types (more misses its cache, fewer pays more calls); a GPU wants more. Halved when memory ends",
    )

    @field_validator("edges_per_batch")
    @classmethod
    def _positive(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("edges_per_batch must be auto or at least 1")
        return value

    @property
    def bound(self) -> int:
        """Edges of a batch as a number."""
        return EDGES_PER_BATCH if self.edges_per_batch == "auto" else self.edges_per_batch


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Label all structures. Outputs keep the order of the input; what has no finite label is set aside with a reason.

    Two runs on a CPU give the same bytes. On a GPU sums are done in any order, and the last
    digits of the dtype differ.

    Raises:
        BadInput: the model is not a MACE model, its head is unknown, or it does not know an element.
    """
    from containers.mace.labeller import Labeller, Settings, label_structures

    device = machine.resources.device
    threads = machine.resources.threads if device == "cuda" else 1  # on a CPU more threads, or processes, were slower
    labeller = Labeller(Settings(inputs.one("model"), params.head, params.dtype, params.bound, device, threads))
    table = pq.read_table(inputs.one("structures"))
    structures = atoms_from_table(table)
    check_elements(structures, labeller.teacher.elements)
    labelled, seconds = label_structures(labeller, structures, machine.progress)
    write_outputs(outputs, table, labelled.answers)
    return {
        **_counts(structures, labelled.answers),
        "edges": labelled.edges,
        "structures_per_s": round(len(structures) / seconds, 3),
        "atoms_per_s": round(sum(map(len, structures)) / seconds, 3),
        "seconds_neighbours": round(labelled.seconds_neighbours, 3),
        "seconds_model": round(labelled.seconds_model, 3),
    }


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Labels of a world without interaction: -1 eV for each atom, no forces, no stress."""
    table = pq.read_table(inputs.one("structures"))
    structures = atoms_from_table(table)
    answers = [_free(atoms) for atoms in structures]
    write_outputs(outputs, table, answers)
    return _counts(structures, answers)


def _free(atoms: Atoms) -> Label:
    return Label(STUB_ENERGY * len(atoms), np.zeros((len(atoms), 3)), np.zeros(6) if atoms.pbc.all() else None)


def check_elements(structures: Sequence[Atoms], known: Sequence[str]) -> None:
    """Raise `BadInput` with the elements that the teacher does not know and the first structure that has one."""
    numbers = {atomic_numbers[symbol] for symbol in known}
    first = next((atoms for atoms in structures if not numbers.issuperset(atoms.numbers)), None)
    if first is None:
        return
    unknown = sorted(set[int]().union(*(atoms.numbers.tolist() for atoms in structures)) - numbers)
    raise BadInput(
        f"the teacher does not know {', '.join(chemical_symbols[number] for number in unknown)}; it knows"
        f" {', '.join(known)}. First in {first.info['source']}, row {first.info['row']} (from 0)."
        " Take those structures out of the pool, or use a teacher of these elements."
    )


def write_outputs(outputs: Path, table: pa.Table, answers: Sequence[Answer]) -> None:
    """Write the three declared files."""
    labels = labels_table(table, answers)
    write_table(outputs / OUTPUTS["labels"], labels)
    write_table(outputs / OUTPUTS["rejected"], rejected_table(table, answers))
    write_extxyz(outputs / OUTPUTS["extxyz"], labels)


def _counts(structures: Sequence[Atoms], answers: Sequence[Answer]) -> dict[str, Any]:
    computed = sum(isinstance(answer, Label) for answer in answers)
    return {
        "labels_computed": computed,
        "rejected": len(answers) - computed,
        "atoms": sum(map(len, structures)),
    }
