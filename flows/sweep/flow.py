"""Many students at once: `python -m flows.sweep CONFIG.yaml`.

Fits a student for every combination of the values in `sweep.vary`, shows their test errors against the time of an
evaluation, and takes one; then, where `sweep.committee` is above 0, fits a committee of students of that config.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from containers.metrics import of_side
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation import evaluate
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames import frames
from flows.config.loading import refuse_exploration, teacher_files, user_files, with_absolute_paths
from flows.config.run_name import Results, refuse_other
from flows.config.schema import DistillConfig
from flows.data.prepare import Prepared, Resolved, label_and_merge, resolve_inputs
from flows.data.training_set import training_set
from flows.fit.student import FittedStudent
from flows.run import Run
from flows.sweep.committee import make_committee
from flows.sweep.students import Wanted, failure_of, fit_all
from flows.sweep.variants import Variant, refuse_too_many, variants, varied
from tasks.errors import StepFailed, UserError
from tasks.prefect_logging import run_log
from tasks.prefect_tasks import publish_study
from tasks.runners.readiness import ready, remove_left_containers
from tasks.settings import Settings
from tasks.studies.sweep import SweepSummary, SweptStudent
from tasks.workspace import Workspace, open_workspace

NOTHING = "nothing to fit: give keys and values in sweep.vary (or --vary KEY=A,B), or a number in sweep.committee"


@flow(
    name="sweep",
    description=__doc__,
    persist_result=False,
    on_cancellation=[remove_left_containers],
    on_crashed=[remove_left_containers],
)
def sweep(config: DistillConfig, work_root: Path | None = None, replace: bool = False) -> Path:
    """Fit the students of `config.sweep`; publish runs/NAME/sweep/ and runs/NAME/committee/ and return runs/NAME.

    Args:
        config: the science; relative paths start at the working directory.
        work_root: gets store/ and runs/; default: DISTILL_WORK_ROOT or this directory.
        replace: replace the sweep of another config with the same name instead of refusing.
    """
    config = with_absolute_paths(config, Path.cwd())
    found = checked(config)
    workspace = open_workspace(work_root, Settings(), run_id=flow_run.id)
    refuse_other_sweep(config, workspace, replace)
    if not workspace.settings.dask_address and not workspace.settings.dask_cluster:
        refuse_too_many(config, workspace.settings.cores)
    with ready(workspace) as machine:
        data = Data(machine)
        for one in found:
            data.check(one)
        taken = _sweep(config, found, data, machine) if found else varied(config, {}, "sweep")
        if config.sweep.committee:
            common = taken.model_copy(update={"sweep": config.sweep})
            make_committee(common, data.of(Variant("the committee", {}, taken)), machine)
        return machine.run_folder(config.name)


def refuse_other_sweep(config: DistillConfig, workspace: Workspace, replace: bool) -> None:
    """Refuse to replace results of another config, now and not after the fits."""
    folder = workspace.run_folder(config.name)
    results: Results = "sweep/sweep.json" if config.sweep.vary else "committee/committee.json"
    refuse_other(config, {}, {}, folder, results, replace)


def checked(config: DistillConfig) -> list[Variant]:
    """Return the students to compare, their configs valid and their files there; none for a committee alone."""
    if not config.sweep.vary and not config.sweep.committee:
        raise UserError(NOTHING)
    refuse_exploration(config, "flows.sweep")
    found = variants(config) if config.sweep.vary else []
    for one in {one.data_key: one for one in found}.values():
        user_files(one.config)
        teacher_files(one.config)
    return found


class Data:
    """Labelled data by the keys that decide them: made once for students that differ in later steps alone."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._known: dict[bytes, Resolved] = {}
        self._prepared: dict[bytes, Prepared] = {}
        self.reach_A = 0.0

    def check(self, one: Variant) -> None:
        """Read its files and its teacher, which is cheap, and refuse data that cannot be fitted, before any labelling.

        Raises:
            UserError: names the student. A step that fails costs the student alone, later.
        """
        try:
            self._resolved(one)
        except UserError as error:
            raise UserError(f"sweep.vary: {one.name}: {error}") from None
        except StepFailed as failure:
            run_log().warning("%s cannot be fitted: %s: %s", one.name, failure.step, failure.message)

    def of(self, one: Variant) -> Prepared:
        """Return the data of one student, with its own recipe."""
        if one.data_key not in self._prepared:
            known = self._resolved(one)
            self._prepared[one.data_key] = label_and_merge(known, Run(self.workspace, of=one.name))
            teacher = known.infos[0]
            self.reach_A = max(self.reach_A, teacher.r_max_A * teacher.num_interactions)
        return self._prepared[one.data_key].with_config(one.config)

    def _resolved(self, one: Variant) -> Resolved:
        if one.data_key not in self._known:
            files, models = user_files(one.config), teacher_files(one.config)
            self._known[one.data_key] = resolve_inputs(one.config, files, models, Run(self.workspace, of=one.name))
        return self._known[one.data_key]


def _sweep(config: DistillConfig, found: Sequence[Variant], data: Data, workspace: Workspace) -> DistillConfig:
    """Fit every student, publish runs/NAME/sweep/, return the config of the one that is taken.

    Data are made one after another, on all cores; the fits and the steps after them side by side.
    """
    wanted, failed = list[tuple[Variant, Wanted]](), list[tuple[Variant, StepFailed]]()
    for one in found:
        try:
            prepared = data.of(one)
            training = training_set(prepared, Run(workspace, of=one.name))
            wanted.append((one, Wanted(one.name, prepared, training)))
        except StepFailed as failure:
            failed.append((one, failure))
    students = list[SweptStudent]()
    results = fit_all([one for _, one in wanted], config.sweep.at_once, workspace)
    for (one, _), result in zip(wanted, results, strict=True):
        if isinstance(result, StepFailed):
            failed.append((one, result))
        else:
            students.append(_student(one, result))
    if not students:
        raise failed[-1][1]
    made = SweepSummary(
        name=config.name,
        config=config.model_dump(mode="json"),
        stub=workspace.settings.runner == "stub",
        teacher_reach_A=data.reach_A,
        take=config.sweep.take,
        within=config.sweep.within,
        students=tuple(students),
        failures=tuple(failure_of(one.name, failure, one.changes) for one, failure in failed),
        chosen_config={},
    )
    taken = next(one.config for one in found if one.name == made.chosen.name)
    chosen_config = taken.model_dump(mode="json", exclude={"sweep"})
    publish_study(made.model_copy(update={"chosen_config": chosen_config}), workspace)
    return taken


def _student(variant: Variant, student: FittedStudent) -> SweptStudent:
    tested = student.evaluation
    return SweptStudent(
        name=variant.name,
        changes=variant.changes,
        verdict=student.taken.verdict,
        attempts=len(student.attempts),
        iterations=student.fit.read(pace_train.Metrics).iterations,
        fit_s=sum(attempt.seconds for attempt in student.attempts),
        structures=student.training.frames.read(frames.Metrics).train_structures,
        functions=sum(student.core.read(pace_corerep.Metrics).functions.values()),
        stable=student.stable,
        figures={
            **of_side(tested.metrics, "teacher"),
            "student_us_per_atom": tested.read(evaluate.Metrics).student_us_per_atom,
        },
        potential_key=student.core.key,
    )
