"""Neighbour pairs, against ASE's own neighbour list."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from tasks.labelling.shards import count_edges

CUTOFF = 5.0


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=1)
    return atoms


STRUCTURES = {
    "one atom, smaller than the cutoff": bulk("Cu"),
    "cubic": rattled(bulk("Si", cubic=True) * (2, 1, 1)),
    "skewed": rattled(Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[[3, 0, 0], [2.9, 2, 0], [-1, 0.5, 4]], pbc=True)),
    "slab": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[3, 3, 0], pbc=[True, True, False]),
    "wire": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[0, 0, 4], pbc=[False, False, True]),
    "molecule": molecule("CH3CH2OH"),
    "outside of its cell": Atoms("Si2", [[0, 0, 0], [40, -30, 2]], cell=[5.3, 5.1, 5.2], pbc=True),
    "single atom": Atoms("Si", [[1, 2, 3]]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_edges_are_those_of_the_neighbour_list(name: str) -> None:
    atoms = STRUCTURES[name]
    assert count_edges([atoms], CUTOFF).tolist() == [len(neighbor_list("i", atoms, CUTOFF))]


def test_a_left_handed_cell_has_the_pairs_of_the_same_lattice_right_handed() -> None:
    right = rattled(Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[[3.1, 0, 0], [0, 3, 0], [0, 0, 4.2]], pbc=True))
    left = Atoms(right.numbers, right.positions, cell=right.cell.array[[1, 0, 2]], pbc=True)
    assert count_edges([left], CUTOFF) == count_edges([right], CUTOFF) == len(neighbor_list("i", right, CUTOFF))


def test_several_structures_come_in_their_order() -> None:
    single = Atoms("Si")
    assert count_edges([single, bulk("Cu"), single], CUTOFF).tolist()[::2] == [0, 0]
    assert count_edges([], CUTOFF).shape == (0,)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Si2", [[0, 0, 0], [np.nan, 0, 0]]),
        Atoms("Si2", [[0, 0, 0], [1, 0, 0]], cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True),
        Atoms("Si2", [[0, 0, 0], [1, 0, 0]], cell=[np.inf, 1, 1], pbc=True),
    ],
)
def test_what_has_no_neighbour_list_counts_as_its_atoms(atoms: Atoms) -> None:
    assert count_edges([atoms], CUTOFF).tolist() == [2]


def test_an_absurdly_dense_cell_is_estimated() -> None:
    dense = Atoms("Si", cell=[0.01, 0.01, 0.01], pbc=True)
    assert count_edges([dense], CUTOFF)[0] > 1e6
