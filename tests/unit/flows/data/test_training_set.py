"""Which frames a fit in stages has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.data.prepare import Prepared
from flows.data.training_set import frames_of
from flows.run import Run
from tasks.artefact import Artefact, StepCall
from tasks.settings import Settings
from tasks.workspace import Workspace


@pytest.mark.parametrize(("stages", "with_properties", "plain"), [(2, True, True), (1, True, False), (2, False, False)])
def test_stages_before_the_last_have_frames_without_structures_for_properties(
    prepared: Prepared, artefact: Callable[..., Artefact], stages: int, with_properties: bool, plain: bool
) -> None:
    calls: list[StepCall] = []

    def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
        calls.append(call)
        return artefact("frames", str(len(calls)), pairs={})

    recipe = prepared.recipe.model_copy(update={"stages": prepared.recipe.stages * stages})
    labels = (artefact("pool_labels", "properties"),) if with_properties else ()
    run = Run(Workspace(root=Path("nowhere"), settings=Settings(cores=1)), step=step)
    made = frames_of(replace(prepared, recipe=recipe), artefact("pace_select"), run, labels)
    assert (made.plain is not None) == plain
    with_labels = [tuple(one.file("labels") for one in labels), ()]
    assert [call.inputs.get("properties", ()) for call in calls] == with_labels[: len(calls)]
