"""The sets that a value curve fits to, and the config of a point."""

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
from flows.value_curve.flow import _points, _wanted
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepCancelled, StepFailed
from tasks.settings import Settings
from tasks.studies.value_curve import Point
from tasks.workspace import open_workspace


def test_sizes_are_shares_of_the_candidates_and_only_a_random_choice_has_several_seeds(prepared: Prepared) -> None:
    wanted = _wanted(prepared, None, None, 3, everything=True)
    assert [size for _, size, _ in wanted] == [4] * 5 + [7] * 5 + [14] * 5 + [28] * 5 + [70]
    assert wanted[:5] == [("d_optimal", 4, 42), ("combined", 4, 42), *(("random", 4, seed) for seed in (42, 43, 44))]
    assert wanted[-1] == ("all", 70, 42)
    given = _wanted(prepared, [90, 20, 20], ["random", "combined", "random"], 1, everything=False)
    assert given == [(method, size, 42) for size in (20, 70) for method in ("random", "combined")], "at most all, once"


def test_a_fit_that_fails_costs_its_point_alone_and_a_cancelled_one_ends_the_curve(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, made = open_workspace(tmp_path, Settings()), list[int]()

    def fails_below_10(_: Any, method: str, size: int, seed: int, __: Any) -> Point:
        made.append(size)
        if size == 1:
            raise StepCancelled("pace_train", "Cancelled", "somebody wants it to end", Path("x"))
        if size < 10:
            raise StepFailed("pace_train", "Diverged", "the loss is infinite", Path("x"))
        figures = {"structures": size, "atoms": size, "fit_s": 1.0, "iterations": 1, "ended": "x", "figures": {}}
        return Point(method=method, seed=seed, **figures)

    monkeypatch.setattr(flow, "_point", fails_below_10)
    points, failures = _points(prepared, [("random", 5, 1), ("random", 20, 1)], workspace)
    assert [point.structures for point in points] == [20]
    assert [(one.size, one.step, one.message) for one in failures] == [(5, "pace_train", "the loss is infinite")]
    with pytest.raises(StepFailed, match="infinite"):
        _points(prepared, [("random", 5, 1)], workspace)
    with pytest.raises(StepCancelled, match="wants it to end"):
        _points(prepared, [("random", 1, 1), ("random", 20, 1)], workspace)
    assert made == [5, 20, 5, 1]


@pytest.mark.parametrize("broken_off", [0.3, 0.02])
def test_a_point_has_every_stage_once_and_says_how_it_ended(
    broken_off: float, prepared: Prepared, artefact: Any, fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [Stage(kappa=0.3, maxiter=9), Stage(kappa=0.02, maxiter=5)]
    train = prepared.config.train.model_copy(update={"stages": stages})
    prepared = prepared.with_config(prepared.config.model_copy(update={"train": train}))
    names, given = list[str](), list[Prepared]()

    def step(call: StepCall, workspace: Any, run_name: str) -> Artefact:
        if call.step != "pace_train":
            return artefact(call.step)
        names.append(run_name)
        return fitted("time_limit" if call.params["loss"]["kappa"] == broken_off else "max_iterations", iterations=4)

    def selected(changed: Prepared, run: Run) -> TrainingSet:
        given.append(changed)
        return TrainingSet(artefact("pace_select"), artefact("frames", train_structures=5, train_atoms=50))

    monkeypatch.setattr(flow, "training_set", selected)
    monkeypatch.setattr(flow, "Run", partial(Run, step=step))
    point = flow._point(prepared, "combined", 5, 7, open_workspace(tmp_path, Settings()))
    assert names == [f"pace_train combined 5 stage {stage} attempt 1" for stage in (1, 2)]
    assert (point.ended, point.iterations, point.fit_s) == ("time_limit", 10, 2.0)
    before, after = prepared.config, given[0].config
    assert (after.selection.method, after.selection.max_structures, after.selection.fraction) == ("combined", 5, None)
    assert (after.train.seed, after.train.max_attempts) == (7, 1)
    assert after.model_copy(update={"selection": before.selection, "train": before.train}) == before
    unchanged = {"seed": before.train.seed, "max_attempts": before.train.max_attempts}
    assert after.train.model_copy(update=unchanged) == before.train


@pytest.mark.parametrize(
    "words", [["--sizes", "0"], ["--sizes", "ten"], ["--methods", "best"], ["--random-seeds", "-1"]]
)
def test_a_wrong_option_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert words[-1] in capsys.readouterr().err
