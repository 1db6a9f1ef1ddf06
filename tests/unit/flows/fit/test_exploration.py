"""The rounds of exploration: when a level is left, what is labelled, when the student is finished, what ends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from flows.config.exploration import Explore, ExploreCondition
from flows.data.training_set import TrainingSet
from flows.fit import exploration, exploration_round
from flows.fit.acquisition import Acquired
from flows.fit.consent import Declined
from flows.fit.exploration import SETTLED, distil_by_exploration
from flows.fit.exploration_round import of_condition, run_conditions
from flows.fit.rounds import Results
from flows.fit.student import Student
from flows.fit.verdict import Errors
from flows.run import Run
from tasks.artefact import Artefact, StepCall
from tasks.errors import StepFailed, UserError
from tasks.report.exploration import ConditionErrors, Exploration, ExplorationRound, ExplorationRun
from tasks.report.summary import Extensions
from tasks.settings import Settings
from tasks.workspace import Workspace

CONDITIONS = [ExploreCondition(temperature_K=900.0, picoseconds=3.0)]


@dataclass
class World:
    """Students without a fit: each round has the runs that a test gives, and adds the frames that are chosen.

    Attributes:
        shares: of the steps that extrapolate, a run after another; the last stays.
        errors: of the runs in units of their limit, likewise.
        choosable: frames that the choice finds at each round.
        survives: False: every run ends early.
        wrong: what the labelling of chosen frames raises.
        levels: of the runs, in their order; negative for a finished student.
    """

    shares: list[float]
    errors: list[float] = field(default_factory=lambda: [0.5])
    choosable: int = 30
    survives: bool = True
    wrong: Exception | None = None
    labels: int = 100
    levels: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    fits: int = 0
    finished: int = 0


def following(values: list[float]) -> float:
    """Return the next value; the last again and again."""
    return values.pop(0) if len(values) > 1 else values[0]


@pytest.fixture
def explored(
    prepared: Any, artefact: Callable[..., Artefact], data: Artefact, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Exploration]:
    """Explores in a world."""

    def run(world: World, **settings: Any) -> Exploration:
        wanted = Explore(seeds=["POSCAR"], conditions=CONDITIONS, **settings)
        recipe = prepared.recipe.model_copy(update={"explore": wanted})
        training = TrainingSet(artefact("pace_select"), data)

        def of_size() -> Any:
            found = dict(prepared.dataset.metrics) | {"teacher_rows": world.labels}
            return replace(prepared, recipe=recipe, dataset=artefact("dataset", str(world.labels), **found))

        def student(training: TrainingSet) -> Student:
            return Student(recipe, training, [], *map(artefact, ("pace_train", "pace_activeset", "pace_corerep")))

        def fit_explorer(given: Any, training: TrainingSet, before: Student | None, run: Run) -> Student:
            world.fits += 1
            return student(training)

        def finish(given: Any, before: Student, run: Run) -> Results:
            world.finished += 1
            none = Extensions(rounds=(), why="reached", stopped_because="")
            return Results(given, artefact("pace_select"), student(before.training), [], none)  # type: ignore[arg-type]

        def run_conditions(given: Any, one: Student, level: int, number: int, run: Run) -> tuple[ExplorationRun, ...]:
            world.levels.append(-level if world.finished else level)
            ended = None if world.survives else "atoms fused, 2 of them"
            figures = dict.fromkeys(("mean_temperature_K", "mean_pressure_GPa", "density_g_per_cm3"), 1.0)
            figures |= {"survived_ps": 1.0, "wanted_ps": 1.0, "gamma_max": 1.0}
            figures["share_above_select"] = following(world.shares)
            made = artefact("explore", source="a")
            names = {"name": "a", "condition": 1, "composition": "Si8", "atoms": 8, "frames": 9}
            return (ExplorationRun(**names, ended_because=ended, result=made, **figures),)

        def measure_errors(given: Any, one: Student, made: ExplorationRound, run: Run) -> tuple[ConditionErrors, ...]:
            over = following(world.errors)
            return (of_condition(1, [row(over * made.force_limit_meV_per_A, 6)], made, None),)

        def from_dynamics(given: Any, training: TrainingSet, tables: Any, run: Run) -> Acquired:
            if world.wrong:
                raise world.wrong
            world.labels += min(world.wanted[-1], world.choosable) if world.wanted else 6
            return Acquired(of_size(), training, {})

        def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
            world.wanted.append(call.params["structures"])
            found = min(world.wanted[-1], world.choosable)
            counts = {"equal": 0, "unphysical": 7, "extrapolating": 20, "gamma_max_before": 9.0, "gamma_max_left": 1.5}
            return artefact("choose_frames", frames=40, chosen=found, by_source={"a": found}, **counts)

        monkeypatch.setattr(exploration_round, "errors_of", lambda _: Errors.of(100.0, 10.0))
        for made in (run_conditions, measure_errors, from_dynamics):
            monkeypatch.setattr(exploration_round, made.__name__, made)
        for made in (fit_explorer, finish):
            monkeypatch.setattr(exploration, made.__name__, made)
        monkeypatch.setattr(exploration, "publish_exploration", lambda *_: None)
        workspace = Workspace(root=Path("nowhere"), settings=Settings(cores=1))
        return distil_by_exploration(of_size(), training, Run(workspace, step=step))[1]

    return run


def row(force: float | None, frames: int) -> dict[str, Any]:
    """A run whose frames have this force error (meV/Å); None: none has a label."""
    labelled = frames if force is not None else 0
    energy = 0.0 if force is not None else None
    errors = {"force_mae_meV_per_A": force, "energy_mae_meV_per_atom": energy}
    because = None if labelled else "a force"
    return {"labelled": labelled, **errors, "set_aside": frames - labelled, "set_aside_because": because}


def test_a_student_that_knows_everything_climbs_is_finished_and_explored_again(explored: Any) -> None:
    world = World([0.0])
    found = explored(world, levels=3)
    assert world.levels == [1, 2, 3, -3]
    assert (world.fits, world.finished, world.wanted) == (1, 1, [])
    assert found.settled
    assert found.stopped_because == SETTLED
    assert found.unsettled_because is None


def test_what_extrapolates_is_labelled_and_the_next_level_waits_for_runs_that_survive(explored: Any) -> None:
    world = World([0.5, 0.5, 0.0])
    assert explored(world, levels=2).settled
    assert world.levels == [1, 2, 2, -2], "all survived: the level rises with the fit"
    assert (world.fits, world.finished) == (3, 1)
    broken = World([0.0], survives=False)
    found = explored(broken, levels=2, rounds=4)
    assert broken.levels == [1, 1, 1, 1, -2], "no round is left, so the student is finished as it is, and tried"
    assert not found.settled
    assert "1 of 1 runs ended early, a: atoms fused" in (found.unsettled_because or "")
    assert "explore.rounds (4) are used up" in (found.unsettled_because or "")


def test_errors_count_at_the_last_level_alone_and_the_frames_that_show_them_are_added(explored: Any) -> None:
    world = World([0.0], errors=[2.0, 0.5])
    found = explored(world, levels=2)
    assert world.levels == [1, 2, 2, -2]
    assert [[each.over for each in one.errors] for one in found.rounds] == [[], [2.0], [0.5], [0.5]]
    assert [one.chosen for one in found.rounds] == [0, 6, 0, 0]
    assert [one.labels for one in found.rounds] == [100, 100, 106, 112], "frames for errors are labels, each once"
    assert found.settled


def test_a_finished_student_that_extrapolates_is_finished_again_with_what_it_lacks(explored: Any) -> None:
    world = World([0.0, 0.5, 0.0])
    assert explored(world, levels=1).settled
    assert world.levels == [1, -1, -1]
    assert (world.fits, world.finished) == (1, 2)


def test_labels_end_it_and_the_last_round_takes_what_is_left(explored: Any) -> None:
    world = World([0.5])
    found = explored(world, levels=1, max_labels=145, structures_per_round=30)
    assert world.wanted == [30, 15]
    assert found.stopped_because == "explore.max_labels (145) are used up"
    assert [one.labels for one in found.rounds] == [100, 130, 145, 145]
    assert [one.finished for one in found.rounds] == [False, False, False, True]
    quiet = explored(World([0.0], labels=100), levels=1, max_labels=100)
    assert "its errors on frames of its own runs are not known" in (quiet.unsettled_because or "")


def test_labels_of_a_pool_that_the_user_gave_do_not_count(explored: Any) -> None:
    found = explored(World([0.5, 0.0], labels=2000), levels=1, structures=60, max_labels=100)
    assert found.settled
    assert [one.labels for one in found.rounds] == [60, 90, 96]


def test_without_a_frame_to_label_it_ends_and_says_so(explored: Any) -> None:
    found = explored(World([0.5], choosable=0), levels=1)
    assert found.stopped_because == "every frame that extrapolates is unphysical"


def test_a_teacher_that_refuses_all_frames_ends_it_with_its_reason(explored: Any) -> None:
    refused = StepFailed("pool_labels", "BadInput", "no structure has a label within the bounds", Path("kept"))
    found = explored(World([0.5], wrong=refused), levels=1)
    assert found.stopped_because == "no structure has a label within the bounds"
    assert [one.chosen for one in found.rounds] == [0, 0]
    with pytest.raises(StepFailed, match="full"):
        explored(World([0.5], wrong=StepFailed("pool_labels", "Died", "full", Path("kept"))), levels=1)


def test_a_user_who_declines_gets_the_finished_student_and_no_other_question(explored: Any) -> None:
    world = World([0.5], wrong=Declined("30 structures, and the answer was no"))
    found = explored(world, levels=1)
    assert found.stopped_because == "30 structures, and the answer was no"
    assert (world.levels, world.finished) == ([1], 1)


def test_hours_end_it_before_another_round(explored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter([0.0, 3600.0, 8000.0, 9000.0])
    monkeypatch.setattr(exploration, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    found = explored(World([0.5]), levels=1, hours=2.0)
    assert found.stopped_because == "explore.hours (2) are used up"
    assert [one.finished for one in found.rounds] == [False, False, True]


START = {"id": "a", "group": "vacancy", "source": "vacancy of Ni.vasp, row 0", "state": ""}


def test_each_run_has_a_name_of_its_own_and_a_start_with_a_charge_is_refused(
    prepared: Any, artefact: Callable[..., Artefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two vacancies of one seed differ by their row alone."""
    condition = ExploreCondition(temperature_K=300.0, starts=["vacancy"], replicas=2)
    recipe = prepared.recipe.model_copy(update={"explore": Explore(seeds=["POSCAR"], conditions=[condition])})
    given = replace(prepared, recipe=recipe, ingested=replace(prepared.ingested, starts=artefact("seed_pool")))
    student = Student(recipe, None, [], *map(artefact, ("pace_train", "pace_activeset", "pace_corerep")))  # type: ignore[arg-type]
    table = pa.Table.from_pylist([START | {"row": 0}, START | {"row": 1, "id": "b"}])
    monkeypatch.setattr(exploration_round.pq, "read_table", lambda *_, **__: table)
    names: list[str] = []
    figures = dict.fromkeys(("mean_temperature_K", "mean_pressure_GPa", "density_g_per_cm3", "gamma_max"), 1.0)
    figures |= {"survived_ps": 1.0, "wanted_ps": 1.0, "share_above_select": 0.0}
    made = artefact("explore", ended_because=None, composition="Ni7", atoms=7, frames=0, **figures)

    def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
        names.append(name)
        return made

    run = Run(Workspace(root=Path("nowhere"), settings=Settings(cores=1)), step=step, note=lambda *_: None)
    monkeypatch.setattr(type(run.workspace.store), "path", lambda *_: Path("starts.parquet"))
    assert len(run_conditions(given, student, 1, 1, run)) == 4
    assert len(set(names)) == 4
    table = pa.Table.from_pylist([START | {"row": 0, "state": '{"charge": 1}'}])
    with pytest.raises(UserError, match="a start has a charge, a spin or another state"):
        run_conditions(given, student, 1, 1, run)


def test_errors_of_a_condition_are_those_of_its_frames_and_none_without_a_label() -> None:
    limits = {"force_limit_meV_per_A": 100.0, "energy_limit_meV_per_atom": 10.0}
    made = ExplorationRound(number=1, level=1, labels=0, runs=(), share=0.01, **limits)
    found = of_condition(1, [row(100.0, 3), row(200.0, 1), row(None, 2)], made, None)
    assert (found.force_mae_meV_per_A, found.over) == (125.0, 1.25)
    assert (found.frames, found.set_aside, found.set_aside_because) == (4, 2, "a force")
    assert of_condition(1, [row(None, 2)], made, None).over is None


def test_a_milder_condition_has_a_share_of_time_pressure_and_heat() -> None:
    asked = ExploreCondition(temperature_K=300.0, end_temperature_K=1800.0, pressure_GPa=10.0, picoseconds=6.0)
    half = asked.milder(0.5)
    assert (half.temperature_K, half.end_temperature_K) == (300.0, 1050.0)
    assert (half.pressure_GPa, half.picoseconds) == (5.0, 3.0)
    assert asked.milder(1.0) == asked
    cold = ExploreCondition(temperature_K=100.0, picoseconds=1.0).milder(0.1)
    assert cold.temperature_K == 100.0
