"""From the user's files to one labelled data set with its splits and its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow.compute as pc
import pyarrow.parquet as pq
from ase.data import chemical_symbols

from containers.ingest import ingest
from containers.mace.teacher.description import Teacher
from containers.structures.state import Reads, union
from containers.structures.table import Origin
from containers.tensorpot.baseline import baseline
from containers.tensorpot.dataset import dataset
from containers.tensorpot.selection.coverage import Tables
from flows.config.loading import Files
from flows.config.schema import DistillConfig
from flows.config.training import Limits
from flows.data import steps
from flows.data.frame_warnings import frame_warnings
from flows.data.labelling import label
from flows.data.recipe import (
    Recipe,
    check_committee,
    check_compositions,
    check_elements,
    check_split,
    common_head,
    resolve,
)
from flows.run import Missing, Run, is_made
from tasks.artefact import Artefact, External, FileRef
from tasks.errors import UserError
from tasks.labelling.shard_task import TeacherCall
from tasks.prefect_logging import run_log
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Ingested:
    """The user's structures as tables, and files of earlier runs.

    Attributes:
        crystals: of the user's files, on which properties are measured.
        starts: structures made of the seeds, from which molecular dynamics starts.
        merged, given, earlier_baseline: data set, selection and baseline of an earlier run (flows.config.loading.BASE).
        fitted: potential of an earlier run, whose coefficients the selection uses.
    """

    pool: Artefact
    dft: Artefact | None = None
    dft_test: Artefact | None = None
    crystals: Artefact | None = None
    starts: Artefact | None = None
    merged: External | None = None
    given: External | None = None
    earlier_baseline: External | None = None
    fitted: External | None = None

    @property
    def with_dft(self) -> list[tuple[str, Artefact]]:
        """The tables of DFT data that there are, by their names."""
        named = (("DFT data", self.dft), ("DFT test data", self.dft_test))
        return [(name, table) for name, table in named if table]

    def resolve(self, config: DistillConfig, teachers: Sequence[Teacher]) -> Recipe:
        """Return the recipe of a config for these data."""
        in_dft = {element for _, table in self.with_dft for element in table.read(ingest.Metrics).elements}
        in_pool = set(self.pool.read(ingest.Metrics).elements)
        if self.merged:
            column = pq.read_table(self.merged.path, columns=["numbers"])["numbers"]
            in_pool |= {chemical_symbols[number] for number in pc.unique(pc.list_flatten(column)).to_pylist()}
        recipe = resolve(config, teachers, in_pool, in_dft)
        in_crystals = set(self.crystals.read(ingest.Metrics).elements) if self.crystals else set()
        if strange := sorted(in_crystals - set(recipe.potential.elements)):
            known = ", ".join(recipe.potential.elements)
            raise UserError(f"properties.files: a crystal has {strange[0]}, but the potential has {known}.")
        return recipe

    def tables(self, workspace: Workspace) -> Tables:
        """Return the files of the structures by their origin."""
        new: dict[Origin, Path] = {"teacher": workspace.store.path(self.pool.file("structures"))}
        if self.dft:
            new["dft"] = workspace.store.path(self.dft.file("structures"))
        test = workspace.store.path(self.dft_test.file("structures")) if self.dft_test else None
        return Tables(new, test, self.merged.path if self.merged else None)


def ingest_all(
    config: DistillConfig,
    files: Files,
    run: Run,
    reads: Reads | None = None,
    models: Sequence[FileRef] = (),
    head: str = "",
    explored: Mapping[str, FileRef] | None = None,
) -> Ingested:
    """Read every file. DFT data come first and test data last: the later one finds a family that two of them share, so
    that growing the pool changes no family of the DFT data.

    Where the pool's files name families and frames of the DFT data have none, both are read once more, the pool first:
    a DFT structure must not be trained on beside a test of its own copies.

    Args:
        reads: keys of a frame that the teachers read beside its geometry.
        models, head: of the teachers, which find crystals of `explore.compositions`.
        explored: tables of structures that join the pool, by names `name.parquet`.
    """
    known = list[FileRef](files["base"][:1])
    starts, made = None, dict(explored or {})
    seeds = run(steps.ingest_call(config, files["seeds"], (), reads), "ingest seeds") if files["seeds"] else None
    if config.explore.compositions:
        found = run(steps.composition_seeds_call(config, models, head, seeds, run.workspace.settings))
        made["composition_seeds.parquet"] = found.file("structures")
        further = {"composition_seeds.parquet": found.file("seeds")}
        seeds = run(steps.ingest_call(config, files["seeds"], (), reads, further), "ingest seeds and found crystals")
    if seeds:
        starts = run(steps.seed_pool_call(config, seeds))
        made["seed_pool.parquet"] = starts.file("structures")
    dft = run(steps.dft_call(config, files["dft"], known, reads), "ingest DFT data") if files["dft"] else None
    beside = [*known, dft.file("structures")] if dft else known
    pool = run(steps.ingest_call(config, files["pool"], beside, reads, made), "ingest")
    own = dft.read(ingest.Metrics) if dft else None
    unnamed = own is not None and own.frames_with_given_family < own.structures + own.duplicates
    if unnamed and pool.read(ingest.Metrics).frames_with_given_family:
        pool = run(steps.ingest_call(config, files["pool"], known, reads, made), "ingest pool first")
        call = steps.dft_call(config, files["dft"], [*known, pool.file("structures")], reads, every=True)
        dft = run(call, "ingest DFT data beside the pool")
    known += [table.file("structures") for table in (dft, pool) if table]
    test = None
    if files["dft_test"]:
        test = run(steps.dft_call(config, files["dft_test"], known, reads, test=True), "ingest DFT test data")
    crystals = None
    if files["crystals"]:
        crystals = run(steps.ingest_call(config, files["crystals"], reads=reads), "ingest crystals")
    merged, given, taken_off = files["base"] or (None, None, None)
    ingested = Ingested(
        pool, dft, test, crystals, starts, merged, given, taken_off, next(iter(files["potential"]), None)
    )
    for name, table in [("pool", pool), *ingested.with_dft]:
        for warning in frame_warnings(table.read(ingest.Metrics), name):
            run_log().warning(warning)
    return ingested


@dataclass(frozen=True)
class Resolved:
    """Everything that is known before the labelling."""

    config: DistillConfig
    recipe: Recipe
    ingested: Ingested
    infos: tuple[Teacher, ...]
    models: dict[str, FileRef]

    @property
    def teachers(self) -> tuple[TeacherCall, ...]:
        """The teachers as the labelling takes them."""
        both = zip(self.models.values(), self.infos, strict=True)
        return tuple(steps.label_call(self.recipe, model, info) for model, info in both)

    def with_config(self, config: DistillConfig) -> Self:
        """Return the same data with another config, which differs only in later steps, and its recipe."""
        return replace(self, config=config, recipe=self.ingested.resolve(config, self.infos))


@dataclass(frozen=True)
class Prepared(Resolved):
    """The labelled data.

    Attributes:
        teacher_properties: crystals with the properties that the teacher gives; None when the config wants none.
    """

    baseline: Artefact
    dataset: Artefact
    teacher_properties: Artefact | None = None

    @property
    def limits(self) -> Limits:
        """Errors and deviations of a student that is good enough for these data."""
        found = self.dataset.read(dataset.Metrics)
        return self.config.convergence.limits(found.force_mean_meV_per_A, found.energy_spread_meV_per_atom)


def resolve_inputs(
    config: DistillConfig,
    files: Files,
    models: dict[str, External | None],
    run: Run,
    explored: Mapping[str, FileRef] | None = None,
) -> Resolved:
    """Look at the teachers, ingest the structures, and refuse data that cannot be fitted.

    Args:
        explored: see `ingest_all`.
    """
    workspace = run.workspace
    for notice in config.notices if run.note is None else ():  # a dry run prints them
        run_log().warning(notice)
    given = {
        name: file or run(steps.fetch_call(name), f"teacher_fetch {name}").file("model")
        for name, file in models.items()
    }
    known = {name: model for name, model in given.items() if is_made(model)}  # all of them, unless in a dry run
    check_committee({name: model.sha256 for name, model in known.items()})
    infos = tuple(
        read_teacher(run(steps.teacher_info_call(model), f"teacher_info {number}" if number > 1 else None), workspace)
        for number, model in enumerate(known.values(), 1)
    )
    fetched = len(known) == len(given)
    if config.explore.compositions and not fetched:
        raise Missing("the rest is planned once the foundation models have been fetched")
    check_compositions(config, infos)
    head = common_head(config, infos) if config.explore.compositions else ""
    reads = union(info.reads for info in infos)
    ingested = ingest_all(config, files, run, reads, list(given.values()), head, explored)
    if not fetched:
        raise Missing("the rest is planned once the foundation models have been fetched")
    recipe, tables = ingested.resolve(config, infos), ingested.tables(workspace)
    check_split(tables, config.split)
    check_elements(recipe, tables)
    return Resolved(config, recipe, ingested, infos, given)


def prepare(
    config: DistillConfig,
    files: Files,
    models: dict[str, External | None],
    run: Run,
    explored: Mapping[str, FileRef] | None = None,
) -> Prepared:
    """Ingest, label, merge, find the baseline."""
    return label_and_merge(resolve_inputs(config, files, models, run, explored), run)


def label_and_merge(known: Resolved, run: Run) -> Prepared:
    """Label the pool and the DFT structures: units and references of DFT are compared with the teacher's labels. Merge,
    find the baseline, and the teacher's properties of crystals."""
    recipe, ingested, teachers = known.recipe, known.ingested, known.teachers
    labels = label(recipe, ingested.pool, teachers, run)
    by_teacher = [label(recipe, table, teachers, run, f"pool_labels {name}") for name, table in ingested.with_dft]
    dft, test = ingested.dft, ingested.dft_test
    keys = [teacher.key(run.workspace) for teacher in teachers]
    merged = run(steps.dataset_call(recipe, labels, dft, test, ingested.merged, keys))  # refuses a base that is none
    earlier = (ingested.earlier_baseline, ingested.merged)
    made = run(steps.baseline_call(recipe, labels, dft, test, by_teacher, *earlier))
    warn_of_dft(made.read(baseline.Metrics))
    crystals = None
    if recipe.properties.wanted:
        sources = (known.models.values(), labels, ingested.crystals)
        crystals = run(steps.teacher_properties_call(recipe, *sources, run.workspace.settings))
    return Prepared(**vars(known), baseline=made, dataset=merged, teacher_properties=crystals)


def with_structures(prepared: Prepared, table: Artefact, run: Run) -> Prepared:
    """Return the data with the structures of a table, labelled by the teacher; what was there keeps its split.

    Args:
        table: of `ingest`, with the data set before as its known one.
    """
    recipe, teachers = prepared.recipe, prepared.teachers
    labels = label(recipe, table, teachers, run)
    keys = [teacher.key(run.workspace) for teacher in teachers]
    before = prepared.dataset.file("dataset")
    merged = run(steps.dataset_call(recipe, labels, None, prepared.ingested.dft_test, before, keys))
    return replace(prepared, dataset=merged)


def warn_of_dft(found: baseline.Metrics) -> None:
    """Warn of DFT labels that look wrong, and of those that were not compared with the teacher's."""
    for warning in found.dft_warnings:
        run_log().warning("DFT data: %s", warning)
    if count := found.dft_not_compared:
        run_log().warning(
            "units and zero of %d DFT structures were not checked, because the teacher has no label of them that keeps"
            " the bounds of `labels`; the first: %s",
            count,
            found.dft_not_compared_first,
        )


def read_teacher(artefact: Artefact, workspace: Workspace) -> Teacher:
    """Return the description of a teacher that `teacher_info` made."""
    return Teacher.read(workspace.store.path(artefact.file("teacher")))
