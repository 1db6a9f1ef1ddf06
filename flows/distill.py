"""Distil a MACE teacher into an ACE student: `python -m flows.distill CONFIG.yaml`."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.config import DistillConfig
from flows.config_file import with_absolute_paths
from flows.data import prepare
from flows.extend import extended
from flows.files import Files, Models, digests, teacher_files, user_files
from flows.fit import fit
from flows.outcome import Outcome, summarise
from flows.run import Runner
from flows.run_name import refuse_other
from flows.student import finish
from flows.training_set import training_set
from tasks.label_work import total
from tasks.machine import ready, remove_left_containers
from tasks.run_summary import RunSummary
from tasks.settings import Settings
from tasks.steps import report
from tasks.workspace import Workspace, open_workspace


@flow(
    name="distill",
    description=__doc__,
    persist_result=False,
    on_cancellation=[remove_left_containers],
    on_crashed=[remove_left_containers],
)
def distill(
    config: DistillConfig, work_root: Path | None = None, verify: bool = False, replace: bool = False
) -> Outcome:
    """Label a pool with the teacher, choose a training set, fit a student, and say how well it does.

    Args:
        config: the science; relative paths start at the working directory.
        work_root: gets store/ (results by content) and runs/NAME/; default: DISTILL_WORK_ROOT or this directory.
        verify: digest every stored file again instead of trusting unchanged sizes and times.
        replace: replace the results in runs/NAME of another config with the same name instead of refusing.
    """
    config = with_absolute_paths(config, Path.cwd())
    files, models = user_files(config), teacher_files(config)
    workspace = open_workspace(work_root, Settings(), verify, run_id=flow_run.id)
    folder = workspace.run_folder(config.name)  # what is in the way is reported now, not after the fit
    refuse_other(config, files, models, folder, "manifest.json", replace)
    with ready(workspace) as machine:
        summary = _distill(config, files, models, machine)
        refuse_other(config, files, models, folder, "manifest.json", replace)  # of a run beside this one
        report(summary, machine)
        return Outcome.of(summary, machine)


def _distill(config: DistillConfig, files: Files, models: Models, workspace: Workspace) -> RunSummary:
    run = Runner(workspace)
    prepared = prepare(config, files, models, run)
    frames, more = training_set(prepared, run)
    recipe, test = prepared.recipe, prepared.ingested.dft_test
    attempts, best = fit(recipe, frames, workspace)
    student = finish(recipe, best, frames, prepared.baseline, test, run)
    made = extended(prepared, frames, attempts, student, run)

    work = total([*prepared.work, *more, *made.work])
    return summarise(digests(files, prepared.models), run.done, made, work, workspace)


if __name__ == "__main__":
    from flows.command import main

    sys.exit(main(sys.argv[1:]))
