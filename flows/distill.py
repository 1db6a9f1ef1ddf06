"""Distil a MACE teacher into an ACE student: `python -m flows.distill CONFIG.yaml`."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow

from containers.mace.fetch import FOUNDATION_MODELS
from containers.mace.teacher_info import Teacher
from flows import calls
from flows.config import DistillConfig
from flows.config_file import with_absolute_paths
from flows.fit import fit
from flows.outcome import Outcome, summarise
from flows.recipe import Recipe, resolve
from tasks.artefact import Artefact, External, FileRef, external
from tasks.errors import UserError
from tasks.settings import Settings
from tasks.steps import report, step
from tasks.workspace import Workspace, open_workspace


@flow(name="distill", description=__doc__, persist_result=False)
def distill(config: DistillConfig, work_root: Path | None = None, verify: bool = False) -> Outcome:
    """Label a pool with the teacher, choose a training set, fit a student, and say how well it does.

    Args:
        config: the science; relative paths start at the working directory.
        work_root: gets store/ (results by content) and runs/NAME/; default: DISTILL_WORK_ROOT or this directory.
        verify: digest every stored file again instead of trusting unchanged sizes and times.
    """
    config = with_absolute_paths(config, Path.cwd())
    files = user_files(config)
    workspace = open_workspace(work_root, Settings(), verify)

    pool = step(calls.ingest_call(files["pool"]), workspace)
    dft = ingest_dft(config, files["dft"], workspace, "ingest DFT data")
    dft_test = ingest_dft(config, files["dft_test"], workspace, "ingest DFT test data")
    model = teacher_model(config, files, workspace)
    teacher = step(calls.teacher_call(model), workspace)
    recipe = resolve_recipe(config, teacher, (pool, dft, dft_test), workspace)

    labels = step(calls.label_call(recipe, pool, model, workspace.settings), workspace)
    selection = step(calls.select_call(recipe, labels), workspace)
    data = step(calls.dataset_call(recipe, labels, selection, dft, dft_test), workspace)
    attempts, best = fit(recipe, data, workspace)
    potential = best.file("potential")
    active_set = step(calls.active_set_call(potential, data), workspace)
    evaluation = step(calls.evaluate_call(recipe, potential, active_set, data, dft_test), workspace)

    artefacts = [pool, dft, dft_test, teacher, labels, selection, data, active_set, evaluation]
    summary = summarise(recipe, model, files, [found for found in artefacts if found], attempts, best, workspace)
    report(summary, workspace)
    return Outcome.of(summary, workspace)


def user_files(config: DistillConfig) -> dict[str, tuple[External, ...]]:
    """The user's files with their digests, all read before anything starts; `UserError` names the first missing one."""
    groups = {"pool": config.pool.files, "dft": config.dft.files, "dft_test": config.dft.test_files}
    files = {name: tuple(external(Path(path)) for path in paths) for name, paths in groups.items()}
    model = config.teacher.model
    if model in FOUNDATION_MODELS:
        return {**files, "teacher": ()}
    if not Path(model).is_file():
        raise UserError(
            f"teacher.model: there is no file {model}, and no foundation model of that name."
            f" Give the path of a .model file, or one of {', '.join(FOUNDATION_MODELS)}."
        )
    return {**files, "teacher": (external(Path(model)),)}


def ingest_dft(
    config: DistillConfig, files: tuple[External, ...], workspace: Workspace, run_name: str
) -> Artefact | None:
    """The table of DFT labels in `files`, or None when there are none."""
    if not files:
        return None
    return step(calls.ingest_call(files, config.dft.energy_key, config.dft.forces_key), workspace, run_name)


def teacher_model(config: DistillConfig, files: dict[str, tuple[External, ...]], workspace: Workspace) -> FileRef:
    """The teacher's file; a foundation model is fetched by its name."""
    if files["teacher"]:
        return files["teacher"][0]
    return step(calls.fetch_call(config.teacher.model), workspace).file("model")


def resolve_recipe(
    config: DistillConfig, teacher: Artefact, tables: tuple[Artefact | None, ...], workspace: Workspace
) -> Recipe:
    """The recipe for what the teacher is and the data contain."""
    found = {element for table in tables if table for element in table.metrics["elements"]}
    return resolve(config, Teacher.read(workspace.store.path(teacher.file("teacher"))), found)


if __name__ == "__main__":
    from flows.command import main

    sys.exit(main(sys.argv[1:]))
