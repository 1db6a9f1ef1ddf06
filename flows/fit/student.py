"""A student: what follows the fit."""

from __future__ import annotations

from dataclasses import dataclass

from flows.data.recipe import Recipe
from flows.fit import steps
from flows.run import RunCall
from tasks.artefact import Artefact


@dataclass(frozen=True)
class Student:
    """A finished student: its fit, its active set, the exported potential, its errors.

    Attributes:
        stability: None when the config wants no gate.
    """

    fit: Artefact
    active_set: Artefact
    core: Artefact
    stability: Artefact | None
    evaluation: Artefact


def finish(
    recipe: Recipe, best: Artefact, frames: Artefact, baseline: Artefact, dft_test: Artefact | None, run: RunCall
) -> Student:
    """Active set, core, stability and evaluation of a fit's best potential."""
    potential = best.file("best")
    active_set = run(steps.active_set_call(recipe, potential, frames))
    core = run(steps.core_call(recipe, potential, active_set, frames, baseline))
    gate = recipe.config.stability.picoseconds > 0
    stability = run(steps.stability_call(recipe, core, active_set, frames, baseline)) if gate else None
    evaluation = run(steps.evaluate_call(recipe, core, active_set, frames, baseline, dft_test))
    return Student(best, active_set, core, stability, evaluation)
