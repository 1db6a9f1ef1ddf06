"""LAMMPS's dumps and data files: types are never taken for elements, cells and scaled positions are LAMMPS's own."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from containers.contract import BadInput
from containers.formats.lammps import element_of_mass
from containers.formats.reading import read_frames

BOX = "ITEM: BOX BOUNDS pp pp pp\n0 7.2\n0 3.6\n0 3.6\n"
TILTED = "ITEM: BOX BOUNDS xy xz yz pp pp ff\n-0.5 5.0\n1.0 6.0\n0.0 6.0\n"
DATA = """cells of Cu and Au

2 atoms
2 atom types
0.0 4.0 xlo xhi
0.0 5.0 ylo yhi
0.0 6.0 zlo zhi
0.1 0.2 0.3 xy xz yz

Masses

1 63.546
2 196.967

Atoms # atomic

2 1 2.0 2.5 3.0 0 0 1
1 2 0.1 0.2 0.3 0 0 0
"""


def dump(columns: str, *atoms: str, box: str = BOX, units: str = "") -> str:
    lines = "\n".join(atoms)
    return f"{units}ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n{box}ITEM: ATOMS {columns}\n{lines}\n"


TYPED = dump("id type x y z fx fy fz", "2 2 1.0 2.0 3.0 0 0 1", "1 1 0.1 0.2 0.3 0 0 -1")


def read(folder: Path, content: str | bytes, name: str = "pool.lammpstrj", types: tuple[str, ...] = ()) -> list[Atoms]:
    (folder / "staged").write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "work").mkdir(exist_ok=True)
    return [frame.atoms for frame in read_frames(folder / "staged", name, folder / "work", types)]


@pytest.mark.parametrize("name", ["pool.lammpstrj", "pool.dump", "dump.nvt", "dump.0", "pool.lammpstrj.gz"])
def test_types_of_a_dump_are_the_elements_that_are_given_or_refused(tmp_path: Path, name: str) -> None:
    content = gzip.compress(TYPED.encode()) if name.endswith(".gz") else TYPED.encode()
    with pytest.raises(BadInput, match=r"frame 0 \(from 0\), line 11: .*no column `element`.*dataset.type_elements"):
        read(tmp_path, content, name)
    (atoms,) = read(tmp_path, content, name, ("Cu", "Au"))
    assert atoms.get_chemical_symbols() == ["Cu", "Au"]  # sorted by id
    np.testing.assert_array_equal(atoms.positions, [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])
    assert atoms.calc is None  # forces without an energy are no label
    with pytest.raises(BadInput, match=r"type 2 has no element; known are 1 \(Cu\)"):
        read(tmp_path, content, name, ("Cu",))


def test_elements_of_a_dump_come_first_but_not_what_lammps_writes_by_default(tmp_path: Path) -> None:
    named = dump("id type element x y z", "1 1 Au 0 0 0", "2 2 Cu 1 2 3")
    assert read(tmp_path, named, types=("Au", "Cu"))[0].get_chemical_symbols() == ["Au", "Cu"]
    with pytest.raises(BadInput, match=r"is Au by the column element and Si by dataset\.type_elements"):
        read(tmp_path, named, types=("Si", "Ge"))
    default = named.replace("Au", "C").replace("Cu", "C")
    with pytest.raises(BadInput, match="every atom is called C, as without dump_modify element"):
        read(tmp_path, default)
    assert read(tmp_path, default, types=("Si", "Ge"))[0].get_chemical_symbols() == ["Si", "Ge"]
    one = dump("id type element x y z", "1 1 C 0 0 0", "2 1 C 1 2 3")
    assert read(tmp_path, one)[0].get_chemical_symbols() == ["C", "C"]
    assert read(tmp_path, one, types=("Cu",))[0].get_chemical_symbols() == ["Cu", "Cu"]
    with pytest.raises(BadInput, match="every atom is called C"):
        read(tmp_path, one.replace(" 1 C", " 2 C"))  # the second type of a dump of a group
    masses = dump("type mass x y z", "1 63.55 0 0 0", "2 196.97 1 2 3")
    assert read(tmp_path, masses)[0].get_chemical_symbols() == ["Cu", "Au"]
    with pytest.raises(BadInput, match=r"atom 0 \(from 0\) is Cu by the column mass and Ni by dataset"):
        read(tmp_path, masses, types=("Ni", "Au"))


@pytest.mark.parametrize(
    ("columns", "atom"),
    [("element x y z", "Si 1.125 3.5 3"), ("element xu yu zu", "Si 1.125 3.5 3"), ("element xs ys zs", "Si .25 .5 .5")],
)
def test_a_tilted_box_and_every_kind_of_position(tmp_path: Path, columns: str, atom: str) -> None:
    """xy = 0.5, xz = -0.5, yz = 0: LAMMPS's bounds hold the tilted box, x from -0.5 - 0.5 to 5 + 0.5 less the tilts."""
    box = TILTED.replace("-0.5 5.0", "-0.5 5.0 0.5").replace("1.0 6.0", "1.0 6.0 -0.5").replace("0.0 6.0", "0.0 6.0 0")
    (atoms,) = read(tmp_path, dump(columns, atom, box=box))
    np.testing.assert_allclose(atoms.cell.array, [[4.5, 0, 0], [0.5, 5, 0], [-0.5, 0, 6]])
    assert atoms.pbc.tolist() == [True, True, False]
    expected = np.array([0.0, 1.0, 0.0]) + np.array([0.25, 0.5, 0.5]) @ atoms.cell.array
    np.testing.assert_allclose(atoms.positions, [expected])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (dump("element x y z", "Si 0 0 0", units="ITEM: UNITS\nlj\n"), "the units are 'lj'"),
        (dump("element x y z", "Si 0 0 0", box=BOX.replace(" pp pp pp", "")), "which directions are periodic"),
        (dump("element q", "Si 0"), "no positions"),
        (dump("element x y z", "Si 0 0"), "atom 0 .* has 3 columns instead of 4"),
        (dump("element x y z", "Si 0 0 zero"), "could not convert"),
        (dump("element x y z", "Qq 0 0 0"), "'Qq' is no element"),
        (dump("element x y z", "CA 0 0 0"), "'CA' is no element; write Ca if"),
        (dump("element element x y z", "Cu Au 0 0 0"), "the column element is there twice"),
        (dump("id element x y z", "1 Si 0 0 0", "1 Si 1 1 1"), "the same id"),
        (dump("element x y z", "Si 0 0 0").replace("ATOMS\n1", "ATOMS\n123456789012"), "at most 1,000,000"),
        (dump("element x y z", "Si 0 0 0").replace("ATOMS\n1", "ATOMS\n2"), "after 1 of 2 atoms; it was cut off"),
        ("ITEM: TIMESTEP\n0\n", "ends inside the snapshot"),
        ("3\n\nSi 0 0 0\n", "an item of a dump"),
    ],
)
def test_a_broken_snapshot_is_named(tmp_path: Path, content: str, said: str) -> None:
    good = dump("element x y z", "Si 0 0 0")
    with pytest.raises(BadInput, match=rf"^pool.lammpstrj: frame 1 \(from 0\), line \d+: .*{said}"):
        read(tmp_path, good + content)


@pytest.mark.parametrize("name", ["pool.data", "data.cu", "cu.lmp", "anything"])
def test_a_data_file_gets_elements_by_clear_masses(tmp_path: Path, name: str) -> None:
    (atoms,) = read(tmp_path, DATA, name)
    assert atoms.get_chemical_symbols() == ["Au", "Cu"]
    np.testing.assert_array_equal(atoms.positions, [[0.1, 0.2, 0.3], [2.0, 2.5, 3.0]])
    np.testing.assert_allclose(atoms.cell.array, [[4, 0, 0], [0.1, 5, 0], [0.2, 0.3, 6]])
    assert atoms.pbc.all()


def test_a_data_file_gets_elements_by_labels_or_by_the_key_or_says_what_it_is(tmp_path: Path) -> None:
    unclear = DATA.replace("63.546", "1.0").replace("196.967", "1.0")
    with pytest.raises(BadInput, match=r"pool.data: .*a LAMMPS data file: neither type labels nor clear masses"):
        read(tmp_path, unclear, "pool.data")
    assert read(tmp_path, unclear, "pool.data", ("Si", "Ge"))[0].get_chemical_symbols() == ["Ge", "Si"]
    labels = unclear.replace("Masses", "Atom Type Labels\n\n1 Ni\n2 Al\n\nMasses").replace("1 2 0.1", "1 Al 0.1")
    assert read(tmp_path, labels, "pool.data")[0].get_chemical_symbols() == ["Al", "Ni"]
    with pytest.raises(BadInput, match="type 1 is Cu by its mass and Ni by dataset"):
        read(tmp_path, DATA, "pool.data", ("Ni", "Au"))
    plain, not_clear = DATA.replace("# atomic", ""), "atom style '' is not read or not clear"
    for words, content in {
        "type 2 is Ho by its type label and Au by its mass": labels.replace("2 Al", "2 Ho").replace("2 1.0", "2 197"),
        "two atoms have the same id": DATA.replace("\n2 1 2.0", "\n1 1 2.0"),
        "its last three numbers are no images": DATA.replace("0 0 1\n", "0 0 1.5\n"),
        not_clear: plain.replace("0 0 1", "0 9").replace("0.3 0 0 0", "0.3 0 9"),
        f"{not_clear}.*`Atoms # charge`": plain.replace("3.0 0 0 1", "3.0 9").replace("0.3 0 0 0", "0.3 9"),
        "2 atoms in the section Atoms, where the header says 3": DATA.replace("2 atoms", "3 atoms"),
    }.items():
        with pytest.raises(BadInput, match=words):
            read(tmp_path, content, "pool.data")


@pytest.mark.parametrize(
    ("mass", "number"), [(28, 14), (63.5, 29), (58.693, 28), (56, 26), (59, 0), (40, 0), (1.0, 0), (1.008, 1), (-1, 0)]
)
def test_a_mass_is_an_element_where_it_is_clear(mass: float, number: int) -> None:
    assert element_of_mass(mass) == number
