"""A tiny real fit to ASE's effective-medium copper, and what becomes of it when it is disturbed."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from containers.contract import BadInput, Inputs, Machine, Resources, file_digest
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.follow import RowsDiffer
from containers.tensorpot.fit.pace_train import OUTPUTS, NoIteration, Params
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Loss, Potential
from containers.tensorpot.pacemaker.program import fit_program
from tests.e2e.copper import effective_medium, strained

pytestmark = pytest.mark.e2e

PARAMS = Params(
    potential=Potential(elements=("Cu",), cutoff=4.0, functions_per_element=30, b_basis="small"),
    loss=Loss(kappa=0.35, l1=2e-8, l2=3e-8),
    maxiter=15,
)


def copper(count: int, seed: int) -> list[Labelled]:
    """Strained and rattled cells of 2 and 4 atoms."""
    random = np.random.default_rng(seed)
    cells = [bulk("Cu", cubic=True) if n % 3 else bulk("Cu") * (2, 1, 1) for n in range(count)]
    return [
        effective_medium(f"{seed}-{n}", strained(cell, random, scale=(0.92, 1.08), shear=0.03))
        for n, cell in enumerate(cells)
    ]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ...]]:
    folder = tmp_path_factory.mktemp("frames")
    for side, rows in (("train", copper(24, 1)), ("validation", copper(6, 2))):
        write_frame(folder / f"{side}.pckl.gzip", frame(rows))
    return {side: (folder / f"{side}.pckl.gzip",) for side in ("train", "validation")}


class Fit:
    """One run of the step in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, tuple[Path, ...]],
        params: Params = PARAMS,
        program: Path | None = None,
        progress: Callable[..., None] = lambda *_: None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.outputs, self.work = folder / "outputs", folder / "work"
        self.outputs.mkdir()
        machine = Machine(Resources(threads=1), progress)
        command = (str(program),) if program else fit_program()
        self.metrics = pace_train.train(Inputs(files), self.outputs, params, machine, command)

    def path(self, name: str) -> Path:
        return self.outputs / OUTPUTS[name]

    def losses(self, side: str = "train") -> list[float]:
        history = pd.read_parquet(self.path("history"))
        return list(history[history["side"] == side]["loss"])


@pytest.fixture(scope="module")
def fit(frames: dict[str, tuple[Path, ...]], tmp_path_factory: pytest.TempPathFactory) -> Fit:
    return Fit(tmp_path_factory.mktemp("fit"), frames)


def test_the_fit_iterates_and_says_how_it_ended(fit: Fit) -> None:
    assert fit.metrics["stop_reason"] == "max_iterations"
    assert fit.metrics["iterations"] == 15
    assert fit.metrics["functions"] == fit.metrics["functions_asked"] == 30
    assert (fit.metrics["structures"], fit.metrics["fits"]) == (24, 1)
    assert fit.metrics["microseconds_per_atom"] > 0
    assert json.loads(json.dumps(fit.metrics, allow_nan=False)) == fit.metrics
    assert {path.name for path in fit.outputs.iterdir()} == set(OUTPUTS.values())


def test_the_loss_falls_on_both_sides(fit: Fit) -> None:
    for side in ("train", "validation"):
        assert fit.losses(side)[-1] < 0.05 * fit.losses(side)[0]


def test_pacemaker_understood_the_loss_and_the_batch(fit: Fit) -> None:
    log = (fit.work / "log.txt").read_text()
    assert "kappa=0.35, L1=2e-08, L2=3e-08" in log
    assert "Batch size: 24" in log


def test_the_errors_are_of_the_best_potential(fit: Fit) -> None:
    """pacemaker's own figures of its iteration are met."""
    history = pd.read_parquet(fit.path("history"))
    of_best = history[history["iteration"] == fit.metrics["best_iteration"]]
    for side in ("train", "validation"):
        ((_, row),) = of_best[of_best["side"] == side].iterrows()
        for name in ("energy_rmse_meV_per_atom", "force_rmse_meV_per_A", "force_mae_meV_per_A"):
            assert fit.metrics[f"{side}_{name}"] == pytest.approx(row[name], rel=1e-6)


def test_nothing_of_time_or_user_is_in_the_outputs(fit: Fit) -> None:
    text = fit.path("interim").read_text()
    assert "time" not in text
    assert "user" not in text


def test_the_same_fit_gives_the_same_bytes(fit: Fit, frames: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    again = Fit(tmp_path / "again", frames)
    for name in OUTPUTS:
        assert file_digest(again.path(name)) == file_digest(fit.path(name)), name


def killed_at(iteration: int, folder: Path, frames: dict[str, tuple[Path, ...]], params: Params) -> Fit:
    """A fit whose program gets a SIGKILL when it tells of this iteration."""
    folder.mkdir()
    program = folder / "pacemaker"
    program.write_text(f'#!/bin/sh\necho $$ > {folder}/pid\nexec {shlex.join(fit_program())} "$@"\n')
    program.chmod(0o755)

    def kill(done: float, total: float, text: str, figures: object = None) -> None:
        if done >= iteration and (folder / "pid").is_file():  # a busy machine may pass over one
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
            (folder / "pid").unlink()

    return Fit(folder, frames, params, program, kill)


def test_a_killed_fit_goes_on_where_it_was(frames: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    first = killed_at(8, tmp_path / "first", frames, PARAMS)
    assert first.metrics["stop_reason"] == "killed"
    assert 7 <= first.metrics["iterations"] < 15
    params = PARAMS.model_copy(update={"maxiter": 4, "ladder_step": 10})
    second = Fit(tmp_path / "second", {**frames, "start": (first.path("interim"),)}, params)
    assert second.metrics["iterations"] == 4
    # what was saved is the last iteration told of, or the one before
    assert any(second.losses()[0] == pytest.approx(loss, rel=1e-6) for loss in first.losses()[-2:])
    assert second.losses()[-1] < second.losses()[0]


def test_a_ladder_that_was_killed_is_completed(frames: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    laddered = PARAMS.model_copy(update={"maxiter": 5, "ladder_step": 20})
    first = killed_at(3, tmp_path / "first", frames, laddered)
    assert first.metrics["functions"] == 20
    params = PARAMS.model_copy(update={"maxiter": 3})
    second = Fit(tmp_path / "second", {**frames, "start": (first.path("interim"),)}, params)
    assert second.metrics["functions"] == 30
    assert second.metrics["iterations"] == 3
    assert any(second.losses()[0] == pytest.approx(loss, rel=1e-3) for loss in first.losses()[-2:])


def fake(folder: Path, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "pacemaker"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


def test_exit_zero_without_an_iteration_is_a_failure(frames: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    with pytest.raises(NoIteration, match="all is well"):
        Fit(tmp_path, frames, program=fake(tmp_path, "echo all is well; exit 0"))


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("echo boom; exit 1", pace_train.Crashed),
        ("kill -TERM $$", pace_train.Killed),
        ("echo std::bad_alloc; kill -ABRT $$", pace_train.OutOfMemory),
    ],
)
def test_a_program_that_dies_at_once_is_told_by_its_kind(
    script: str, kind: type[Exception], frames: dict[str, tuple[Path, ...]], tmp_path: Path
) -> None:
    with pytest.raises(kind, match="left no potential"):
        Fit(tmp_path, frames, program=fake(tmp_path, script))


def test_other_rows_than_given_end_the_fit_at_once(frames: dict[str, tuple[Path, ...]], tmp_path: Path) -> None:
    script = "echo Fitting dataset size: 23 structures / 70 atoms; sleep 60"
    with pytest.raises(RowsDiffer, match="23 train structures, it was given 24 rows"):
        Fit(tmp_path, frames, program=fake(tmp_path, script))


def test_a_potential_with_its_core_cannot_be_continued_from(
    fit: Fit, frames: dict[str, tuple[Path, ...]], tmp_path: Path
) -> None:
    from containers.tensorpot.core.inner_radius import set_cores
    from containers.tensorpot.student.potential import load

    configuration = load(fit.path("interim"))
    set_cores(configuration, {"Cu-Cu": 1.8}, whole=True)
    configuration.save(str(tmp_path / "core.yaml"))
    with pytest.raises(BadInput, match="core repulsion"):
        Fit(tmp_path, {**frames, "start": (tmp_path / "core.yaml",)})


def test_half_a_file_is_not_usable(fit: Fit, tmp_path: Path) -> None:
    from containers.tensorpot.student.potential import load, shape_of, usable

    probe = copper(1, 9)[0].atoms
    text = fit.path("interim").read_text()
    shapes = {shape_of(load(fit.path("interim")))}
    for share in (0.3, 0.9):
        (tmp_path / "half.yaml").write_text(text[: int(share * len(text))])
        assert not usable(tmp_path / "half.yaml", shapes, probe)
    (tmp_path / "line.yaml").write_text("\n".join(text.splitlines()[:-1]) + "\n")  # whole lines, one function short
    assert not usable(tmp_path / "line.yaml", shapes, probe)
    assert usable(fit.path("interim"), shapes, probe)
