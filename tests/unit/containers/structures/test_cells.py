"""Repeating structures, and telling matter from what is surrounded by empty space."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111

from containers.structures.cells import grown, heights, is_solid
from containers.tensorpot.student.calculator import neighbours, padded


def test_a_primitive_cell_grows_until_it_is_large_and_wide() -> None:
    large = grown(bulk("Si"), 64, 10.0)
    assert len(large) >= 64
    assert heights(large).min() >= 10.0
    assert np.ptp(heights(large)) < 3.2  # one layer: as round as it can be
    assert len(large) / large.get_volume() == pytest.approx(2 / bulk("Si").get_volume())
    first, _, _ = neighbours(bulk("Si"), 3.0)
    many, _, _ = neighbours(large, 3.0)
    assert len(many) / len(large) == len(first) / 2 == 4


def test_what_is_large_enough_stays() -> None:
    large = bulk("Si", cubic=True) * (2, 2, 2)
    same = grown(large, 64, 10.0)
    assert len(same) == 64
    assert np.array_equal(same.cell.array, large.cell.array)


def test_width_alone_and_count_alone_make_it_grow() -> None:
    assert len(grown(bulk("Cu", cubic=True), 4, 7.3)) == 4 * 3**3
    assert len(grown(bulk("Cu", cubic=True), 9, 0.0)) in (12, 16)


def test_only_matter_in_three_directions_is_solid() -> None:
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.set_pbc(True)
    cluster = padded(Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]]), 5.0)
    assert is_solid(bulk("Si"), 5.0)
    assert is_solid(bulk("Cu", cubic=True) * (3, 1, 1), 4.0)
    assert not is_solid(slab, 4.0)
    assert not is_solid(cluster, 5.0)
    open_cell = bulk("Si")
    open_cell.set_pbc((True, True, False))
    assert not is_solid(open_cell, 5.0)
