"""Learning curves, error over training-set size: `python -m flows.value_curve CONFIG.yaml`.

Fits students on sets of growing size, chosen by several methods, and shows their errors against size and fit time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from containers.metrics import of_side
from containers.tensorpot.dataset import dataset
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames import frames
from flows.config.loading import refuse_exploration, teacher_files, user_files, with_absolute_paths
from flows.config.run_name import refuse_other
from flows.config.schema import DistillConfig
from flows.data.prepare import Prepared, prepare
from flows.data.training_set import training_set
from flows.fit.student import make_student
from flows.run import Run
from tasks.errors import StepFailed
from tasks.prefect_tasks import publish_study
from tasks.runners.readiness import ready, remove_left_containers
from tasks.settings import Settings
from tasks.studies.value_curve import MissingPoint, Point, ValueCurve
from tasks.workspace import Workspace, open_workspace

Method = Literal["combined", "d_optimal", "random"]
METHODS: tuple[Method, ...] = ("d_optimal", "combined", "random")
SHARES = (0.05, 0.1, 0.2, 0.4)
"""Sizes when none are given, as shares of the candidates."""
Size = Annotated[int, Field(ge=1)]


@flow(
    name="value-curve",
    description=__doc__,
    persist_result=False,
    on_cancellation=[remove_left_containers],
    on_crashed=[remove_left_containers],
)
def value_curve(
    config: DistillConfig,
    sizes: list[Size] | None = None,
    methods: list[Method] | None = None,
    random_seeds: Annotated[int, Field(ge=1)] = 3,
    everything: bool = False,
    work_root: Path | None = None,
    replace: bool = False,
) -> Path:
    """Fit a student for every method and size, each stage once; publish runs/NAME/value_curve/ and return it.

    Args:
        config: the science; its selection gives way to `sizes` and `methods`.
        sizes: structures chosen, as far as there are as many; default: 5, 10, 20 and 40 % of the candidates.
        methods: default: all three.
        random_seeds: so many random choices of each size.
        everything: also one fit to all candidates.
        work_root: gets store/ and runs/; default: DISTILL_WORK_ROOT or this directory.
        replace: replace the curve of another config with the same name instead of refusing.
    """
    config = with_absolute_paths(config, Path.cwd())
    refuse_exploration(config, "flows.value_curve")
    files, models = user_files(config), teacher_files(config)
    workspace = open_workspace(work_root, Settings(), run_id=flow_run.id)
    folder = workspace.run_folder(config.name)  # another config's results are reported now, not after the fits
    refuse_other(config, {}, {}, folder, "value_curve/value_curve.json", replace)
    with ready(workspace) as machine:
        run = Run(machine)
        prepared = prepare(config, files, models, run)
        wanted = _wanted(prepared, sizes, methods, random_seeds, everything)
        points, failures = _points(prepared, wanted, machine)
        curve = ValueCurve(
            name=config.name,
            config=config.model_dump(mode="json"),
            stub=machine.settings.runner == "stub",
            points=points,
            failures=failures,
        )
        publish_study(curve, machine)
        return machine.run_folder(config.name) / "value_curve"


def _wanted(
    prepared: Prepared,
    sizes: Sequence[int] | None,
    methods: Sequence[Method] | None,
    random_seeds: int,
    everything: bool,
) -> list[tuple[str, int, int]]:
    """Return method, size and seed of every fit; only a random choice has several seeds.

    Sizes are at most the number of candidates; where none are given, they are shares of it.
    """
    candidates, first = prepared.dataset.read(dataset.Metrics).train_structures, prepared.config.train.seed
    given = sizes or [max(round(share * candidates), 1) for share in SHARES]
    wanted: list[tuple[str, int, int]] = [
        (method, size, (first + offset) % 2**32)
        for size in sorted({min(size, candidates) for size in given})
        for method in dict.fromkeys(methods or METHODS)
        for offset in range(random_seeds if method == "random" else 1)
    ]
    return [*wanted, ("all", candidates, first)] if everything else wanted


def _points(
    prepared: Prepared, wanted: Sequence[tuple[str, int, int]], workspace: Workspace
) -> tuple[list[Point], list[MissingPoint]]:
    """Return the points, and those that failed. Raises `StepFailed` when no point is left."""
    points, failures = list[Point](), list[MissingPoint]()
    for number, (method, size, seed) in enumerate(wanted, 1):
        try:
            points.append(_point(prepared, method, size, seed, workspace))
        except StepFailed as error:
            if number == len(wanted) and not points:
                raise
            failures.append(MissingPoint(method=method, seed=seed, size=size, step=error.step, message=error.message))
    return points, failures


def _point(prepared: Prepared, method: str, size: int, seed: int, workspace: Workspace) -> Point:
    """Choose, fit once a stage, evaluate. A fit that was broken off in an earlier run is continued."""
    values = prepared.config.model_dump()
    values["selection"] |= {"method": method, "max_structures": size, "fraction": None}
    values["train"] |= {"seed": seed, "max_attempts": 1}
    changed = prepared.with_config(DistillConfig.model_validate(values))
    run = Run(workspace, of=f"{method} {size}" + (f" seed {seed}" if method == "random" else ""))
    student = make_student(changed, training_set(changed, run), run)
    fitted, attempts = student.training.frames.read(frames.Metrics), student.attempts
    return Point(
        method=method,
        seed=seed,
        structures=fitted.train_structures,
        atoms=fitted.train_atoms,
        fit_s=sum(attempt.seconds for attempt in attempts),
        iterations=sum(one.artefact.read(pace_train.Metrics).iterations for one in attempts if one.artefact),
        ended=next((attempt.verdict for attempt in attempts if attempt.interrupted), attempts[-1].verdict),
        figures=of_side(student.evaluation.metrics, "teacher"),
    )
