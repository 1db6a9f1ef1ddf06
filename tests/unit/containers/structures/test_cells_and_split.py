"""Repeating structures, matter and empty space, and the split by family."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from pydantic import ValidationError

from containers.structures.cells import grown, heights, is_isolated, is_solid
from containers.structures.split import SIDES, Split, side
from containers.tensorpot.student.calculator import neighbours, padded


def test_a_cell_grows_until_it_is_large_and_wide_and_a_large_one_stays() -> None:
    large = grown(bulk("Si"), 64, 10.0)
    assert len(large) >= 64
    assert heights(large).min() >= 10.0
    assert np.ptp(heights(large)) < 3.2  # one layer: as round as it can be
    assert len(large) / large.get_volume() == pytest.approx(2 / bulk("Si").get_volume())
    first, _, _ = neighbours(bulk("Si"), 3.0)
    many, _, _ = neighbours(large, 3.0)
    assert len(many) / len(large) == len(first) / 2 == 4
    large = bulk("Si", cubic=True) * (2, 2, 2)
    same = grown(large, 64, 10.0)
    assert len(same) == 64
    assert np.array_equal(same.cell.array, large.cell.array)
    assert len(grown(bulk("Cu", cubic=True), 4, 7.3)) == 4 * 3**3
    assert len(grown(bulk("Cu", cubic=True), 9, 0.0)) in (12, 16)


@pytest.mark.parametrize(
    ("structure", "isolated"),
    [
        (Atoms("H2", positions=[(0, 0, 0), (0, 0, 0.7)]), True),
        (Atoms("H2", positions=[(0, 0, 0), (0, 0, 0.7)], cell=[0.5, 0.5, 0.5]), True),
        (Atoms("C2", positions=[(0, 0, 0), (1.3, 0, 0.4)], cell=[2.6, 0, 0], pbc=[True, False, False]), False),
        (
            Atoms("C2", positions=[(0, 0, 0), (1.2, 0.7, 0)], cell=[[3, 1, 0], [3, -1, 0], [0, 0, 0]], pbc=(1, 1, 0)),
            False,
        ),
    ],
    ids=["molecule", "molecule in a narrow box", "chain", "sheet"],
)
def test_matter_without_a_whole_cell_is_isolated_or_not_and_grows_with_its_images_apart(structure, isolated) -> None:
    """Files may have no cell vector where nothing repeats."""
    assert is_isolated(structure, 6.0) == isolated
    large = grown(structure, 8, 7.0)
    assert len(large) >= 8
    assert heights(large).min() >= 7.0
    shortest = structure.get_all_distances()[0, 1]
    assert large.get_all_distances(mic=True)[~np.eye(len(large), dtype=bool)].min() == pytest.approx(shortest, rel=0.01)


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


# ---- the split by family: stable, independent of the pool, near the wished shares


FAMILIES = [f"family{number}" for number in range(5000)]


def test_shares_are_near_the_wished_ones() -> None:
    split = Split(validation=0.2, test=0.1)
    sides = [side(family, split) for family in FAMILIES]
    shares = {name: sides.count(name) / len(FAMILIES) for name in SIDES}
    wished = {"train": 0.7, "validation": 0.2, "test": 0.1}
    assert shares == pytest.approx(wished, abs=0.02)  # 3 standard deviations


def test_sides_never_change_when_versions_shares_or_named_families_do() -> None:
    found = {number: side(f"family{number}", Split()) for number in (0, 1, 2, 3, 11, 12, 20)}
    assert found == {0: "train", 1: "validation", 2: "test", 3: "train", 11: "test", 12: "validation", 20: "validation"}
    small, large = Split(test=0.1), Split(test=0.2)
    kept = [family for family in FAMILIES if side(family, small) == "test"]
    assert all(side(family, large) == "test" for family in kept)
    named = Split(train=("family2",))
    assert side("family2", Split()) == "test"
    assert side("family2", named) == "train"
    assert all(side(family, named) == side(family, Split()) for family in FAMILIES if family != "family2")


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.2), (0.0, 0.1), (0.1, 1.0), (-0.1, 0.1)])
def test_shares_that_leave_nothing_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        Split(validation=shares[0], test=shares[1])
