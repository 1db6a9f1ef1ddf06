"""`strain`: small strained copies of selected structures, from whose energies the student learns stress.

Stress is the derivative of the energy by strain: the energies of a structure and of its strained copy hold its
component along that strain. pacemaker's loss has no stress term, so copies labelled by the teacher stand in for one.
A copy is the cell and the positions of its parent times 1 + strain; the strains are symmetric, so nothing is rotated.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ase import Atoms
from pydantic import Field

from containers.arrays import Floats
from containers.contract import BadInput, Closed, Image, Inputs, Machine
from containers.structures.table import STATE, structure_id, structures_table, write_table
from containers.tensorpot.dataset.roles import read_roles, read_rows

IMAGE: Image = "tensorpot"
VERSION = 2
INPUTS = {
    "dataset": "the labelled structures with their sides (Parquet, from the dataset step)",
    "selection": "training structures of the pool (Parquet with id, from pace_select)",
}
OUTPUTS = {"structures": "structures.parquet"}  # containers.structures.STRUCTURES, by id

SHARE = 0.3
"""Share of the training structures. docs/use/weights_and_stress.md has the measurements behind this and the sizes."""


class Params(Closed):
    """How many strained structures, and how they are strained."""

    share: float = Field(SHARE, gt=0, lt=1, description="strained among the selected and strained structures together")
    size: float = Field(0.02, gt=0, le=0.1, description="Frobenius norm of a strain, without unit")
    isotropic: float = Field(
        2.0, ge=0, description="how much more a strain changes the volume than one of random components would"
    )
    seed: int = Field(42, ge=0, description="of the hash that draws parents and of the strains")


def strained(selected: int, share: float = SHARE) -> int:
    """Return how many strained structures belong to so many selected ones; at least one."""
    return max(1, round(selected * share / (1 - share)))


def to_select(total: int, share: float = SHARE) -> int:
    """Return the largest selection that makes at most `total` structures with its strained ones; at least one."""
    return max((count for count in range(1, total) if count + strained(count, share) <= total), default=1)


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `structures.parquet`; raises `BadInput` when no selected structure is periodic in three directions."""
    path = inputs.one("dataset")
    chosen = pq.read_table(inputs.one("selection"), columns=["id"])["id"].to_pylist()
    selected, wanted = set(chosen), strained(len(set(chosen)), params.share)
    rows = read_rows(path, [role.of_pool and role.id in selected for role in read_roles(path)])
    able = [atoms for atoms in rows if atoms.pbc.all()]
    if not able:
        raise BadInput(
            f"none of the {len(chosen)} selected structures is periodic in all three directions, so there is no stress"
            " to learn: set loss_stress to 0"
        )
    parents = sorted(able, key=lambda atoms: _hash(params.seed, atoms.info["id"]))[:wanted]
    made = [strained_copy(parents[k % len(parents)], k // len(parents), params) for k in range(wanted)]
    write_table(
        outputs / OUTPUTS["structures"], structures_table(sorted(made, key=lambda atoms: str(atoms.info["id"])))
    )
    return {"structures": len(made), "atoms": sum(map(len, made)), "parents": len(parents)}


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Make the same structures: it takes milliseconds."""
    return run(inputs, outputs, params, machine)


def strained_copy(parent: Atoms, number: int, params: Params) -> Atoms:
    """Return the parent under its strain of this number, with id, source, group and family."""
    seed = int(_hash(params.seed, f"{parent.info['id']}:{number}"), 16)
    change = np.eye(3) + random_strain(seed, params)
    atoms = Atoms(parent.numbers, parent.positions @ change, cell=parent.cell.array @ change, pbc=parent.pbc)
    state = parent.info.get(STATE, "")
    atoms.info = {
        "id": structure_id(atoms, state),
        "source": f"strain of {parent.info['id']}",
        "row": number,
        "group": parent.info["group"],
        "family": parent.info["family"],
        STATE: state,
    }
    return atoms


def random_strain(seed: int, params: Params) -> Floats:
    """Return a symmetric strain (3, 3) of Frobenius norm `size`."""
    random = np.random.default_rng(seed)
    square = random.normal(size=(3, 3))
    strain = (square + square.T) / 2 + params.isotropic * random.normal() * np.eye(3)
    return np.asarray(strain * (params.size / np.linalg.norm(strain)))


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"strain:{seed}:{text}".encode()).hexdigest()
