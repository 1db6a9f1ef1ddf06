"""The loop of attempts with a fake in the place of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.config.schema import DistillConfig
from flows.config.training import Limits, Stage
from flows.data.recipe import Recipe, stages_of
from flows.data.training_set import TrainingSet
from flows.fit.attempts import Attempt, fit, led_to
from flows.fit.student import make_student
from flows.fit.verdict import HINTS, HINTS_OF_NOTHING
from flows.run import Run
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepCancelled, StepFailed, StoreError
from tasks.settings import Settings
from tasks.workspace import Workspace

Answer = Artefact | Exception
LIMITS = Limits(force_mae_meV_per_A=120, energy_mae_meV_per_atom=20)
WORKSPACE = Workspace(root=Path("nowhere"), settings=Settings(cores=1))
ENDED_BY_ACCIDENT = ("killed", "crashed", "out_of_memory", "time_limit")


class FakeStep:
    """Answers one call after the other and remembers them."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[StepCall] = []
        self.names: list[str | None] = []

    def __call__(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
        self.calls.append(call)
        self.names.append(run_name)
        answer = self.answers[len(self.calls) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def failed(kind: str, message: str = "as the test wants") -> StepFailed:
    return StepFailed("pace_train", kind, message, Path("kept"))


def attempted(recipe: Recipe, data: Artefact, run: FakeStep) -> tuple[list[Attempt], Artefact]:
    return fit(recipe, data, LIMITS, Run(WORKSPACE, step=run))


def with_train(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe of the defaults but for these keys of `train`."""
    given = {"name": "test", "teacher": {"model": "teacher.model"}, "pool": {"files": ["pool.extxyz"]}}
    config = DistillConfig.model_validate({**given, "train": changes})
    train = {"staged": bool(config.train.stages), "max_attempts": config.train.max_attempts}
    return recipe.model_copy(update={"stages": stages_of(config, recipe.potential), **train})


GOOD = {"force": 10}
KILLED = {"stop_reason": "killed"}
NO_MEMORY = {"stop_reason": "out_of_memory", "batch": 14, "iterations": 30}
STAGES = [Stage(kappa=0.3, maxiter=100), Stage(kappa=0.02, maxiter=40)]
STAGED: dict[str, Any] = {"stages": STAGES, "ladder_step": 30}
STRONGER = {"l1": 1e-6, "l2": 1e-6, "kappa": 0.3}
FRESH = {"start": None}


def interim(number: int, **params: Any) -> dict[str, Any]:
    """The fit begins with the interim potential of an attempt, from 0."""
    return {"start": (number, "interim"), **params}


def best_of(number: int, **params: Any) -> dict[str, Any]:
    return {"start": (number, "best"), **params}


@pytest.mark.parametrize(
    ("train", "answers", "wanted"),
    [
        ({}, [GOOD], [FRESH]),
        ({"maxiter": 7, "batch_size": 9}, [GOOD], [{"maxiter": 7, "batch_size": 9, "ladder_step": None}]),
        # used-up iterations continue from the newest interim, which need not be the best
        ({}, [{}, {"force": 400}, GOOD], [{"maxiter": 150}, interim(0, maxiter=150), interim(1, maxiter=150)]),
        ({}, [{"force": 300}, {"force": 600}, GOOD], [FRESH, interim(0), interim(1)]),
        # out of memory: before it reports its batch the step chooses again, by the memory that it sees
        ({}, ["OutOfMemory", GOOD], [{"batch_size": "auto", "batch_share": 1.0}, {**FRESH, "batch_share": 0.5}]),
        ({}, ["OutOfMemory", "OutOfMemory", GOOD], [FRESH, FRESH, {"batch_size": "auto", "batch_share": 0.25}]),
        ({}, [NO_MEMORY, GOOD], [{}, interim(0, batch_size=7, maxiter=120)]),
        ({}, [{}, "OutOfMemory", GOOD], [{}, interim(0), interim(0, batch_size="auto", batch_share=0.5)]),
        *(  # diverged: regularised, then with a ladder
            (
                {},
                [diverged, diverged, GOOD],
                [
                    {**FRESH, "ladder_step": None, "l1": 1e-8, "l2": 1e-8, "kappa": 0.3},
                    {**FRESH, "ladder_step": None, **STRONGER},
                    {**FRESH, "ladder_step": 50, **STRONGER},
                ],
            )
            for diverged in ("Diverged", {"stop_reason": "diverged"})
        ),
        ({}, [{}, "Diverged", GOOD], [{}, interim(0), FRESH]),
        *(  # broken off: the remaining iterations
            (
                {},
                [{"stop_reason": end, "iterations": 60}, {"stop_reason": end, "iterations": 70}, GOOD],
                [{"maxiter": 150}, interim(0, maxiter=90), interim(1, maxiter=20)],
            )
            for end in ("killed", "time_limit", "crashed")
        ),
        # every stage starts from the best before it, also after a converged one, and where it begins again
        (
            STAGED,
            [{"force": 130}, GOOD],
            [{"maxiter": 100, "ladder_step": 30}, best_of(0, maxiter=40, ladder_step=None)],
        ),
        (STAGED, [GOOD, {"force": 9}], [{"kappa": 0.3}, best_of(0, kappa=0.02)]),
        (STAGED, [{}, "Diverged", "Diverged", GOOD], [{}, best_of(0), best_of(0), best_of(0, optimizer="L-BFGS-B")]),
        # only what was broken off is repaired before the last stage; that one takes further iterations
        (
            {"stages": STAGES},
            [{**KILLED, "iterations": 60}, {"force": 300}, GOOD],
            [{}, interim(0, maxiter=40), best_of(1)],
        ),
        (STAGED, [{}, {}, {}, GOOD], [{}, best_of(0), interim(1), interim(2)]),
    ],
)
def test_the_next_attempt_follows_from_the_verdicts(recipe, data, fitted, train, answers, wanted) -> None:
    given = [failed(answer) if isinstance(answer, str) else fitted(**answer) for answer in answers]
    run = FakeStep(*given)
    attempts, best = attempted(with_train(recipe, **train), data, run)
    assert best is given[-1]
    assert attempts[-1].verdict == "converged"
    assert run.names == [attempt.name for attempt in attempts]
    for call, params in zip(run.calls, wanted, strict=True):
        found, figures = {**call.params, **call.params["loss"]}, dict(params)
        if "start" in params:
            start = figures.pop("start")
            assert call.inputs.get("start") == (start and (given[start[0]].file(start[1]),))
        assert {name: found[name] for name in figures} == pytest.approx(figures)


@pytest.mark.parametrize("stop_reason", ["max_iterations", "stalled", "converged", "early_stop"])
def test_an_end_that_no_plan_repairs_any_more_is_logged_with_its_hint(
    recipe, data, fitted, caplog, stop_reason
) -> None:
    with caplog.at_level("WARNING"):
        (attempt,), _ = attempted(with_train(recipe, max_attempts=1), data, FakeStep(fitted(stop_reason)))
    assert f"{attempt.name} ended as {attempt.verdict}. {HINTS[attempt.verdict]}" in caplog.text


def test_the_chain_to_the_best_leaves_out_what_it_did_not_begin_with(recipe, data, fitted) -> None:
    stages = [Stage(kappa=0.3, maxiter=150), Stage(kappa=0.02, maxiter=80)]
    run = FakeStep(failed("Crashed"), fitted("killed", iterations=30), fitted(force=300), fitted(force=10))
    attempts, best = attempted(with_train(recipe, max_attempts=3, stages=stages), data, run)
    assert [attempt.verdict for attempt in attempts][:2] == ["crashed", "killed"]
    chain = led_to(best, attempts)
    assert chain == attempts[1:4], "the crash left nothing, so nothing began with it"
    starts = [None, chain[0].artefact.file("interim"), chain[1].artefact.file("best")]
    assert [attempt.start for attempt in chain] == starts


@pytest.mark.parametrize("kind", ["ProgramMissing", "EnvironmentDiffers", "BadInput", "RowsDiffer", "SomeBug"])
def test_what_no_plan_repairs_is_raised_at_once(recipe, data, kind) -> None:
    run = FakeStep(failure := failed(kind))
    with pytest.raises(StepFailed) as caught:
        attempted(recipe, data, run)
    assert caught.value is failure
    assert len(run.calls) == 1


def test_the_last_failure_is_raised_when_all_fail(recipe, data) -> None:
    run = FakeStep(failed("OutOfMemory", "1"), failed("Killed", "2"), failed("Crashed", "what it said"))
    with pytest.raises(StepFailed, match="what it said") as caught:
        attempted(recipe, data, run)
    assert (caught.value.kind, caught.value.step, caught.value.folder) == ("Crashed", "pace_train", Path("kept"))
    assert "pace_train attempt 2: killed (out of memory: 1/2 of the automatic batch)" in caught.value.message
    assert HINTS_OF_NOTHING["crashed"] in caught.value.message


@pytest.mark.parametrize("error", [StepCancelled("pace_train", "Cancelled", "", Path("kept")), StoreError("disk full")])
def test_a_cancelled_fit_and_an_error_of_the_store_are_no_attempts(recipe, data, fitted, error) -> None:
    with pytest.raises(type(error)) as caught:
        attempted(recipe, data, FakeStep(fitted(), error, fitted(force=10)))
    assert caught.value is error


def test_the_best_is_returned_not_the_last(recipe, data, fitted) -> None:
    run = FakeStep(fitted(force=500), middle := fitted(force=200), failed("ProgramMissing"))
    attempts, best = attempted(recipe, data, run)
    assert best is middle
    assert [attempt.artefact for attempt in attempts[1:]] == [middle, None]
    later = [fitted(force=force) for force in (210, 200, 220)]
    run = FakeStep(fitted(force=130), *later)
    assert attempted(with_train(recipe, **STAGED), data, run)[1] is later[1], "a later stage replaces an earlier one"
    broken = [fitted("time_limit", force=200) for _ in range(3)]
    run = FakeStep(good := fitted(force=130), *broken)
    assert attempted(with_train(recipe, **STAGED), data, run)[1] is good, "but not where something broke it off"


@pytest.mark.parametrize(
    ("most", "answers", "attempts"),
    [
        *((most, [{}] * 6, most) for most in (1, 2, 4)),
        *((2, [{"cached": True}, {"stop_reason": end, "cached": True}, GOOD], 3) for end in ENDED_BY_ACCIDENT),
        (1, [{**KILLED, "cached": True}, KILLED, GOOD], 2),  # a new accident adds none
        *(  # others followed the accident
            (3, [{**KILLED, "cached": first}, {"cached": second}, {"cached": third}, {}], 3)
            for first, second, third in ((True, True, True), (True, True, False), (False, False, False))
        ),
        (2, [{"cached": True}] * 3, 2),  # no accident
    ],
)
def test_an_accident_that_ended_the_earlier_run_adds_an_attempt_to_the_most(
    recipe, data, fitted, most, answers, attempts
) -> None:
    given = [fitted(**answer) for answer in answers]
    run = FakeStep(*given)
    attempted(with_train(recipe, max_attempts=most), data, run)
    assert len(run.calls) == attempts
    if attempts > most:
        assert run.calls[-1].inputs["start"] == (given[attempts - 2].file("interim"),)


@pytest.fixture
def staged(recipe: Recipe) -> Recipe:
    return with_train(recipe, **STAGED)


def test_stages_have_their_names_losses_and_attempts(staged, data, fitted) -> None:
    run = FakeStep(fitted(force=130), fitted(force=10))
    attempts, _ = attempted(staged, data, run)
    assert run.names == ["pace_train stage 1 attempt 1", "pace_train stage 2 attempt 1"]
    assert [(attempt.stage, attempt.verdict) for attempt in attempts] == [(1, "iterations_used_up"), (2, "converged")]
    assert [call.params["loss"]["kappa"] for call in run.calls] == [0.3, 0.02]
    run = FakeStep(*(fitted("killed", iterations=1) for _ in range(9)))
    attempts, _ = attempted(staged, data, run)
    assert [attempt.stage for attempt in attempts] == [1, 1, 1, 2, 2, 2]


def test_all_stages_but_the_last_are_fitted_to_the_plain_data(recipe, data, fitted, artefact) -> None:
    """Without structures for properties, which would raise the errors on others in a long stage."""
    three, plain = with_train(recipe, stages=[*STAGES, STAGES[1]]), artefact("frames", "plain", train_structures=30)
    run = FakeStep(fitted(), fitted(), fitted(force=10))
    fit(three, data, LIMITS, Run(WORKSPACE, step=run), plain=plain)
    assert [call.inputs["train"] for call in run.calls] == [(one.file("train"),) for one in (plain, plain, data)]


def test_a_stage_that_leaves_nothing_ends_the_fit_with_the_best_so_far(recipe, data, fitted, caplog) -> None:
    three = with_train(recipe, stages=[*STAGES, STAGES[1]])
    run = FakeStep(good := fitted(), failed("RowsDiffer", "other rows"))
    with caplog.at_level("WARNING"):
        attempts, best = attempted(three, data, run)
    assert best is good
    assert [attempt.stage for attempt in attempts] == [1, 2]
    assert "other rows" in caplog.text


class FakeStore:
    """Fits whose end depends on their kappa alone, kept by their key: a fit that is requested again is there."""

    def __init__(self, fitted: Callable[..., Artefact], ends: dict[float, tuple[str, float]]) -> None:
        self.fitted, self.ends = fitted, ends
        self.kept: dict[str, Artefact] = {}
        self.ran: list[str | None] = []

    def __call__(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
        key = call.model_dump_json(include={"params", "inputs"})
        if key in self.kept:
            return self.kept[key].model_copy(update={"cached": True})
        self.ran.append(run_name)
        end, force = self.ends[call.params["loss"]["kappa"]]
        self.kept[key] = self.fitted(end, force=force - len(self.kept), iterations=1)
        return self.kept[key]

    def again(self, recipe: Recipe, data: Artefact) -> list[str | None]:
        """Run the same command again; return the names of its fits."""
        self.ran = []
        fit(recipe, data, LIMITS, Run(WORKSPACE, step=self))
        return self.ran


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(((end, 500.0), (last, 10.0)) for end in ENDED_BY_ACCIDENT for last in ("max_iterations", "converged")),
        (("max_iterations", 100.0), ("time_limit", 90.0)),  # at the end of a converged fit
    ],
)
def test_an_accident_is_left_as_it_is_before_another_stage_or_in_a_converged_fit(
    staged, data, fitted, first, second
) -> None:
    store = FakeStore(fitted, {0.3: first, 0.02: second})
    assert len(store.again(staged, data)) == 4
    assert store.again(staged, data) == []
    if second[0] == "time_limit":
        assert attempted(staged, data, store)[1].metrics["stop_reason"] == "max_iterations"


def test_a_fit_that_always_meets_its_time_limit_continues_in_every_run(staged, data, fitted) -> None:
    store = FakeStore(fitted, {0.3: ("max_iterations", 5000.0), 0.02: ("time_limit", 4000.0)})
    store.again(staged, data)
    for attempt in range(4, 34):
        assert store.again(staged, data) == [f"pace_train stage 2 attempt {attempt}"]


def test_a_fit_may_begin_with_a_potential_and_have_a_name(recipe, data, fitted, artefact) -> None:
    start = artefact("pace_train", "round 1").file("best")
    run = FakeStep(first := fitted(), fitted(force=10))
    fit(recipe, data, LIMITS, Run(WORKSPACE, of="round 2", step=run), start)
    assert run.names == ["pace_train round 2 attempt 1", "pace_train round 2 attempt 2"]
    assert [call.inputs["start"] for call in run.calls] == [(start,), (first.file("interim"),)]


@pytest.mark.parametrize(("picoseconds", "steps"), [(2.0, ["stability"]), (0.0, [])])
def test_a_student_is_finished_from_the_best_potential(prepared, data, fitted, artefact, picoseconds, steps) -> None:
    gate = prepared.config.stability.model_copy(update={"picoseconds": picoseconds})
    gated = prepared.with_config(prepared.config.model_copy(update={"stability": gate}))
    called: list[StepCall] = []
    best = fitted(force=10)

    def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
        if call.step == "pace_train":
            return best
        called.append(call)
        return artefact(call.step)

    student = make_student(gated, TrainingSet(artefact("pace_select"), data), Run(WORKSPACE, step=step))
    assert student.taken.artefact is student.fit is best
    assert [call.step for call in called] == ["pace_activeset", "pace_corerep", *steps, "evaluate"]
    assert called[0].inputs["potential"] == called[1].inputs["interim"] == (best.file("best"),)
    assert (student.stability is not None) == bool(steps)
