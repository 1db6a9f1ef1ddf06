from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from containers.formats import extxyz
from containers.formats.extxyz import write_frames
from containers.formats.mlip_cfg import mlip_frames, write_configurations
from containers.formats.text import Lines
from containers.structures.table import LABELS, labels_table, structure_id

SHEARED = [[4, 1 / 7, 0], [0, 5, 0], [0, 0.1, 6]]
CELLS = {
    "periodic": Atoms("SiC", [[0, 0, 0], [1 / 3, 1e-9, -2.7e4]], cell=SHEARED, pbc=True),
    "slab": Atoms("Si", [[0.1, 0.2, 0.3]], cell=[[4, 0, 0], [0, 5, 0], [0, 0, 0]], pbc=[True, True, False]),
    "molecule": Atoms("Si", [[0.1, 0.2, 0.3]]),
    "molecule in a box": Atoms("Si", [[0.1, 0.2, 0.3]], cell=[9, 9, 9]),
}


def write_extxyz(path: Path, labels: pa.Table) -> None:
    with path.open("wb") as file:
        write_frames(file, labels)


def labelled(atoms: Atoms, seed: int = 1) -> Atoms:
    random = np.random.default_rng(seed)
    made = atoms.copy()
    made.info = {"id": structure_id(atoms), "source": "a", "row": 0, "group": "g", "family": "f"}
    stress = {"stress": random.normal(size=6)} if atoms.pbc.all() else {}
    made.calc = SinglePointCalculator(made, energy=-1 / 3, forces=random.normal(size=(len(atoms), 3)) * 1e-7, **stress)
    return made


@pytest.mark.parametrize("name", CELLS)
def test_ase_reads_back_every_bit(tmp_path, name):
    atoms = labelled(CELLS[name])
    write_extxyz(tmp_path / "a.extxyz", labels_table([atoms]))
    (back,) = read(tmp_path / "a.extxyz", index=":")
    assert structure_id(back) == structure_id(atoms) == back.info["id"]
    assert back.get_potential_energy() == -1 / 3
    assert np.array_equal(back.get_forces(), atoms.get_forces())
    assert ("stress" in back.calc.results) == bool(atoms.pbc.all())
    if atoms.pbc.all():
        assert np.array_equal(back.get_stress(), atoms.get_stress())


def test_structures_keep_their_order_and_atoms_across_pieces(tmp_path, monkeypatch):
    structures = [
        labelled(Atoms("H" * (1 + number % 5), np.full((1 + number % 5, 3), number)), number) for number in range(23)
    ]
    table = labels_table(structures)
    write_extxyz(tmp_path / "whole.extxyz", table)
    monkeypatch.setattr(extxyz, "ATOMS_AT_ONCE", 7)
    write_extxyz(tmp_path / "pieces.extxyz", table)
    assert (tmp_path / "pieces.extxyz").read_bytes() == (tmp_path / "whole.extxyz").read_bytes()
    back = read(tmp_path / "pieces.extxyz", index=":")
    assert [len(atoms) for atoms in back] == [len(atoms) for atoms in structures]
    assert all(
        np.array_equal(one.get_forces(), other.get_forces()) for one, other in zip(back, structures, strict=True)
    )


def test_a_committee_s_deviations_are_written_too(tmp_path):
    write_extxyz(tmp_path / "none.extxyz", LABELS.empty_table())
    assert (tmp_path / "none.extxyz").read_bytes() == b""
    atoms = labelled(CELLS["periodic"])
    table = labels_table([atoms]).append_column("energy_std", pa.array([0.25]))
    table = table.append_column("forces_std", pa.array([[0.1, 0.2, 0.3, 1 / 3, 0.5, 0.6]]))
    write_extxyz(tmp_path / "a.extxyz", table)
    back = read(tmp_path / "a.extxyz")
    assert back.info["energy_std"] == 0.25
    assert back.arrays["forces_std"].tolist() == [[0.1, 0.2, 0.3], [1 / 3, 0.5, 0.6]]
    assert np.array_equal(back.get_forces(), atoms.get_forces())


def test_odd_cells_and_labels_come_back_bit_for_bit(tmp_path):
    cells = {
        "left-handed": ([[0, 5, 0], [1 / 7, 0, 0], [-0.0, 5e-324, 6]], [True, True, True]),
        "open": ([[1e300, 0, 0], [0, -0.0, 0], [0, 0, -1e-300]], [True, False, True]),
        "of nothing": ([[-0.0] * 3] * 3, [False] * 3),
    }
    labels = np.array([5e-324, -0.0, 1.7976931348623157e308, -2.2250738585072014e-308, 1e22, 1 / 3])
    made = []
    for cell, pbc in cells.values():
        atoms = labelled(Atoms("OgH", labels.reshape(2, 3), cell=cell, pbc=pbc))
        stress = {"stress": labels / 4} if all(pbc) else {}
        atoms.calc = SinglePointCalculator(atoms, energy=-5e-324, forces=-labels.reshape(2, 3), **stress)
        made.append(atoms)
    random = np.random.default_rng(3)
    values = random.normal(size=3000) * 10.0 ** random.integers(-300, 300, size=3000)
    made.append(labelled(Atoms("H1000", positions=values.reshape(-1, 3))))
    write_extxyz(tmp_path / "a.extxyz", labels_table(made))
    for atoms, back in zip(made, read(tmp_path / "a.extxyz", index=":"), strict=True):
        assert np.array_equal(back.numbers, atoms.numbers)
        assert back.positions.tobytes() == atoms.positions.tobytes()
        assert back.cell.array.tobytes() == atoms.cell.array.tobytes()
        assert back.pbc.tolist() == atoms.pbc.tolist()
        for name, value in atoms.calc.results.items():
            assert np.asarray(back.calc.results[name]).tobytes() == np.asarray(value).tobytes(), name


@pytest.mark.parametrize(
    "text",
    [
        *["", "bulk", "T", "nan", "007", "1e5", "two words", "a=b"],
        *['quote"d', "back\\slash", "µ\n", "_JSON x", "[1]", "1,2"],
    ],
)
def test_text_in_the_comment_is_read_as_that_text(tmp_path, text):
    table = labels_table([labelled(CELLS["periodic"])])
    table = table.append_column("side", pa.array([text])).append_column("w_energy", pa.array([1 / 3]))
    with (tmp_path / "a.extxyz").open("wb") as file:
        write_frames(file, table, ("side", "w_energy"))
    back = read(tmp_path / "a.extxyz")
    assert back.info.get("side", "") == text
    assert back.info["w_energy"] == 1 / 3
    assert np.array_equal(back.get_forces(), labelled(CELLS["periodic"]).get_forces())


def test_a_state_stands_in_the_comment_as_its_quantities(tmp_path: Path) -> None:
    charged, neutral = labelled(CELLS["molecule"]), labelled(CELLS["molecule in a box"])
    charged.info["state"] = "total_charge=-1 total_spin=2"
    write_extxyz(tmp_path / "a.extxyz", labels_table([charged, neutral]))
    back = read(tmp_path / "a.extxyz", index=":")
    assert [(one.info.get("total_charge"), one.info.get("total_spin")) for one in back] == [(-1, 2), (None, None)]
    with (tmp_path / "a.cfg").open("wb") as file:
        write_configurations(file, labels_table([charged, neutral]), (14,))
    with (tmp_path / "a.cfg").open("rb") as file:
        configurations = list(mlip_frames(Lines(file, ""), "", ()))
    assert [(one.info.get("total_charge"), one.info.get("total_spin")) for one in configurations] == [
        ("-1", "2"),
        (None, None),
    ]
