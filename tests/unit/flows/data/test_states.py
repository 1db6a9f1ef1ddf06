"""What the user hears about charges and spins."""

from __future__ import annotations

from containers.structures.state import States
from flows.data.states import state_warnings

NOTHING = States({}).metrics()


def test_nothing_to_tell_is_silent() -> None:
    assert state_warnings(NOTHING, "pool") == []
    assert state_warnings({**NOTHING, "frames": {"total_charge=1": 5}, "distinct": 1}, "pool") == []


def test_each_doubt_is_one_sentence_with_its_number() -> None:
    found = {
        "frames": {"total_charge=0": 4, "total_charge=1": 2},
        "distinct": 2,
        "formulas_in_several": 1,
        "unsaid": {"total_spin": 6, "external_field": 6},
        "noted": {"not_read": 3, "odd_spin": 5},
        "first": {"not_read": "charge=1 in a.xyz", "odd_spin": "b.xyz", "formula": "HO"},
    }
    not_read, unsaid, odd, several = state_warnings(found, "pool")
    assert not_read.startswith("3 frames of the pool have a charge")
    assert "charge=1 in a.xyz" in not_read
    assert unsaid.startswith("6 frames of the pool do not say total_spin")
    assert odd.startswith("5 frames")
    assert "multiplicity" in odd
    assert "2 states (pool: total_charge=0: 4, total_charge=1: 2). 1 compositions" in several
    assert "HO" in several
