"""A committee of students: fits that differ by chance alone, whose spread estimates their error."""

from __future__ import annotations

from typing import Any

from containers.tensorpot.evaluation import evaluate
from flows.config.schema import DistillConfig
from flows.data.prepare import Prepared
from flows.data.training_set import training_set
from flows.fit import steps
from flows.fit.student import FittedStudent
from flows.fit.verdict import ACCIDENTS
from flows.run import Run
from flows.sweep.students import Wanted, failure_of, fit_all
from tasks.artefact import Artefact
from tasks.errors import StepFailed
from tasks.prefect_logging import run_log
from tasks.prefect_tasks import publish_study
from tasks.report.summary import PUBLISHED
from tasks.studies.committee import CommitteeStudent, CommitteeSummary
from tasks.workspace import Workspace


def members(config: DistillConfig) -> list[dict[str, Any]]:
    """Return the keys of `train` that each member changes. The seed alone changes no fit that begins at zero."""
    seeds = [(config.train.seed + place) % 2**32 for place in range(config.sweep.committee)]
    if config.sweep.differ_by == "bootstrap":
        return [{"bootstrap": seed} for seed in seeds]
    return [{"coefficients": "random", "seed": seed} for seed in seeds]


def make_committee(config: DistillConfig, prepared: Prepared, workspace: Workspace) -> None:
    """Fit the members to one training set, evaluate them together, publish runs/NAME/committee/.

    Args:
        config: common to all members, and `sweep`.
        prepared: of the same config.

    Raises:
        StepFailed: fewer than two members could be made.
    """
    run = Run(workspace, of="of the committee")
    training = training_set(prepared, run)
    wanted = []
    for place, changes in enumerate(members(config), start=1):  # they change the fit alone, not the selection
        changed = config.model_copy(update={"train": config.train.model_copy(update=changes)})
        wanted.append(Wanted(f"of committee {place}", prepared.with_config(changed), training))
    results = fit_all(wanted, config.sweep.at_once, workspace)
    failed = [(one, result) for one, result in zip(wanted, results, strict=True) if isinstance(result, StepFailed)]
    found = [(place, result) for place, result in enumerate(results, start=1) if isinstance(result, FittedStudent)]
    if len(found) < 2:
        raise failed[-1][1]
    for place, student in found:
        if student.taken.verdict in ACCIDENTS:
            run_log().warning("student %s of the committee: its fit ended as %s", place, student.taken.verdict)
        if student.stable is False:
            run_log().warning("student %s of the committee is unstable in molecular dynamics", place)
    potentials = [student.core.file("potential") for _, student in found]
    spread = run(steps.committee_call(potentials, training.frames, prepared.baseline))
    summary = CommitteeSummary(
        name=config.name,
        config=config.model_dump(mode="json"),
        differ_by=config.sweep.differ_by,
        stub=workspace.settings.runner == "stub",
        students=tuple(_student(str(place), student, prepared.baseline, workspace) for place, student in found),
        figures=spread.metrics,
        failures=tuple(failure_of(one.name, failure) for one, failure in failed),
        spread=workspace.store.path(spread.file("committee")),
    )
    publish_study(summary, workspace)


def _student(name: str, student: FittedStudent, baseline: Artefact, workspace: Workspace) -> CommitteeStudent:
    made, path = {**student.results, "baseline": baseline}, workspace.store.path
    of_student = ("pace_corerep", "pace_activeset", "baseline")
    errors = student.evaluation.read(evaluate.Metrics)
    return CommitteeStudent(
        name=name,
        verdict=student.taken.verdict,
        stable=student.stable,
        force_mae_meV_per_A=errors.teacher_force_mae_meV_per_A,
        energy_mae_meV_per_atom=errors.teacher_energy_mae_meV_per_atom,
        files={name: path(made[step].file(output)) for name, (step, output) in PUBLISHED.items() if step in of_student},
    )
