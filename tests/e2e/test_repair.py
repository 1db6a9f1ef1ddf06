"""Faults in real fits, and what the flow's attempts make of them.

Every fault is one that happens: a limit of memory or of time, a SIGKILL, labels that no loss can be made of, a program
that does nothing. The flow's own code runs as always; only the program that it finds is a script around pacemaker.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from containers.contract import OutputFile, Resources, file_digest
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.history import MetricsFile
from containers.tensorpot.pacemaker.program import child_environment, find_program
from flows.config.schema import DistillConfig
from flows.config.training import Limits
from flows.data.recipe import resolve
from flows.distill.summary import fits_of
from flows.fit.attempts import Attempt, fit, led_to
from flows.fit.verdict import HINTS
from flows.run import Run
from tasks.artefact import Artefact
from tasks.errors import StepFailed
from tasks.report.publish import FOLDER, fit_files
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace
from tests.e2e.copper import copper as cells
from tests.e2e.copper import program, teacher_of, write_frames

pytestmark = pytest.mark.e2e

COUNTED = 'n=$(cat "{0}" 2>/dev/null || echo 0); echo $((n + 1)) > "{0}"\n'
"""A program's own count of how often it was called, 0 at first."""
copper = partial(cells, scale=None, shear=0.03, rattle_A=0.1)


class Bench:
    """A store with frames, and fits to them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.train, self.validation = copper(10, 1), copper(4, 2)
        self.settings: dict[str, Any] = {}

    def program(self, script: str) -> None:
        """What the step finds in the place of pacemaker; `$n` counts its calls, `$real` is the real one."""
        path = program(self.folder, COUNTED.format(self.folder / "calls") + script)
        self.monkeypatch.setattr(pace_train, "fit_program", lambda: (str(path),))

    @property
    def workspace(self) -> Workspace:
        return open_workspace(self.folder / "root", Settings(runner="in_process", cores=1, **self.settings))

    def fit(self, **train: Any) -> tuple[list[Attempt], Artefact]:
        """Attempts at limits that no fit reaches."""
        config = DistillConfig.model_validate(
            {
                "name": "repair",
                "teacher": {"model": "teacher.model"},
                "pool": {"files": ["pool.extxyz"]},
                "pacemaker": {"functions_per_element": 8, "order": 2, "b_basis": "small"},
                "train": {"max_attempts": 2, **train},
            }
        )
        recipe = resolve(config, [teacher_of("Cu", 4.0)], {"Cu"}, set())
        data = self._frames()
        limits = Limits(force_mae_meV_per_A=1e-6, energy_mae_meV_per_atom=1e-6)
        return fit(
            recipe, data, limits, Run(self.workspace, step=lambda call, workspace, name: run_step(call, workspace))
        )

    def _frames(self) -> Artefact:
        """Where a store would have them."""
        folder = self.workspace.store.root / "frames" / "made" / "outputs"
        folder.parent.mkdir(parents=True, exist_ok=True)
        files = write_frames(folder, self.train, self.validation)
        outputs = {
            side: OutputFile(name=path.name, sha256=file_digest(path), size=path.stat().st_size)
            for side, (path,) in files.items()
        }
        counts = {"train_structures": len(self.train), "train_atoms": sum(len(row.atoms) for row in self.train)}
        return Artefact(
            step="frames", key="made", outputs=outputs, metrics=counts, versions={}, seconds=0, peak_memory_MB=0,
            cached=True,
        )  # fmt: skip

    def losses(self, attempt: Attempt, side: str = "train", name: str = "loss") -> list[float]:
        """The training curve of one side."""
        assert attempt.artefact is not None
        history = pd.read_parquet(self.workspace.store.path(attempt.artefact.file("history")))
        return list(history[history["side"] == side][name])

    def repeat(self, chain: list[Attempt]) -> None:
        """Run pacemaker by hand in a copy of the last published folder: its losses must be those of the attempt."""
        fits, expected = fits_of(chain, None, self.workspace), self.losses(chain[-1])
        for name, source in fit_files(fits).items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, self.folder / name)
        shutil.rmtree(self.workspace.store.root)
        folder = self.folder / FOLDER / fits[-1].folder
        command = [str(find_program()), "--no-predict", "input.yaml"]
        done = subprocess.run(
            command, cwd=folder, env=child_environment(Resources(threads=1)), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        assert [row.loss for row in MetricsFile(folder / "metrics.txt").follow()] == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Bench(tmp_path, monkeypatch)


AFTER_ROWS = '(while [ "$(cat metrics.txt 2>/dev/null | wc -l)" -lt 8 ]; do sleep 0.02; done; kill -{} $$) &\n'
"""Sends the program a signal in the middle of its first step."""
REAL = 'exec "$real" "$@"'


@pytest.mark.long
def test_a_ladder_that_is_killed_and_a_fit_whose_time_is_over_go_on_with_what_remains(
    bench: Bench, tmp_path: Path
) -> None:
    """kill -9 in the first step of a ladder, by somebody who is not the kernel; then a program that hangs."""
    for seconds in (30, 60, 120, 240, 480):  # a machine that needs longer to begin gets more time
        bench.folder, bench.settings = tmp_path / str(seconds), {"step_timeout_s": seconds}
        bench.program(
            f"if [ $n = 0 ]; then {AFTER_ROWS.format('KILL')}fi\n"
            f"if [ $n = 1 ]; then {AFTER_ROWS.format('STOP')}fi\n{REAL}"
        )
        try:
            attempts, best = bench.fit(maxiter=60, ladder_step=4, max_attempts=3)
        except StepFailed as failure:
            if failure.kind != "TimeLimit":
                raise
            continue
        verdicts = [attempt.verdict for attempt in attempts]
        if verdicts == ["killed", "time_limit", "iterations_used_up"]:
            break
    else:
        raise AssertionError(f"within 480 s a step: {verdicts}")
    first, second, third = (attempt.artefact.metrics for attempt in attempts if attempt.artefact)
    assert (first["functions"], second["functions"], third["functions"]) == (4, 8, 8)
    for metrics in (first, second):
        assert 0 < metrics["best_iteration"] <= metrics["iterations"] < 60
    remaining = 60 - second["interim_iteration"]
    assert attempts[1].plan.maxiter == 60, "the whole basis has not had its iterations yet"
    assert attempts[2].plan.maxiter == third["iterations"] == remaining < 60
    assert f"{remaining} iterations, continued" in attempts[2].plan.reason
    curves = [bench.losses(attempt) for attempt in attempts]
    for before, after, precision in ((0, 1, 1e-3), (1, 2, 1e-6)):
        # what was saved is the last iteration told of, or the one before
        assert any(curves[after][0] == pytest.approx(loss, rel=precision) for loss in curves[before][-2:])
        assert curves[after][-1] < curves[after][0]
    assert best is attempts[2].artefact


def test_too_little_memory_halves_the_batch_and_ends_well(bench: Bench) -> None:
    """The memory is refused for real, at the first batch alone (engine/test_deaths.py has a limit in between): too
    little for TensorFlow's largest library, because what is refused later does not always say that it was memory.
    """
    bench.program('grep -qw "batch_size: 10" input.yaml && ulimit -v 900000\nexec "$real" "$@"')
    attempts, best = bench.fit(maxiter=5)
    assert [(attempt.verdict, attempt.plan.batch_size) for attempt in attempts] == [
        ("out_of_memory", "auto"),
        ("iterations_used_up", "auto"),
    ]
    assert attempts[1].plan.reason == "out of memory: 1/2 of the automatic batch"
    assert best.metrics["batch_size"] == 5
    assert best.metrics["iterations"] == 5


def test_a_crash_is_repaired_by_leaving_out_early_stopping(bench: Bench) -> None:
    """By a signal here: that pacemaker crashes of itself where both meet, see test_fit_faults.py."""
    bench.program(f"if [ $n = 0 ]; then {AFTER_ROWS.format('SEGV')}fi\n{REAL}")
    stop = {"min_relative_loss_per_iteration": 1e-12, "patience": 195}
    attempts, best = bench.fit(maxiter=20, ladder_step=4, early_stop=stop)
    assert [attempt.verdict for attempt in attempts] == ["crashed", "iterations_used_up"]
    assert attempts[1].plan.reason == "it crashed: without early stopping, fresh"
    assert attempts[0].artefact
    assert attempts[0].artefact.metrics["iterations"] >= 4
    assert best is attempts[1].artefact
    assert best.metrics["functions"] == 8
    texts = [bench.workspace.store.path(one.artefact.file("input")).read_text() for one in attempts if one.artefact]
    assert ["min_relative_train_loss_per_iter" in text for text in texts] == [True, False]


@pytest.mark.long
def test_stages_of_kappa_go_on_from_one_another(bench: Bench) -> None:
    stages = [{"kappa": 0.5, "maxiter": 15}, {"kappa": 0.02, "maxiter": 15}]
    attempts, best = bench.fit(stages=stages, max_attempts=1)
    first, second = attempts
    assert [(attempt.stage, attempt.plan.kappa) for attempt in attempts] == [(1, 0.5), (2, 0.02)]
    assert first.artefact
    assert second.artefact
    mae = "energy_mae_meV_per_atom"
    assert second.artefact.metrics[f"train_{mae}"] < first.artefact.metrics[f"train_{mae}"]
    assert bench.losses(second, "validation", mae)[0] == pytest.approx(
        first.artefact.metrics[f"validation_{mae}"], rel=1e-3
    ), "it began with the best"
    assert led_to(best, attempts) == attempts
    bench.repeat(attempts)


def test_labels_that_no_loss_can_be_made_of_end_at_once_with_the_mend(bench: Bench) -> None:
    bench.program(REAL)
    bench.train[3].forces[:] = 1e200  # its square is no number
    with pytest.raises(StepFailed, match=r"labels of structure 1-3: .* forces up to 1e") as caught:
        bench.fit(maxiter=5, max_attempts=5)
    assert caught.value.kind == "BadInput"
    assert "labels.max_force_eV_per_A" in caught.value.message
    assert not (bench.folder / "calls").exists(), "pacemaker was not even started"


def test_a_loss_that_no_plan_makes_a_number_ends_with_what_was_tried_and_the_mend(bench: Bench) -> None:
    """By two atoms in one place, which the step `frames` would set aside; later attempts repeat the first's end."""
    bench.train[3].atoms.positions[1] = bench.train[3].atoms.positions[0]
    rows = (
        "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp\\n"
        "0 0 0 nan nan nan 0 nan nan nan\\n"
    )
    bench.program(f"if [ $n = 0 ]; then {REAL}; fi\nprintf '{rows}' > metrics.txt; exit 1")
    with pytest.raises(StepFailed, match="no number") as caught:
        bench.fit(maxiter=5, max_attempts=3)
    assert caught.value.kind == "Diverged"
    for repair in ("L2 1e-08 -> 1e-06", "a ladder of 50 functions"):
        assert repair in caught.value.message
    assert HINTS["diverged"] in caught.value.message


def test_a_program_that_is_missing_ends_at_once_with_the_mend(bench: Bench) -> None:
    bench.monkeypatch.setattr(sys, "executable", str(bench.folder / "python"))
    bench.monkeypatch.setenv("PATH", str(bench.folder))
    with pytest.raises(StepFailed, match="It comes with python-ace: run `make setup`") as caught:
        bench.fit(maxiter=5, max_attempts=5)
    assert caught.value.kind == "ProgramMissing"
    assert "attempt 2" not in caught.value.message


def test_a_program_that_does_nothing_and_says_all_is_well_is_not_believed(bench: Bench) -> None:
    bench.program("echo all is well; exit 0")
    with pytest.raises(StepFailed, match="no iteration") as caught:
        bench.fit(maxiter=5, max_attempts=5)
    assert caught.value.kind == "NoIteration"
    assert (bench.folder / "calls").read_text() == "2\n"
    assert HINTS["no_iteration"] in caught.value.message
