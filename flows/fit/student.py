"""A student: a fit and what follows it."""

from __future__ import annotations

from dataclasses import dataclass

from containers.tensorpot.evaluation import stability
from flows.data.prepare import Prepared
from flows.data.recipe import Recipe
from flows.data.training_set import TrainingSet
from flows.fit import steps
from flows.fit.attempts import Attempt, fit
from flows.run import Run
from tasks.artefact import Artefact, Stored


@dataclass(frozen=True)
class FittedStudent:
    """A finished student: its training set, its fit, its active set, the exported potential, its errors.

    Attributes:
        recipe: its potential has the number of functions.
        attempts: at the fit; `fit` is the result of the best.
        stability: None when the config wants no gate.
        properties: beside the teacher's; None when the config wants no crystals.
    """

    recipe: Recipe
    training: TrainingSet
    attempts: list[Attempt]
    fit: Artefact
    active_set: Artefact
    core: Artefact
    stability: Artefact | None
    evaluation: Artefact
    properties: Artefact | None = None

    @property
    def taken(self) -> Attempt:
        """The attempt whose result is the fit."""
        return next(attempt for attempt in self.attempts if attempt.artefact is self.fit)

    @property
    def stable(self) -> bool | None:
        """Verdict of the stability gate; None without one."""
        return self.stability.read(stability.Metrics).stable if self.stability else None

    @property
    def results(self) -> dict[str, Artefact]:
        """Artefacts by step, without selection and fit."""
        found = (
            *(self.training.frames, self.active_set, self.core),
            *(self.stability, self.evaluation, self.properties),
        )
        return {artefact.step: artefact for artefact in found if artefact}


def make_student(prepared: Prepared, training: TrainingSet, run: Run, start: Stored | None = None) -> FittedStudent:
    """Fit; then active set, core, stability, evaluation and properties of the best potential.

    Args:
        start: potential without core repulsion that the fit begins with.
    """
    recipe, frames, baseline = prepared.recipe, training.frames, prepared.baseline
    attempts, best = fit(recipe, frames, prepared.limits, run, start)
    potential = best.file("best")
    active_set = run(steps.active_set_call(recipe, potential, frames))
    core = run(steps.core_call(recipe, potential, active_set, frames, baseline))
    gate = recipe.stability.picoseconds > 0
    stable = run(steps.stability_call(recipe, core, active_set, frames, baseline)) if gate else None
    evaluation = run(steps.evaluate_call(recipe, core, active_set, frames, baseline, prepared.ingested.dft_test))
    properties = None
    if prepared.teacher_properties:
        properties = run(steps.student_properties_call(recipe, core, active_set, baseline, prepared.teacher_properties))
    return FittedStudent(recipe, training, attempts, best, active_set, core, stable, evaluation, properties)
