from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from containers.mace.answers import Label, labels_table
from containers.mace.extxyz import write_extxyz
from containers.structures import structure_id, structures_table

SHEARED = [[4, 1 / 7, 0], [0, 5, 0], [0, 0.1, 6]]
CELLS = {
    "periodic": Atoms("SiC", [[0, 0, 0], [1 / 3, 1e-9, -2.7e4]], cell=SHEARED, pbc=True),
    "slab": Atoms("Si", [[0.1, 0.2, 0.3]], cell=[[4, 0, 0], [0, 5, 0], [0, 0, 0]], pbc=[True, True, False]),
    "molecule": Atoms("Si", [[0.1, 0.2, 0.3]]),
    "molecule in a box": Atoms("Si", [[0.1, 0.2, 0.3]], cell=[9, 9, 9]),
}


@pytest.mark.parametrize("name", CELLS)
def test_ase_reads_back_every_bit(tmp_path, name):
    atoms = CELLS[name].copy()
    atoms.info = {"id": structure_id(atoms), "source": "a", "row": 0, "group": "g", "family": "f"}
    forces = np.random.default_rng(1).normal(size=(len(atoms), 3)) * 1e-7
    stress = np.random.default_rng(2).normal(size=6) if atoms.pbc.all() else None
    write_extxyz(tmp_path / "a.extxyz", labels_table(structures_table([atoms]), [Label(-1 / 3, forces, stress)]))
    (back,) = read(tmp_path / "a.extxyz", index=":")
    assert structure_id(back) == structure_id(atoms) == back.info["id"]
    assert back.get_potential_energy() == -1 / 3
    assert np.array_equal(back.get_forces(), forces)
    assert ("stress" in back.calc.results) == (stress is not None)
    if stress is not None:
        assert np.array_equal(back.get_stress(), stress)


def test_no_labels_give_an_empty_file(tmp_path):
    write_extxyz(tmp_path / "a.extxyz", labels_table(structures_table([]), []))
    assert (tmp_path / "a.extxyz").read_bytes() == b""
