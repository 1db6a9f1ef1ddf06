"""The convergence loop with fakes in the place of the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.config.training import Convergence
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

    def __init__(self, artefact: MakeArtefact, errors: list[float | str], gap: float, unstable: str | None) -> None:
        self.artefact, self.errors, self.gap, self.unstable = artefact, list(errors), gap, unstable
        self.calls: list[tuple[str, StepCall]] = []
        self.selected = 100
        self.deviations: list[float] = []

    def __call__(self, call: StepCall, workspace: Workspace, run_name: str | None = None) -> Artefact:
        self.calls.append((run_name or call.step, call))
        answer: dict[str, Any] = {}
        if call.step == "property_structures":
            answer = {"structures": 3, "by_group": {"elastic": 3}, "failed": {}}
        elif call.step == "student_properties":
            answer = {"deviations": [elastic(self.deviations.pop(0))]}
        elif call.step == "weak_spots":
            self.selected += (added := call.params["structures"])
            answer = {"added": added, "added_by": {"error": added}, "selected": self.selected, "how": {"error": added}}
        elif call.step == "frames":
            answer = {"train_structures": 150, "train_atoms": 1500, "pairs": {}}
        elif call.step == "stability":
            answer = {"unstable_because": self.unstable}
        elif call.step == "evaluate":
            answer = evaluated(500.0)
        elif call.step == "pace_train":
            error = self.errors.pop(0)
            if isinstance(error, str):
                failure = StepCancelled if error == "Cancelled" else StepFailed
                raise failure("pace_train", error, "as the test wants", Path("kept"))
            answer = fit_metrics(error, self.gap, call.params["potential"]["functions_per_element"])
        return self.artefact(call.step, f"{len(self.calls)}", **answer)

    def of(self, step: str) -> list[StepCall]:
        return [call for _, call in self.calls if call.step == step]


def elastic(percent: float) -> dict[str, Any]:
    given = {"crystal": "Si Fd-3m", "property": "C44", "kind": "elastic", "unit": "GPa", "teacher": 80.0}
    return {**given, "student": 80 + 0.8 * percent, "deviation": percent}


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


@pytest.fixture
def distilled(prepared: Prepared, data: Artefact, artefact: MakeArtefact) -> Any:
    """Runs the loop after a first fit with a validation force error of 300 meV/Å."""

    def run(
        errors: list[float | str],
        gap: float = 2.0,
        unstable: str | None = None,
        test: float = 500.0,
        deviations: Sequence[float] = (),
        **changes: Any,
    ) -> tuple[Results, Steps, Run, FittedStudent]:
        steps = Steps(artefact, errors, gap, unstable)
        first_deviation, steps.deviations = deviations[:1], list(deviations[1:])
        run = Run(WORKSPACE, step=steps)
        selection = artefact("pace_select", candidates=500, selected=100, how={"bulk": 100})
        made = artefact("pace_train", "first", **fit_metrics(300.0, gap))
        stable = artefact("stability", "first", unstable_because=unstable)
        core, active_set = artefact("pace_corerep", "first"), artefact("pace_activeset", "first")
        config = prepared.config
        once = config.train.model_copy(update={"max_attempts": 1})
        convergence = changes.pop("convergence", config.convergence)
        extended = {"extend": config.extend.model_copy(update=changes), "train": once, "convergence": convergence}
        given = prepared.with_config(config.model_copy(update=extended))
        attempt = Attempt("pace_train attempt 1", first_plan(given.recipe.stages[0]), "not_accurate", 1.0, made)
        tested = artefact("evaluate", "first", **evaluated(test))
        training = TrainingSet(selection, data)
        properties = None
        if first_deviation:
            models = {"teacher.model": External(path=Path("teacher.model"), sha256="teacher")}
            given = replace(given, of_teacher=artefact("teacher_properties"), models=models)
            properties = artefact("student_properties", "first", deviations=[elastic(first_deviation[0])])
        student = FittedStudent(given.recipe, training, [attempt], made, active_set, core, stable, tested, properties)
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


def test_a_round_for_properties_labels_what_decides_them_and_keeps_the_last_potential(
    distilled: Any, artefact: MakeArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [artefact("pool_labels", f"made {number}", labels=3) for number in (1, 2)]
    tables = iter(labels)
    monkeypatch.setattr(training_set, "label", lambda *_args: next(tables))
    limits = {"errors": [300.0, 310.0], "test": 100.0, "deviations": [-20.0, -12.0, -4.0]}
    limited = {"convergence": Convergence(force_mae_meV_per_A=1000, energy_mae_meV_per_atom=100)}
    found, steps, _, first = distilled(**limits, **limited)
    assert [one.kind for one in found.extensions.rounds] == ["properties", "properties"]
    assert [one.helped for one in found.extensions.rounds] == [True, True]
    assert found.extensions.why == "reached"
    assert [call.params["missed"] for call in steps.of("property_structures")] == [{"Si Fd-3m": ["elastic"]}] * 2
    assert [call.params["seed"] for call in steps.of("property_structures")] == [42, 43], "chance decides anew"
    assert [call.inputs["properties"] for call in steps.of("frames")] == [
        (labels[0].file("labels"),), tuple(one.file("labels") for one in labels),
    ]  # fmt: skip
    assert {call.params["keep"] for call in steps.of("pace_train")} == {"last"}
    assert steps.of("pace_train")[0].inputs["start"] == (first.fit.file("best"),)
    assert found.extensions.rounds[1].added_by == {"elastic": 3}


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
