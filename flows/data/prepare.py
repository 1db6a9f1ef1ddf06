"""From the user's files to one labelled data set with its sides and its baseline."""

from __future__ import annotations

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
from containers.tensorpot.selection.coverage import Tables
from flows.config.loading import Files
from flows.config.schema import DistillConfig
from flows.data import steps
from flows.data.labelling import label
from flows.data.recipe import Recipe, check_committee, check_elements, check_sides, resolve
from flows.data.states import state_warnings
from flows.run import Missing, Run, is_made
from tasks.artefact import Artefact, External, FileRef
from tasks.labelling.shard_task import TeacherCall
from tasks.prefect_logging import run_log
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Ingested:
    """The user's structures as tables; the files of an earlier run (flows.files.BASE), or nothing; a fitted potential,
    or nothing."""

    pool: Artefact
    dft: Artefact | None
    dft_test: Artefact | None
    base: tuple[External, ...] = ()
    fitted: External | None = None

    @property
    def merged(self) -> External | None:
        """The data set of an earlier run."""
        return self.base[0] if self.base else None

    @property
    def given(self) -> External | None:
        """What an earlier run selected."""
        return self.base[1] if self.base else None

    @property
    def earlier_baseline(self) -> External | None:
        """What an earlier run took from its labels."""
        return self.base[2] if self.base else None

    @property
    def with_dft(self) -> list[tuple[str, Artefact]]:
        """The tables of DFT data that there are, and what they are called."""
        named = (("DFT data", self.dft), ("DFT test data", self.dft_test))
        return [(name, table) for name, table in named if table]

    @property
    def state_warnings(self) -> list[str]:
        """What to tell the user about charges and spins of the frames."""
        every = [("pool", self.pool), *self.with_dft]
        return [told for name, table in every for told in state_warnings(table.read(ingest.Metrics).states, name)]

    @property
    def dft_elements(self) -> set[str]:
        """Chemical symbols of the DFT data."""
        return {element for _, table in self.with_dft for element in table.read(ingest.Metrics).elements}

    @property
    def pool_elements(self) -> set[str]:
        """Chemical symbols of the pool, and of an earlier run's data."""
        return set(self.pool.read(ingest.Metrics).elements) | _elements_of(self.merged)


def _elements_of(table: External | None) -> set[str]:
    if table is None:
        return set()
    column = pq.read_table(table.path, columns=["numbers"])["numbers"]
    return {chemical_symbols[number] for number in pc.unique(pc.list_flatten(column)).to_pylist()}


def ingest_all(config: DistillConfig, files: Files, run: Run, reads: Reads | None = None) -> Ingested:
    """Read every file. DFT data come first and test data last: a family that two of them share is found by the later
    one, so that a pool that grows changes no family of the DFT data.

    Where the pool's files name families and frames of the DFT data have none, both are read once more, the pool first:
    a DFT structure must not be trained on beside a test of its own copies.

    Args:
        reads: what the teachers read of a frame beside its geometry.
    """
    base, known = files["base"], list[FileRef](files["base"][:1])
    dft = run(steps.dft_call(config, files["dft"], known, reads), "ingest DFT data") if files["dft"] else None
    pool = run(steps.ingest_call(config, files["pool"], [*known, *_tables(dft)], reads), "ingest")
    if dft and pool.read(ingest.Metrics).frames_with_given_family and _have_none(dft):
        pool = run(steps.ingest_call(config, files["pool"], known, reads), "ingest pool first")
        call = steps.dft_call(config, files["dft"], [*known, *_tables(pool)], reads, every=True)
        dft = run(call, "ingest DFT data beside the pool")
    known += [*_tables(dft), *_tables(pool)]
    test = None
    if files["dft_test"]:
        test = run(steps.dft_call(config, files["dft_test"], known, reads, test=True), "ingest DFT test data")
    ingested = Ingested(pool, dft, test, base, next(iter(files["potential"]), None))
    _warn_of_unconverged(dft, test)
    for warning in (*without_cell(ingested), *ingested.state_warnings):
        run_log().warning(warning)
    return ingested


def without_cell(ingested: Ingested) -> list[str]:
    """A warning for each file in which frames have no cell: crystals would be labelled as clusters."""
    tables = [("pool", ingested.pool), *ingested.with_dft]
    some = [
        f"{name} ({of}): {frames} of its frames have no cell, the first is frame {first} (from 0), although others have"
        " one; they are taken as molecules or clusters without periodicity. Crystals need their cell in each frame"
        for of, table in tables
        for name, (frames, first) in table.read(ingest.Metrics).some_without_cell.items()
    ]
    return some + [
        f"{name} ({of}): none of its {frames} frames has a cell; they are taken as molecules or clusters without"
        ' periodicity. Crystals need their cell: in extended XYZ, Lattice="ax ay az bx by bz cx cy cz" (Å) in the'
        " comment line of each frame"
        for of, table in tables
        for name, frames in table.read(ingest.Metrics).files_without_cell.items()
    ]


def _warn_of_unconverged(*tables: Artefact | None) -> None:
    """Name the first ionic step that is not used because its SCF did not converge."""
    for table in tables:
        if table and (count := (found := table.read(ingest.Metrics)).unconverged):
            run_log().warning(
                "%d frames of DFT files are not used, because their SCF did not converge; the first: %s (all of them:"
                " set_aside.parquet of step ingest)",
                count,
                found.unconverged_first,
            )


def _tables(ingested: Artefact | None) -> list[FileRef]:
    return [ingested.file("structures")] if ingested else []


def _have_none(dft: Artefact) -> bool:
    """Whether frames of DFT files name no family."""
    found = dft.read(ingest.Metrics)
    return found.frames_with_given_family < found.structures + found.duplicates


@dataclass(frozen=True)
class Resolved:
    """What is known before anything is labelled."""

    config: DistillConfig
    recipe: Recipe
    ingested: Ingested
    infos: tuple[Teacher, ...]
    models: dict[str, FileRef]

    @property
    def teachers(self) -> tuple[TeacherCall, ...]:
        """The teachers with what labelling needs of them."""
        return tuple(
            steps.asked(self.recipe, model, info) for model, info in zip(self.models.values(), self.infos, strict=True)
        )

    def with_config(self, config: DistillConfig) -> Self:
        """The same data with another config, which differs only in what follows them, and its recipe."""
        ingested = self.ingested
        return replace(
            self,
            config=config,
            recipe=resolve(config, self.infos, ingested.pool_elements, ingested.dft_elements),
        )


@dataclass(frozen=True)
class Prepared(Resolved):
    """The labelled data."""

    baseline: Artefact
    dataset: Artefact


def resolve_inputs(config: DistillConfig, files: Files, models: dict[str, External | None], run: Run) -> Resolved:
    """Look at the teachers, ingest what they read, and refuse what cannot be."""
    workspace = run.workspace
    for told in config.notices if run.note is None else ():  # a dry run prints them
        run_log().warning(told)
    given = {
        name: file or run(steps.fetch_call(name), f"teacher_fetch {name}").file("model")
        for name, file in models.items()
    }
    known = {name: model for name, model in given.items() if is_made(model)}  # all of them, unless in a dry run
    check_committee({name: model.sha256 for name, model in known.items()})
    infos = tuple(
        read_teacher(run(steps.teacher_call(model), f"teacher_info {number}" if number > 1 else None), workspace)
        for number, model in enumerate(known.values(), 1)
    )
    ingested = ingest_all(config, files, run, union(info.reads for info in infos))
    if len(known) < len(given):
        raise Missing("the rest is planned once the foundation models have been fetched")
    recipe = resolve(config, infos, ingested.pool_elements, ingested.dft_elements)
    check_sides(stored_tables(workspace, ingested), config.split)
    check_elements(recipe, tables_of(workspace, ingested))
    return Resolved(config, recipe, ingested, infos, given)


def prepare(config: DistillConfig, files: Files, models: dict[str, External | None], run: Run) -> Prepared:
    """Ingest, label, merge, find the baseline."""
    return label_and_merge(resolve_inputs(config, files, models, run), run)


def label_and_merge(known: Resolved, run: Run) -> Prepared:
    """Label the pool, and what DFT has computed too: units and references are compared with it. Merge, find the
    baseline."""
    recipe, ingested, teachers = known.recipe, known.ingested, known.teachers
    labels = label(recipe, ingested.pool, teachers, run)
    by_teacher = [label(recipe, table, teachers, run, f"pool_labels {name}") for name, table in ingested.with_dft]
    dft, test = ingested.dft, ingested.dft_test
    keys = [teacher.key(run.workspace) for teacher in teachers]
    dataset = run(steps.dataset_call(recipe, labels, dft, test, ingested.merged, keys))  # refuses a base that is none
    earlier = (ingested.earlier_baseline, ingested.merged)
    taken = run(steps.baseline_call(recipe, labels, dft, test, by_teacher, *earlier))
    _tell_of_unchecked(taken)
    return Prepared(**vars(known), baseline=taken, dataset=dataset)


def _tell_of_unchecked(made: Artefact) -> None:
    """Warn of DFT labels that look wrong, and of those that nothing says to be right."""
    found = made.read(baseline.Metrics)
    for warning in found.dft_warnings:
        run_log().warning("DFT data: %s", warning)
    if count := found.dft_not_compared:
        run_log().warning(
            "units and zero of %d DFT structures were not checked, because the teacher has no label of them that keeps"
            " the bounds of `labels`; the first: %s",
            count,
            found.dft_not_compared_first,
        )


def stored_tables(workspace: Workspace, ingested: Ingested) -> list[Path]:
    """Where the tables that training may see lie."""
    tables = [workspace.store.path(table.file("structures")) for table in (ingested.pool, ingested.dft) if table]
    return tables + ([ingested.merged.path] if ingested.merged else [])


def tables_of(workspace: Workspace, ingested: Ingested) -> Tables:
    """The same by what they are, with the DFT test data."""

    def path(table: Artefact) -> Path:
        return workspace.store.path(table.file("structures"))

    new: dict[Origin, Path] = {"teacher": path(ingested.pool)}
    if ingested.dft:
        new["dft"] = path(ingested.dft)
    test = path(ingested.dft_test) if ingested.dft_test else None
    return Tables(new, test, ingested.merged.path if ingested.merged else None)


def read_teacher(artefact: Artefact, workspace: Workspace) -> Teacher:
    """What `teacher_info` found out."""
    return Teacher.read(workspace.store.path(artefact.file("teacher")))
