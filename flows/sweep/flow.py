"""Many students at once: `python -m flows.sweep CONFIG.yaml`.

Fits a student for every combination of the values in `sweep.vary`, shows their test errors against the time of an
evaluation, and takes one; then, where `sweep.committee` asks for it, a committee of students of that config.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from containers.metrics import of_side
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation import evaluate, stability
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames import frames
from flows.config.loading import teacher_files, user_files, with_absolute_paths
from flows.config.run_name import Results, refuse_other
from flows.config.schema import DistillConfig
from flows.data.prepare import Prepared, Resolved, label_and_merge, resolve_inputs
from flows.data.training_set import training_set
from flows.fit.student import FittedStudent
from flows.run import Run
from flows.sweep.committee import make_committee
from flows.sweep.students import Wanted, fit_all
from flows.sweep.variants import Variant, refuse_too_many, variants, varied
from tasks.errors import StepFailed, UserError
from tasks.prefect_logging import run_log
from tasks.prefect_tasks import publish_study
from tasks.runners.readiness import ready, remove_left_containers
from tasks.settings import Settings
from tasks.studies.sweep import SweepFailure, SweepSummary, SweptStudent
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
            asked = taken.model_copy(update={"sweep": config.sweep})
            make_committee(asked, data.of(Variant("the committee", {}, taken)), machine)
        return machine.run_folder(config.name)


def refuse_other_sweep(config: DistillConfig, workspace: Workspace, replace: bool) -> None:
    """Refuse what is in the way of the results now, not after the fits."""
    folder = workspace.run_folder(config.name)
    results: Results = "sweep/sweep.json" if config.sweep.vary else "committee/committee.json"
    refuse_other(config, {}, {}, folder, results, replace)


def checked(config: DistillConfig) -> list[Variant]:
    """The students to compare, their configs valid and their files there; none where only a committee is asked for."""
    if not config.sweep.vary and not config.sweep.committee:
        raise UserError(NOTHING)
    found = variants(config) if config.sweep.vary else []
    for one in {one.data_key: one for one in found}.values():
        user_files(one.config)
        teacher_files(one.config)
    return found


class Data:
    """Labelled data by what decides them: made once where only what follows differs."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._known: dict[bytes, Resolved] = {}
        self._prepared: dict[bytes, Prepared] = {}
        self.reach_A = 0.0

    def check(self, one: Variant) -> None:
        """Read its files and its teacher, which is cheap, and refuse what cannot be, before anything is labelled.

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
        """The data of one student, with its own recipe."""
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

    Data are made one after another, on all cores; the fits and what follows them side by side.
    """
    wanted, failures = _wanted(found, data, workspace)
    results = fit_all([one for _, one in wanted], config.sweep.at_once, workspace)
    students = []
    for (variant, _), result in zip(wanted, results, strict=True):
        if isinstance(result, StepFailed):
            failures.append((variant, result))
        else:
            students.append((variant, _student(variant, result)))
    if not students:
        raise failures[-1][1]
    summary = _summary(config, students, failures, data.reach_A, workspace)
    publish_study(summary, workspace)
    return next(variant.config for variant, _ in students if variant.name == summary.chosen.name)


def _wanted(
    found: Sequence[Variant], data: Data, workspace: Workspace
) -> tuple[list[tuple[Variant, Wanted]], list[tuple[Variant, StepFailed]]]:
    """The training set of every student, and those that have none."""
    wanted, failures = [], []
    for one in found:
        try:
            prepared = data.of(one)
            training = training_set(prepared, Run(workspace, of=one.name))
        except StepFailed as failure:
            failures.append((one, failure))
            continue
        wanted.append((one, Wanted(one.name, prepared, training)))
    return wanted, failures


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
        stable=student.stability.read(stability.Metrics).stable if student.stability else None,
        figures={
            **of_side(tested.metrics, "teacher"),
            "student_us_per_atom": tested.read(evaluate.Metrics).student_us_per_atom,
        },
        potential_key=student.core.key,
    )


def _summary(
    config: DistillConfig,
    students: Sequence[tuple[Variant, SweptStudent]],
    failures: Sequence[tuple[Variant, StepFailed]],
    reach_A: float,
    workspace: Workspace,
) -> SweepSummary:
    made = SweepSummary(
        name=config.name,
        config=config.model_dump(mode="json"),
        stub=workspace.settings.runner == "stub",
        teacher_reach_A=reach_A,
        take=config.sweep.take,
        within=config.sweep.within,
        students=tuple(student for _, student in students),
        failures=tuple(
            SweepFailure(name=one.name, changes=one.changes, step=failure.step, message=failure.message)
            for one, failure in failures
        ),
        chosen_config={},
    )
    taken = next(variant for variant, student in students if student == made.chosen)
    return made.model_copy(update={"chosen_config": taken.config.model_dump(mode="json", exclude={"sweep"})})
