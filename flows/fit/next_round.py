"""The next round where a sound student misses its limits: more structures, more functions, structures that decide
properties, or stop. Pure.

The first line that applies decides:

==========================================  =========================================================================
the best student so far                     then
==========================================  =========================================================================
is not sound                                stop: the fit was broken off or molecular dynamics went wrong; neither
                                            structures nor functions are known to repair that
is within all limits                        stop: validation and test errors are, and its properties
any, and the last round was broken off      stop: the next run of the same command continues it, and only then makes
                                            other rounds, so that nothing is made twice
is within the limits of errors, or no round properties that miss, if any: all at once; where that gave no gain, each by
for errors is left                          itself, the farthest first, `extend.property_rounds` times at most
misses errors, and the rounds are all made  stop: `extend.rounds` are used up
extrapolates on the test split (γ above 1   structures
on more than EXTRAPOLATING of its atoms)
errs on validation as it does in training   functions: it cannot follow even what it was shown
(less than GAP times as much)
errs more on validation                     structures: it follows what it was shown, and not the rest
==========================================  =========================================================================

What cannot be done, or did not help since the best student was found, gives way to the other kind; when neither is
left, stop. A round helped when it lowered the validation error by `extend.min_gain` at least, or reached the aim. Every
round starts from the best student so far, so that one which did harm is left behind. Errors are in units of their
limits, the larger of force and energy; those of the validation split decide everything but whether the aim is reached:
for that the test split counts too, and a student within the limits on both splits is better than any that is not.
Where the test split alone misses a limit, the validation split stands for it, and the reason says so.

Properties come after the errors. A round of properties helped when it lowered what they miss by `extend.min_gain`, and
the validation error rose by less than `extend.error_growth` and stayed within its limit where it was within it.

The loop ends: each round is counted, and both numbers of rounds are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from pydantic import Field

from containers.contract import Closed
from containers.properties.compare import Group
from flows.config.training import Extend, Limits
from flows.fit.verdict import Errors

ErrorKind = Literal["structures", "functions"]
Kind = Literal[ErrorKind, "properties"]
KINDS: tuple[ErrorKind, ...] = ("structures", "functions")
StopReason = Literal["unsound", "reached", "unfinished", "rounds", "no_gain", "nothing_left"]

EXTRAPOLATING = 0.02
"""Share of test atoms with γ above 1 from which structures are what lacks."""
GAP = 1.2
"""Validation error over training error from which structures are what lacks."""
GROWTH = 1.5
"""Basis functions after a round over those before."""
WORST = 10.0
"""Largest deviation that counts, in units of the limit: a broken property must not hide the gain of others."""


class State(Closed):
    """A student as the decision sees it."""

    structures: int = Field(ge=0, description="selected from the pool's training split")
    candidates: int = Field(ge=0, description="left to select")
    functions: int = Field(ge=1, description="basis functions requested for an element")
    growable: bool = Field(description="whether the basis has more functions to offer")
    train: Errors
    validation: Errors
    test: Errors
    extrapolating: float = Field(ge=0, le=1, description="share of test atoms with γ above 1")
    properties: dict[Group, float] = Field({}, description="the largest deviation of a group in units of its limit")
    unsound: str | None = Field(None, description="why nothing can be built on it")
    interrupted: bool = Field(False, description="an accident ended its fit: a later run continues it")

    model_config = Closed.model_config | {"allow_inf_nan": True}

    @property
    def missed(self) -> tuple[Group, ...]:
        """The groups of properties beyond their limits, the farthest first."""
        return tuple(
            sorted((one for one, over in self.properties.items() if over > 1), key=lambda one: -self.properties[one])
        )

    @property
    def shortfall(self) -> float:
        """Sum of what properties miss, in units of their limits."""
        return sum(min(over, WORST) - 1 for over in self.properties.values() if over > 1)


class Tried(Closed):
    """A round that is over."""

    kind: Kind
    groups: tuple[Group, ...] = Field((), description="of properties, where these are its kind")
    state: State | None = Field(description="the student it gave; None: it failed")

    @property
    def what(self) -> str:
        """Its kind, or its groups of properties."""
        return _what(self.kind, self.groups)


class Extension(Closed):
    """The next round: one of the sizes is larger than the best student's, or it is for `groups` of properties."""

    kind: Kind
    groups: tuple[Group, ...] = ()
    structures: int
    functions: int = Field(description="an element")
    reason: str


class Stop(Closed):
    """Why there is no other round."""

    why: StopReason
    reason: str


@dataclass(frozen=True)
class Standing:
    """The best student of the rounds so far.

    Attributes:
        best: 0 is the first student, k that of round k (from 1).
        helped: by round, True where it lowered the best validation error or what properties miss by `extend.min_gain`.
        in_vain: what was tried since a round last helped, see `Tried.what`.
    """

    best: int
    state: State
    helped: tuple[bool, ...]
    in_vain: frozenset[str]


def standing(first: State, rounds: Sequence[Tried], extend: Extend, limits: Limits) -> Standing:
    """Return the best sound student, the earliest of equals, and which rounds helped."""
    now = Standing(0, first, (), frozenset())
    for number, tried in enumerate(rounds, 1):
        state = None if tried.state is None or tried.state.unsound else tried.state
        better = state if state and _rank(state, limits) < _rank(now.state, limits) else None
        if tried.kind == "properties":
            most = (1 + extend.error_growth) * now.state.validation.badness(limits)
            kept = state and _reached(state, limits) >= _reached(now.state, limits)
            better = state if state and kept and state.validation.badness(limits) <= most else None
            better = better if better and better.shortfall < now.state.shortfall else None
            helped = better is not None and better.shortfall <= (1 - extend.min_gain) * now.state.shortfall
        else:
            least = (1 - extend.min_gain) * now.state.validation.badness(limits)
            helped = better is not None and (_reached(better, limits) or better.validation.badness(limits) <= least)
        in_vain = frozenset[str]() if helped else now.in_vain | {tried.what}
        best, chosen = (number, better) if better else (now.best, now.state)
        now = Standing(best, chosen, (*now.helped, helped), in_vain)
    return now


def _what(kind: Kind, groups: Sequence[Group]) -> str:
    return " and ".join(groups) or kind


def _reached(state: State, limits: Limits) -> bool:
    return max(state.validation.badness(limits), state.test.badness(limits)) <= 1


def _rank(state: State, limits: Limits) -> tuple[bool, float, float]:
    reached = _reached(state, limits)
    return not reached, state.shortfall if reached else 0.0, state.validation.badness(limits)


def next_extension(first: State, rounds: Sequence[Tried], extend: Extend, limits: Limits) -> Extension | Stop:
    """Return the next round, or why there is none. See the table above.

    Args:
        first: the student before any round.
        rounds: in their order.
    """
    now = standing(first, rounds, extend, limits)
    state = now.state
    if state.unsound:
        if state.interrupted:
            return Stop(why="unfinished", reason=f"{state.unsound}; run again: it continues")
        hindrance = f"{state.unsound}: neither structures nor functions are known to repair that"
        return Stop(why="unsound", reason=hindrance)
    reached = _reached(state, limits)
    if reached and not state.missed:
        properties = ", and so are the properties" if state.properties else ""
        return Stop(why="reached", reason=f"validation and test errors are within the limits{properties}")
    if rounds and (last := rounds[-1].state) and last.interrupted:
        return Stop(why="unfinished", reason=f"{last.unsound}; run again: it continues")
    of_properties = sum(one.kind == "properties" for one in rounds)
    if reached:
        return _properties(now, of_properties, extend)
    errors = _errors(first, [one for one in rounds if one.kind != "properties"], extend, limits)
    if isinstance(errors, Extension) or not state.missed:
        return errors
    coming = _properties(now, of_properties, extend)
    if isinstance(coming, Extension):
        return coming.model_copy(update={"reason": f"{coming.reason}; errors: {errors.reason}"})
    return errors.model_copy(update={"reason": f"{errors.reason}; {coming.reason}"})


def _errors(first: State, rounds: Sequence[Tried], extend: Extend, limits: Limits) -> Extension | Stop:
    """Return the next round for a student beyond the limits of errors, after such rounds."""
    now = standing(first, rounds, extend, limits)
    state = now.state
    if len(rounds) >= extend.rounds:
        return Stop(why="rounds", reason=f"extend.rounds ({extend.rounds}) are used up")
    sizes = {kind: _size(kind, state, first, extend) for kind in KINDS}
    wanted, why = preferred(state, limits)
    for kind in sorted(KINDS, key=lambda kind: kind != wanted):
        size = sizes[kind]
        if isinstance(size, int) and kind not in now.in_vain:
            other = "" if kind == wanted else f"; {_hindrance(wanted, sizes[wanted])}"
            changed = {"structures": state.structures, "functions": state.functions, kind: size}
            return Extension(kind=kind, **changed, reason=why + other)
    hindrances = "; ".join(_hindrance(kind, sizes[kind]) for kind in KINDS)
    return Stop(why="no_gain" if now.in_vain else "nothing_left", reason=hindrances)


def _properties(now: Standing, made: int, extend: Extend) -> Extension | Stop:
    """Return the next round for a student some of whose properties miss their limits."""
    state = now.state
    times = {group: state.properties[group] for group in state.missed}
    each = [f"{group} ({over:.2g} times)" if over < inf else f"{group} (no value)" for group, over in times.items()]
    figures = f"exceed their limits: {', '.join(each)}"
    if made >= extend.property_rounds:
        limit = f"extend.property_rounds ({extend.property_rounds}) are used up"
        return Stop(why="rounds", reason=f"{limit}; these properties still {figures}")
    for groups in dict.fromkeys([state.missed, *((one,) for one in state.missed)]):
        if _what("properties", groups) not in now.in_vain:
            sizes = {"structures": state.structures, "functions": state.functions}
            return Extension(kind="properties", groups=groups, **sizes, reason=f"properties {figures}")
    return Stop(why="no_gain", reason=f"structures for properties did not help; these still {figures}")


def preferred(state: State, limits: Limits) -> tuple[ErrorKind, str]:
    """Return the kind of round that the student needs, and the figures that say so."""
    over = state.validation.over(limits)
    missed = max(over, key=over.__getitem__)
    validation, training = getattr(state.validation, missed), getattr(state.train, missed)
    error = f"the {missed.split('_')[0]} error on validation ({validation:.3g})"
    kind: ErrorKind = "structures"
    if state.extrapolating > EXTRAPOLATING:
        why = f"{100 * state.extrapolating:.1f} % of the test atoms extrapolate (γ above 1)"
    elif validation < GAP * training:
        kind, why = "functions", f"{error} is about that of training ({training:.3g}): the basis is the limit"
    else:
        why = f"{error} exceeds that of training ({training:.3g})"
    if state.validation.badness(limits) <= 1:
        why = f"the test split alone misses a limit, and validation stands for it: {why}"
    return kind, why


def _size(kind: ErrorKind, state: State, first: State, extend: Extend) -> int | str:
    """Return the size after another round of this kind, or why there is none."""
    if kind == "structures":
        if state.candidates == 0:
            return "no training structure is left to add"
        most = extend.max_structures
        if most is not None and state.structures >= most:
            return f"extend.max_structures ({most}) is reached"
        size = state.structures + min(extend.structures, state.candidates)
        return size if most is None else min(size, most)
    if not state.growable:
        return "the basis has no more functions to offer (its shape, or the user's own section, decides)"
    most = extend.max_functions_per_element or 2 * first.functions
    if state.functions >= most:
        return f"extend.max_functions_per_element ({most}) is reached"
    return min(round(GROWTH * state.functions), most)


def _hindrance(kind: ErrorKind, size: int | str) -> str:
    return f"{kind}: {size}" if isinstance(size, str) else f"more {kind} did not help"
