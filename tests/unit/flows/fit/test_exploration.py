"""The rounds of exploration: when a level is left, what ends them, and what each of them labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.config.exploration import Explore, ExploreCondition
from flows.data.training_set import TrainingSet
from flows.fit import exploration
from flows.fit.exploration import Explored, Explorer, explore_all
from flows.run import Run
from tasks.artefact import Artefact
from tasks.report.exploration import ExplorationRun
from tasks.settings import Settings
from tasks.workspace import Workspace

CONDITIONS = [ExploreCondition(temperature_K=900.0, picoseconds=3.0)]


@dataclass
class World:
    """Students without a fit: each round has the runs that a test gives, and adds the frames that are chosen.

    Attributes:
        shares: of the steps that extrapolate, a run after another; the last stays.
        choosable: frames that the choice finds at each round.
        survives: False: every run ends early.
    """

    shares: list[float]
    choosable: int = 30
    survives: bool = True
    labels: int = 100
    levels: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    fits: int = 0


@pytest.fixture
def explored(
    prepared: Any, artefact: Callable[..., Artefact], data: Artefact, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Explored]:
    """Runs `explore_all` in a world."""

    def run(world: World, **settings: Any) -> Explored:
        wanted = Explore(seeds=["POSCAR"], conditions=CONDITIONS, **settings)
        recipe = prepared.recipe.model_copy(update={"explore": wanted})
        training = TrainingSet(artefact("pace_select"), data)

        def of_size() -> Any:
            made = artefact("dataset", str(world.labels), **prepared.dataset.metrics | {"teacher_rows": world.labels})
            return replace(prepared, recipe=recipe, dataset=made)

        def fit_explorer(given: Any, training: TrainingSet, run: Run, before: Explorer | None) -> Explorer:
            world.fits += 1
            return Explorer(given, training, [], *map(artefact, ("pace_train", "pace_activeset", "pace_corerep")))

        def run_conditions(explorer: Explorer, level: int, run: Run) -> tuple[ExplorationRun, ...]:
            world.levels.append(level)
            share = world.shares.pop(0) if len(world.shares) > 1 else world.shares[0]
            ended = None if world.survives else "atoms fused, 2 of them"
            figures = {"survived_ps": 1.0, "wanted_ps": 1.0, "ended_because": ended, "gamma_max": 1.0}
            one = ExplorationRun(name="a", share_above_select=share, result=artefact("explore"), **figures)
            return (one,)

        def choose(explorer: Explorer, results: Any, structures: int, run: Run) -> Artefact:
            world.wanted.append(structures)
            found = min(structures, world.choosable)
            counts = {"equal": 0, "unphysical": 7, "extrapolating": 20, "gamma_max_before": 9.0, "gamma_max_left": 1.5}
            return artefact("choose_frames", frames=40, chosen=found, by_source={}, **counts)

        def add_frames(explorer: Explorer, chosen: Artefact, run: Run) -> tuple[Any, TrainingSet]:
            world.labels += chosen.metrics["chosen"]
            return of_size(), training

        for made in (fit_explorer, run_conditions, choose, add_frames):
            monkeypatch.setattr(exploration, made.__name__, made)
        workspace = Workspace(root=Path("nowhere"), settings=Settings(cores=1))
        return explore_all(of_size(), training, Run(workspace))

    return run


def test_a_student_that_knows_everything_climbs_to_the_last_level_and_labels_nothing(explored: Any) -> None:
    world = World([0.0])
    found = explored(world, levels=3).rounds
    assert world.levels == [1, 2, 3]
    assert (world.fits, world.wanted) == (1, [])
    assert found.settled
    assert found.stopped_because == "no condition extrapolates"


def test_what_extrapolates_is_labelled_and_the_next_level_waits_for_runs_that_survive(explored: Any) -> None:
    world = World([0.5, 0.5, 0.0])
    assert explored(world, levels=2).rounds.settled
    assert world.levels == [1, 2, 2], "all survived: the level rises with the fit"
    assert world.fits == 3
    broken = World([0.5], survives=False)
    assert not explored(broken, levels=2, rounds=4).rounds.settled
    assert broken.levels == [1] * 4


def test_a_run_that_ends_early_is_no_success_though_few_steps_extrapolate(explored: Any) -> None:
    found = explored(World([0.0], survives=False), levels=1, rounds=1).rounds
    assert not found.settled


def test_the_last_student_is_explored_and_rounds_end(explored: Any) -> None:
    world = World([0.5])
    found = explored(world, levels=1, rounds=3).rounds
    assert found.stopped_because == "explore.rounds (3) are used up"
    assert (len(found.rounds), world.fits) == (3, 3), "the third student is explored, and not fitted again"


def test_labels_end_it_and_the_last_round_takes_what_is_left(explored: Any) -> None:
    world = World([0.5])
    found = explored(world, levels=1, max_labels=145, structures_per_round=30).rounds
    assert world.wanted == [30, 15]
    assert found.stopped_because == "explore.max_labels (145) are used up"
    assert [one.labels for one in found.rounds] == [100, 130, 145]


def test_without_a_frame_to_label_it_ends_and_says_so(explored: Any) -> None:
    found = explored(World([0.5], choosable=0), levels=1).rounds
    assert found.stopped_because == "no frame can be labelled: 7 of 40 are unphysical"


def test_hours_end_it_before_another_round(explored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter([0.0, 3600.0, 8000.0])
    monkeypatch.setattr(exploration, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    found = explored(World([0.5]), levels=1, hours=2.0).rounds
    assert found.stopped_because == "explore.hours (2) are used up"
    assert len(found.rounds) == 2


def test_a_milder_condition_has_a_share_of_time_pressure_and_heat() -> None:
    asked = ExploreCondition(temperature_K=300.0, end_temperature_K=1800.0, pressure_GPa=10.0, picoseconds=6.0)
    half = asked.milder(0.5)
    assert (half.temperature_K, half.end_temperature_K) == (300.0, 1050.0)
    assert (half.pressure_GPa, half.picoseconds) == (5.0, 3.0)
    assert asked.milder(1.0) == asked
    cold = ExploreCondition(temperature_K=100.0, picoseconds=1.0).milder(0.1)
    assert cold.temperature_K == 100.0
