"""Extended XYZ as it is written, and comment lines of any spelling as they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from containers.contract import BadInput
from containers.formats import extxyz
from containers.formats.extxyz import write_frames
from containers.formats.mlip_cfg import mlip_frames, write_configurations
from containers.formats.reading import read_frames
from containers.formats.text import Lines
from containers.ingest.checks import checked_labels
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


# ---- what a comment line says is understood in any spelling, or refused with the frame


CASES = Path(__file__).parents[3] / "data"


def read_frame(folder: Path, comment: str, *atoms: str) -> Atoms:
    (folder / "staged").write_text(f"{len(atoms)}\n{comment}\n" + "\n".join(atoms) + "\n")
    (folder / "work").mkdir(exist_ok=True)
    (frame,) = read_frames(folder / "staged", "pool.xyz", folder / "work")
    return frame.atoms


CELL = "4 0.5 0 0 5 0 0 0 6"


@pytest.mark.parametrize(
    ("comment", "pbc"),
    [
        (f'Lattice="{CELL}"', "TTT"),
        (f'lattice="{CELL}" PBC="t f T"', "TFT"),
        (f'LATTICE="{CELL}" Pbc="1 1 0"', "TTF"),
        (f'lattice="{CELL}" pbc=False', "FFF"),
    ],
)
def test_a_cell_in_any_spelling(tmp_path: Path, comment: str, pbc: str) -> None:
    atoms = read_frame(tmp_path, f"{comment} properties=SPECIES:s:1:Pos:r:3", "Si 1 2 3")
    np.testing.assert_array_equal(atoms.cell.array, [[4, 0.5, 0], [0, 5, 0], [0, 0, 6]])
    assert atoms.pbc.tolist() == [flag == "T" for flag in pbc]


def test_symbols_atomic_numbers_and_the_names_of_gpumd(tmp_path: Path) -> None:
    assert read_frame(tmp_path, "Properties=Z:I:1:pos:R:3", "29 1 2 3").get_chemical_symbols() == ["Cu"]
    both = "Properties=species:S:1:pos:R:3:Z:I:1"
    assert read_frame(tmp_path, both, "Cu 1 2 3 29").get_chemical_symbols() == ["Cu"]
    with pytest.raises(BadInput, match="species and Z name different elements"):
        read_frame(tmp_path, both, "Cu 1 2 3 79")
    with pytest.raises(BadInput, match="unknown element '1'; numbers may be atomic numbers or another program's types"):
        read_frame(tmp_path, "Atoms. Timestep: 0", "1 1 2 3")
    # energy and forces of GPUMD have their usual names
    comment = f'Energy=-2.5 lattice="{CELL}" virial="{CELL}" properties=species:S:1:pos:R:3:force:R:3'
    atoms = read_frame(tmp_path, comment, "Si 1 2 3 0.5 0 0", "Si 0 0 0 -0.5 0 0")
    assert atoms.get_potential_energy() == -2.5
    np.testing.assert_array_equal(atoms.get_forces(), [[0.5, 0, 0], [-0.5, 0, 0]])
    assert "stress" not in atoms.calc.results


def test_stress_of_six_and_of_nine_numbers_is_read_and_compared_with_its_other_side(tmp_path: Path) -> None:
    given = f'Lattice="{CELL}" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1 stress='
    tensors = {'"1 2 3 4 5 6"': [1, 2, 3, 4, 5, 6], '"1 6 5 6 2 4 5 4 3"': [1, 2, 3, 4, 5, 6]}
    for text, stress in tensors.items():
        atoms = read_frame(tmp_path, given + text, "Si 1 2 3 0 0 0")
        assert checked_labels(atoms, "auto", "auto", "auto", "")["stress"].tolist() == stress
    uneven = read_frame(tmp_path, f'{given}"1 6 5 0 2 4 5 4 3"', "Si 1 2 3 0 0 0")
    with pytest.raises(BadInput, match="nine numbers of stress are no symmetric tensor"):
        checked_labels(uneven, "auto", "auto", "auto", "")


REFUSED = {
    'lattice="4 0 0 0 5 0"': "not nine numbers",
    'lattice="4 0 0 0 5 0 0 0 six"': "not nine numbers",
    f'lattice="{CELL}" Lattice="{CELL}"': "Lattice twice",
    f'Lattice="{CELL}" x="Lattice=1" Lattice="{CELL}"': "Lattice twice",
    "energy = -1 energy=-2": "energy twice",
    "charge=0 charge=1": "charge twice",
    "Energy=-1 energy=-2": "energy twice",
    "Properties=species:S:1:pos:R:3:pos:R:3": "a column twice",
    'stress="1 2 3"': "stress is .*, not six",
    f'Lattice="{CELL}" pbc="T T"': "not three flags",
    f'Lattice="{CELL}" pbc=perhaps': "not three flags",
    f'cell="{CELL}"': "cell=... but no Lattice",
    "# CELL(abcABC): 4 5 6 90 90 90 Step: 0": "i-PI",
    "Properties=species:I:1:pos:R:3": "species are numbers .* name a column of atomic numbers Z",
    "Properties=pos:R:3:id:I:1": "no elements",
    "Properties=species:S:1:pos:R": "not name:type:columns triplets",
    "Properties=species:S:1:pos:R:99999999999999999999": "not name:type:columns triplets",
    f'Properties=species:S:1:pos:R:3 info="_JSON {"[" * 3000}"': "comment line cannot be read",
}


@pytest.mark.parametrize("comment", REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_understood_is_refused_with_the_frame(tmp_path: Path, comment: str) -> None:
    with pytest.raises(BadInput, match=rf"^pool.xyz: frame 0 \(from 0\), lines 1 to 3: .*{REFUSED[comment]}"):
        read_frame(tmp_path, comment, "Si 1 2 3")


@pytest.mark.parametrize(
    "comment", ["unit cell of silicon in a box", 'cell="0 0 0 0 0 0 0 0 0"', f'box="{CELL}" pbc="F F F"', ""]
)
def test_a_molecule_stays_one(tmp_path: Path, comment: str) -> None:
    assert not read_frame(tmp_path, comment, "Si 1 2 3").pbc.any()


def test_the_cases_that_were_read_as_something_else(tmp_path: Path) -> None:
    first, *_ = read_frames(CASES / "nep_lower.xyz", "nep_lower.xyz", tmp_path)
    assert first.atoms.pbc.all()
    np.testing.assert_allclose(first.atoms.cell.lengths(), 3.42)
    assert first.atoms.get_forces().shape == (4, 3)
    with pytest.raises(BadInput, match=r"speciesI.xyz: frame 0 \(from 0\)"):
        list(read_frames(CASES / "speciesI.xyz", "speciesI.xyz", tmp_path))
