"""Families by likeness: what is alike, what is not, and that growth changes no answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from scipy.spatial.transform import Rotation

from containers.ingest.families import LIKENESS_A, Families
from containers.structures.table import structure_id, structures_table

ROTATION = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()


def crystal(rattle: float = 0.0, seed: int = 0, strain: float = 0.0) -> Atoms:
    """64 silicon atoms, shaken and stretched along x."""
    atoms = bulk("Si", cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array @ np.diag([1 + strain, 1, 1]), scale_atoms=True)
    atoms.rattle(rattle, seed=seed)
    return atoms


def liquid(seed: int) -> Atoms:
    """The crystal's cell with its atoms anywhere."""
    atoms = crystal()
    atoms.positions = np.random.default_rng(seed).random((64, 3)) @ atoms.cell.array
    return atoms


def answers(structures: Sequence[Atoms], families: Families | None = None, file: str = "x.xyz") -> list[str]:
    """Families of structures that have none of their own."""
    families = families or Families(LIKENESS_A)
    return [families.family(atoms, "", file) for atoms in structures]


def rows(structures: Sequence[Atoms], families: Sequence[str]) -> list[Atoms]:
    """With the info of a table row."""
    for row, (atoms, family) in enumerate(zip(structures, families, strict=True)):
        atoms.info = {"id": structure_id(atoms), "source": "a", "row": row, "group": "", "family": family}
    return list(structures)


def moved(atoms: Atoms, positions: np.ndarray, cell: np.ndarray | None = None) -> Atoms:
    """The structure with other positions, and another cell."""
    return Atoms(atoms.numbers, positions, cell=atoms.cell if cell is None else cell, pbc=atoms.pbc)


def test_copies_are_of_the_first_ones_family_and_different_structures_found_their_own() -> None:
    copies = [crystal(0.1, seed, strain=0.01 * seed) for seed in range(6)]
    assert answers(copies) == [structure_id(copies[0])] * 6
    different = [crystal(), liquid(1), liquid(2), crystal(strain=0.3), bulk("Si", cubic=True)]
    assert answers(different) == [structure_id(atoms) for atoms in different]


@pytest.mark.parametrize(("rattle", "alike"), [(0.09, True), (0.16, False)])
def test_the_bound_is_the_root_mean_square_length_of_a_displacement(rattle: float, alike: bool) -> None:
    first, second = crystal(), crystal(rattle, seed=3)
    moves = second.positions - first.positions
    length = np.sqrt(((moves - moves.mean(axis=0)) ** 2).sum() / 64)  # about sqrt(3) * rattle
    assert (length < LIKENESS_A) == alike
    for bound, expected in ((length * 1.001, True), (length * 0.999, False)):
        assert (len(set(answers([first, second], Families(bound)))) == 1) == expected


def test_shifts_images_rotations_and_mirror_images_are_copies_and_what_else_is_not() -> None:
    first = crystal(0.1)
    shifted = moved(first, np.add(first.positions, [3.0, -20.0, 0.7]))
    shifted.wrap()
    imaged = moved(first, first.positions + np.random.default_rng(0).integers(-3, 3, (64, 3)) @ first.cell.array)
    rotated = moved(first, first.positions @ ROTATION.T, first.cell.array @ ROTATION.T)
    mirrored = moved(first, first.positions * [-1, 1, 1], first.cell.array * [-1, 1, 1])
    assert len(set(answers([first, shifted, imaged, rotated, mirrored]))) == 1
    # another order of atoms and other lattice vectors are not recognised
    other = make_supercell(first, [[1, 1, 0], [0, 1, 0], [0, 0, 1]], wrap=False)
    assert len(set(answers([first, first[::-1], other]))) == 3
    # elements and periodicity tell structures apart
    slab, alloy = crystal(), crystal()
    slab.pbc = (True, True, False)
    alloy.symbols[0] = "Ge"
    assert len(set(answers([crystal(), slab, alloy]))) == 3


def test_molecules_are_compared_at_the_best_rotation_and_slabs_without_their_vacuum() -> None:
    ethanol, shaken, methoxymethane = molecule("CH3CH2OH"), molecule("CH3CH2OH"), molecule("CH3OCH3")
    shaken.rattle(0.05, seed=1)
    turned = moved(shaken, shaken.positions @ ROTATION.T + 7.0)
    bent = molecule("CH3CH2OH")
    bent.positions[0] += [0.0, 2.5, 0.0]
    found = answers([ethanol, turned, methoxymethane, bent])
    assert found[1] == found[0]
    assert len(set(found)) == 3
    # the vacuum of a slab does not count
    slab, wider = crystal(0.05), crystal(0.05)
    for atoms, height in ((slab, 20.0), (wider, 40.0)):
        atoms.pbc = (True, True, False)
        atoms.set_cell(np.diag([*atoms.cell.lengths()[:2], height]))
    assert structure_id(slab) != structure_id(wider)
    assert len(set(answers([slab, wider]))) == 1


def test_a_trajectory_that_drifts_stays_one_family() -> None:
    start, way = crystal(), liquid(1)
    frames = [moved(start, start.positions + 0.01 * step * (way.positions - start.positions)) for step in range(60)]
    assert len(set(answers(frames))) == 1
    far = answers([frames[0], frames[-1]])
    assert len(set(far)) == 2  # it is the way that connects them

    alternate = Families(LIKENESS_A)
    for number, frame in enumerate(frames):  # another file in between does not end a trajectory
        alternate.family(liquid(100 + number), "", "other.xyz")
        assert alternate.family(frame, "", "x.xyz") == structure_id(frames[0])


def test_the_files_own_family_counts_and_founds_for_structures_without_one() -> None:
    families = Families(LIKENESS_A)
    assert families.family(crystal(0.02, 1), "parent7", "a.xyz") == "parent7"
    assert families.family(crystal(0.02, 2), "parent8", "a.xyz") == "parent8"
    assert families.family(crystal(0.021, 1), "", "b.xyz") == "parent7"
    assert families.family(crystal(0.021, 2), "", "c.xyz") == "parent8"
    # a duplicate gets the family of the first
    assert len(set(answers([liquid(1), crystal(), liquid(1)]))) == 2
    families = Families(LIKENESS_A)
    assert families.family(crystal(), "mine", "a.xyz") == families.family(crystal(), "yours", "b.xyz") == "mine"
    # without likeness ids and given families stay
    families = Families(0.0)
    assert families.family(crystal(), "", "a") == structure_id(crystal())
    assert families.family(crystal(0.01), "", "a") == structure_id(crystal(0.01))
    assert families.family(crystal(0.02), "given", "a") == "given"
    assert families.family(crystal(0.02), "other", "b") == "given"


def test_a_test_file_joins_what_it_is_like_unless_its_family_is_known() -> None:
    """Else copies of test structures would be trained on under another name."""
    pool = [crystal(0.02, 1), crystal(0.2, 9, 0.09), crystal(0.02, 2, 0.2)]
    known = Families(LIKENESS_A)
    known.learn(structures_table(rows(pool, ["one", "two", "three"])))
    assert known.family(crystal(0.021, 1), "of the test file", "test.xyz", joins=True) == "one"
    assert known.family(crystal(0.022, 1), "two", "test.xyz", joins=True) == "two"
    assert known.family(crystal(0.023, 1), "of the test file", "test.xyz") == "of the test file"
    assert known.family(liquid(3), "of the test file", "test.xyz", joins=True) == "of the test file"


def test_the_nearest_founder_counts_and_the_first_of_equal_ones() -> None:
    families = Families(LIKENESS_A)
    start = crystal()
    shift = np.zeros((64, 3))
    shift[::2, 0] = 0.2
    for name, share in (("a", 0.0), ("b", 1.0), ("c", 1.0)):
        families.family(moved(start, start.positions + share * shift), name, "a.xyz")
    assert families.family(moved(start, start.positions + 0.3 * shift), "", "x") == "a"
    assert families.family(moved(start, start.positions + 0.8 * shift), "", "y") == "b"


def test_known_structures_keep_their_families_and_found_as_when_they_were_first_seen() -> None:
    families = Families(LIKENESS_A)
    families.learn(structures_table(rows([crystal()], ["old"])))
    assert families.family(crystal(), "new", "a.xyz") == "old"
    assert families.family(crystal(0.1), "", "a.xyz") == "old"
    families.learn(structures_table(rows([crystal()], ["newer"])))
    assert families.family(crystal(), "", "b.xyz") == "old"
    first, member, absent = crystal(), crystal(0.1, 1), liquid(1)
    edge = moved(first, first.positions + 2 * (member.positions - first.positions))  # alike the member only
    families = Families(LIKENESS_A)
    table = rows([member, first, absent], [structure_id(first), structure_id(first), structure_id(liquid(9))])
    families.learn(structures_table(table))
    assert families.family(edge, "", "x") == structure_id(edge)
    near = moved(absent, absent.positions + 0.001 * np.arange(64)[:, None])
    assert families.family(near, "", "y") == structure_id(liquid(9))  # its founder is gone, so the rest stands for it
    # the copy of a copy is found where every structure is compared
    edge = moved(first, first.positions + 1.9 * (member.positions - first.positions))  # alike the member only
    table = structures_table(rows([first, member], [structure_id(first)] * 2))
    for every, family in ((False, structure_id(edge)), (True, structure_id(first))):
        families = Families(LIKENESS_A, every=every)
        families.learn(table)
        assert families.family(edge, "", "test.xyz", joins=True) == family


@pytest.mark.parametrize("seed", range(8))
def test_growth_at_the_end_changes_no_answer(seed: int) -> None:
    random = np.random.default_rng(seed)
    pool = [crystal(0.12, number) for number in range(8)] + [liquid(number % 3) for number in range(6)]
    pool += [crystal(0.05, number, strain=0.15) for number in range(4)]
    order = random.permutation(len(pool))
    given = [("mine" if random.random() < 0.2 else "") for _ in pool]
    asked = [(pool[number], given[number], f"file{number % 2}") for number in order]
    whole = Families(LIKENESS_A)
    all_at_once = [whole.family(*one) for one in asked]
    for cut in random.integers(1, len(pool), 3):
        part = Families(LIKENESS_A)
        assert [part.family(*one) for one in asked[:cut]] == all_at_once[:cut]
        grown = Families(LIKENESS_A)
        grown.learn(structures_table(rows([one[0] for one in asked[:cut]], all_at_once[:cut])))
        again = [grown.family(*one) for one in asked]
        assert again[:cut] == all_at_once[:cut]


@pytest.mark.parametrize("seed", range(3))
def test_the_fast_search_finds_what_comparing_everything_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    centres = [liquid(number) for number in range(5)]
    founders = [moved(one, one.positions + random.normal(0, 0.1, (64, 3))) for one in centres for _ in range(4)]
    families = Families(LIKENESS_A)
    for number, atoms in enumerate(founders):
        families.family(atoms, f"f{number}", "a")
    for one in centres:
        asked = moved(one, one.positions + random.normal(0, 0.05, (64, 3)))
        lengths = [
            np.sqrt(((d - d.mean(axis=0)) ** 2).sum() / 64) for d in (asked.positions - f.positions for f in founders)
        ]
        best = int(np.argmin(lengths))
        expected = f"f{best}" if lengths[best] <= LIKENESS_A else structure_id(asked)
        assert families.family(asked, "", f"t{seed}") == expected
