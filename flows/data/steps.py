"""The steps up to the frames as calls: inputs and parameters of each; `flows.fit.steps` has the others.

Pure; the flow and the dry run share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from containers.contract import Resources
from containers.ingest import ingest
from containers.labels import pool_labels
from containers.mace.exploration import composition_seeds
from containers.mace.labelling import mace_label
from containers.mace.properties import property_structures, teacher_properties
from containers.mace.teacher import teacher_fetch
from containers.mace.teacher.description import Teacher
from containers.properties.compare import Group
from containers.structures.state import Reads
from containers.tensorpot.baseline import baseline
from containers.tensorpot.dataset import dataset
from containers.tensorpot.exploration import seed_pool
from containers.tensorpot.frames import frames, strain
from containers.tensorpot.selection import pace_select
from flows.config.schema import DistillConfig
from flows.data.recipe import Recipe
from tasks.artefact import Artefact, External, FileRef, StepCall, call
from tasks.label_store.store import TeacherKey
from tasks.labelling.shard_task import TeacherCall
from tasks.settings import Settings


def ingest_call(
    config: DistillConfig,
    files: Sequence[External],
    known: Sequence[FileRef] = (),
    reads: Reads | None = None,
    made: Mapping[str, FileRef] | None = None,
    **further: Any,
) -> StepCall:
    """Return the call that reads files into one table of structures, which join the families of the `known` tables.

    Args:
        reads: keys of a frame that the teachers read beside its geometry.
        made: further tables, which steps made, by their names (`name.parquet`).
        further: parameters; for files with labels see `dft_call`.
    """
    tables = made or {}
    params = ingest.Params(
        file_names=(*distinct_names([file.path for file in files]), *tables),
        likeness_A=config.dataset.likeness_A,
        type_elements=tuple(config.dataset.elements_of_types),
        reads=dict(reads or {}),
        **further,
    )
    return call("ingest", params, files=[*files, *tables.values()], known=known)


def seed_pool_call(config: DistillConfig, seeds: Artefact) -> StepCall:
    """Return the call that makes a first pool, and start structures for molecular dynamics.

    Args:
        seeds: of `ingest`.
    """
    wanted = config.explore
    params = seed_pool.Params(
        structures=wanted.structures,
        vacancies=wanted.vacancies,
        slabs=wanted.slabs,
        faces=tuple(wanted.faces),
        substitutions={element: tuple(others) for element, others in wanted.substitutions.items()},
        seed=config.train.seed,
    )
    return call("seed_pool", params, seeds=seeds.file("structures"))


def composition_seeds_call(
    config: DistillConfig, models: Iterable[FileRef], head: str, known: Artefact | None, settings: Settings
) -> StepCall:
    """Return the call that finds crystals of compositions with the teacher.

    Args:
        known: of `ingest`, the user's seeds; their copies are left out.
    """
    wanted = config.explore
    params = composition_seeds.Params(
        head=head,
        compositions=tuple(wanted.compositions),
        crystals=wanted.drawn_crystals,
        kept=wanted.crystals_per_composition,
        most_atoms=wanted.drawn_atoms,
        energy_above_eV_per_atom=wanted.energy_above_eV_per_atom,
        seed=config.train.seed,
    )
    inputs = {"model": list(models), "known": known.file("structures") if known else None}
    return call("composition_seeds", params, Resources(threads=settings.cores), **inputs)


def dft_call(
    config: DistillConfig,
    files: Sequence[External],
    known: Sequence[FileRef] = (),
    reads: Reads | None = None,
    test: bool = False,
    every: bool = False,
) -> StepCall:
    """Return the call that reads DFT files into a table with their labels.

    Args:
        reads: keys of a frame that the teachers read beside its geometry.
        test: the test files, which join the families of their near duplicates.
        every: compare with every structure of the `known` tables, as test files are.
    """
    keys = config.dft.model_dump(include={"energy_key", "forces_key", "stress_key"})
    return ingest_call(
        config, files, known, reads, joins=test, compare="every" if every or test else "founders", **keys
    )


def distinct_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the files' names with as many of their folders as make them differ: `run1/OUTCAR`, `run2/OUTCAR`."""
    depths = range(1, max((len(path.parts) for path in paths), default=1) + 1)
    tails = [[str(Path(*path.parts[-depth:])) for path in paths] for depth in depths]
    different = len(set(paths))
    return tuple(next(names for names in tails if len(set(names)) == different))


def fetch_call(name: str) -> StepCall:
    """A foundation model by its name."""
    return call("teacher_fetch", teacher_fetch.Params(name=name))


def teacher_info_call(model: FileRef) -> StepCall:
    """Description of a teacher, so that nothing else opens the pickle."""
    return call("teacher_info", model=model)


def label_call(recipe: Recipe, model: FileRef, teacher: Teacher) -> TeacherCall:
    """A teacher with the parameters of its labelling."""
    params = mace_label.Params(head=recipe.head, dtype=recipe.dtype)
    return TeacherCall(model=model, params=params, cutoff_A=teacher.r_max_A)


def pool_labels_call(
    recipe: Recipe, pool: Artefact, teachers: Sequence[TeacherKey], unlabelled: Mapping[str, str] | None = None
) -> StepCall:
    """The labels of the pool, from the rows that the teachers' label stores have.

    Args:
        unlabelled: id -> why this machine cannot label it; another may.
    """
    params = pool_labels.Params(
        teachers=tuple(key.digest for key in teachers),
        bounds=recipe.labels,
        max_force_std=recipe.max_force_std,
        e0s_eV=recipe.teacher_e0s_eV,
        unlabelled=dict(sorted((unlabelled or {}).items())),
    )
    return call("pool_labels", params, structures=pool)


def baseline_call(
    recipe: Recipe,
    labels: Artefact,
    dft: Artefact | None,
    dft_test: Artefact | None,
    by_teacher: Sequence[Artefact],
    base: FileRef | None = None,
    base_set: FileRef | None = None,
) -> StepCall:
    """Energies that are taken off the labels before the fit: E0 and pair terms.

    Args:
        by_teacher: the teacher's labels of the DFT structures, and why some have none.
        base: the baseline of an earlier run, whose DFT data stay in.
        base_set: the data set of that run, whose labels count beside the new ones.
    """
    params = baseline.Params(
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        teacher_e0s_eV=recipe.teacher_e0s_eV,
        e0s=recipe.dataset.reference_energies,
        dft_energies=recipe.dft_energies,
        reference_potential=recipe.reference_potential,
        difference=recipe.learns_difference,
        lj=recipe.lj,
        split=recipe.split,
    )
    return call(
        "baseline",
        params,
        labels=labels,
        dft=dft.file("structures") if dft else None,
        dft_test=dft_test.file("structures") if dft_test else None,
        base=base,
        base_set=base_set,
        dft_teacher=[table.file("labels") for table in by_teacher],
        dft_rejected=[table.file("rejected") for table in by_teacher],
    )


def teacher_properties_call(
    recipe: Recipe, models: Iterable[FileRef], labels: Artefact, crystals: Artefact | None, settings: Settings
) -> StepCall:
    """Crystals and the teacher's properties of them.

    Args:
        labels: of the pool, from which crystals are chosen.
        crystals: of the user's files.
    """
    wanted = recipe.properties
    params = teacher_properties.Params(
        head=recipe.head, prototypes=tuple(wanted.prototypes), at_most=wanted.from_pool, settings=wanted.settings
    )
    inputs = {
        "model": list(models),
        "structures": labels.file("labels") if wanted.from_pool else None,
        "crystals": crystals.file("structures") if crystals else None,
    }
    return call("teacher_properties", params, Resources(threads=settings.cores), **inputs)


def property_structures_call(
    recipe: Recipe,
    models: Iterable[FileRef],
    measured: Artefact,
    missed: Mapping[str, Sequence[Group]],
    before: int,
    settings: Settings,
) -> StepCall:
    """Structures that decide properties.

    Args:
        measured: of `teacher_properties`.
        missed: name of a crystal -> groups of its properties.
        before: rounds that made some already; chance then decides anew.
    """
    params = property_structures.Params(
        head=recipe.head,
        missed={name: tuple(groups) for name, groups in missed.items()},
        settings=recipe.properties.settings,
        seed=recipe.seed + before,
    )
    threads = Resources(threads=settings.cores)
    return call("property_structures", params, threads, model=list(models), properties=measured)


def dataset_call(
    recipe: Recipe,
    labels: Artefact,
    dft: Artefact | None,
    dft_test: Artefact | None,
    base: FileRef | None,
    teachers: Sequence[TeacherKey],
) -> StepCall:
    """All labelled structures in three splits: the data of `base` and the new ones."""
    params = dataset.Params(
        elements=recipe.potential.elements,
        split=recipe.split,
        teachers=tuple(key.digest for key in teachers),
        test_leaks=recipe.dataset.test_leaks,
    )
    return call(
        "dataset",
        params,
        base=base,
        labels=labels,
        dft=dft.file("structures") if dft else None,
        dft_test=dft_test.file("structures") if dft_test else None,
    )


def select_call(
    recipe: Recipe,
    data: Artefact,
    base: Artefact,
    settings: Settings,
    given: FileRef | None = None,
    fitted: FileRef | None = None,
) -> StepCall:
    """The training structures, from the training split alone. Strained ones take their share of the budget.

    Args:
        data: of the `dataset` step.
        base: of the `baseline` step.
        given: selection of an earlier run.
        fitted: a potential with the basis of the fit, for full projections.
    """
    selection, strained = recipe.selection, recipe.loss_stress > 0
    structures, fraction = selection.max_structures, selection.fraction
    params = pace_select.Params(
        potential=recipe.potential,
        method=selection.method,
        max_structures=None if fraction else strain.to_select(structures) if strained else structures,
        fraction=fraction and fraction * (1 - strain.SHARE if strained else 1),
        projections=selection.projections,
        seed=recipe.seed,
    )
    return call(
        "pace_select", params, select_resources(settings), dataset=data, baseline=base, given=given, potential=fitted
    )


def select_resources(settings: Settings) -> Resources:
    """Resources of the steps that project a whole data set."""
    gigabytes = settings.select_memory_GB
    return Resources(threads=settings.cores, memory_bytes=gigabytes and round(gigabytes * 1e9))


def strain_call(recipe: Recipe, data: Artefact, selection: Artefact) -> StepCall:
    """Strained structures, from which the student learns stress."""
    params = strain.Params(seed=recipe.seed)
    return call("strain", params, dataset=data, selection=selection)


def frames_call(
    recipe: Recipe,
    data: Artefact,
    selection: Artefact,
    base: Artefact,
    strains: Artefact | None,
    properties: Sequence[Artefact] = (),
) -> StepCall:
    """pacemaker's frames in three splits: selected, DFT and strained structures, and those that decide properties."""
    params = frames.Params(
        elements=recipe.potential.elements,
        cutoff=recipe.potential.cutoff,
        weight_dft=recipe.weight_dft,
        weights=recipe.dataset.weights,
        property_shares=frames.PROPERTY_SHARES | recipe.properties.weights,
        energy_weights=recipe.energy_weights,
        energy_scale_eV_per_atom=recipe.energy_scale_eV_per_atom,
        force_scale_eV_per_A=recipe.force_scale_eV_per_A,
        loss_energy=recipe.loss_energy,
        loss_stress=recipe.loss_stress,
    )
    return call(
        "frames",
        params,
        dataset=data,
        dataset_set_aside=data.file("set_aside"),
        selection=selection,
        baseline=base,
        strains=strains.file("labels") if strains else None,
        properties=[table.file("labels") for table in properties],
    )
