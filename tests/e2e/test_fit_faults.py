"""One real fit for every way in which a fit ends: tiny ones, to ASE's effective-medium copper."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from containers.contract import Inputs, Machine, OutOfMemory, Resources
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.follow import RowsDiffer
from containers.tensorpot.fit.pace_train import OUTPUTS, Crashed, Diverged, Params, TimeLimit
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import EarlyStop, Loss, Potential
from containers.tensorpot.pacemaker.program import fit_program
from tests.e2e.copper import copper

pytestmark = pytest.mark.e2e

Files = dict[str, tuple[Path, ...]]
TINY = Potential(elements=("Cu",), cutoff=4.0, functions_per_element=3, order=2, b_basis="small")
PARAMS = Params(potential=TINY, maxiter=6)


def given(folder: Path, train: list[Labelled]) -> Files:
    folder.mkdir(exist_ok=True)
    for side, rows in (("train", train), ("validation", copper(4, 2))):
        write_frame(folder / f"{side}.pckl.gzip", frame(rows))
    return {side: (folder / f"{side}.pckl.gzip",) for side in ("train", "validation")}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return given(tmp_path_factory.mktemp("frames"), copper(10, 1))


def fitted(
    folder: Path,
    files: Files,
    params: Params = PARAMS,
    program: Path | None = None,
    progress: Callable[..., None] = lambda *_: None,
    **resources: Any,
) -> dict[str, Any]:
    """The metrics of a fit in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outputs").mkdir()
    machine = Machine(Resources(threads=1, **resources), progress)
    command = (str(program),) if program else fit_program()
    return pace_train.train(Inputs(files), folder / "outputs", params, machine, command)


def but(**changes: Any) -> Params:
    return PARAMS.model_copy(update=changes)


def wrapped(folder: Path, before: str) -> Path:
    """pacemaker, after a line of shell."""
    program = folder / "pacemaker"
    program.write_text(f'#!/bin/sh\n{before}\nexec {shlex.join(fit_program())} "$@"\n')
    program.chmod(0o755)
    return program


def at(iteration: int, folder: Path, number: signal.Signals) -> Callable[..., None]:
    """A progress that sends the program in `folder/pid` a signal when it tells of this iteration, or a later one."""

    def send(done: float, *_: object) -> None:
        if done >= iteration and (folder / "pid").is_file():
            os.kill(int((folder / "pid").read_text()), number)
            (folder / "pid").unlink()

    return send


def losses(folder: Path, side: str = "train") -> list[float]:
    history = pd.read_parquet(folder / "outputs" / OUTPUTS["history"])
    return list(history[history["side"] == side]["loss"])


def test_a_fit_that_reaches_its_tolerance_has_converged(frames: Files, tmp_path: Path) -> None:
    params = but(maxiter=300, optimizer="L-BFGS-B", fit={"options": {"ftol": 0.05}})
    metrics = fitted(tmp_path, frames, params)
    assert (metrics["stop_reason"], metrics["iterations"] < 300) == ("converged", True)
    assert "RELATIVE REDUCTION" in metrics["stop_criterion"]
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_a_fit_whose_loss_falls_too_slowly_stops_early_in_every_step_of_the_ladder(
    frames: Files, tmp_path: Path
) -> None:
    slow = EarlyStop(min_relative_loss_per_iteration=0.99, patience=2)
    potential = TINY.model_copy(update={"functions_per_element": 8})
    metrics = fitted(tmp_path, frames, but(potential=potential, maxiter=50, early_stop=slow, ladder_step=4))
    assert (metrics["stop_reason"], metrics["iterations"], metrics["functions"]) == ("early_stop", 4, 8)
    assert "more slowly than asked for over the iterations" in metrics["stop_criterion"]
    assert {path.name for path in (tmp_path / "work").glob("kept_*")} >= {f"kept_00000{n}.yaml" for n in (2, 3, 4)}


def test_a_fit_ends_in_order_before_its_time_is_over(frames: Files, tmp_path: Path) -> None:
    """A program that hangs after some iterations; a machine that needs longer to begin gets more time."""
    for seconds in (60, 120, 240, 480):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        program = wrapped(folder, f"echo $$ > {folder}/pid")
        try:
            hang = at(3, folder, signal.SIGSTOP)
            metrics = fitted(folder, frames, but(maxiter=500), program, hang, time_limit_s=seconds)
        except TimeLimit:
            continue
        assert metrics["stop_reason"] == "time_limit"
        assert 0 < metrics["best_iteration"] <= metrics["iterations"] < 500
        return
    raise AssertionError("no iteration in 480 s")


def test_an_optimiser_that_gives_up_while_the_loss_falls_has_stalled(frames: Files, tmp_path: Path) -> None:
    metrics = fitted(tmp_path, frames, but(maxiter=60, optimizer="L-BFGS-B", fit={"options": {"maxfun": 8}}))
    assert metrics["stop_reason"] == "stalled"
    assert 0 < metrics["iterations"] < 60
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    """By two atoms in one place, which the step `frames` would set aside."""
    rows = copper(10, 1)
    rows[3].atoms.positions[1] = rows[3].atoms.positions[0]
    with pytest.raises(Diverged, match="no number"):
        fitted(tmp_path, given(tmp_path / "frames", rows))


def test_a_corrected_energy_out_of_range_ends_the_fit(tmp_path: Path) -> None:
    """pacemaker would replace the reference energies of the whole set, and go on."""
    rows = copper(10, 1)
    rows[3] = replace(rows[3], energy_corrected=-25.0 * len(rows[3].atoms))
    with pytest.raises(RowsDiffer, match="reference energies"):
        fitted(tmp_path, given(tmp_path / "frames", rows))


def test_a_program_that_is_refused_memory_is_told(frames: Files, tmp_path: Path) -> None:
    """Too little for TensorFlow's largest library: what is refused later does not always say that it was memory."""
    with pytest.raises(OutOfMemory):
        fitted(tmp_path, frames, program=wrapped(tmp_path, "ulimit -v 900000"))


def test_a_program_that_crashes_leaves_what_it_had(frames: Files, tmp_path: Path) -> None:
    program = wrapped(tmp_path, f"echo $$ > {tmp_path}/pid")
    metrics = fitted(tmp_path, frames, but(maxiter=500), program, at(4, tmp_path, signal.SIGSEGV))
    assert metrics["stop_reason"] == "crashed"
    assert metrics["iterations"] >= 4


def test_a_ladder_crashes_when_early_stopping_meets_the_last_iteration(frames: Files, tmp_path: Path) -> None:
    """A fault of pacemaker's: its last look at the validation frame raises what nobody catches."""
    potential = TINY.model_copy(update={"functions_per_element": 8})
    stopping = {"min_relative_test_loss_per_iter": 0.99}
    params = but(potential=potential, ladder_step=4, maxiter=4, display_step=1, fit=stopping)
    params = params.model_copy(update={"early_stop": EarlyStop(min_relative_loss_per_iteration=1e-12, patience=5)})
    metrics = fitted(tmp_path, frames, params)
    assert (metrics["stop_reason"], metrics["functions"]) == ("crashed", 4)
    assert metrics["iterations"] == 4


def test_rows_without_a_potential_are_no_fit(frames: Files, tmp_path: Path) -> None:
    """A program that exits with 0 and tells of iterations that it has not done."""
    row = "0 0 {} {} 1 1 0 .1 .2 .1"
    names = (
        "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp"
    )
    lines = "\\n".join([names, row.format(0, 3), row.format(1, 2)])
    program = tmp_path / "pacemaker"
    program.write_text(f"#!/bin/sh\nprintf '{lines}\\n' > metrics.txt\necho 'Iteration   #1'\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(Crashed, match="exit code 0 and left no potential"):
        fitted(tmp_path, frames, program=program)


def test_the_best_on_the_validation_frame_is_kept_and_not_the_last(tmp_path: Path) -> None:
    """Four structures and many parameters: the validation error has a minimum at about the twelfth of 30 iterations."""
    big = TINY.model_copy(update={"functions_per_element": 25, "order": 3})
    files = given(tmp_path / "frames", copper(4, 1))
    metrics = fitted(tmp_path / "fit", files, but(potential=big, maxiter=30, display_step=1))
    history = pd.read_parquet(tmp_path / "fit" / "outputs" / OUTPUTS["history"])
    looks = history[(history["side"] == "validation") & (history["iteration"] > 0)].set_index("iteration")
    error = looks["energy_loss"] + looks["force_loss"]
    best, last = looks.loc[metrics["best_iteration"]], looks.iloc[-1]
    assert metrics["best_iteration"] == (looks["energy_mae_meV_per_atom"] * looks["force_mae_meV_per_A"]).idxmin()
    assert error[metrics["best_iteration"]] < 0.5 * error.iloc[-1]
    for name in looks.columns.intersection([key.removeprefix("validation_") for key in metrics]):
        assert metrics[f"validation_{name}"] == pytest.approx(best[name], rel=1e-6)
    for name in ("energy_mae_meV_per_atom", "force_mae_meV_per_A"):
        assert metrics[f"last_validation_{name}"] == pytest.approx(last[name], rel=1e-6)


def test_a_failure_is_told_as_it_is_also_where_kappa_was_left_to_pacemaker(frames: Files, tmp_path: Path) -> None:
    program = tmp_path / "pacemaker"
    program.write_text("#!/bin/sh\necho std::bad_alloc; kill -ABRT $$\n")
    program.chmod(0o755)
    with pytest.raises(OutOfMemory, match="left no potential"):
        fitted(tmp_path, frames, but(loss=Loss(kappa="auto")), program)
