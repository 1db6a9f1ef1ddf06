"""The next round where a sound student misses its limits: more structures, more functions, or stop. Pure.

The first line that applies decides:

==========================================  =========================================================================
the best student so far                     then
==========================================  =========================================================================
is not sound                                stop: the fit was broken off or molecular dynamics went wrong; neither
                                            structures nor functions are known to repair that
is within the limits                        stop: validation and test errors both are
any, and the last round was broken off      stop: the next run of the same command continues it, and only then makes
                                            other rounds, so that nothing is made twice
any, and the rounds are all made            stop: `extend.rounds` are used up
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

The loop ends: each round is counted, and `extend.rounds` is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from containers.contract import Closed
from flows.config.training import Convergence, Extend
from flows.fit.verdict import Errors

Kind = Literal["structures", "functions"]
KINDS: tuple[Kind, ...] = ("structures", "functions")
StopReason = Literal["unsound", "reached", "unfinished", "rounds", "no_gain", "nothing_left"]

EXTRAPOLATING = 0.02
"""Share of test atoms with γ above 1 from which structures are what lacks."""
GAP = 1.2
"""Validation error over training error from which structures are what lacks."""
GROWTH = 1.5
"""Basis functions after a round over those before."""


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
    unsound: str | None = Field(None, description="why nothing can be built on it")
    interrupted: bool = Field(False, description="an accident ended its fit: a later run continues it")


class Tried(Closed):
    """A round that is over."""

    kind: Kind
    state: State | None = Field(description="the student it gave; None: it failed")


class Extension(Closed):
    """The next round; one of the sizes is larger than the best student's."""

    kind: Kind
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
        helped: by round, whether it lowered the best validation error by `extend.min_gain`.
        in_vain: kinds tried since a round last helped.
    """

    best: int
    state: State
    helped: tuple[bool, ...]
    in_vain: frozenset[Kind]


def standing(first: State, rounds: Sequence[Tried], extend: Extend, limits: Convergence) -> Standing:
    """Return the best sound student, the earliest of equals, and which rounds helped."""
    now = Standing(0, first, (), frozenset())
    for number, tried in enumerate(rounds, 1):
        state = None if tried.state is None or tried.state.unsound else tried.state
        better = state if state and _rank(state, limits) < _rank(now.state, limits) else None
        least = (1 - extend.min_gain) * now.state.validation.badness(limits)
        helped = better is not None and (_reached(better, limits) or better.validation.badness(limits) <= least)
        in_vain = frozenset[Kind]() if helped else now.in_vain | {tried.kind}
        best, chosen = (number, better) if better else (now.best, now.state)
        now = Standing(best, chosen, (*now.helped, helped), in_vain)
    return now


def _reached(state: State, limits: Convergence) -> bool:
    return max(state.validation.badness(limits), state.test.badness(limits)) <= 1


def _rank(state: State, limits: Convergence) -> tuple[bool, float]:
    return not _reached(state, limits), state.validation.badness(limits)


def next_extension(first: State, rounds: Sequence[Tried], extend: Extend, limits: Convergence) -> Extension | Stop:
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
    if _reached(state, limits):
        return Stop(why="reached", reason="validation and test errors are within the limits")
    if rounds and (last := rounds[-1].state) and last.interrupted:
        return Stop(why="unfinished", reason=f"{last.unsound}; run again: it continues")
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


def preferred(state: State, limits: Convergence) -> tuple[Kind, str]:
    """Return the kind of round that the student needs, and the figures that say so."""
    over = state.validation.over(limits)
    missed = max(over, key=over.__getitem__)
    validation, training = getattr(state.validation, missed), getattr(state.train, missed)
    error = f"the {missed.split('_')[0]} error on validation ({validation:.3g})"
    kind: Kind = "structures"
    if state.extrapolating > EXTRAPOLATING:
        why = f"{100 * state.extrapolating:.1f} % of the test atoms extrapolate (γ above 1)"
    elif validation < GAP * training:
        kind, why = "functions", f"{error} is about that of training ({training:.3g}): the basis is the limit"
    else:
        why = f"{error} exceeds that of training ({training:.3g})"
    if state.validation.badness(limits) <= 1:
        why = f"the test split alone misses a limit, and validation stands for it: {why}"
    return kind, why


def _size(kind: Kind, state: State, first: State, extend: Extend) -> int | str:
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


def _hindrance(kind: Kind, size: int | str) -> str:
    return f"{kind}: {size}" if isinstance(size, str) else f"more {kind} did not help"
