"""What the convergence loop does next, and that it ends."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from flows.config.training import Convergence, Extend
from flows.fit.next_round import (
    EXTRAPOLATING,
    GAP,
    KINDS,
    Extension,
    Kind,
    State,
    Stop,
    Tried,
    next_extension,
    preferred,
    standing,
)
from flows.fit.verdict import Errors, FitOutcome

LIMITS = Convergence(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
EXTEND = Extend(rounds=4, structures=50, min_gain=0.05)


def errors(force: float, energy: float = 1.0) -> Errors:
    return Errors(force_mae_meV_per_A=force, energy_mae_meV_per_atom=energy)


def state(error: float = 200.0, training: float | None = None, **more: Any) -> State:
    """A student that misses the force limit; its training error is half of validation's unless told."""
    given = {"structures": 100, "candidates": 900, "functions": 200, "growable": True, "extrapolating": 0.0}
    train = errors(error / 2 if training is None else training)
    return State(**{**given, "validation": errors(error), "test": errors(error), "train": train, **more})


def tried(kind: Kind, error: float | None, **more: Any) -> Tried:
    return Tried(kind=kind, state=None if error is None else state(error, **more))


def then(first: State, *rounds: Tried, **changes: Any) -> Extension | Stop:
    return next_extension(first, rounds, EXTEND.model_copy(update=changes), LIMITS)


def kind_of(step: Extension | Stop) -> str:
    return step.kind if isinstance(step, Extension) else step.why


def test_the_measure_is_that_of_the_attempts() -> None:
    metrics = {"validation_force_mae_meV_per_A": 150.0, "validation_energy_mae_meV_per_atom": 18.0}
    assert (
        Errors.of(150.0, 18.0).badness(LIMITS)
        == FitOutcome(metrics=metrics).errors.badness(LIMITS)
        == pytest.approx(1.8)
    )
    assert Errors.of(None, 1.0).badness(LIMITS) == float("inf")


def test_within_the_limits_nothing_is_done() -> None:
    assert then(state(100.0)) == Stop(why="reached", reason="validation and test errors are within the limits")


def test_the_test_side_is_asked_too() -> None:
    assert kind_of(then(state(90.0, test=errors(110)))) == "structures"
    assert kind_of(then(state(90.0, test=errors(50, energy=11)))) == "structures"


def test_the_reason_says_when_the_test_side_alone_misses() -> None:
    step = then(state(90.0, test=errors(110)))
    assert step.reason.startswith("the test split alone misses a limit, and validation stands for it: the force error")
    assert "test side" not in then(state(110.0, test=errors(130))).reason


def test_a_student_within_both_limits_is_better_than_one_with_a_smaller_validation_error() -> None:
    first = state(95.0, test=errors(130))
    reached = tried("structures", 99.0, test=errors(99))
    now = standing(first, [reached], EXTEND, LIMITS)
    assert (now.best, now.helped) == (1, (True,))
    assert kind_of(then(first, reached)) == "reached"
    unsound = tried("structures", 99.0, test=errors(99), unsound="molecular dynamics: atoms fused")
    assert standing(first, [unsound], EXTEND, LIMITS).best == 0
    assert standing(first, [tried("structures", 101.0, test=errors(99))], EXTEND, LIMITS).best == 0


def test_what_is_unsound_is_not_built_on() -> None:
    step = then(state(unsound="molecular dynamics: atoms fused"))
    assert kind_of(step) == "unsound"
    assert "atoms fused" in step.reason


def test_unsound_comes_before_reached() -> None:
    assert kind_of(then(state(50.0, unsound="molecular dynamics: atoms fused"))) == "unsound"


def test_no_rounds_are_asked_for() -> None:
    assert kind_of(then(state(), rounds=0)) == "rounds"


@pytest.mark.parametrize(
    ("training", "extrapolating", "wanted"),
    [
        (200.0, 0.0, "functions"),
        (200 / GAP * 1.01, 0.0, "functions"),
        (200 / GAP * 0.99, 0.0, "structures"),
        (200.0, EXTRAPOLATING, "functions"),
        (200.0, EXTRAPOLATING * 1.1, "structures"),
        (400.0, 0.0, "functions"),
    ],
)
def test_what_lacks_is_told_from_the_errors(training: float, extrapolating: float, wanted: Kind) -> None:
    asked = state(200.0, training, extrapolating=extrapolating)
    assert preferred(asked, LIMITS)[0] == wanted
    step = then(asked)
    assert isinstance(step, Extension)
    assert step.kind == wanted
    assert step.reason == preferred(asked, LIMITS)[1]


def test_the_error_that_is_missed_most_decides() -> None:
    """Forces follow training and are fine; energies do not."""
    asked = state(train=errors(90, 10), validation=errors(90, 30), test=errors(90, 30))
    assert preferred(asked, LIMITS) == (
        "structures",
        "the energy error on validation (30) exceeds that of training (10)",
    )


def test_sizes_grow_as_configured() -> None:
    assert then(state()) == Extension(kind="structures", structures=150, functions=200, reason=then(state()).reason)
    step = then(state(training=200.0))
    assert isinstance(step, Extension)
    assert (step.structures, step.functions) == (100, 300)


@pytest.mark.parametrize(
    ("now", "changes", "size"),
    [
        (state(candidates=7), {}, 107),
        (state(), {"max_structures": 120}, 120),
        (state(candidates=7), {"max_structures": 120}, 107),
    ],
)
def test_structures_stay_within_budget_and_pool(now: State, changes: dict[str, Any], size: int) -> None:
    step = then(now, **changes)
    assert isinstance(step, Extension)
    assert step.structures == size


def test_functions_stay_within_their_budget() -> None:
    first = state(training=200.0)
    step = then(first, max_functions_per_element=250)
    assert isinstance(step, Extension)
    assert step.functions == 250
    grown = tried("functions", 180.0, training=180.0, functions=300)
    step = then(first, grown)
    assert isinstance(step, Extension)
    assert step.functions == 400  # twice the first, not twice the last


@pytest.mark.parametrize(
    ("now", "changes", "told"),
    [
        (state(candidates=0), {}, "no training structure is left to add"),
        (state(), {"max_structures": 100}, r"extend.max_structures (100) is reached"),
        (state(), {"max_structures": 60}, r"extend.max_structures (60) is reached"),
    ],
)
def test_what_cannot_be_gives_way(now: State, changes: dict[str, Any], told: str) -> None:
    step = then(now, **changes)
    assert isinstance(step, Extension)
    assert step.kind == "functions"
    assert step.reason.endswith(f"structures: {told}")


@pytest.mark.parametrize("changes", [{"growable": False}, {"functions": 400}])
def test_a_basis_that_cannot_grow_gives_way(changes: dict[str, Any]) -> None:
    step = next_extension(state(), [tried("functions", 150.0, training=150.0, **changes)], EXTEND, LIMITS)
    assert isinstance(step, Extension)
    assert step.kind == "structures"


def test_with_nothing_left_it_stops_and_says_so() -> None:
    step = then(state(candidates=0, growable=False))
    assert kind_of(step) == "nothing_left"
    assert "no training structure is left" in step.reason
    assert "the basis has no more functions" in step.reason


def test_a_kind_that_did_not_help_gives_way_to_the_other() -> None:
    first = state(200.0)
    assert kind_of(then(first, tried("structures", 199.0))) == "functions"
    step = then(first, tried("structures", 199.0), tried("functions", 198.0))
    assert kind_of(step) == "no_gain"
    assert "more structures did not help" in step.reason
    assert "more functions did not help" in step.reason


def test_after_a_gain_everything_may_be_tried_again() -> None:
    first = state(200.0)
    rounds = [tried("structures", 199.0), tried("functions", 150.0)]
    assert standing(first, rounds, EXTEND, LIMITS).helped == (False, True)
    assert kind_of(then(first, *rounds)) == "structures"


def test_a_failed_round_did_not_help() -> None:
    first = state(200.0)
    assert kind_of(then(first, tried("structures", None))) == "functions"
    assert standing(first, [tried("structures", None)], EXTEND, LIMITS).best == 0


def test_the_best_is_by_validation_and_never_the_last_for_being_last() -> None:
    first = state(200.0)
    rounds = [tried("structures", 150.0), tried("functions", 170.0, test=errors(10))]
    now = standing(first, rounds, EXTEND, LIMITS)
    assert (now.best, now.state, now.helped) == (1, rounds[0].state, (True, False))
    assert now.in_vain == {"functions"}


def test_a_small_gain_is_kept_although_it_is_no_help() -> None:
    now = standing(state(200.0), [tried("structures", 195.0)], EXTEND, LIMITS)
    assert (now.best, now.helped) == (1, (False,))


def test_an_unsound_round_is_left_behind() -> None:
    first = state(200.0)
    rounds = [tried("structures", 50.0, unsound="molecular dynamics: atoms lost")]
    assert standing(first, rounds, EXTEND, LIMITS).best == 0
    assert kind_of(then(first, *rounds)) == "functions"


def test_after_a_round_that_was_broken_off_there_is_no_other() -> None:
    """The next run goes on with it: what was made after it would be made again."""
    broken = tried("structures", 150.0, unsound="the fit was broken off (attempt 3: time_limit)", interrupted=True)
    step = then(state(200.0), broken)
    assert kind_of(step) == "unfinished"
    assert step.reason == "the fit was broken off (attempt 3: time_limit); run again: it continues"


def test_after_a_first_student_that_was_broken_off_there_is_none_either() -> None:
    step = then(state(200.0, unsound="the fit was broken off (attempt 3: time_limit)", interrupted=True))
    assert kind_of(step) == "unfinished"
    assert step.reason.endswith("run again: it continues")


def test_the_gain_that_is_asked_for_counts_from_the_best() -> None:
    rounds = [tried("structures", 150.0), tried("structures", 160.0), tried("functions", 145.0)]
    assert standing(state(200.0), rounds, EXTEND, LIMITS).helped == (True, False, False)


def test_no_number_helps_nothing_and_any_number_beats_it() -> None:
    first = state(float("inf"), training=1.0)
    assert standing(first, [tried("structures", float("inf"))], EXTEND, LIMITS).helped == (False,)
    assert standing(first, [tried("structures", 500.0)], EXTEND, LIMITS).helped == (True,)


@pytest.mark.parametrize("candidates", [0, 60, 5000])
@pytest.mark.parametrize("growable", [True, False])
@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_every_way_ends_within_its_budget(candidates: int, growable: bool, gap: float) -> None:
    for gains in product((0.5, 0.96, 1.5, None), repeat=3):
        walk(gains, candidates, growable, gap)


def walk(gains: tuple[float | None, ...], candidates: int, growable: bool, gap: float) -> None:
    """Whatever the rounds give: sizes within budget, one kind of change at a time, never a size that was tried."""
    first = state(200.0, 200.0 / gap, candidates=candidates, growable=growable)
    extend = EXTEND.model_copy(update={"rounds": 3, "max_structures": 180, "max_functions_per_element": 500})
    rounds: list[Tried] = []
    asked: set[tuple[int, int]] = {(first.structures, first.functions)}
    while isinstance(step := next_extension(first, rounds, extend, LIMITS), Extension):
        base = standing(first, rounds, extend, LIMITS).state
        changed = {kind for kind in KINDS if getattr(step, kind) != getattr(base, kind)}
        assert changed == {step.kind}
        assert base.structures <= step.structures <= 180
        assert base.functions <= step.functions <= 500
        assert (step.structures, step.functions) not in asked
        asked.add((step.structures, step.functions))
        gain = gains[len(rounds)]
        left = base.candidates - (step.structures - base.structures)
        sizes = {"structures": step.structures, "functions": step.functions, "candidates": left, "growable": growable}
        error = base.validation.force_mae_meV_per_A * (gain or 1)
        rounds.append(tried(step.kind, error if gain else None, training=error / gap, **sizes))
    assert len(rounds) <= 3
    assert step.why in ("reached", "rounds", "no_gain", "nothing_left")
    assert step.reason
