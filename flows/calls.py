"""Every step of the way as a call: what it reads and with which parameters. Pure; the flow and the dry run share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from containers import ingest, pool_labels
from containers.contract import Resources
from containers.mace import fetch, label
from containers.mace.teacher_info import Teacher
from containers.tensorpot import dataset, evaluate, pace_train, select
from containers.tensorpot.pacemaker_input import Loss
from flows.config import DistillConfig
from flows.plan import FitPlan
from flows.recipe import Recipe
from tasks.artefact import Artefact, External, FileRef, StepCall, Stored
from tasks.label import Asked
from tasks.label_store import TeacherKey
from tasks.settings import Settings


def ingest_call(files: tuple[External, ...], energy_key: str | None = None, forces_key: str | None = None) -> StepCall:
    """Files → one table of structures; with keys, of DFT labels."""
    names = tuple(file.path.name for file in files)
    params = ingest.Params(file_names=names, energy_key=energy_key, forces_key=forces_key)
    return StepCall(step="ingest", params=params.model_dump(mode="json"), inputs={"files": files})


def dft_call(config: DistillConfig, files: tuple[External, ...]) -> StepCall:
    """DFT files → a table with their labels."""
    return ingest_call(files, config.dft.energy_key, config.dft.forces_key)


def fetch_call(name: str) -> StepCall:
    """A foundation model by its name."""
    return StepCall(step="teacher_fetch", params=fetch.Params(name=name).model_dump(mode="json"))


def teacher_call(model: FileRef) -> StepCall:
    """What the teacher is, so that nothing else opens the pickle."""
    return StepCall(step="teacher_info", params={}, inputs={"model": (model,)})


def asked(recipe: Recipe, model: FileRef, teacher: Teacher) -> Asked:
    """How a teacher of the committee is asked."""
    params = label.Params(head=recipe.head, dtype=recipe.config.teacher.dtype)
    return Asked(model=model, params=params, cutoff_A=teacher.r_max_A)


def pool_labels_call(
    recipe: Recipe, pool: Artefact, teachers: Sequence[TeacherKey], unlabelled: Mapping[str, str] | None = None
) -> StepCall:
    """The labels of the pool, from the rows that the teachers' label stores have.

    Args:
        unlabelled: id -> why this machine cannot label it; another may.
    """
    config = recipe.config
    params = pool_labels.Params(
        teachers=tuple(key.digest for key in teachers),
        bounds=config.labels,
        max_force_std=config.teacher.max_force_std,
        e0s_eV=recipe.e0s_eV,
        unlabelled=dict(sorted((unlabelled or {}).items())),
    )
    return StepCall(
        step="pool_labels", params=params.model_dump(mode="json"), inputs={"structures": (pool.file("structures"),)}
    )


def select_call(recipe: Recipe, labels: Artefact) -> StepCall:
    """The training structures, from the training side alone."""
    config = recipe.config
    params = select.Params(
        potential=recipe.potential,
        method=config.selection.method,
        max_structures=config.selection.max_structures,
        split=config.split,
        seed=config.train.seed,
        e0s_eV=recipe.e0s_eV,
    )
    return StepCall(
        step="pace_select", params=params.model_dump(mode="json"), inputs={"labels": (labels.file("labels"),)}
    )


def dataset_call(
    recipe: Recipe, labels: Artefact, selection: Artefact, dft: Artefact | None, dft_test: Artefact | None
) -> StepCall:
    """pacemaker's frames: selected labels and DFT data, on three sides."""
    params = dataset.Params(
        e0s_eV=recipe.e0s_eV,
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        split=recipe.config.split,
        weight_dft=recipe.config.pacemaker.weight_dft,
    )
    inputs = {"labels": (labels.file("labels"),), "selection": (selection.file("selection"),)}
    return StepCall(
        step="dataset",
        params=params.model_dump(mode="json"),
        inputs={**inputs, **_optional("dft", dft), **_optional("dft_test", dft_test)},
    )


def train_params(recipe: Recipe, plan: FitPlan) -> pace_train.Params:
    """The fit that a plan describes."""
    return pace_train.Params(
        potential=recipe.potential,
        loss=Loss(kappa=recipe.config.pacemaker.kappa, l1=plan.l1, l2=plan.l2),
        maxiter=plan.maxiter,
        ladder_step=plan.ladder_step,
        batch_size=plan.batch_size,
        seed=recipe.config.train.seed,
        reference_potential=recipe.config.pacemaker.reference_potential,
    )


def train_call(recipe: Recipe, plan: FitPlan, data: Artefact, start: Stored | None, settings: Settings) -> StepCall:
    """One attempt at the fit, from `start` when the plan continues."""
    threads = recipe.config.train.threads
    inputs: dict[str, tuple[FileRef, ...]] = {
        "train": (data.file("train"),),
        "validation": (data.file("validation"),),
        **({"start": (start,)} if start else {}),
    }
    return StepCall(
        step="pace_train",
        params=train_params(recipe, plan).model_dump(mode="json"),
        inputs=inputs,
        resources=Resources(threads=settings.cores if threads == "auto" else threads, device=settings.device),
    )


def active_set_call(potential: Stored, data: Artefact) -> StepCall:
    """The active set of the trained potential, from exactly the training frame."""
    return StepCall(
        step="pace_activeset", params={}, inputs={"potential": (potential,), "train": (data.file("train"),)}
    )


def evaluate_call(
    recipe: Recipe, potential: Stored, active_set: Artefact, data: Artefact, dft_test: Artefact | None
) -> StepCall:
    """Student against teacher on the test side, and against DFT when there is a test file."""
    params = evaluate.Params(e0s_eV=recipe.e0s_eV, elements=recipe.potential.elements)
    inputs: dict[str, tuple[FileRef, ...]] = {
        "potential": (potential,),
        "asi": (active_set.file("asi"),),
        "test": (data.file("test"),),
        **_optional("dft_test", dft_test),
    }
    return StepCall(step="evaluate", params=params.model_dump(mode="json"), inputs=inputs)


def _optional(name: str, artefact: Artefact | None) -> dict[str, tuple[FileRef, ...]]:
    return {name: (artefact.file("structures"),)} if artefact else {}
