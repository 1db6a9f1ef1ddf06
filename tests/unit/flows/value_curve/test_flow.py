"""Which sets a value curve fits to, and how a point changes the recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.config.training import Stage
from flows.data.prepare import Prepared
from flows.data.training_set import TrainingSet
from flows.run import Run
from flows.value_curve import flow
from flows.value_curve.__main__ import parser
from flows.value_curve.flow import METHODS, SHARES, _changed, _points, _sets, _sizes
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepCancelled, StepFailed
from tasks.settings import Settings
from tasks.studies.value_curve import Point
from tasks.workspace import open_workspace


def test_only_a_random_choice_has_several_seeds() -> None:
    wanted = _sets(METHODS, [20, 10], 3, 42)
    assert [size for _, size, _ in wanted] == [10] * 5 + [20] * 5
    assert [seed for method, size, seed in wanted if method == "random" and size == 10] == [42, 43, 44]
    assert [seed for method, size, seed in wanted if method != "random" and size == 10] == [42, 42]


def test_a_set_that_is_asked_for_twice_is_fitted_once() -> None:
    assert _sets(["random", "combined", "random"], [10, 10], 1, 42) == [("random", 10, 42), ("combined", 10, 42)]


def test_a_fit_that_fails_costs_its_point_alone(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_workspace(tmp_path, Settings())

    def fails_below_10(_: Any, method: str, size: int, seed: int, __: Any) -> Point:
        if size < 10:
            raise StepFailed("pace_train", "Diverged", "the loss is infinite", Path("x"))
        return Point(
            method=method, seed=seed, structures=size, atoms=size, fit_s=1.0, iterations=1, ended="x", figures={}
        )

    monkeypatch.setattr(flow, "_point", fails_below_10)
    points, failures = _points(prepared, [("random", 5, 1), ("random", 20, 1)], workspace)
    assert [point.structures for point in points] == [20]
    assert [(one.size, one.step, one.message) for one in failures] == [(5, "pace_train", "the loss is infinite")]
    with pytest.raises(StepFailed, match="infinite"):
        _points(prepared, [("random", 5, 1)], workspace)


def test_a_cancelled_fit_ends_the_curve(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def cancelled(*_: Any) -> Point:
        made.append(1)
        raise StepCancelled("pace_train", "Cancelled", "somebody wants it to end", Path("x"))

    monkeypatch.setattr(flow, "_point", cancelled)
    with pytest.raises(StepCancelled, match="wants it to end"):
        _points(prepared, [("random", 5, 1), ("random", 20, 1)], open_workspace(tmp_path, Settings()))
    assert len(made) == 1


@pytest.mark.parametrize("broken_off", [0.3, 0.02])
def test_a_point_has_every_stage_once_and_says_how_it_ended(
    broken_off: float, prepared: Prepared, artefact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [Stage(kappa=0.3, maxiter=9), Stage(kappa=0.02, maxiter=5)]
    train = prepared.config.train.model_copy(update={"stages": stages})
    prepared = prepared.with_config(prepared.config.model_copy(update={"train": train}))
    errors = {"validation_force_mae_meV_per_A": 500.0, "validation_energy_mae_meV_per_atom": 1.0}
    fitted: list[str] = []

    def step(call: StepCall, workspace: Any, run_name: str) -> Artefact:
        end = {0.3: "max_iterations", 0.02: "max_iterations", broken_off: "time_limit"}
        if call.step != "pace_train":
            return artefact(call.step)
        fitted.append(run_name)
        done = {
            "stop_reason": end[call.params["loss"]["kappa"]],
            "iterations": 5,
            "interim_iteration": 5,
            "batch_size": 2,
        }
        return artefact("pace_train", run_name, **done, **errors)

    frames = artefact("frames", train_structures=5, train_atoms=50)
    monkeypatch.setattr(flow, "training_set", lambda *_: TrainingSet(artefact("pace_select"), frames))
    monkeypatch.setattr(flow, "Run", partial(Run, step=step))
    point = flow._point(prepared, "combined", 5, 42, open_workspace(tmp_path, Settings()))
    assert fitted == [f"pace_train combined 5 stage {stage} attempt 1" for stage in (1, 2)]
    assert (point.ended, point.iterations, point.fit_s) == ("time_limit", 10, 2.0)


def test_sizes_are_shares_of_the_candidates(prepared: Prepared) -> None:
    assert _sizes(prepared, None) == [4, 7, 14, 28]
    assert len(SHARES) == 4
    assert _sizes(prepared, [90, 20]) == [70, 20], "as many as there are"


def test_a_point_changes_selection_and_seed_alone(prepared: Prepared) -> None:
    before = prepared.config
    after = _changed(prepared, "random", 17, 5).config
    assert (after.selection.method, after.selection.max_structures, after.selection.fraction) == ("random", 17, None)
    assert after.train.seed == 5
    assert after.model_copy(update={"selection": before.selection, "train": before.train}) == before
    assert after.train.max_attempts == 1
    unchanged = {"seed": before.train.seed, "max_attempts": before.train.max_attempts}
    assert after.train.model_copy(update=unchanged) == before.train


@pytest.mark.parametrize(
    "words", [["--sizes", "0"], ["--sizes", "ten"], ["--methods", "best"], ["--random-seeds", "-1"]]
)
def test_a_wrong_option_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert words[-1] in capsys.readouterr().err
