"""The stability gate as a call."""

from __future__ import annotations

from containers.tensorpot import stability
from flows.recipe import Recipe
from tasks.artefact import Artefact, FileRef, StepCall


def stability_call(recipe: Recipe, core: Artefact, active_set: Artefact, frames: Artefact, base: Artefact) -> StepCall:
    """Molecular dynamics with the finished student. The config must ask for some (`stability.picoseconds` above 0)."""
    params = stability.Params(**recipe.config.stability.model_dump(), seed=recipe.config.train.seed)
    inputs: dict[str, tuple[FileRef, ...]] = {
        "potential": (core.file("potential"),),
        "asi": (active_set.file("asi"),),
        "baseline": (base.file("baseline"),),
        "train": (frames.file("train"),),
    }
    return StepCall(step="stability", params=params.model_dump(mode="json"), inputs=inputs)
