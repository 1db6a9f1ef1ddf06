"""Distil a MACE teacher into an ACE student: `python -m flows.distill CONFIG.yaml`."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from containers.mace.fetch import FOUNDATION_MODELS
from containers.mace.teacher_info import Teacher
from flows import calls
from flows.config import DistillConfig
from flows.config_file import with_absolute_paths
from flows.fit import fit
from flows.label import label
from flows.outcome import Outcome, summarise
from flows.recipe import check_committee, check_sides, resolve
from tasks.artefact import Artefact, External, FileRef, StepCall, external
from tasks.errors import UserError
from tasks.machine import ready, remove_left_containers
from tasks.settings import Settings
from tasks.steps import report, step
from tasks.workspace import Workspace, open_workspace


@flow(
    name="distill",
    description=__doc__,
    persist_result=False,
    on_cancellation=[remove_left_containers],
    on_crashed=[remove_left_containers],
)
def distill(config: DistillConfig, work_root: Path | None = None, verify: bool = False) -> Outcome:
    """Label a pool with the teacher, choose a training set, fit a student, and say how well it does.

    Args:
        config: the science; relative paths start at the working directory.
        work_root: gets store/ (results by content) and runs/NAME/; default: DISTILL_WORK_ROOT or this directory.
        verify: digest every stored file again instead of trusting unchanged sizes and times.
    """
    config = with_absolute_paths(config, Path.cwd())
    files, models = user_files(config), teacher_files(config)
    workspace = open_workspace(work_root, Settings(), verify, run_id=flow_run.id)
    workspace.run_folder(config.name)  # what is in the way is told now, not after the fit
    with ready(workspace) as machine:
        return _distill(config, files, models, machine)


def _distill(
    config: DistillConfig,
    files: dict[str, tuple[External, ...]],
    models: dict[str, External | None],
    workspace: Workspace,
) -> Outcome:
    done: dict[str, Artefact] = {}

    def run(call: StepCall, run_name: str | None = None) -> Artefact:
        done[run_name or call.step] = step(call, workspace, run_name)
        return done[run_name or call.step]

    pool = run(calls.ingest_call(files["pool"]))
    dft = run(calls.dft_call(config, files["dft"]), "ingest DFT data") if files["dft"] else None
    dft_test = run(calls.dft_call(config, files["dft_test"]), "ingest DFT test data") if files["dft_test"] else None
    given = {
        name: file or run(calls.fetch_call(name), f"teacher_fetch {name}").file("model")
        for name, file in models.items()
    }
    check_committee({name: model.sha256 for name, model in given.items()})
    teachers = [
        read_teacher(run(calls.teacher_call(model), _numbered("teacher_info", number)), workspace)
        for number, model in enumerate(given.values())
    ]
    recipe = resolve(config, teachers, elements_in(pool), elements_in(dft, dft_test))
    check_sides(stored_tables(workspace, pool, dft), config.split)

    asked = [calls.asked(recipe, model, teacher) for model, teacher in zip(given.values(), teachers, strict=True)]
    labels, work = label(recipe, pool, asked, workspace)
    done["pool_labels"] = labels
    selection = run(calls.select_call(recipe, labels))
    data = run(calls.dataset_call(recipe, labels, selection, dft, dft_test))
    attempts, best = fit(recipe, data, workspace)
    potential = best.file("potential")
    active_set = run(calls.active_set_call(potential, data))
    run(calls.evaluate_call(recipe, potential, active_set, data, dft_test))

    summary = summarise(recipe, digests(files, given), done, attempts, best, work.summary(), workspace)
    report(summary, workspace)
    return Outcome.of(summary, workspace)


def user_files(config: DistillConfig) -> dict[str, tuple[External, ...]]:
    """The user's files with their digests, all read before anything starts; `UserError` names the first missing one."""
    groups = {"pool": config.pool.files, "dft": config.dft.files, "dft_test": config.dft.test_files}
    return {name: tuple(external(Path(path)) for path in paths) for name, paths in groups.items()}


def teacher_files(config: DistillConfig) -> dict[str, External | None]:
    """The models of teacher and committee by what the config calls them; None: a foundation model, to be fetched."""
    names = (config.teacher.model, *config.teacher.committee)
    return {name: None if name in FOUNDATION_MODELS else _model_file(name) for name in names}


def _model_file(name: str) -> External:
    try:
        return external(Path(name))
    except UserError as error:
        known = ", ".join(FOUNDATION_MODELS)
        raise UserError(f"teacher.model: {error} Or name a foundation model: {known}.") from None


def _numbered(name: str, number: int) -> str:
    return f"{name} {number + 1}" if number else name


def elements_in(*tables: Artefact | None) -> set[str]:
    """The chemical symbols in the ingested tables."""
    return {element for table in tables if table for element in table.metrics["elements"]}


def stored_tables(workspace: Workspace, *tables: Artefact | None) -> list[Path]:
    """Where the ingested tables lie."""
    return [workspace.store.path(table.file("structures")) for table in tables if table]


def read_teacher(artefact: Artefact, workspace: Workspace) -> Teacher:
    """What `teacher_info` found out."""
    return Teacher.read(workspace.store.path(artefact.file("teacher")))


def digests(files: dict[str, tuple[External, ...]], models: dict[str, FileRef]) -> dict[str, str]:
    """The user's files and the teachers -> sha256."""
    given = {str(file.path): file.sha256 for group in files.values() for file in group}
    return given | {name: model.sha256 for name, model in models.items()}


if __name__ == "__main__":
    from flows.command import main

    sys.exit(main(sys.argv[1:]))
