"""What a teacher reads of a frame: spellings, limits, the state as text, and what is refused or counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from containers.contract import BadInput
from containers.structures.state import Quantity, States, quantity, read_state, state_values, union, whole_state

OMOL = {
    "total_charge": quantity("total_charge", lowest=-100, highest=99, whole=True),
    "total_spin": quantity("total_spin", lowest=0, highest=100, whole=True),
}
TEMPERATURE = {"temperature": Quantity(keys=("temperature",), default=None)}


@pytest.mark.parametrize(
    ("info", "state"),
    [
        ({}, ""),
        ({"charge": 0, "spin": 1}, ""),
        ({"charge": -0.0}, ""),
        ({"charge": 1, "spin": 2}, "total_charge=1 total_spin=2"),
        ({"total_charge": -1.0, "multiplicity": 2}, "total_charge=-1 total_spin=2"),
        ({"charge": "2"}, "total_charge=2"),
        ({"charge": np.array([1]), "total_charge": 1.0}, "total_charge=1"),
        ({"state": "total_charge=1 total_spin=2"}, "total_charge=1 total_spin=2"),
        ({"state": "relaxed", "total_spin": 3}, "total_spin=3"),
    ],
)
def test_the_usual_spellings_give_the_state(info: dict[str, Any], state: str) -> None:
    assert read_state(info, OMOL, "a.xyz") == state
    assert read_state({"state": state}, OMOL, "a.xyz") == state


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"charge": 1, "total_charge": 0}, "total_charge=0, charge=1 are one quantity"),
        ({"spin": 2, "multiplicity": 1}, "spin=2, multiplicity=1"),
        ({"charge": "plus"}, "charge=plus should be one number"),
        ({"charge": True}, "charge=True should be one number"),
        ({"charge": np.nan}, "should be one number"),
        ({"charge": np.array([0.5, 0.5])}, "should be one number"),
        ({"charge": 0.5}, "charge=0.5, but this teacher knows whole numbers only"),
        ({"charge": 100}, "charge=100, but this teacher knows up to 99 only"),
        ({"spin": 0}, "spin=0, but the total spin is the multiplicity 2S \\+ 1, which begins at 1"),
        ({"Charge": 1}, "Charge=1 is not read as total_charge, which would be 0; write total_charge=1"),
        ({"charge": 1, "NET_CHARGE": 2}, "NET_CHARGE=2 is not read as total_charge, which would be 1"),
        ({"spin": -1}, "spin=-1, but this teacher knows 0 and more only"),
    ],
)
def test_what_the_teacher_cannot_read_is_refused_with_the_frame(info: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^a.xyz: frame 3.*{message}"):
        read_state(info, OMOL, "a.xyz: frame 3 (from 0)")
    assert read_state(info, {}, "a.xyz") == ""  # a teacher that reads nothing does not care


def test_a_quantity_without_a_default_is_in_every_frame_and_a_field_may_be_there_when_it_is_zero() -> None:
    assert read_state({"temperature": 300.5}, TEMPERATURE, "a.xyz") == "temperature=300.5"
    with pytest.raises(BadInput, match=r"a.xyz: the teacher reads temperature of each frame; write temperature="):
        read_state({}, TEMPERATURE, "a.xyz")
    field = {"external_field": quantity("external_field", lowest=0, highest=0)}
    assert read_state({"external_field": np.zeros(3)}, field, "a.xyz") == ""
    with pytest.raises(BadInput, match="external_field"):
        read_state({"external_field": np.array([0, 0, 0.1])}, field, "a.xyz")


def test_a_committee_reads_what_any_member_reads_within_what_all_know() -> None:
    other = {"total_charge": quantity("total_charge", "q", lowest=-2), **TEMPERATURE}
    joint = union([OMOL, {}, other])
    assert list(joint) == ["temperature", "total_charge", "total_spin"]
    one = joint["total_charge"]
    assert (one.lowest, one.highest, one.whole, one.keys) == (-2, 99, True, ("total_charge", "charge", "q"))
    assert union([]) == union([{}]) == {}
    assert whole_state("total_charge=1", OMOL) == "total_charge=1 total_spin=1"
    assert state_values("total_charge=1 x=2.5") == {"total_charge": 1, "x": 2.5}
    assert state_values("one two") == state_values(None) == state_values("") == {}


def test_one_geometry_in_two_states_is_refused() -> None:
    states = States(OMOL)
    states.learn("ab" * 32, "", "a.xyz: frame 0 (from 0)")
    states.learn("ab" * 32, "", "a.xyz: frame 1 (from 0)")
    states.learn("cd" * 32, "total_charge=1", "a.xyz: frame 2 (from 0)")
    expected = (
        r"b.xyz: frame 7 .*total_charge=1 total_spin=2.* of a.xyz: frame 0 .*total_charge=0 total_spin=1.*student"
    )
    with pytest.raises(BadInput, match=expected):
        states.learn("ab" * 32, "total_charge=1 total_spin=2", "b.xyz: frame 7 (from 0)")
    ignorant = States({})
    ignorant.learn("ab" * 32, "", "a.xyz")
    ignorant.learn("ab" * 32, "", "b.xyz")


def test_states_doubtful_frames_and_charges_that_the_teacher_does_not_read_are_counted() -> None:
    states = States(OMOL)
    frames: list[dict[str, Any]] = [{}, {"spin": 2}, {"charge": 1, "spin": 1}, {"charge": 1, "spin": 1}]
    for number, info in enumerate(frames):
        atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1]])
        atoms.info = info
        states.count(atoms, read_state(info, OMOL, ""), f"frame {number}")
    assert states.metrics() == {
        "frames": {
            "total_charge=1 total_spin=1": 2,
            "total_charge=0 total_spin=1": 1,
            "total_charge=0 total_spin=2": 1,
        },
        "distinct": 3,
        "formulas_in_several": 1,
        "unsaid": {"total_charge": 2, "total_spin": 1},
        "noted": {"odd_spin": 1},  # nine electrons and a multiplicity of one
        "first": {"odd_spin": "frame 0", "formula": "HO"},
    }
    states = States({})
    unread = [{"charge": 0, "spin": 0}, {"spin": "up"}, {"charge": -1}, {"multiplicity": 3}, {"tot_charge": 2}]
    for number, info in enumerate([*unread, {"Spin": 2}, {"Net_Charge": 0}]):
        atoms = Atoms("H")
        atoms.info = info
        states.count(atoms, "", f"frame {number}")
    assert states.metrics()["noted"] == {"not_read": 4}
    assert states.metrics()["first"] == {"not_read": "charge=-1 in frame 2"}
