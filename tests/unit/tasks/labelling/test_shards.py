"""The pool as places, the files of shards, and neighbour pairs against ASE's own list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from containers.contract import file_digest
from containers.structures.table import STRUCTURES, atoms_from_table, structure_id, structures_table, write_table
from tasks.labelling import shards as label_shards
from tasks.labelling.shards import StructurePool, count_edges


def structure(number: int) -> Atoms:
    atoms = bulk("Si", a=5.3 + number / 100) * (1 + number % 3, 1, 1)
    atoms.info = {"id": structure_id(atoms), "source": "pool.extxyz", "row": number, "group": "", "family": "f"}
    return atoms


MADE = [structure(number) for number in (0, 1, 2, 1, 3, 4, 0, 5, 6, 7)]
SINGLE = [0, 1, 2, 4, 5, 7, 8, 9]  # rows where an id comes first


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StructurePool:
    monkeypatch.setattr(label_shards, "ROWS_AT_ONCE", 3)
    write_table(tmp_path / "structures.parquet", structures_table(MADE))
    return StructurePool(tmp_path / "structures.parquet")


def test_places_of_a_pool_are_its_first_ids_with_their_edges(pool: StructurePool, tmp_path: Path) -> None:
    assert [identity.hex() for identity in pool.ids.to_pylist()] == [MADE[row].info["id"] for row in SINGLE]
    assert pool.atoms.tolist() == [len(MADE[row]) for row in SINGLE]
    places = np.array([1, 3, 7])
    assert pool.edges(places, 5.0).tolist() == count_edges([MADE[SINGLE[place]] for place in places], 5.0).tolist()
    assert pool.edges(np.zeros(0, np.int64), 5.0).tolist() == []
    assert pool.write(np.zeros(0, np.int64), [], tmp_path) == []


@pytest.mark.parametrize("cuts", [[range(7)], [range(1), range(1, 5), range(5, 7)], [range(4), range(4, 7)]])
def test_shards_hold_the_structures_in_order(pool: StructurePool, tmp_path: Path, cuts: list[range]) -> None:
    places = np.array([0, 1, 3, 4, 5, 6, 7])
    shards = pool.write(places, cuts, tmp_path)
    assert len(shards) == len(cuts)
    for shard, rows in zip(shards, cuts, strict=True):
        table = pq.read_table(shard.file)
        assert table.schema.equals(STRUCTURES)
        wanted = [MADE[SINGLE[place]] for place in places[rows]]
        assert [structure_id(atoms) for atoms in atoms_from_table(table)] == [atoms.info["id"] for atoms in wanted]
        assert (shard.structures, shard.atoms) == (len(wanted), sum(map(len, wanted)))
        assert shard.sha256 == file_digest(shard.file)
    assert len({shard.file for shard in shards} | {shard.progress for shard in shards}) == 2 * len(shards)


# ---- neighbour pairs, against ASE's own neighbour list


CUTOFF = 5.0


def rattled(atoms: Atoms) -> Atoms:
    atoms.rattle(0.1, seed=1)
    return atoms


NEIGHBOURHOODS = {
    "one atom, smaller than the cutoff": bulk("Cu"),
    "cubic": rattled(bulk("Si", cubic=True) * (2, 1, 1)),
    "skewed": rattled(Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[[3, 0, 0], [2.9, 2, 0], [-1, 0.5, 4]], pbc=True)),
    "slab": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[3, 3, 0], pbc=[True, True, False]),
    "wire": Atoms("Si2", [[0, 0, 0], [1, 1, 2]], cell=[0, 0, 4], pbc=[False, False, True]),
    "molecule": molecule("CH3CH2OH"),
    "outside of its cell": Atoms("Si2", [[0, 0, 0], [40, -30, 2]], cell=[5.3, 5.1, 5.2], pbc=True),
    "single atom": Atoms("Si", [[1, 2, 3]]),
}


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_edges_are_those_of_the_neighbour_list(name: str) -> None:
    atoms = NEIGHBOURHOODS[name]
    assert count_edges([atoms], CUTOFF).tolist() == [len(neighbor_list("i", atoms, CUTOFF))]


def test_edges_of_left_handed_several_and_dense_cells() -> None:
    right = rattled(Atoms("Si2", [[0, 0, 0], [1, 1, 1]], cell=[[3.1, 0, 0], [0, 3, 0], [0, 0, 4.2]], pbc=True))
    left = Atoms(right.numbers, right.positions, cell=right.cell.array[[1, 0, 2]], pbc=True)
    assert count_edges([left], CUTOFF) == count_edges([right], CUTOFF) == len(neighbor_list("i", right, CUTOFF))
    single = Atoms("Si")
    assert count_edges([single, bulk("Cu"), single], CUTOFF).tolist()[::2] == [0, 0]
    assert count_edges([], CUTOFF).shape == (0,)
    dense = Atoms("Si", cell=[0.01, 0.01, 0.01], pbc=True)
    assert count_edges([dense], CUTOFF)[0] > 1e6


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
