"""When frames of the student's own trajectory are labelled, and what follows where none has a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.data import labelling
from flows.data.prepare import Ingested
from flows.data.training_set import TrainingSet
from flows.distill import trajectory
from flows.run import Run
from tasks.artefact import Artefact, External, StepCall
from tasks.errors import StepFailed
from tasks.settings import Settings
from tasks.workspace import Workspace

WORKSPACE = Workspace(root=Path("nowhere"), settings=Settings(cores=1))


@pytest.fixture
def followed(prepared: Any, data: Artefact, artefact: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `follow` for a student; labelling gives labels, or fails with this kind."""

    def run(
        frames: int = 30, failure: str = "", atoms: int = 5_000, ended: str = "", **wanted: Any
    ) -> list[StepCall | str]:
        called: list[StepCall | str] = []

        def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
            called.append(call)
            if call.step == "teacher_motion":
                return artefact(call.step, temperature_K=300.0, steps=1000, failed=ended)
            return artefact(call.step, frames=frames, motion_atom_steps=72_000)

        def label(recipe: Any, pool: Artefact, teachers: Any, run: Run, name: str) -> Artefact:
            called.append(f"{name} of {pool.step}")
            if failure:
                raise StepFailed("pool_labels", failure, "none of the 30 structures has a label", Path("kept"))
            return artefact("pool_labels")

        monkeypatch.setattr(labelling, "label", label)
        section = prepared.config.trajectory.model_copy(update=wanted)
        recipe = prepared.recipe.model_copy(update={"trajectory": section})
        student = SimpleNamespace(
            recipe=recipe, training=TrainingSet(artefact("pace_select"), data), stability=artefact("stability"),
            core=artefact("pace_corerep"), active_set=artefact("pace_activeset"),
        )  # fmt: skip
        models = {"teacher.model": External(path=Path("/data/teacher.model"), sha256="m")}
        given = replace(prepared, models=models, ingested=Ingested(artefact("ingest", atoms=atoms)))
        trajectory.follow(given, student, Run(WORKSPACE, step=step))
        return called

    return run


def test_frames_are_labelled_between_the_two_steps(followed: Any) -> None:
    made, labelled, compared = followed()
    assert labelled == "pool_labels trajectory of trajectory"
    assert (made.step, compared.step) == ("trajectory", "trajectory_errors")
    assert {"stability", "nve_frames"} <= set(made.inputs)
    assert {"labels", "rejected"} <= set(compared.inputs)


@pytest.mark.parametrize(("changes", "steps"), [({"frames": 0}, 2), ({"failure": "BadInput"}, 3)])
def test_without_labels_the_counts_are_still_made(followed: Any, changes: dict[str, Any], steps: int) -> None:
    found = followed(**changes)
    assert len(found) == steps
    assert found[-1].step == "trajectory_errors"
    assert not {"labels", "rejected"} & set(found[-1].inputs)


def test_another_failure_of_the_labelling_ends_the_run(followed: Any) -> None:
    with pytest.raises(StepFailed, match="none of the 30"):
        followed(failure="OutOfMemory")


def test_zero_picoseconds_mean_no_step(followed: Any) -> None:
    assert followed(picoseconds=0.0) == []


def test_the_teacher_repeats_a_run_that_costs_less_than_a_tenth_of_its_labels(followed: Any) -> None:
    assert followed(atoms=720_001)[-1].step == "teacher_motion"
    assert followed(atoms=720_000)[-1].step == "trajectory_errors"
    assert not trajectory.affordable(72_000, 720_001, "cuda"), "a small cell does not fill a GPU"
    assert not trajectory.affordable(None, 720_001, "cpu")


def test_a_run_of_the_teacher_that_ends_early_is_warned_of(followed: Any, caplog: pytest.LogCaptureFixture) -> None:
    followed(atoms=720_001, ended="its forces are no numbers after 0.02 ps")
    assert "the teacher's run beside the student's ended early: its forces are no numbers" in caplog.text
