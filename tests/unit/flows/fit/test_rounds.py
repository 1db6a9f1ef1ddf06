"""The convergence loop with fakes in the place of the steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.data import training_set
from flows.data.prepare import Prepared
from flows.data.recipe import Recipe
from flows.data.training_set import TrainingSet
from flows.fit.attempts import Attempt, led_to
from flows.fit.repairs import first_plan
from flows.fit.rounds import Results, broken_off, extend
from flows.fit.student import FittedStudent
from flows.run import Run
from tasks.artefact import Artefact, External, StepCall
from tasks.errors import StepCancelled, StepFailed
from tasks.report.training import extensions
from tasks.settings import Settings
from tasks.workspace import Workspace

MakeArtefact = Callable[..., Artefact]
WORKSPACE = Workspace(root=Path("nowhere"), settings=Settings(cores=1))


class Steps:
    """Answers every step; fits have the validation force errors that the test gives, one after the other."""

    def __init__(
        self,
        artefact: MakeArtefact,
        errors: list[float | str],
        gap: float,
        unstable: str | None,
        test: float,
        c44_percent: float | None,
    ) -> None:
        self.artefact, self.errors, self.gap, self.unstable = artefact, list(errors), gap, unstable
        self.test, self.c44_percent = test, c44_percent
        self.calls: list[tuple[str, StepCall]] = []
        self.selected = 100

    def __call__(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
        self.calls.append((run_name or call.step, call))
        answer: dict[str, Any] = {}
        if call.step == "weak_spots":
            self.selected += (added := call.params["structures"])
            answer = {"added": added, "added_by": {"error": added}, "selected": self.selected, "how": {"error": added}}
        elif call.step == "frames":
            answer = {"train_structures": 150, "train_atoms": 1500, "pairs": {}}
        elif call.step == "stability":
            answer = {"unstable_because": self.unstable}
        elif call.step == "evaluate":
            answer = evaluated(self.test)
        elif call.step == "property_structures":
            answer = {"structures": 34, "by_group": {"elastic": 34}, "failed": {}}
        elif call.step == "student_properties":
            answer = {"deviations": [c44(self.c44_percent)]}
        elif call.step == "pace_train":
            error = self.errors.pop(0)
            if isinstance(error, str):
                failure = StepCancelled if error == "Cancelled" else StepFailed
                raise failure("pace_train", error, "as the test wants", Path("kept"))
            answer = fit_metrics(error, self.gap, call.params["potential"]["functions_per_element"])
        return self.artefact(call.step, f"{len(self.calls)}", **answer)

    def of(self, step: str) -> list[StepCall]:
        return [call for _, call in self.calls if call.step == step]


def fit_metrics(error: float, gap: float, functions: int = 250) -> dict[str, Any]:
    """A fit that came to its end; one with an error of 150 meV/Å was broken off."""
    return {
        "stop_reason": "time_limit" if error == 150 else "converged", "iterations": 10, "interim_iteration": 10,
        "validation_force_mae_meV_per_A": error, "validation_energy_mae_meV_per_atom": 1.0,
        "train_force_mae_meV_per_A": error / gap, "train_energy_mae_meV_per_atom": 1.0,
        "functions": functions, "functions_asked": functions, "batch_size": 10,
    }  # fmt: skip


def evaluated(error: float) -> dict[str, Any]:
    figures = {"force_mae_meV_per_A": error, "energy_mae_meV_per_atom": 1.0, "gamma_share_above_1": 0.0}
    return {f"teacher_{name}": value for name, value in figures.items()}


def c44(percent: float) -> dict[str, Any]:
    """A deviation of C44 from the teacher's 80 GPa."""
    given = {"crystal": "Si Fd-3m", "property": "C44", "kind": "elastic", "unit": "GPa", "teacher": 80.0}
    return {**given, "student": 80 + 0.8 * percent, "deviation": percent}


@pytest.fixture
def distilled(prepared: Prepared, data: Artefact, artefact: MakeArtefact) -> Any:
    """Runs the loop after a first fit with a validation force error of `start` (meV/Å)."""

    def run(
        errors: list[float | str],
        gap: float = 2.0,
        unstable: str | None = None,
        test: float = 500.0,
        start: float = 300.0,
        c44_percent: tuple[float, float] | None = None,
        **changes: Any,
    ) -> tuple[Results, Steps, Run, FittedStudent]:
        steps = Steps(artefact, errors, gap, unstable, test, c44_percent and c44_percent[1])
        run = Run(WORKSPACE, step=steps)
        selection = artefact("pace_select", candidates=500, selected=100, how={"bulk": 100})
        made = artefact("pace_train", "first", **fit_metrics(start, gap))
        stable = artefact("stability", "first", unstable_because=unstable)
        core, active_set = artefact("pace_corerep", "first"), artefact("pace_activeset", "first")
        config = prepared.config
        once = config.train.model_copy(update={"max_attempts": 1})
        extended = {"extend": config.extend.model_copy(update=changes), "train": once}
        given = prepared.with_config(config.model_copy(update=extended))
        attempt = Attempt("pace_train attempt 1", first_plan(given.recipe.stages[0]), "not_accurate", 1.0, made)
        tested = artefact("evaluate", "first", **evaluated(test))
        training = TrainingSet(selection, data)
        measured = None
        if c44_percent:
            model = External(path=Path("/data/teacher.model"), sha256="m")
            given = replace(given, models={"teacher.model": model}, teacher_properties=artefact("teacher_properties"))
            measured = artefact("student_properties", "first", deviations=[c44(c44_percent[0])])
        student = FittedStudent(given.recipe, training, [attempt], made, active_set, core, stable, tested, measured)
        return extend(given, student, run), steps, run, student

    return run


def test_a_round_of_structures_starts_from_the_best_with_more_data(distilled: Any) -> None:
    found, steps, runner, first = distilled([100.0], rounds=1)
    after = ["pace_activeset round 1", "pace_corerep round 1", "stability round 1", "evaluate round 1"]
    names = ["weak_spots round 1", "frames round 1", "pace_train round 1 attempt 1", *after]
    assert [name for name, _ in steps.calls] == names
    weak, train = steps.of("weak_spots")[0], steps.of("pace_train")[0]
    assert weak.params["structures"] == 50
    assert weak.inputs["potential"] == (first.core.file("potential"),)
    assert weak.inputs["selection"] == (first.training.selection.file("selection"),)
    assert train.inputs["start"] == (first.fit.file("best"),)
    assert train.params["potential"]["functions_per_element"] == 250
    assert train.inputs["train"] == (runner.done["frames round 1"].file("train"),)
    assert found.best.training.selection is runner.done["weak_spots round 1"]
    assert found.best.evaluation is runner.done["evaluate round 1"]
    chain = led_to(found.best.fit, found.attempts)
    assert [attempt.name for attempt in chain] == ["pace_train attempt 1", "pace_train round 1 attempt 1"]
    assert chain[1].inputs["train"] == train.inputs["train"], "each fit of the chain has its own frames"


def test_a_round_of_functions_keeps_the_data_and_grows_the_basis(distilled: Any) -> None:
    found, steps, _, first = distilled([100.0], gap=1.0, rounds=1)
    train = steps.of("pace_train")[0]
    assert not steps.of("weak_spots") + steps.of("frames")
    assert train.params["potential"]["functions_per_element"] == 375
    assert train.inputs["start"] == (first.fit.file("best"),)
    assert found.best.recipe.potential.functions_per_element == 375
    assert found.best.training is first.training


def test_a_round_for_properties_adds_what_decides_them_and_keeps_the_last_potential(
    distilled: Any, artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = artefact("pool_labels", "properties", labels=34)
    monkeypatch.setattr(training_set, "label", lambda *_: labels)
    found, steps, _, first = distilled([105.0], start=100.0, test=50.0, c44_percent=(-25.0, -5.0))
    (made,), (framed,), (train,) = map(steps.of, ("property_structures", "frames", "pace_train"))
    assert made.params["missed"] == {"Si Fd-3m": ["elastic"]}
    assert framed.inputs["properties"] == (labels.file("labels"),)
    assert train.params["keep"] == "last", "validation has no such structures"
    assert train.inputs["start"] == (first.fit.file("best"),)
    (one,) = found.extensions.rounds
    assert (one.kind, one.added_by, one.helped, one.chosen) == ("properties", {"elastic": 34}, True, True)
    assert (one.before.properties, one.after.properties) == ({"elastic": 2.5}, {"elastic": 0.5})
    assert found.best.training.properties == (labels,)
    assert found.extensions.why == "reached"


def test_a_round_that_did_harm_is_left_behind(distilled: Any) -> None:
    found, steps, _, first = distilled([400.0, 350.0], rounds=2)
    assert found.best is first
    assert [one.helped for one in found.extensions.rounds] == [False, False]
    assert [one.kind for one in found.extensions.rounds] == ["structures", "functions"]
    assert found.extensions.why == "rounds"
    assert [call.inputs["start"] for call in steps.of("pace_train")] == [(first.fit.file("best"),)] * 2
    assert found.best.results["evaluate"] is first.evaluation
    found, _, _, _ = distilled([400.0, 350.0], rounds=20)
    assert (found.extensions.why, len(found.extensions.rounds)) == ("no_gain", 2), "before the rounds are used up"
    assert "more structures did not help" in found.extensions.sentence()


def test_the_next_round_starts_from_the_best_round(distilled: Any) -> None:
    found, steps, runner, _ = distilled([200.0, 190.5, 151.0], rounds=3)
    third = steps.of("pace_train")[2]
    assert [one.kind for one in found.extensions.rounds] == ["structures", "structures", "functions"]
    assert third.inputs["train"] == (runner.done["frames round 2"].file("train"),)
    assert [one.chosen for one in found.extensions.rounds] == [False, False, True]
    rounds = [f"pace_train round {number} attempt 1" for number in (1, 2, 3)]
    assert [attempt.name for attempt in found.attempts] == ["pace_train attempt 1", *rounds]


def test_a_failed_round_is_reported_and_the_best_stays(distilled: Any) -> None:
    found, _, _, first = distilled(["SomeBug", 200.0], rounds=2)
    failed, done = found.extensions.rounds
    assert (failed.after, failed.helped, failed.failure) == (None, False, "pace_train: as the test wants")
    assert done.before.validation == failed.before.validation
    assert done.chosen
    assert found.best is not first


def test_a_cancelled_round_ends_the_run(distilled: Any) -> None:
    with pytest.raises(StepCancelled, match="as the test wants"):
        distilled(["Cancelled", 200.0])


def test_a_round_that_was_broken_off_ends_the_loop(distilled: Any) -> None:
    found, steps, _, first = distilled([150.0, 100.0], rounds=2)
    assert found.best is first
    assert (found.extensions.why, len(steps.of("pace_train"))) == ("unfinished", 1)


def test_without_rounds_or_with_an_unstable_student_nothing_is_done(distilled: Any) -> None:
    found, steps, _, first = distilled([], rounds=0)
    assert not steps.calls
    assert found.best is first
    assert [attempt.name for attempt in found.attempts] == ["pace_train attempt 1"]
    found, steps, _, _ = distilled([], unstable="two atoms fused")
    assert not steps.calls
    assert found.extensions.why == "unsound"
    assert "two atoms fused" in found.extensions.sentence()


END, LIMIT, BROKEN, GOOD, CRASH = "iterations_used_up", "time_limit", "diverged", "converged", "crashed"


@pytest.mark.parametrize(
    ("verdicts", "taken", "broken"),
    [
        ([(1, END)], 0, False),
        ([(1, END), (1, CRASH)], 0, False),  # it left nothing to continue from
        ([(1, LIMIT)], 0, True),
        ([(1, LIMIT), (1, END)], 0, False),
        ([(1, END), (1, LIMIT)], 0, True),  # the next run goes on with it
        ([(1, END), (1, BROKEN)], 0, False),
        ([(1, END), (2, BROKEN), (2, BROKEN)], 0, True),
        ([(1, GOOD), (2, LIMIT)], 0, False),
        ([(1, LIMIT), (2, END)], 1, False),
    ],
)
def test_a_fit_that_was_broken_off_is_not_built_on(
    recipe: Recipe, artefact: MakeArtefact, verdicts: list[tuple[int, Any]], taken: int, broken: bool
) -> None:
    failed = StepFailed("pace_train", "Crashed", "as the test wants", Path("kept"))
    made = [failed if end == CRASH else artefact("pace_train", str(place)) for place, (_, end) in enumerate(verdicts)]
    attempts = [
        Attempt(f"attempt {stage}", first_plan(recipe.stages[0]).model_copy(update={"stage": stage}), verdict, 1.0, one)
        for (stage, verdict), one in zip(verdicts, made, strict=True)
    ]
    assert broken_off(attempts, made[taken]) == broken


def test_the_report_has_a_row_a_round(distilled: Any) -> None:
    found, _, _, _ = distilled([200.0, 400.0], rounds=2)
    table = extensions(SimpleNamespace(extensions=found.extensions)).parts[-1].rows
    assert table[0][1].startswith("more structures (50 by error): the force error on validation (300) exceeds")
    assert table[0][2:] == ("100 → 150", "250", "300, 1 → 200, 1", "500, 1 → 500, 1", "yes, published")
    assert table[1][2:] == ("150 → 200", "250", "200, 1 → 400, 1", "500, 1 → 500, 1", "no")
