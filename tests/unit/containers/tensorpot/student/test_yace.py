"""Which structures compare the .yace with the .yaml."""

from __future__ import annotations

from ase import Atoms

from containers.tensorpot.student.yace import spread


def sizes(structures: list[Atoms]) -> list[int]:
    return [len(atoms) for atoms in structures]


def test_the_structures_are_spread_over_their_sizes_ends_included() -> None:
    structures = [Atoms("H" * count) for count in (7, 1, 96, 3, 2, 54, 8, 4, 5, 6)]
    assert sizes(spread(structures, 4)) == [1, 4, 7, 96]
    assert sizes(spread(structures, 20)) == sorted(sizes(structures))
    assert sizes(spread(structures[:1], 20)) == [7]
