"""What the comment line of an XYZ frame says is understood in any spelling, or refused with the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from containers.contract import BadInput
from containers.formats.reading import read_frames
from containers.ingest.checks import checked_labels

CASES = Path(__file__).parents[3] / "data"


def read(folder: Path, comment: str, *atoms: str) -> Atoms:
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
    atoms = read(tmp_path, f"{comment} properties=SPECIES:s:1:Pos:r:3", "Si 1 2 3")
    np.testing.assert_array_equal(atoms.cell.array, [[4, 0.5, 0], [0, 5, 0], [0, 0, 6]])
    assert atoms.pbc.tolist() == [flag == "T" for flag in pbc]


def test_energy_and_forces_of_gpumd_have_their_usual_names(tmp_path: Path) -> None:
    comment = f'Energy=-2.5 lattice="{CELL}" virial="{CELL}" properties=species:S:1:pos:R:3:force:R:3'
    atoms = read(tmp_path, comment, "Si 1 2 3 0.5 0 0", "Si 0 0 0 -0.5 0 0")
    assert atoms.get_potential_energy() == -2.5
    np.testing.assert_array_equal(atoms.get_forces(), [[0.5, 0, 0], [-0.5, 0, 0]])
    assert "stress" not in atoms.calc.results


def test_symbols_and_a_column_of_atomic_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "Properties=Z:I:1:pos:R:3", "29 1 2 3").get_chemical_symbols() == ["Cu"]
    both = "Properties=species:S:1:pos:R:3:Z:I:1"
    assert read(tmp_path, both, "Cu 1 2 3 29").get_chemical_symbols() == ["Cu"]
    with pytest.raises(BadInput, match="species and Z name different elements"):
        read(tmp_path, both, "Cu 1 2 3 79")


def test_stress_of_six_and_of_nine_numbers_is_read_and_compared_with_its_other_side(tmp_path: Path) -> None:
    given = f'Lattice="{CELL}" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1 stress='
    tensors = {'"1 2 3 4 5 6"': [1, 2, 3, 4, 5, 6], '"1 6 5 6 2 4 5 4 3"': [1, 2, 3, 4, 5, 6]}
    for text, stress in tensors.items():
        atoms = read(tmp_path, given + text, "Si 1 2 3 0 0 0")
        assert checked_labels(atoms, "auto", "auto", "auto", "")["stress"].tolist() == stress
    uneven = read(tmp_path, f'{given}"1 6 5 0 2 4 5 4 3"', "Si 1 2 3 0 0 0")
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
        read(tmp_path, comment, "Si 1 2 3")


def test_numbers_in_the_place_of_symbols_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown element '1'; numbers may be atomic numbers or another program's types"):
        read(tmp_path, "Atoms. Timestep: 0", "1 1 2 3")


@pytest.mark.parametrize(
    "comment", ["unit cell of silicon in a box", 'cell="0 0 0 0 0 0 0 0 0"', f'box="{CELL}" pbc="F F F"', ""]
)
def test_a_molecule_stays_one(tmp_path: Path, comment: str) -> None:
    assert not read(tmp_path, comment, "Si 1 2 3").pbc.any()


def test_the_cases_that_were_read_as_something_else(tmp_path: Path) -> None:
    first, *_ = read_frames(CASES / "nep_lower.xyz", "nep_lower.xyz", tmp_path)
    assert first.atoms.pbc.all()
    np.testing.assert_allclose(first.atoms.cell.lengths(), 3.42)
    assert first.atoms.get_forces().shape == (4, 3)
    with pytest.raises(BadInput, match=r"speciesI.xyz: frame 0 \(from 0\)"):
        list(read_frames(CASES / "speciesI.xyz", "speciesI.xyz", tmp_path))
