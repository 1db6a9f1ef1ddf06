"""The step of the convergence loop as a call."""

from __future__ import annotations

from containers.contract import Resources
from containers.tensorpot import weak_spots
from flows.recipe import Recipe
from tasks.artefact import Artefact, FileRef, StepCall
from tasks.settings import Settings


def weak_spots_call(
    recipe: Recipe,
    data: Artefact,
    selection: Artefact,
    base: Artefact,
    core: Artefact,
    active_set: Artefact,
    structures: int,
    settings: Settings,
) -> StepCall:
    """What a student was trained on, and so many structures more that it does worst on.

    Args:
        data: of the `dataset` step.
        selection: what it was trained on, of `pace_select` or of this step.
        base: of the `baseline` step.
        core, active_set: the student.
    """
    limits = recipe.config.convergence
    params = weak_spots.Params(
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        structures=structures,
        force_limit_meV_per_A=limits.force_mae_meV_per_A,
        energy_limit_meV_per_atom=limits.energy_mae_meV_per_atom,
    )
    inputs: dict[str, tuple[FileRef, ...]] = {
        "dataset": (data.file("dataset"),),
        "selection": (selection.file("selection"),),
        "baseline": (base.file("baseline"),),
        "potential": (core.file("potential"),),
        "asi": (active_set.file("asi"),),
    }
    return StepCall(
        step="weak_spots",
        params=params.model_dump(mode="json"),
        inputs=inputs,
        resources=Resources(threads=settings.cores),
    )
