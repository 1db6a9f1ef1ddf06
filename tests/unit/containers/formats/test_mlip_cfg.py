"""MLIP's configurations: what others write, what we write, and what is broken."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput
from containers.formats import mlip_cfg
from containers.formats.mlip_cfg import element_order, is_mlip, mlip_frames, write_configurations
from containers.formats.text import Lines
from containers.structures.table import labels_table, structure_id

THEIRS = """BEGIN_CFG
 Size
    2
 Supercell
    4.0  0.0  0.0
    0.0  5.0  0.0
    0.0  0.5  6.0
 AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz
             1    0       0.125000      0.250000      0.500000    0.5  -0.25  0.125
             2    1       2.000000      2.500000      3.000000   -0.5   0.25 -0.125
 Energy
        -7.25
 PlusStress:  xx          yy          zz          yz          xz          xy
     12.0    24.0    36.0    48.0    60.0    -72.0
 Feature   EFS_by       VASP
 Feature   mindist  3.456
END_CFG

"""


def read(text: str | bytes, *elements: str) -> list[Atoms]:
    content = text.encode() if isinstance(text, str) else text
    return list(mlip_frames(Lines(io.BytesIO(content), "a.cfg"), "a.cfg", elements))


def written(structures: list[Atoms], elements: tuple[int, ...] | None = None) -> bytes:
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "s", "row": row, "group": "", "family": ""}
    file = io.BytesIO()
    order = elements or element_order(number for atoms in structures for number in atoms.numbers)
    write_configurations(file, labels_table(structures), order)
    return file.getvalue()


def labelled(atoms: Atoms, seed: int) -> Atoms:
    random = np.random.default_rng(seed)
    forces = random.normal(size=(len(atoms), 3)) * 10.0 ** random.integers(-12, 3)
    stress = {"stress": random.normal(size=6)} if atoms.pbc.all() else {}
    atoms.calc = SinglePointCalculator(atoms, energy=random.normal() / 3, forces=forces, **stress)
    return atoms


def zoo() -> list[Atoms]:
    """Periodic in three, two, one and no directions, one with a cell that is not used."""
    crystal = bulk("SiC", "zincblende", 4.3596)
    crystal.rattle(0.1, seed=1)
    slab = Atoms(
        "GeSi", positions=[[0.1, 0.2, 1 / 3], [1, 2, 3]], cell=[[4, 0.1, 0], [0, 5, 0], [0, 0, 20]], pbc=(1, 1, 0)
    )
    wire = Atoms("Si", positions=[[0.1, 0.2, 0.3]], cell=[0, 0, 2.7], pbc=(0, 0, 1))
    boxed = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]], cell=[9, 9, 9], pbc=False)
    return [labelled(atoms, seed) for seed, atoms in enumerate([crystal, slab, wire, boxed, molecule("CH4")])]


def test_what_is_written_comes_back_bit_for_bit_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for atoms, expected in zip(read(written(zoo())), zoo(), strict=True):
        assert structure_id(atoms) == structure_id(expected)  # numbers, positions, cell, pbc
        assert atoms.calc.results["energy"] == expected.calc.results["energy"]
        np.testing.assert_array_equal(atoms.calc.results["forces"], expected.calc.results["forces"])
        assert ("stress" in atoms.calc.results) == ("stress" in expected.calc.results)
        if "stress" in expected.calc.results:
            np.testing.assert_allclose(atoms.get_stress(), expected.get_stress(), rtol=1e-14)
        assert atoms.info["id"] == structure_id(expected)
    # types are the elements of the whole file by symbol
    text = written(zoo()).decode()
    assert text.count("Feature   elements C Ge H Si\n") == 5
    assert element_order([14, 6, 1, 32, 14]) == (6, 32, 1, 14)
    monkeypatch.setattr(mlip_cfg, "AT_ONCE", 2)
    assert written(zoo()).decode() == text


def test_the_virial_s_sign_and_unit() -> None:
    """A compressed crystal: ASE's stress is negative, MLIP's PlusStress positive and times the volume."""
    atoms = labelled(bulk("Si"), 0)
    atoms.calc.results["stress"] = np.array([-0.01, -0.02, -0.03, 0.001, 0.002, 0.003])
    lines = written([atoms]).decode().splitlines()
    line = lines[lines.index(" PlusStress:  xx yy zz yz xz xy") + 1]
    np.testing.assert_allclose(np.array(line.split(), float), -atoms.calc.results["stress"] * atoms.get_volume())


@pytest.mark.parametrize("elements", [("Si", "Ge"), ("Si", "Ge", "C")])
def test_files_of_others_need_the_elements(elements: tuple[str, ...]) -> None:
    for text in (THEIRS, THEIRS.replace(" Supercell", "SuperCell"), THEIRS.replace("\n", "\r\n")):
        (atoms,) = read(text, *elements)
        assert atoms.get_chemical_symbols() == ["Si", "Ge"]
        np.testing.assert_array_equal(atoms.cell.array, [[4, 0, 0], [0, 5, 0], [0, 0.5, 6]])
        np.testing.assert_array_equal(atoms.positions, [[0.125, 0.25, 0.5], [2, 2.5, 3]])
        np.testing.assert_allclose(atoms.get_stress(), -np.array([12, 24, 36, 48, 60, -72]) / 120, rtol=1e-14)
        assert atoms.info == {"EFS_by": "VASP", "mindist": "3.456"}


def test_what_else_a_configuration_may_say() -> None:
    # direct coordinates are of the cell
    (atoms,) = read(
        THEIRS.replace("cartes", "direct").replace("0.125000      0.250000      0.500000", "0.5 0.5 0.5"), "Si", "Ge"
    )
    np.testing.assert_allclose(atoms.positions[0], [2, 2.75, 3])
    # the elements of the file come before those of the user
    (atoms,) = read(THEIRS.replace("EFS_by       VASP", "elements Ge O"), "Si", "Ge")
    assert atoms.get_chemical_symbols() == ["Ge", "O"]
    # vectors are periodic directions
    (atoms,) = read(THEIRS.replace("    0.0  0.5  6.0\n", ""), "Si", "Ge")
    assert atoms.pbc.tolist() == [True, True, False]
    assert "stress" not in atoms.calc.results
    # the stress of old versions is no virial
    (atoms,) = read(THEIRS.replace("PlusStress:", "Stress:"), "Si", "Ge")
    assert "stress" not in atoms.calc.results


def test_both_kinds_of_cfg_are_distinguished() -> None:
    assert is_mlip(Lines(io.BytesIO(("\n\n" + THEIRS).encode()), ""))
    assert not is_mlip(Lines(io.BytesIO(b"Number of particles = 2\n"), ""))
    assert not is_mlip(Lines(io.BytesIO(b"\n"), ""))


BROKEN = {
    "no elements": (THEIRS, (), "set dataset.type_elements"),
    "too few elements": (THEIRS, ("Si",), "atom 1 (from 0) of 2 has type 1"),
    "unknown element": (THEIRS.replace("EFS_by       VASP", "elements Si Qq"), (), "unknown element 'Qq'"),
    "half a type": (THEIRS.replace("2    1 ", "2    0.5 "), ("Si", "Ge"), "has type 0.5"),
    "no end": (THEIRS.replace("END_CFG", ""), ("Si", "Ge"), "there is no END_CFG"),
    "begins again": (THEIRS.replace("END_CFG", "BEGIN_CFG"), ("Si", "Ge"), "there is no END_CFG"),
    "no atoms": ("BEGIN_CFG\n Size\n 2\nEND_CFG\n", ("Si",), "there is no AtomData"),
    "no size": (THEIRS.replace(" Size\n    2\n", ""), ("Si", "Ge"), "AtomData comes before Size"),
    "size of words": (THEIRS.replace("    2\n S", "    two\n S"), ("Si", "Ge"), "but is 'two'"),
    "size too large": (THEIRS.replace("    2\n S", "    3\n S"), ("Si", "Ge"), "atom 2 (from 0) of 3 has not the 8"),
    "size too small": (THEIRS.replace("    2\n S", "    1\n S"), ("Si", "Ge"), "begins no section"),
    "a column missing": (THEIRS.replace("-0.5   0.25", "-0.5"), ("Si", "Ge"), "atom 1 (from 0) of 2 has not the 8"),
    "a word": (THEIRS.replace("2.500000", "2,5"), ("Si", "Ge"), "'2,5'"),
    "no positions": (THEIRS.replace("cartes_x", "x"), ("Si", "Ge"), "neither cartes_x ... nor direct_x"),
    "no types": (THEIRS.replace("type", "kind"), ("Si", "Ge"), "no column `type`"),
    "a vector of two": (THEIRS.replace("0.0  5.0  0.0", "0.0  5.0"), ("Si", "Ge"), "3 numbers should be here"),
    "four vectors": (THEIRS.replace(" AtomData", " 1 1 1\n AtomData"), ("Si", "Ge"), "4 vectors"),
    "energy of words": (THEIRS.replace("-7.25", "low"), ("Si", "Ge"), "'low'"),
    "stress of five": (THEIRS.replace("xz          xy", "xz"), ("Si", "Ge"), "PlusStress should name"),
    "another section": (THEIRS.replace(" Energy", " Enthalpy"), ("Si", "Ge"), "'Enthalpy' begins no section"),
    "text between": (THEIRS + "and so on\n", ("Si", "Ge"), "should be BEGIN_CFG"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_configuration_is_named(case: str) -> None:
    text, elements, words = BROKEN[case]
    good = THEIRS.replace("EFS_by       VASP", "elements Si Ge")
    with pytest.raises(BadInput) as caught:
        read(good + text, *elements)
    said = str(caught.value)
    assert said.startswith("a.cfg: ")
    assert "frame 1 (from 0)" in said or "line" in said
    assert words in said
