"""Inputs of a teacher beside the geometry of a frame (total charge, total spin), as numbers and as text.

A *state* is text such as `total_charge=1 total_spin=2`: the quantities that are not at MACE's defaults, sorted by name.
Empty: all are. It is part of a structure's content id. A student has no such input, so it cannot distinguish states.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from pydantic import Field

from containers.contract import BadInput, Closed

DEFAULTS = {"total_charge": 0.0, "total_spin": 1.0, "elec_temp": 0.0, "external_field": 0.0}
"""Values of mace-torch where a frame says nothing (`mace.data.AtomicData.from_config`, 0.3.16)."""
SPELLINGS = {"total_charge": ("total_charge", "charge"), "total_spin": ("total_spin", "spin", "multiplicity")}
"""Keys of a frame, by MACE's name. MACE's total spin is the multiplicity 2S + 1, as in OMol25; a closed shell has 1."""
NEAR = {
    "total_charge": (
        *SPELLINGS["total_charge"],
        "net_charge",
        "tot_charge",
        "molecular_charge",
        "totalcharge",
        "netcharge",
    ),
    "total_spin": (*SPELLINGS["total_spin"], "net_spin", "tot_spin", "spin_multiplicity", "totalspin"),
}
"""Keys, in small letters, that mean the quantity too but are not read: they are never passed over in silence."""
USUAL_SPINS = (0.0, 1.0)  # 0 is how some files say that there is none
PART = re.compile(r"([^\s=]+)=([-+.\deE]+)")
SHOWN = 10  # states that are listed


class Quantity(Closed):
    """One number that a teacher reads of a frame."""

    keys: tuple[str, ...] = Field(min_length=1, description="how frames may spell it")
    default: float | None = Field(description="taken where a frame does not say; None: each frame must say")
    lowest: float | None = Field(None, description="the teacher knows no lower value; None: any")
    highest: float | None = Field(None, description="the teacher knows no higher value; None: any")
    whole: bool = Field(False, description="the teacher knows whole numbers only")

    def value(self, name: str, info: Mapping[str, Any], place: str) -> float:
        """Return the number in a frame's `info`; `BadInput` for none, two that differ, or one that is not known."""
        found = {key: _number(info[key], key, place) for key in self.keys if info.get(key) is not None}
        if len(set(found.values())) > 1:
            different = ", ".join(f"{key}={_text(value)}" for key, value in found.items())
            raise BadInput(f"{place}: {different} are one quantity ({name}) with different values; keep one of them")
        value = next(iter(found.values()), self.default)
        if value is None:
            raise BadInput(f"{place}: the teacher reads {name} of each frame; write {name}=... into its comment line")
        for key, other in near_keys(name, info).items():
            if key not in self.keys and other != value:
                raise BadInput(
                    f"{place}: {key}={_text(other)} is not read as {name}, which would be {_text(value)}; write"
                    f" {self.keys[0]}={_text(other)}, or remove it"
                )
        given = f"{place}: {next(iter(found), name)}={_text(value)}"
        if self.lowest is not None and value < self.lowest:
            raise BadInput(f"{given}, but this teacher knows {_text(self.lowest)} and more only")
        if self.highest is not None and value > self.highest:
            raise BadInput(f"{given}, but this teacher knows up to {_text(self.highest)} only")
        if self.whole and value != round(value):
            raise BadInput(f"{given}, but this teacher knows whole numbers only")
        if name == "total_spin" and value < 1:
            raise BadInput(
                f"{given}, but the total spin is the multiplicity 2S + 1, which begins at 1: write 1 for a closed"
                " shell, 2 for one unpaired electron"
            )
        return value


Reads = Mapping[str, Quantity]
"""Quantities that a teacher reads of a frame, by MACE's name."""


def quantity(name: str, key: str | None = None, **limits: Any) -> Quantity:
    """Return the quantity that MACE calls `name`, with its usual spellings and the `key` of a model's training."""
    keys = (*SPELLINGS.get(name, (name,)), *((key,) if key else ()))
    return Quantity(keys=tuple(dict.fromkeys(keys)), default=DEFAULTS.get(name), **limits)


def union(every: Iterable[Reads]) -> dict[str, Quantity]:
    """Return what the members of a committee read together; of one that several read, the values that all know."""
    joint: dict[str, Quantity] = {}
    for name, one in (item for reads in every for item in reads.items()):
        before = joint.get(name, one)
        lows = [each.lowest for each in (before, one) if each.lowest is not None]
        highs = [each.highest for each in (before, one) if each.highest is not None]
        joint[name] = Quantity(
            keys=tuple(dict.fromkeys((*before.keys, *one.keys))),
            default=before.default,
            lowest=max(lows, default=None),
            highest=min(highs, default=None),
            whole=before.whole or one.whole,
        )
    return dict(sorted(joint.items()))


def read_state(info: Mapping[str, Any], reads: Reads, place: str) -> str:
    """Return the state of a frame for a teacher that reads `reads`.

    Args:
        info: of the frame; our own tables have the state as text.
        place: file and frame, the beginning of a message.

    Raises:
        BadInput: a quantity is missing that has no default, is no number, is given twice with two values, or is beyond
            what the teacher knows.
    """
    given = {**state_values(info.get("state")), **info}
    values = {name: reads[name].value(name, given, place) for name in sorted(reads)}
    return " ".join(f"{name}={_text(value)}" for name, value in values.items() if value != reads[name].default)


def state_values(state: object) -> dict[str, float]:
    """Return the numbers of a state by name; none of what is no state."""
    parts = state.split() if isinstance(state, str) else []
    found = [PART.fullmatch(part) for part in parts]
    return {match[1]: float(match[2]) for match in found if match} if all(found) else {}


def whole_state(state: str, reads: Reads) -> str:
    """Return a state and what is at its default, for people."""
    values = {name: one.default for name, one in reads.items()} | state_values(state)
    return " ".join(f"{name}={_text(value)}" for name, value in sorted(values.items()) if value is not None)


def _number(value: object, key: str, place: str) -> float:
    """Return the number in a word as a reader gives it: a number, an array of one, or text."""
    numbers = np.atleast_1d(np.asarray(value))
    if numbers.size > 1 and numbers.dtype.kind in "iuf" and not numbers.any():
        return 0.0
    try:
        if numbers.size != 1 or numbers.dtype.kind not in "iufUS" or not np.isfinite(number := float(numbers[0])):
            raise ValueError
    except ValueError:
        raise BadInput(f"{place}: {key}={str(value)[:40]} should be one number (vectors are not read)") from None
    return number + 0.0  # -0.0 is 0


def _text(value: float) -> str:
    return str(int(value)) if value == round(value) else repr(float(value))


class States:
    """The states of frames as they pass, for the refusal and the warnings that they need.

    Args:
        reads: quantities that the teacher reads of a frame.
    """

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._geometries: dict[bytes, tuple[str, str]] = {}  # id without state -> state, place
        self._states: Counter[str] = Counter()
        self._seen: set[str] = set()  # with those of known structures
        self._of_formula: defaultdict[str, set[str]] = defaultdict(set)
        self._unsaid: Counter[str] = Counter()
        self._noted: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def learn(self, geometry: str, state: str, place: str) -> None:
        """Take a structure; raises `BadInput` when its geometry (an id without state) has another state already."""
        if not self._reads:
            return
        self._seen.add(state)
        known, where = self._geometries.setdefault(bytes.fromhex(geometry), (state, place))
        if known != state:
            raise BadInput(
                f"{place} ({whole_state(state, self._reads)}) has the geometry of {where}"
                f" ({whole_state(known, self._reads)}): a student has no charge and no spin as input and cannot tell"
                " the two apart. Keep one state of each geometry; distil one student for each state"
            )

    def count(self, atoms: Atoms, state: str, place: str) -> None:
        """Count a frame of the files, with the info that it has there."""
        for name in SPELLINGS:  # a charge or a spin that the teacher does not read, the first
            usual = (0.0,) if name == "total_charge" else USUAL_SPINS
            near = {} if name in self._reads else near_keys(name, atoms.info)
            if ignored := [f"{key}={value:g}" for key, value in near.items() if value not in usual]:
                self._note("not_read", f"{ignored[0]} in {place}")
                break
        if not self._reads:
            return
        self._states[state] += 1
        self._seen.add(state)
        self._of_formula[atoms.get_chemical_formula()].add(state)
        said = {**state_values(atoms.info.get("state")), **atoms.info}
        self._unsaid.update(name for name, one in self._reads.items() if not any(key in said for key in one.keys))
        values = {name: one.default for name, one in self._reads.items()} | state_values(state)
        charge, spin = values.get("total_charge"), values.get("total_spin")
        if charge is not None and spin is not None and (atoms.numbers.sum() - charge - (spin - 1)) % 2:
            self._note("odd_spin", place)

    def _note(self, kind: str, what: str) -> None:
        self._noted[kind] += 1
        self._first.setdefault(kind, what)

    def metrics(self) -> dict[str, Any]:
        """Return figures for the flow's warnings: frames by state, compositions in several states, frames that lack a
        quantity, whose spin their electrons cannot have, whose charge or spin is not read."""
        several = sorted(formula for formula, states in self._of_formula.items() if len(states) > 1)
        return {
            "frames": {whole_state(state, self._reads): count for state, count in self._states.most_common(SHOWN)},
            "distinct": len(self._seen),
            "formulas_in_several": len(several),
            "unsaid": dict(sorted(self._unsaid.items())),
            "noted": dict(sorted(self._noted.items())),
            "first": self._first | ({"formula": several[0]} if several else {}),
        }


def near_keys(name: str, info: Mapping[str, Any]) -> dict[str, float]:
    """Return keys of a frame that mean the quantity of this name, in any spelling, and their numbers."""
    found = dict[str, float]()
    for key in info:
        if str(key).lower() in NEAR.get(name, ()):
            with contextlib.suppress(BadInput):  # a word of that name may mean something else
                found[key] = _number(info[key], "", "")
    return found
