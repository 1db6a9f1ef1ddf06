"""The split by family: stable, independent of the pool, near the wished shares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from containers.structures.split import SIDES, Split, side

FAMILIES = [f"family{number}" for number in range(5000)]


def test_shares_are_near_the_wished_ones() -> None:
    split = Split(validation=0.2, test=0.1)
    sides = [side(family, split) for family in FAMILIES]
    shares = {name: sides.count(name) / len(FAMILIES) for name in SIDES}
    wished = {"train": 0.7, "validation": 0.2, "test": 0.1}
    assert shares == pytest.approx(wished, abs=0.02)  # 3 standard deviations


def test_sides_never_change_between_versions() -> None:
    found = {number: side(f"family{number}", Split()) for number in (0, 1, 2, 3, 11, 12, 20)}
    assert found == {0: "train", 1: "validation", 2: "test", 3: "train", 11: "test", 12: "validation", 20: "validation"}


def test_a_growing_test_share_takes_no_structure_out_of_test() -> None:
    small, large = Split(test=0.1), Split(test=0.2)
    kept = [family for family in FAMILIES if side(family, small) == "test"]
    assert all(side(family, large) == "test" for family in kept)


def test_a_family_that_is_named_trains_and_no_other_moves() -> None:
    named = Split(train=("family2",))
    assert side("family2", Split()) == "test"
    assert side("family2", named) == "train"
    assert all(side(family, named) == side(family, Split()) for family in FAMILIES if family != "family2")


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.2), (0.0, 0.1), (0.1, 1.0), (-0.1, 0.1)])
def test_shares_that_leave_nothing_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        Split(validation=shares[0], test=shares[1])
