"""The decisions of the convergence loop, and its end."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from flows.config.training import Extend, Limits
from flows.fit.next_round import (
    EXTRAPOLATING,
    GAP,
    KINDS,
    Extension,
    Kind,
    Standing,
    State,
    Stop,
    Tried,
    next_extension,
    standing,
)
from flows.fit.verdict import Errors, FitOutcome

LIMITS = Limits(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
EXTEND = Extend(rounds=4, structures=50, min_gain=0.05, error_growth=0.1)


def errors(force: float, energy: float = 1.0) -> Errors:
    return Errors(force_mae_meV_per_A=force, energy_mae_meV_per_atom=energy)


def state(error: float = 200.0, training: float | None = None, **more: Any) -> State:
    """A student that misses the force limit; its training error is half of validation's by default."""
    given = {"structures": 100, "candidates": 900, "functions": 200, "growable": True, "extrapolating": 0.0}
    train = errors(error / 2 if training is None else training)
    return State(**{**given, "validation": errors(error), "test": errors(error), "train": train, **more})


def tried(kind: Kind, error: float | None, **more: Any) -> Tried:
    return Tried(kind=kind, state=None if error is None else state(error, **more))


def repaired(error: float, *groups: Any, **properties: float) -> Tried:
    """A round that gave these properties; the groups are those beyond their limits in FAR."""
    return Tried(kind="properties", groups=groups or ("surface", "elastic"), state=state(error, properties=properties))


def then(first: State, *rounds: Tried, **changes: Any) -> Extension | Stop:
    return next_extension(first, rounds, EXTEND.model_copy(update=changes), LIMITS)


def test_the_measure_is_that_of_the_attempts() -> None:
    metrics = {"validation_force_mae_meV_per_A": 150.0, "validation_energy_mae_meV_per_atom": 18.0}
    assert Errors.of(150.0, 18.0) == FitOutcome(metrics=metrics).errors
    assert Errors.of(150.0, 18.0).badness(LIMITS) == pytest.approx(1.8)
    assert Errors.of(None, 1.0).badness(LIMITS) == float("inf")


FAR: Any = {"properties": {"elastic": 1.7, "surface": 4.0, "phonon": 0.4}}
VAIN = [repaired(90.0, *groups, **FAR["properties"]) for groups in ((), ("surface",), ("elastic",))]
FUSED = "molecular dynamics: atoms fused"
BROKEN = {"unsound": "the fit was broken off (attempt 3: time_limit)", "interrupted": True}
CONTINUES = "the fit was broken off (attempt 3: time_limit); run again: it continues"
ALONE = "the test split alone misses a limit, and validation stands for it: the force error"
FORCES = "the force error on validation (200) exceeds that of training (100)"
BASIS = "the force error on validation (200) is about that of training (200): the basis is the limit"
VAIN_BEYOND = [repaired(110.0, *groups, **FAR["properties"]) for groups in ((), ("surface",), ("elastic",))]
BOTH = "properties exceed their limits: surface (4 times), elastic (1.7 times)"
NO_MORE = "structures: no training structure is left to add; functions: the basis has no more functions to offer"


@pytest.mark.parametrize(
    ("first", "rounds", "changes", "decision", "begins", "ends"),
    [
        (state(100.0), [], {}, "reached", "validation and test errors are within the limits", ""),
        (state(90.0, test=errors(110)), [], {}, "structures", ALONE, ""),
        (state(90.0, test=errors(50, energy=11)), [], {}, "structures", ALONE, ""),
        (state(110.0, test=errors(130)), [], {}, "structures", "the force error", ""),
        (state(unsound=FUSED), [], {}, "unsound", FUSED, ""),
        (state(50.0, unsound=FUSED), [], {}, "unsound", FUSED, ""),
        (state(), [], {"rounds": 0}, "rounds", "extend.rounds (0) are used up", ""),
        # the next run continues what was broken off: a round after it would be made again
        (state(), [tried("structures", 150.0, **BROKEN)], {}, "unfinished", CONTINUES, ""),
        (state(**BROKEN), [], {}, "unfinished", CONTINUES, ""),
        # errors and extrapolation decide the kind
        (state(), [], {}, "structures", FORCES, FORCES),
        (state(training=200.0), [], {}, "functions", BASIS, BASIS),
        (state(training=200 / GAP * 1.01), [], {}, "functions", "the force error on validation (200) is about", ""),
        (state(training=200 / GAP * 0.99), [], {}, "structures", "the force error on validation (200) exceeds", ""),
        (state(training=400.0), [], {}, "functions", "the force error on validation (200) is about", ""),
        (state(training=200.0, extrapolating=EXTRAPOLATING), [], {}, "functions", BASIS, BASIS),
        (state(training=200.0, extrapolating=EXTRAPOLATING * 1.1), [], {}, "structures", "2.2 % of the test atoms", ""),
        (  # the error that is missed most: forces follow training and are fine, energies do not
            state(train=errors(90, 10), validation=errors(90, 30), test=errors(90, 30)),
            [],
            {},
            "structures",
            "the energy error on validation (30)",
            "(30) exceeds that of training (10)",
        ),
        # a kind that cannot be, or did not help, gives way to the other
        (state(candidates=0), [], {}, "functions", FORCES, "structures: no training structure is left to add"),
        (state(), [], {"max_structures": 100}, "functions", "", "structures: extend.max_structures (100) is reached"),
        (state(), [], {"max_structures": 60}, "functions", "", "structures: extend.max_structures (60) is reached"),
        (state(), [tried("functions", 150.0, training=150.0, growable=False)], {}, "structures", "", ""),
        (state(), [tried("functions", 150.0, training=150.0, functions=400)], {}, "structures", "", ""),
        (state(candidates=0, growable=False), [], {}, "nothing_left", NO_MORE, ""),
        (state(), [tried("structures", 199.0)], {}, "functions", "", "more structures did not help"),
        (state(), [tried("structures", None)], {}, "functions", "", "more structures did not help"),
        (state(), [tried("structures", 50.0, unsound=FUSED)], {}, "functions", "", "more structures did not help"),
        (
            state(),
            [tried("structures", 199.0), tried("functions", 198.0)],
            {},
            "no_gain",
            "",
            "more structures did not help; more functions did not help",
        ),
        (state(), [tried("structures", 199.0), tried("functions", 150.0)], {}, "structures", "", ""),  # after a gain
        (state(95.0, test=errors(130)), [tried("structures", 99.0, test=errors(99))], {}, "reached", "", ""),
        # properties, once the errors are within their limits
        (state(90.0, properties={"elastic": 1.0}), [], {}, "reached", "validation and test", "so are the properties"),
        (state(90.0, **FAR), [], {"rounds": 0}, "properties", BOTH, ""),
        (state(110.0, **FAR), [], {}, "structures", "the force error", ""),
        (state(90.0, **FAR), [], {"property_rounds": 0}, "rounds", "extend.property_rounds (0) are used up", ""),
        (state(90.0, **FAR), VAIN, {}, "no_gain", "structures for properties did not help", ""),
        (
            state(90.0, **FAR),
            [repaired(90.0, surface=0.4, elastic=1.7)],
            {},
            "properties",
            "properties exceed their limits: ela",
            "",
        ),
        (state(90.0, **FAR), [repaired(90.0, surface=0.4, elastic=0.7)], {}, "reached", "", "so are the properties"),
        # errors without another round leave properties to repair; the reason to stop names both
        (state(110.0, **FAR), [], {"rounds": 0}, "properties", BOTH, "errors: extend.rounds (0) are used up"),
        (state(110.0, **FAR), [repaired(112.0)], {"rounds": 0}, "rounds", "extend.rounds (0) are used up", ""),
        (state(110.0, **FAR), VAIN_BEYOND, {"rounds": 0}, "rounds", "extend.rounds (0) are used up", BOTH[-8:]),
    ],
)
def test_the_table_of_decisions(
    first: State, rounds: list[Tried], changes: dict[str, Any], decision: str, begins: str, ends: str
) -> None:
    step = then(first, *rounds, **changes)
    assert (step.kind if isinstance(step, Extension) else step.why) == decision
    assert step.reason.startswith(begins)
    assert step.reason.endswith(ends)


@pytest.mark.parametrize(
    ("first", "rounds", "changes", "structures", "functions"),
    [
        (state(), [], {}, 150, 200),
        (state(training=200.0), [], {}, 100, 300),
        (state(candidates=7), [], {}, 107, 200),
        (state(), [], {"max_structures": 120}, 120, 200),
        (state(candidates=7), [], {"max_structures": 120}, 107, 200),
        (state(training=200.0), [], {"max_functions_per_element": 250}, 100, 250),
        # at most twice the first, not twice the last
        (state(training=200.0), [tried("functions", 180.0, training=180.0, functions=300)], {}, 100, 400),
    ],
)
def test_sizes_grow_within_budget_and_pool(
    first: State, rounds: list[Tried], changes: dict[str, Any], structures: int, functions: int
) -> None:
    step = then(first, *rounds, **changes)
    assert isinstance(step, Extension)
    assert (step.structures, step.functions) == (structures, functions)


NEAR = state(95.0, test=errors(130))
"""Within the limits on validation, not on test."""
INFINITE = state(float("inf"), training=1.0)


@pytest.mark.parametrize(
    ("first", "rounds", "best", "helped"),
    [
        # a student within both limits is better than one with a smaller validation error, if it is sound
        (NEAR, [tried("structures", 99.0, test=errors(99))], 1, (True,)),
        (NEAR, [tried("structures", 99.0, test=errors(99), unsound=FUSED)], 0, (False,)),
        (NEAR, [tried("structures", 101.0, test=errors(99))], 0, (False,)),
        (state(), [tried("structures", None)], 0, (False,)),
        (state(), [tried("structures", 50.0, unsound=FUSED)], 0, (False,)),
        (state(), [tried("structures", 195.0)], 1, (False,)),  # a small gain is kept although it is no help
        (state(), [tried("structures", 199.0), tried("functions", 150.0)], 2, (False, True)),
        (state(), [tried("structures", 150.0), tried("functions", 170.0, test=errors(10))], 1, (True, False)),
        # a gain counts from the best
        (
            state(),
            [tried("structures", 150.0), tried("structures", 160.0), tried("functions", 145.0)],
            3,
            (True, False, False),
        ),
        (INFINITE, [tried("structures", float("inf"))], 0, (False,)),
        (INFINITE, [tried("structures", 500.0)], 1, (True,)),
    ],
)
def test_the_best_is_by_validation_and_never_the_last_for_being_last(
    first: State, rounds: list[Tried], best: int, helped: tuple[bool, ...]
) -> None:
    now = standing(first, rounds, EXTEND, LIMITS)
    assert (now.best, now.helped) == (best, helped)
    assert now.state == [first, *(one.state for one in rounds)][best]
    since = helped[::-1].index(True) if any(helped) else len(rounds)
    assert now.in_vain == {one.kind for one in rounds[len(rounds) - since :]}


@pytest.mark.parametrize("candidates", [0, 60, 5000])
@pytest.mark.parametrize("growable", [True, False])
@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_every_way_ends_within_its_budget(candidates: int, growable: bool, gap: float) -> None:
    for gains in product((0.5, 0.96, 1.5, None), repeat=3):
        walk(gains, candidates, growable, gap)


def walk(gains: tuple[float | None, ...], candidates: int, growable: bool, gap: float) -> None:
    """Check sizes for any results of the rounds: within budget, one changes at a time, none is tried twice."""
    first = state(200.0, 200.0 / gap, candidates=candidates, growable=growable)
    extend = EXTEND.model_copy(update={"rounds": 3, "max_structures": 180, "max_functions_per_element": 500})
    rounds: list[Tried] = []
    sizes_tried: set[tuple[int, int]] = {(first.structures, first.functions)}
    while isinstance(step := next_extension(first, rounds, extend, LIMITS), Extension):
        base = standing(first, rounds, extend, LIMITS).state
        changed = {kind for kind in KINDS if getattr(step, kind) != getattr(base, kind)}
        assert changed == {step.kind}
        assert base.structures <= step.structures <= 180
        assert base.functions <= step.functions <= 500
        assert (step.structures, step.functions) not in sizes_tried
        sizes_tried.add((step.structures, step.functions))
        gain = gains[len(rounds)]
        left = base.candidates - (step.structures - base.structures)
        sizes = {"structures": step.structures, "functions": step.functions, "candidates": left, "growable": growable}
        error = base.validation.force_mae_meV_per_A * (gain or 1)
        rounds.append(tried(step.kind, error if gain else None, training=error / gap, **sizes))
    assert len(rounds) <= 3
    assert step.why in ("reached", "rounds", "no_gain", "nothing_left")
    assert step.reason


def test_properties_are_repaired_beyond_the_limits_of_errors_but_never_at_their_cost() -> None:
    beyond, within = state(110.0, **FAR), state(90.0, **FAR)
    assert standing(beyond, [repaired(115.0, surface=0.4)], EXTEND, LIMITS).best == 1
    assert standing(beyond, [repaired(125.0, surface=0.4)], EXTEND, LIMITS).best == 0, "errors grew too much"
    assert standing(within, [repaired(101.0, surface=0.4)], EXTEND, LIMITS).best == 0, "the limit was kept before"


def test_properties_are_repaired_together_then_one_by_one() -> None:
    """A round that helps nothing, or costs too much of the errors, is followed by single groups, the worst first."""
    first = state(80.0, **FAR)
    harmful = repaired(80.0 * 1.12, surface=0.5, elastic=0.5)
    assert standing(first, [harmful], EXTEND, LIMITS).best == 0
    groups = [then(first, harmful), then(first, harmful, repaired(80.0, "surface", **FAR["properties"]))]
    assert [one.groups for one in groups if isinstance(one, Extension)] == [("surface",), ("elastic",)]
    broken = repaired(80.0, surface=math.inf, elastic=0.5)
    assert standing(first, [broken], EXTEND, LIMITS).best == 0, "what cannot be measured is worse than what is far off"
    better = repaired(85.0, surface=0.9, elastic=1.8)
    assert standing(first, [better], EXTEND, LIMITS) == Standing(1, better.state, (True,), frozenset())
    alone = then(first, better)
    assert isinstance(alone, Extension)
    assert (alone.groups, alone.structures, alone.functions) == (("elastic",), 100, 200)
