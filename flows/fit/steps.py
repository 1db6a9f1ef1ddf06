"""The steps from the frames to the evaluated student as calls; `flows.data.steps` has those before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from containers.contract import Resources
from containers.mace.properties import teacher_motion
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation import evaluate, stability, student_properties, trajectory
from containers.tensorpot.exploration import choose_frames, explore
from containers.tensorpot.exploration.dynamics import Condition
from containers.tensorpot.fit import pace_train
from containers.tensorpot.pacemaker.input import Loss, Minimisation
from containers.tensorpot.selection import weak_spots
from flows.config.training import Limits
from flows.data.recipe import Recipe
from flows.data.steps import select_resources
from flows.fit.repairs import FitPlan
from tasks.artefact import Artefact, FileRef, StepCall, Stored, call
from tasks.settings import Settings


def train_params(recipe: Recipe, plan: FitPlan) -> pace_train.Params:
    """Return the fit that a plan describes."""
    values = dict(recipe.stages[plan.stage - 1]) | {name: getattr(plan, name) for name in Minimisation.model_fields}
    if plan.onward or plan.start == "continue":
        values["coefficients"] = "zero"
    values["loss"] = Loss(**{name: getattr(plan, name) for name in Loss.model_fields})
    return pace_train.Params(potential=recipe.potential, **values)


def train_call(recipe: Recipe, plan: FitPlan, data: Artefact, start: Stored | None, settings: Settings) -> StepCall:
    """One attempt at the fit, from `start` when there is one."""
    gigabytes = settings.fit_memory_GB
    resources = Resources(
        threads=recipe.threads or settings.cores,
        inter_op_threads=settings.inter_op_threads,
        device=settings.device,
        memory_bytes=gigabytes and round(gigabytes * 1e9),
        time_limit_s=settings.step_timeout_s,
    )
    return call("pace_train", train_params(recipe, plan), resources, train=data, validation=data, start=start)


def active_set_call(recipe: Recipe, potential: Stored, data: Artefact) -> StepCall:
    """The active set of the trained potential, from exactly the training frame."""
    params = pace_activeset.Params(projections=recipe.selection.projections)
    return call("pace_activeset", params, potential=potential, train=data)


def core_call(recipe: Recipe, potential: Stored, active_set: Artefact, data: Artefact, base: Artefact) -> StepCall:
    """The potential with what keeps its atoms apart, exported."""
    core = "reference" if recipe.learns_difference else recipe.reference_potential
    params = pace_corerep.Params(core=core, r_in_A=recipe.r_in_A)
    return call("pace_corerep", params, interim=potential, asi=active_set, train=data, baseline=base)


def evaluate_call(
    recipe: Recipe, core: Artefact, active_set: Artefact, data: Artefact, base: Artefact, dft_test: Artefact | None
) -> StepCall:
    """Student against teacher on the test split, and against DFT when there is a test file."""
    return call(
        "evaluate",
        evaluate.Params(elements=recipe.potential.elements),
        potential=core,
        asi=active_set,
        yace=core,
        baseline=base,
        test=data,
        pure=data,
        dft_test=dft_test.file("structures") if dft_test else None,
    )


def stability_call(recipe: Recipe, core: Artefact, active_set: Artefact, frames: Artefact, base: Artefact) -> StepCall:
    """Molecular dynamics with the finished student; `stability.picoseconds` must be above 0."""
    params = stability.Params(**recipe.stability.model_dump(), frames=recipe.trajectory.frames, seed=recipe.seed)
    return call("stability", params, potential=core, asi=active_set, baseline=base, train=frames)


def trajectory_call(
    recipe: Recipe, core: Artefact, active_set: Artefact, frames: Artefact, base: Artefact, stable: Artefact | None
) -> StepCall:
    """Structures of the student's own molecular dynamics; `trajectory.picoseconds` must be above 0."""
    params = trajectory.Params(**recipe.trajectory.model_dump(), seed=recipe.seed)
    return call(
        "trajectory",
        params,
        potential=core,
        asi=active_set,
        baseline=base,
        train=frames,
        stability=stable,
        nve_frames=stable,
    )


def teacher_motion_call(recipe: Recipe, models: Iterable[FileRef], made: Artefact, settings: Settings) -> StepCall:
    """The teacher's run beside the student's at the first temperature.

    Args:
        made: of the `trajectory` step.
    """
    params = teacher_motion.Params(head=recipe.head, dtype=recipe.dtype)
    resources = Resources(threads=settings.cores, device="cuda" if settings.device == "cuda" else "cpu")
    return call("teacher_motion", params, resources, model=list(models), trajectory=made)


def trajectory_errors_call(
    core: Artefact, active_set: Artefact, base: Artefact, made: Artefact, labels: Artefact | None
) -> StepCall:
    """Errors on these structures.

    Args:
        made: of the `trajectory` step.
        labels: the teacher's; None where no structure has one.
    """
    return call(
        "trajectory_errors",
        potential=core,
        asi=active_set,
        baseline=base,
        trajectory=made,
        structures=made,
        labels=labels.file("labels") if labels else None,
        rejected=labels.file("rejected") if labels else None,
    )


def student_properties_call(
    recipe: Recipe, core: Artefact, active_set: Artefact, base: Artefact, measured: Artefact
) -> StepCall:
    """The student's properties of the same crystals.

    Args:
        measured: of `teacher_properties`.
    """
    params = student_properties.Params(settings=recipe.properties.settings)
    return call(
        "student_properties",
        params,
        potential=core,
        asi=active_set,
        baseline=base,
        properties=measured,
        yace=core,
        reference_table=core,
    )


def weak_spots_call(
    recipe: Recipe,
    data: Artefact,
    selection: Artefact,
    base: Artefact,
    core: Artefact,
    active_set: Artefact,
    structures: int,
    limits: Limits,
    settings: Settings,
) -> StepCall:
    """The training set of a student, and so many structures more that it does worst on.

    Args:
        data: of the `dataset` step.
        selection: its training set, of `pace_select` or of this step.
        base: of the `baseline` step.
        core, active_set: the student.
        limits: units of force and energy errors in which structures are compared.
    """
    params = weak_spots.Params(
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        structures=structures,
        force_limit_meV_per_A=limits.force_mae_meV_per_A,
        energy_limit_meV_per_atom=limits.energy_mae_meV_per_atom,
    )
    return call(
        "weak_spots",
        params,
        select_resources(settings),
        dataset=data,
        selection=selection,
        baseline=base,
        potential=core,
        asi=active_set,
    )


def explore_call(
    recipe: Recipe,
    condition: Condition,
    start: str,
    replica: int,
    number: int,
    starts: Artefact,
    core: Artefact,
    active_set: Artefact,
    base: Artefact,
) -> StepCall:
    """Molecular dynamics of a student under one condition.

    Args:
        start: id of a structure in `starts`, the result of `seed_pool`.
        number: of the round; each has other velocities.
        core, active_set: the student.
    """
    params = explore.Params(
        condition=condition,
        start=start,
        replica=replica,
        seed=recipe.seed + number,
        gamma_select=recipe.explore.gamma_select,
        gamma_stop=recipe.explore.gamma_stop,
        checked=recipe.explore.checked,
    )
    return call("explore", params, starts=starts, potential=core, asi=active_set, baseline=base)


def choose_frames_call(
    recipe: Recipe, explored: Sequence[Artefact], structures: int, fitted: Stored, active_set: Artefact,
    settings: Settings,
) -> StepCall:  # fmt: skip
    """The frames of explorations that the teacher labels.

    Args:
        explored: of `explore`.
        structures: at most so many.
        fitted: the potential that the active set belongs to.
    """
    params = choose_frames.Params(
        structures=structures,
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        projections=recipe.selection.projections,
        gamma_select=recipe.explore.gamma_select,
        seed=recipe.seed,
    )
    frames = [one.file("structures") for one in explored]
    resources = select_resources(settings)
    return call("choose_frames", params, resources, frames=frames, potential=fitted, asi=active_set)


def frame_errors_call(
    core: Artefact, active_set: Artefact, base: Artefact, frames: Artefact, labels: Artefact | None
) -> StepCall:
    """Errors of a student on frames of its explorations.

    Args:
        frames: of `ingest`.
        labels: the teacher's; None where no frame has one.
    """
    return call(
        "frame_errors",
        potential=core,
        asi=active_set,
        baseline=base,
        structures=frames,
        labels=labels.file("labels") if labels else None,
        rejected=labels.file("rejected") if labels else None,
    )


def committee_call(potentials: Sequence[Stored], frames: Artefact, baseline: Artefact) -> StepCall:
    """Mean prediction of several students for the test structures, and their spread."""
    return call("committee", potentials=potentials, baseline=baseline, test=frames)
