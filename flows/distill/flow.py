"""Distil a MACE teacher into an ACE student: `python -m flows.distill CONFIG.yaml`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.config.loading import Files, Models, digests, teacher_files, user_files, with_absolute_paths
from flows.config.run_name import refuse_other
from flows.config.schema import DistillConfig
from flows.data.prepare import Prepared, prepare
from flows.data.training_set import TrainingSet, training_set
from flows.distill.summary import Outcome, summarise
from flows.distill.trajectory import follow
from flows.fit.exploration import distil_by_exploration, explore_all
from flows.fit.rounds import Results, extend
from flows.fit.student import make_student
from flows.run import Run
from tasks.artefact import Stored
from tasks.prefect_tasks import report
from tasks.report.exploration import Exploration
from tasks.report.summary import RunSummary
from tasks.runners.readiness import ready, remove_left_containers
from tasks.settings import Settings
from tasks.workspace import open_workspace


@flow(
    name="distill",
    description=__doc__,
    persist_result=False,
    on_cancellation=[remove_left_containers],
    on_crashed=[remove_left_containers],
)
def distill(
    config: DistillConfig,
    work_root: Path | None = None,
    verify: bool = False,
    replace: bool = False,
    approve_labels: bool = False,
) -> Outcome:
    """Label a pool with the teacher, choose a training set, fit a student, and say how well it does.

    Args:
        config: the science; relative paths start at the working directory.
        work_root: gets store/ (results by content) and runs/NAME/; default: DISTILL_WORK_ROOT or this directory.
        verify: digest every stored file again instead of trusting unchanged sizes and times.
        replace: replace the results in runs/NAME of another config with the same name instead of refusing.
        approve_labels: label any number of structures without a pause, see `explore.ask_above`.
    """
    config = with_absolute_paths(config, Path.cwd())
    files, models = user_files(config), teacher_files(config)
    workspace = open_workspace(work_root, Settings(), verify, run_id=flow_run.id)
    folder = workspace.run_folder(config.name)  # another config's results are reported now, not after the fit
    refuse_other(config, files, models, folder, "manifest.json", replace)
    with ready(workspace) as machine:
        summary = _distill(config, files, models, Run(machine, approved=approve_labels))
        refuse_other(config, files, models, folder, "manifest.json", replace)  # of a run beside this one
        report(summary, machine)
        return Outcome.of(summary, machine)


def _distill(config: DistillConfig, files: Files, models: Models, run: Run) -> RunSummary:
    prepared = prepare(config, files, models, run, explored_by_another(config, files, run))
    results, explored = distil(prepared, training_set(prepared, run), run)
    follow(results.prepared, results.best, run)
    return summarise(digests(files, prepared.models), results, run, explored)


def explored_by_another(config: DistillConfig, files: Files, run: Run) -> dict[str, Stored]:
    """Explore with `explore.teacher` in the place of the teacher; return the structures that it labelled, without a
    finished student. None without such a teacher."""
    if not config.explore.teacher:
        return {}
    other, mine = config.of_exploration, replace(run.within("other teacher"), labels=[])
    kept = {name: () if name in ("dft", "dft_test", "base", "potential") else given for name, given in files.items()}
    prepared = prepare(other, kept, teacher_files(other), mine)
    last, _, _ = explore_all(prepared, training_set(prepared, mine), mine, finishing=False)
    return {"explored.parquet": last.dataset.file("dataset")}


def distil(prepared: Prepared, training: TrainingSet, run: Run) -> tuple[Results, Exploration | None]:
    """Make the student of a training set: with rounds of exploration where the config has conditions."""
    if prepared.config.explore.conditions:
        return distil_by_exploration(prepared, training, run)
    return extend(prepared, make_student(prepared, training, run), run), None
