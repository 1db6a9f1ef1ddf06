"""The stability gate as a call."""

from __future__ import annotations

from typing import Any

from containers.tensorpot.evaluation import stability
from flows.data.recipe import Recipe
from flows.fit.steps import stability_call


def test_the_config_s_gate_reaches_the_step(recipe: Recipe, artefact: Any) -> None:
    call = stability_call(
        recipe, artefact("pace_corerep"), artefact("pace_activeset"), artefact("frames"), artefact("baseline")
    )
    assert call.step == "stability"
    assert set(call.inputs) == set(stability.INPUTS)
    wanted = recipe.stability.model_dump() | {"seed": recipe.seed}
    assert call.params == wanted
    assert stability.Params.model_validate(call.params) == stability.Params(seed=recipe.seed)
    assert call.inputs["potential"] == (artefact("pace_corerep").file("potential"),)
    assert call.inputs["train"] == (artefact("frames").file("train"),)
