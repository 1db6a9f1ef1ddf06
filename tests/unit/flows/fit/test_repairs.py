from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from containers.tensorpot.pacemaker.input import EarlyStop, Fit, Loss
from flows.config.training import Limits
from flows.fit import repairs as plans
from flows.fit.repairs import MOST_AGAIN, REPAIRS, FitPlan, Left, first_plan, left_by, next_plan
from flows.fit.verdict import SOUND, VERDICTS, FitOutcome, Verdict

STOP = EarlyStop()
PLAN = FitPlan(stage_maxiter=50, maxiter=50, kappa=0.3, batch_size=20)
SHORT = PLAN.model_copy(update={"maxiter": 30, "start": "continue"})
CONTINUED = PLAN.model_copy(update={"start": "continue"})
LADDER = PLAN.model_copy(update={"ladder_step": 30})
ONWARD = PLAN.model_copy(update={"onward": True, "stage": 2})
NOISY = CONTINUED.model_copy(update={"cycles": 2, "noise": plans.NOISE})
NEW_START = CONTINUED.model_copy(update={"tried": ("new start",)})

AUTO = PLAN.model_copy(update={"batch_size": "auto"})
UNKNOWN = Left(batch_size=None)
NOTHING = Left(batch_size=20)
SOME = Left(batch_size=20, iterations=12, resumable=True)
ALL = Left(batch_size=20, iterations=50, resumable=True)
CONTINUE = {"start": "continue"}
HELPLESS = ("converged", "early_stop", "cancelled", "program_missing", "bad_data", "failed")
NOISE = {"cycles": 2, "noise": plans.NOISE}


def but(plan: FitPlan, **changes: Any) -> FitPlan:
    return plan.model_copy(update=changes)


@pytest.mark.parametrize(
    ("plan", "judged", "left", "changes"),
    [
        (PLAN, "iterations_used_up", ALL, CONTINUE),
        (LADDER, "iterations_used_up", ALL, {**CONTINUE, "ladder_step": None}),
        (SHORT, "iterations_used_up", ALL, {"maxiter": 50}),
        (PLAN, "killed", SOME, {**CONTINUE, "maxiter": 38}),
        (SHORT, "killed", SOME, {"maxiter": 18}),
        (PLAN, "killed", ALL, CONTINUE),
        (LADDER, "killed", SOME, {**CONTINUE, "ladder_step": None}),
        (NOISY, "killed", SOME, {}),
        (LADDER, "killed", NOTHING, {}),
        (PLAN, "time_limit", SOME, {**CONTINUE, "maxiter": 38}),
        (PLAN, "stalled", SOME, CONTINUE),
        (NEW_START, "stalled", SOME, NOISE),
        (but(NEW_START, **NOISE), "stalled", SOME, {"optimizer": "L-BFGS-B"}),
        (PLAN, "out_of_memory", NOTHING, {"batch_size": 10}),
        (PLAN, "out_of_memory", SOME, {**CONTINUE, "batch_size": 10, "maxiter": 38}),
        (CONTINUED, "out_of_memory", NOTHING, {"batch_size": 10}),
        (AUTO, "out_of_memory", UNKNOWN, {"batch_share": 0.5}),
        (but(AUTO, batch_share=0.5), "out_of_memory", UNKNOWN, {"batch_share": 0.25}),
        (but(AUTO, batch_share=0.5), "out_of_memory", NOTHING, {"batch_size": 10, "batch_share": 1.0}),
        (but(PLAN, batch_size=1), "out_of_memory", Left(1, 12, True), {**CONTINUE, "maxiter": 38}),
        (PLAN, "diverged", SOME, {"l1": 1e-6, "l2": 1e-6}),
        (but(PLAN, l1=0.0, l2=0.0), "diverged", NOTHING, {"l1": 1e-6, "l2": 1e-6}),  # counts as very little
        (SHORT, "diverged", NOTHING, {"l1": 1e-6, "l2": 1e-6, "start": "fresh", "maxiter": 50}),
        (but(PLAN, l2=1e-6), "diverged", NOTHING, {"ladder_step": plans.LADDER_STEP}),
        (but(LADDER, l2=1e-6), "diverged", NOTHING, {"optimizer": "L-BFGS-B"}),
        (but(ONWARD, l2=1e-6), "diverged", NOTHING, {"optimizer": "L-BFGS-B"}),
        (PLAN, "crashed", SOME, {**CONTINUE, "maxiter": 38}),
        (LADDER, "crashed", NOTHING, {"ladder_step": None}),
        (but(LADDER, early_stop=STOP), "crashed", SOME, {"early_stop": None}),
        (but(NOISY, early_stop=STOP), "crashed", SOME, {"early_stop": None}),
        (CONTINUED, "crashed", NOTHING, {"batch_size": 10}),
        (
            but(NOISY, early_stop=STOP),
            "crashed",
            NOTHING,
            {"batch_size": 10},
        ),  # before any iteration: no early stopping
        (but(AUTO, start="continue"), "crashed", UNKNOWN, {"batch_share": 0.5}),
        (but(LADDER, tried=("ladder",)), "crashed", NOTHING, {"batch_size": 10}),
        (LADDER, "no_iteration", NOTHING, {"ladder_step": None}),
        (CONTINUED, "no_iteration", NOTHING, NOISE),
        (ONWARD, "no_iteration", NOTHING, NOISE),
        (PLAN, "no_iteration", NOTHING, {"optimizer": "L-BFGS-B"}),
    ],
)
def test_the_next_plan_changes_this_and_nothing_else(
    plan: FitPlan, judged: Any, left: Left, changes: dict[str, Any]
) -> None:
    if judged == "diverged":
        left = Left(left.batch_size, left.iterations)
    coming = next_plan(plan, judged, left)
    assert coming is not None
    before, after = ({**dict(one), "reason": "", "tried": ""} for one in (plan, coming))
    assert after == pytest.approx({**before, **changes})
    assert coming.reason != plan.reason
    assert coming.tried[:-1] == plan.tried


@pytest.mark.parametrize(
    ("kappa", "lower", "higher"), [(0.3, 0.0411, 0.8108), (0.02, 0.002, 0.1695), (0.99, 0.908, 0.999)]
)
def test_kappa_moves_to_what_misses(kappa: float, lower: float, higher: float) -> None:
    plan = but(PLAN, kappa=kappa)
    for missed, wanted in (("energy", lower), ("force", higher)):
        coming = next_plan(plan, "not_accurate", Left(20, 50, True, frozenset({missed})))
        assert coming is not None
        assert coming.kappa == pytest.approx(wanted, abs=5e-4)
        assert (coming.start, coming.maxiter) == ("continue", 50)
        assert missed in coming.reason


def missed(*errors: str) -> Left:
    return Left(20, 50, True, frozenset(errors))


def test_kappa_moves_once_each_way() -> None:
    lower = next_plan(PLAN, "not_accurate", missed("energy"))
    assert lower is not None
    assert next_plan(lower, "not_accurate", missed("energy")) is None
    higher = next_plan(lower, "not_accurate", missed("force"))
    assert higher is not None
    assert higher.kappa == pytest.approx(0.3, abs=1e-3)
    assert next_plan(higher, "not_accurate", missed("energy")) is None
    assert next_plan(higher, "not_accurate", missed("force")) is None


@pytest.mark.parametrize(
    ("plan", "judged", "left"),
    [
        *((PLAN, end, left) for end in HELPLESS for left in (NOTHING, SOME, ALL)),
        (PLAN, "not_accurate", missed("energy", "force")),
        (but(PLAN, kappa="auto"), "not_accurate", missed("energy")),  # pacemaker chooses it
        (but(PLAN, kappa=0.0), "not_accurate", missed("energy")),  # there is no less
        (PLAN, "time_limit", NOTHING),
        (but(PLAN, batch_size=1), "out_of_memory", Left(batch_size=1)),
        (but(AUTO, batch_share=plans.LEAST_SHARE), "out_of_memory", UNKNOWN),  # it would change no batch
    ],
)
def test_no_other_plan_helps(plan: FitPlan, judged: Any, left: Left) -> None:
    assert next_plan(plan, judged, left) is None


@pytest.mark.parametrize("judged", SOUND)
def test_a_stage_that_is_not_the_last_ends_with_a_fit_that_came_to_its_end(judged: Verdict) -> None:
    assert next_plan(PLAN, judged, Left(20, 50, True, frozenset({"energy"})), last=False) is None


@pytest.mark.parametrize("judged", ["killed", "time_limit", "crashed", "out_of_memory"])
def test_what_was_broken_off_is_repaired_in_every_stage(judged: Verdict) -> None:
    assert next_plan(PLAN, judged, SOME, last=False) == next_plan(PLAN, judged, SOME, last=True)


def test_a_fit_diverges_until_there_is_nothing_left_to_try() -> None:
    path = [PLAN]
    while (coming := next_plan(path[-1], "diverged", NOTHING)) is not None:
        path.append(coming)
    assert [(plan.l2, plan.ladder_step, plan.optimizer) for plan in path] == [
        (1e-8, None, "BFGS"),
        (1e-6, None, "BFGS"),
        (1e-6, plans.LADDER_STEP, "BFGS"),
        (1e-6, plans.LADDER_STEP, "L-BFGS-B"),
    ]


def test_the_first_plan_is_the_fit_of_its_stage() -> None:
    loss = Loss(kappa="auto", l1=0.0, l2=1e-5)
    fit = Fit(loss=loss, maxiter=33, optimizer="L-BFGS-B", ladder_step=7, early_stop=STOP, batch_size=9)
    plan = first_plan(fit)
    assert plan == FitPlan(
        stage_maxiter=33, maxiter=33, kappa="auto", batch_size=9, l1=0.0, l2=1e-5, optimizer="L-BFGS-B", ladder_step=7,
        early_stop=STOP,
    )  # fmt: skip
    later = first_plan(fit, stage=2, onward=True)
    assert (later.stage, later.ladder_step, later.onward, later.maxiter) == (2, None, True, 33)


def test_what_an_attempt_left() -> None:
    limits = Limits(force_mae_meV_per_A=100, energy_mae_meV_per_atom=10)
    errors = {"validation_force_mae_meV_per_A": 101.0, "validation_energy_mae_meV_per_atom": 10.0}
    metrics = {"stop_reason": "killed", "iterations": 9, "interim_iteration": 7, "batch_size": 6, **errors}
    assert left_by(FitOutcome(metrics=metrics), PLAN, limits, 30) == Left(6, 7, True, frozenset({"force"}))
    rose = FitOutcome(metrics={**metrics, "stop_reason": "diverged"})
    assert not left_by(rose, PLAN, limits, 30).resumable
    assert left_by(FitOutcome(failure="OutOfMemory"), PLAN, limits, 30) == Left(20)
    assert left_by(FitOutcome(failure="OutOfMemory"), AUTO, limits, 30) == Left(None)
    assert left_by(FitOutcome(failure="OutOfMemory"), PLAN, limits, 7) == Left(7), "a batch of 20 is one of all 7"


# Every plan that can be reached by any verdicts, in any order, whatever an attempt left.

Graph = dict[FitPlan, list[tuple[Verdict, FitPlan]]]
TOGETHER = ({"l1", "l2"}, {"cycles", "noise"}, {"batch_size", "batch_share"})
ALONG = {"start", "maxiter", "reason", "tried"}
BEGINNINGS = {
    "plain": FitPlan(stage_maxiter=2, maxiter=2, kappa=0.3, batch_size=2),
    "ladder": FitPlan(stage_maxiter=2, maxiter=2, kappa="auto", batch_size="auto", ladder_step=9, early_stop=STOP),
    "second stage": FitPlan(stage_maxiter=2, maxiter=2, kappa=0.02, batch_size=2, stage=2, onward=True),
    "L-BFGS-B": FitPlan(stage_maxiter=2, maxiter=2, kappa=0.3, batch_size=1, optimizer="L-BFGS-B", l2=1e-3),
}


def possible(plan: FitPlan, judged: Verdict) -> Iterator[Left]:
    """Yield the states that an attempt with this verdict may leave."""
    batch = 2 if plan.batch_size == "auto" else plan.batch_size
    if judged not in SOUND:
        yield Left(None if plan.batch_size == "auto" else batch)
    if judged == "not_accurate":
        for missed in ((), ("energy",), ("force",), ("energy", "force")):
            yield Left(batch, plan.maxiter, True, frozenset(missed))
    elif judged not in ("no_iteration", "diverged"):
        for done in range(1, plan.maxiter + 1):
            yield Left(batch, done, True)


def reached(first: FitPlan) -> Graph:
    """Every plan with those that may follow it. What was tried counts, the order does not."""
    graph: Graph = {}
    open_ends = [but(first, reason="")]
    while open_ends:
        plan = open_ends.pop()
        if plan in graph:
            continue
        following = [
            (judged, but(coming, reason="", tried=tuple(sorted(coming.tried))))
            for judged in VERDICTS
            for left in possible(plan, judged)
            if (coming := next_plan(plan, judged, left))
        ]
        graph[plan] = following
        open_ends += [coming for _, coming in following]
    return graph


@pytest.fixture(scope="module", params=BEGINNINGS)
def graph(request: pytest.FixtureRequest) -> Iterator[Graph]:
    """With repairs that are taken once at most where the real ones may be taken very often."""
    few = {
        judged: tuple(repair._replace(times=min(repair.times, 1)) for repair in repairs)
        for judged, repairs in REPAIRS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "REPAIRS", few)
        yield reached(BEGINNINGS[request.param])


def test_one_thing_changes_at_a_time(graph: Graph) -> None:
    for plan, following in graph.items():
        assert not plan.ladder_step or (plan.start == "fresh" and not plan.onward), (
            "a ladder has no potential before it"
        )
        for _, coming in following:
            changed = {name for name in FitPlan.model_fields if getattr(plan, name) != getattr(coming, name)} - ALONG
            if coming.start == "continue":
                changed -= {"ladder_step"}  # a fit that continues has none
            assert len(changed) <= 1 or changed in TOGETHER, (plan, coming)


def test_no_fit_is_done_again(graph: Graph) -> None:
    """But for one that was killed before it began, and those that continue from another potential. Every walk ends."""

    def fit_of(plan: FitPlan) -> FitPlan:
        return but(plan, tried=())

    after: dict[FitPlan, frozenset[FitPlan]] = {}
    for plan in in_order(graph):
        coming = frozenset[FitPlan]().union(*(after[plan] for _, plan in graph[plan]))
        fresh = {fit_of(each) for judged, each in graph[plan] if each.start == "fresh" and judged != "killed"}
        after[plan] = coming | fresh
        assert fit_of(plan) not in fresh, plan
        assert plan.start == "continue" or fit_of(plan) not in coming, plan


def in_order(graph: Graph) -> list[FitPlan]:
    """The plans, each after all that may follow it; fails where a plan may follow itself: such a walk has no end."""
    waiting = Counter({plan: len(following) for plan, following in graph.items()})
    before: dict[FitPlan, list[FitPlan]] = {plan: [] for plan in graph}
    for plan, following in graph.items():
        for _, coming in following:
            before[coming].append(plan)
    ends = [plan for plan, following in graph.items() if not following]
    order = []
    while ends:
        order.append(plan := ends.pop())
        for earlier in before[plan]:
            waiting[earlier] -= 1
            if waiting[earlier] == 0:
                ends.append(earlier)
    assert len(order) == len(graph)
    return order


@pytest.mark.parametrize("judged", VERDICTS)
def test_the_same_verdict_for_ever_ends_too(judged: Verdict) -> None:
    for left in (NOTHING, ALL):
        plan: FitPlan | None = PLAN
        walked = 0
        while plan is not None:
            plan, walked = next_plan(plan, judged, left), walked + 1
            assert walked <= MOST_AGAIN + 2


def test_the_reasons_are_words_for_the_reader() -> None:
    coming = next_plan(PLAN, "out_of_memory", NOTHING)
    assert coming is not None
    assert coming.reason == "out of memory: batch 20 -> 10"
    coming = next_plan(PLAN, "killed", SOME)
    assert coming is not None
    assert coming.reason == "it was killed: 38 iterations, continued from its interim potential"
