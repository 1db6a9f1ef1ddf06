"""The loop of attempts with a fake in the place of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.config.schema import DistillConfig
from flows.config.training import Stage
from flows.data.recipe import Recipe, stages_of
from flows.data.training_set import TrainingSet
from flows.fit.attempts import Attempt, attempt_name, fit, led_to
from flows.fit.student import make_student
from flows.fit.verdict import HINTS, HINTS_OF_NOTHING
from flows.run import Run
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepCancelled, StepFailed, StoreError
from tasks.settings import Settings
from tasks.workspace import Workspace

Answer = Artefact | Exception
WORKSPACE = Workspace(root=Path("nowhere"), settings=Settings(cores=1))


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

    def params(self, number: int, *names: str) -> tuple[Any, ...]:
        return tuple(self.calls[number].params[name] for name in names)


@pytest.fixture
def fitted(artefact: Callable[..., Artefact]) -> Callable[..., Artefact]:
    """Makes the result of a fit; every one has an interim potential of its own."""
    made: list[Artefact] = []

    def make(
        stop_reason: str = "max_iterations",
        force: float = 500.0,
        cached: bool = False,
        energy: float = 1.0,
        iterations: int = 150,
        batch: int = 24,
    ) -> Artefact:
        errors = {"validation_force_mae_meV_per_A": force, "validation_energy_mae_meV_per_atom": energy}
        done = {"iterations": iterations + 1, "interim_iteration": iterations}
        counts = {"stop_reason": stop_reason, **done, "batch_size": batch}
        made.append(artefact("pace_train", f"fit {len(made)}", cached, **counts, **errors))
        return made[-1]

    return make


def failed(kind: str, message: str = "as the test wants") -> StepFailed:
    return StepFailed("pace_train", kind, message, Path("kept"))


def attempted(recipe: Recipe, data: Artefact, run: FakeStep) -> tuple[list[Attempt], Artefact]:
    return fit(recipe, data, Run(WORKSPACE, step=run))


def with_train(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe of the defaults but for these keys of `train`."""
    given = {"name": "test", "teacher": {"model": "teacher.model"}, "pool": {"files": ["pool.extxyz"]}}
    config = DistillConfig.model_validate({**given, "train": changes})
    train = {"staged": bool(config.train.stages), "max_attempts": config.train.max_attempts}
    return recipe.model_copy(update={"stages": stages_of(config, recipe.potential), **train})


def test_a_converged_fit_is_the_only_one(recipe, data, fitted) -> None:
    run = FakeStep(good := fitted(force=10))
    attempts, best = attempted(recipe, data, run)
    assert best is good
    assert [attempt.verdict for attempt in attempts] == ["converged"]
    assert run.names == ["pace_train attempt 1"]
    assert list(run.calls[0].inputs) == ["train", "validation"]


@pytest.mark.parametrize("stop_reason", ["max_iterations", "stalled", "converged", "early_stop"])
def test_an_end_that_no_plan_mends_any_more_is_told_with_its_mend(recipe, data, fitted, caplog, stop_reason) -> None:
    with caplog.at_level("WARNING"):
        (attempt,), _ = attempted(with_train(recipe, max_attempts=1), data, FakeStep(fitted(stop_reason)))
    assert f"{attempt.name} ended as {attempt.verdict}. {HINTS[attempt.verdict]}" in caplog.text


def test_used_up_iterations_go_on_from_the_newest_interim(recipe, data, fitted) -> None:
    run = FakeStep(first := fitted(), second := fitted(force=400), fitted(force=10))
    attempts, _ = attempted(recipe, data, run)
    assert [list(call.inputs) for call in run.calls[1:]] == [["train", "validation", "start"]] * 2
    assert run.calls[1].inputs["start"] == (first.file("interim"),)
    assert run.calls[2].inputs["start"] == (second.file("interim"),)
    assert run.calls[0].params == run.calls[2].params
    assert run.names == [attempt.name for attempt in attempts]


def test_the_chain_to_the_best_leaves_out_what_it_did_not_begin_with(recipe, data, fitted) -> None:
    stages = [Stage(kappa=0.3, maxiter=150), Stage(kappa=0.02, maxiter=80)]
    run = FakeStep(failed("Crashed"), fitted("killed", iterations=30), fitted(force=300), fitted(force=10))
    attempts, best = attempted(with_train(recipe, max_attempts=3, stages=stages), data, run)
    assert [attempt.verdict for attempt in attempts][:2] == ["crashed", "killed"]
    chain = led_to(best, attempts)
    assert chain == attempts[1:4], "the crash left nothing, so nothing began with it"
    assert [attempt.start for attempt in chain] == [
        None,
        chain[0].artefact.file("interim"),
        chain[1].artefact.file("best"),
    ]


def test_a_worse_attempt_still_is_the_newest_to_go_on_from(recipe, data, fitted) -> None:
    run = FakeStep(fitted(force=300), worse := fitted(force=600), fitted(force=10))
    attempted(recipe, data, run)
    assert run.calls[2].inputs["start"] == (worse.file("interim"),)


def test_out_of_memory_halves_the_batch_and_starts_again(recipe, data, fitted) -> None:
    """The step that chose the batch did not live to tell it, and chooses again: by the memory that it sees."""
    run = FakeStep(failed("OutOfMemory"), failed("OutOfMemory"), fitted(force=10))
    attempts, _ = attempted(recipe, data, run)
    assert [run.params(number, "batch_size", "batch_share") for number in range(3)] == [
        ("auto", 1.0), ("auto", 0.5), ("auto", 0.25),
    ]  # fmt: skip
    assert "start" not in run.calls[1].inputs
    assert attempts[1].plan.reason == "out of memory: 1/2 of the automatic batch"


def test_out_of_memory_with_an_interim_halves_the_batch_and_continues(recipe, data, fitted) -> None:
    run = FakeStep(broken := fitted("out_of_memory", batch=14, iterations=30), fitted(force=10))
    attempted(recipe, data, run)
    assert run.params(1, "batch_size", "maxiter") == (7, 120)
    assert run.calls[1].inputs["start"] == (broken.file("interim"),)


def test_out_of_memory_in_a_continued_fit_goes_on_from_the_one_before(recipe, data, fitted) -> None:
    run = FakeStep(first := fitted(), failed("OutOfMemory"), fitted(force=10))
    attempted(recipe, data, run)
    assert run.calls[2].inputs["start"] == (first.file("interim"),)
    assert run.params(2, "batch_size", "batch_share") == ("auto", 0.5)


@pytest.mark.parametrize("how", ["failure", "result"])
def test_a_diverged_fit_starts_again_regularised_then_with_a_ladder(recipe, data, fitted, how) -> None:
    bad = [failed("Diverged") if how == "failure" else fitted("diverged") for _ in range(2)]
    run = FakeStep(*bad, fitted(force=10))
    attempted(recipe, data, run)
    before, after = run.calls[0].params["loss"], run.calls[1].params["loss"]
    assert (after["l1"], after["l2"]) == pytest.approx((100 * before["l1"], 100 * before["l2"]))
    assert after["kappa"] == before["kappa"]
    assert run.calls[2].params["loss"] == after
    assert [run.params(number, "ladder_step") for number in range(3)] == [(None,), (None,), (50,)]
    assert not any("start" in call.inputs for call in run.calls)


@pytest.mark.parametrize("end", ["killed", "time_limit", "crashed"])
def test_what_was_broken_off_goes_on_with_what_remains(recipe, data, fitted, end) -> None:
    run = FakeStep(first := fitted(end, iterations=60), second := fitted(end, iterations=70), fitted(force=10))
    attempts, _ = attempted(recipe, data, run)
    assert [run.params(number, "maxiter") for number in range(3)] == [(150,), (90,), (20,)]
    assert [call.inputs.get("start") for call in run.calls] == [
        None,
        (first.file("interim"),),
        (second.file("interim"),),
    ]
    assert [attempt.verdict for attempt in attempts] == [end, end, "converged"]


def test_a_fresh_start_takes_no_interim_that_is_there(recipe, data, fitted) -> None:
    run = FakeStep(fitted(), failed("Diverged"), fitted(force=10))
    attempts, _ = attempted(recipe, data, run)
    assert attempts[2].plan.start == "fresh"
    assert "start" not in run.calls[2].inputs


@pytest.mark.parametrize("kind", ["ProgramMissing", "EnvironmentDiffers", "BadInput", "RowsDiffer", "SomeBug"])
def test_what_no_plan_mends_is_raised_at_once(recipe, data, kind) -> None:
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


def test_a_cancelled_fit_is_over_whatever_it_has(recipe, data, fitted) -> None:
    run = FakeStep(fitted(), stop := StepCancelled("pace_train", "Cancelled", "", Path("kept")))
    with pytest.raises(StepCancelled) as caught:
        attempted(recipe, data, run)
    assert caught.value is stop


def test_another_error_is_not_an_attempt(recipe, data, fitted) -> None:
    run = FakeStep(StoreError("the disk is full"), fitted(force=10))
    with pytest.raises(StoreError, match="disk is full"):
        attempted(recipe, data, run)


def test_a_failure_after_a_result_does_not_lose_the_result(recipe, data, fitted) -> None:
    run = FakeStep(first := fitted(), failed("ProgramMissing"))
    attempts, best = attempted(recipe, data, run)
    assert best is first
    assert attempts[1].artefact is None
    assert len(run.calls) == 2


def test_the_best_is_returned_not_the_last(recipe, data, fitted) -> None:
    run = FakeStep(fitted(force=500), middle := fitted(force=200), fitted(force=300))
    attempts, best = attempted(recipe, data, run)
    assert best is middle
    assert attempts[1].artefact is middle


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_max_attempts_is_obeyed(recipe, data, fitted, limit) -> None:
    run = FakeStep(*(fitted() for _ in range(6)))
    attempted(with_train(recipe, max_attempts=limit), data, run)
    assert len(run.calls) == limit


@pytest.mark.parametrize("accident", ["killed", "crashed", "out_of_memory", "time_limit"])
def test_a_run_goes_on_where_an_accident_ended_the_earlier_one(recipe, data, fitted, accident) -> None:
    earlier = [fitted(cached=True), broken := fitted(accident, cached=True)]
    run = FakeStep(*earlier, good := fitted(force=10))
    _, best = attempted(with_train(recipe, max_attempts=2), data, run)
    assert best is good
    assert run.calls[2].inputs["start"] == (broken.file("interim"),)


def test_a_new_accident_adds_no_attempt(recipe, data, fitted) -> None:
    run = FakeStep(fitted("killed", cached=True), fitted("killed"), fitted(force=10))
    attempted(with_train(recipe, max_attempts=1), data, run)
    assert len(run.calls) == 2


@pytest.mark.parametrize("cached", [(True, True, True), (True, True, False), (False, False, False)])
def test_an_accident_that_others_followed_adds_no_attempt(recipe, data, fitted, cached) -> None:
    ends = ("killed", "max_iterations", "max_iterations", "max_iterations")
    run = FakeStep(*(fitted(end, cached=old) for end, old in zip(ends, (*cached, False), strict=True)))
    attempted(with_train(recipe, max_attempts=3), data, run)
    assert len(run.calls) == 3


def test_the_cached_end_of_a_used_up_run_is_not_an_accident(recipe, data, fitted) -> None:
    run = FakeStep(*(fitted(cached=True) for _ in range(3)))
    attempted(with_train(recipe, max_attempts=2), data, run)
    assert len(run.calls) == 2


STAGES = [Stage(kappa=0.3, maxiter=100), Stage(kappa=0.02, maxiter=40)]


@pytest.fixture
def staged(recipe: Recipe) -> Recipe:
    return with_train(recipe, stages=STAGES, ladder_step=30)


def test_every_stage_goes_on_from_the_best_before_it(staged, data, fitted) -> None:
    run = FakeStep(one := fitted(force=130), two := fitted(force=10))
    attempts, best = attempted(staged, data, run)
    assert best is two
    assert run.names == ["pace_train stage 1 attempt 1", "pace_train stage 2 attempt 1"]
    assert [(attempt.stage, attempt.verdict) for attempt in attempts] == [(1, "iterations_used_up"), (2, "converged")]
    assert [call.params["loss"]["kappa"] for call in run.calls] == [0.3, 0.02]
    assert [run.params(number, "maxiter", "ladder_step") for number in range(2)] == [(100, 30), (40, None)]
    assert run.calls[1].inputs["start"] == (one.file("best"),)


def test_automatic_iterations_are_in_proportion_to_the_parameters(recipe, data, fitted) -> None:
    parameters = recipe.potential.functions().parameters
    run = FakeStep(fitted(force=10), fitted(force=9))
    attempted(
        with_train(recipe, stages=[Stage(kappa=0.3, maxiter="auto"), Stage(kappa=0.03, maxiter="auto")]), data, run
    )
    assert [call.params["maxiter"] for call in run.calls] == [parameters // 5, parameters // 20]


def test_a_stage_that_converged_is_followed_by_the_next(staged, data, fitted) -> None:
    run = FakeStep(fitted(force=10), fitted(force=9))
    attempts, _ = attempted(staged, data, run)
    assert [attempt.verdict for attempt in attempts] == ["converged", "converged"]


def test_what_broke_a_stage_off_is_repaired_before_the_next(recipe, data, fitted) -> None:
    run = FakeStep(broken := fitted("killed", iterations=60), ended := fitted(force=300), fitted(force=10))
    attempted(with_train(recipe, stages=STAGES), data, run)
    assert run.names[1:] == ["pace_train stage 1 attempt 2", "pace_train stage 2 attempt 1"]
    assert run.params(1, "maxiter") == (40,)
    assert [call.inputs["start"] for call in run.calls[1:]] == [(broken.file("interim"),), (ended.file("best"),)]


def test_the_last_stage_alone_takes_further_iterations(staged, data, fitted) -> None:
    run = FakeStep(fitted(), fitted(), last := fitted(), fitted(force=10))
    attempted(staged, data, run)
    assert run.names[-1] == "pace_train stage 2 attempt 3"
    assert run.calls[-1].inputs["start"] == (last.file("interim"),)


def test_a_later_stage_that_begins_again_begins_with_the_best_before_it(staged, data, fitted) -> None:
    run = FakeStep(one := fitted(), failed("Diverged"), failed("Diverged"), fitted(force=10))
    attempted(staged, data, run)
    assert [call.inputs["start"] for call in run.calls[1:]] == [(one.file("best"),)] * 3
    assert run.params(3, "ladder_step", "optimizer") == (None, "L-BFGS-B")


def test_a_stage_that_leaves_nothing_ends_the_fit_with_the_best_so_far(recipe, data, fitted, caplog) -> None:
    three = with_train(recipe, stages=[*STAGES, STAGES[1]])
    run = FakeStep(good := fitted(), failed("RowsDiffer", "other rows"))
    with caplog.at_level("WARNING"):
        attempts, best = attempted(three, data, run)
    assert best is good
    assert [attempt.stage for attempt in attempts] == [1, 2]
    assert "other rows" in caplog.text


def test_the_best_may_be_of_an_earlier_stage(staged, data, fitted) -> None:
    run = FakeStep(good := fitted(force=130), *(fitted(force=200) for _ in range(3)))
    _, best = attempted(staged, data, run)
    assert best is good


def test_attempts_are_counted_in_every_stage(staged, data, fitted) -> None:
    run = FakeStep(*(fitted("killed", iterations=1) for _ in range(9)))
    attempts, _ = attempted(staged, data, run)
    assert [attempt.stage for attempt in attempts] == [1, 1, 1, 2, 2, 2]


class FakeStore:
    """Fits whose end depends on their kappa alone, kept by their key: a fit that is asked for again is there."""

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
        """What a run with the same command fits."""
        self.ran = []
        fit(recipe, data, Run(WORKSPACE, step=self))
        return self.ran


@pytest.mark.parametrize("accident", ["killed", "crashed", "out_of_memory", "time_limit"])
@pytest.mark.parametrize("last", ["max_iterations", "converged"])
def test_an_accident_before_another_stage_is_left_as_it_is(staged, data, fitted, accident, last) -> None:
    store = FakeStore(fitted, {0.3: (accident, 500.0), 0.02: (last, 10.0)})
    assert len(store.again(staged, data)) == 4
    assert store.again(staged, data) == []


def test_an_accident_at_the_end_of_a_converged_fit_is_left_as_it_is(staged, data, fitted) -> None:
    store = FakeStore(fitted, {0.3: ("max_iterations", 100.0), 0.02: ("time_limit", 90.0)})
    assert len(store.again(staged, data)) == 4
    assert store.again(staged, data) == []
    assert attempted(staged, data, store)[1].metrics["stop_reason"] == "max_iterations"


def test_a_fit_that_always_meets_its_time_limit_goes_on_in_every_run(staged, data, fitted) -> None:
    store = FakeStore(fitted, {0.3: ("max_iterations", 5000.0), 0.02: ("time_limit", 4000.0)})
    store.again(staged, data)
    for attempt in range(4, 34):
        assert store.again(staged, data) == [f"pace_train stage 2 attempt {attempt}"]


def test_a_fit_may_begin_with_a_potential_and_have_a_name(recipe, data, fitted, artefact) -> None:
    start = artefact("pace_train", "round 1").file("best")
    run = FakeStep(first := fitted(), fitted(force=10))
    fit(recipe, data, Run(WORKSPACE, of="round 2", step=run), start)
    assert run.names == ["pace_train round 2 attempt 1", "pace_train round 2 attempt 2"]
    assert [call.inputs["start"] for call in run.calls] == [(start,), (first.file("interim"),)]


def test_the_first_task_runs_are_called_as_the_dry_run_says(recipe, staged, data, fitted) -> None:
    for wanted in (recipe, staged):
        run = FakeStep(fitted(force=10), fitted(force=10))
        attempted(wanted, data, run)
        assert run.names == [attempt_name(wanted, stage, 1) for stage in range(1, len(wanted.stages) + 1)]


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


def test_the_first_plan_is_the_config_s(recipe, data, fitted) -> None:
    run = FakeStep(fitted(force=10))
    attempted(with_train(recipe, maxiter=7, batch_size=9), data, run)
    assert run.params(0, "maxiter", "batch_size", "ladder_step") == (7, 9, None)
