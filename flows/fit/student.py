"""A student: a fit and what follows it."""

from __future__ import annotations

from dataclasses import dataclass

from containers.properties.compare import Deviation
from containers.tensorpot.evaluation import stability, student_properties
from flows.data.prepare import Prepared
from flows.data.recipe import Recipe
from flows.data.training_set import TrainingSet
from flows.fit import steps
from flows.fit.attempts import Attempt, fit
from flows.run import Run
from tasks.artefact import Artefact, Stored


@dataclass(frozen=True)
class Student:
    """A fit with what molecular dynamics needs: its active set and its core.

    Attributes:
        recipe: its potential has the number of functions.
        attempts: at the fit; `fit` is the result of the best.
    """

    recipe: Recipe
    training: TrainingSet
    attempts: list[Attempt]
    fit: Artefact
    active_set: Artefact
    core: Artefact

    @property
    def taken(self) -> Attempt:
        """The attempt whose result is the fit."""
        return next(attempt for attempt in self.attempts if attempt.artefact is self.fit)


@dataclass(frozen=True)
class FittedStudent(Student):
    """A finished student: exported, with its errors.

    Attributes:
        stability: None when the config wants no gate.
        properties: beside the teacher's; None when the config wants no crystals.
    """

    stability: Artefact | None
    evaluation: Artefact
    properties: Artefact | None = None

    @property
    def stable(self) -> bool | None:
        """Verdict of the stability gate; None without one."""
        return self.stability.read(stability.Metrics).stable if self.stability else None

    @property
    def deviations(self) -> list[Deviation]:
        """Of its properties from the teacher's; none where no crystal was compared."""
        found = self.properties.read(student_properties.Metrics).deviations if self.properties else []
        return [Deviation.model_validate(row) for row in found]

    @property
    def results(self) -> dict[str, Artefact]:
        """Artefacts by step, without selection and fit."""
        found = (
            *(self.training.frames, self.active_set, self.core),
            *(self.stability, self.evaluation, self.properties),
        )
        return {artefact.step: artefact for artefact in found if artefact}


def fit_student(
    prepared: Prepared,
    recipe: Recipe,
    training: TrainingSet,
    run: Run,
    start: Stored | None = None,
    resumes: bool = True,
) -> Student:
    """Fit, and find the active set and the core of the best potential.

    Args:
        start: potential without core repulsion that the fit begins with.
        resumes: False: other fits follow, so that a later run must not continue it.
    """
    frames, planned = training.frames, recipe
    if training.plain:
        # the validation split has no structures for properties: the smallest error would keep the stage before
        last = recipe.stages[-1].model_copy(update={"keep": "last"})
        planned = recipe.model_copy(update={"stages": (*recipe.stages[:-1], last)})
    attempts, best = fit(planned, frames, prepared.limits, run, start, training.plain, resumes)
    active_set = run(steps.active_set_call(recipe, best.file("best"), frames))
    core = run(steps.core_call(recipe, best.file("best"), active_set, frames, prepared.baseline))
    return Student(recipe, training, attempts, best, active_set, core)


def make_student(prepared: Prepared, training: TrainingSet, run: Run, start: Stored | None = None) -> FittedStudent:
    """Fit a student with the prepared recipe; then stability, evaluation and properties."""
    recipe, frames, baseline = prepared.recipe, training.frames, prepared.baseline
    made = fit_student(prepared, recipe, training, run, start)
    student = (made.core, made.active_set)
    gate = recipe.stability.picoseconds > 0
    stable = run(steps.stability_call(recipe, *student, frames, baseline)) if gate else None
    evaluation = run(steps.evaluate_call(recipe, *student, frames, baseline, prepared.ingested.dft_test))
    properties = None
    if prepared.teacher_properties:
        properties = run(steps.student_properties_call(recipe, *student, baseline, prepared.teacher_properties))
    return FittedStudent(**vars(made), stability=stable, evaluation=evaluation, properties=properties)
