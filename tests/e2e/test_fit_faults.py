"""Real fits for the ways in which pacemaker ends a fit, tiny ones to ASE's effective-medium copper.

Ends from outside (a signal, a limit of time, a loss that is no number): test_repair.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containers.contract import OutOfMemory
from containers.tensorpot.fit.follow import RowsDiffer
from containers.tensorpot.fit.pace_train import Crashed, Params
from containers.tensorpot.pacemaker.input import EarlyStop, Loss, Potential
from tests.e2e.copper import Files, copper, fitted, program, write_frames

pytestmark = pytest.mark.e2e

TINY = Potential(elements=("Cu",), cutoff=4.0, functions_per_element=3, order=2, b_basis="small")
PARAMS = Params(potential=TINY, maxiter=6)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_frames(tmp_path_factory.mktemp("frames"), copper(10, 1), copper(4, 2))


def but(**changes: Any) -> Params:
    return PARAMS.model_copy(update=changes)


def test_a_fit_that_reaches_its_tolerance_has_converged(frames: Files, tmp_path: Path) -> None:
    params = but(maxiter=300, optimizer="L-BFGS-B", fit={"options": {"ftol": 0.05}})
    fit = fitted(tmp_path, frames, params)
    assert (fit.metrics["stop_reason"], fit.metrics["iterations"] < 300) == ("converged", True)
    assert "RELATIVE REDUCTION" in fit.metrics["stop_criterion"]
    assert fit.losses()[-1] < fit.losses()[0]


def test_a_fit_whose_loss_falls_too_slowly_stops_early_in_every_step_of_the_ladder(
    frames: Files, tmp_path: Path
) -> None:
    slow = EarlyStop(min_relative_loss_per_iteration=0.99, patience=2)
    potential = TINY.model_copy(update={"functions_per_element": 8})
    metrics = fitted(tmp_path, frames, but(potential=potential, maxiter=50, early_stop=slow, ladder_step=4)).metrics
    assert (metrics["stop_reason"], metrics["iterations"], metrics["functions"]) == ("early_stop", 4, 8)
    assert "more slowly than requested over the iterations" in metrics["stop_criterion"]
    assert {path.name for path in (tmp_path / "work").glob("kept_*")} >= {f"kept_00000{n}.yaml" for n in (2, 3, 4)}


def test_a_corrected_energy_out_of_range_ends_the_fit(tmp_path: Path) -> None:
    """pacemaker would replace the reference energies of the whole set, and go on."""
    rows = copper(10, 1)
    rows[3] = replace(rows[3], energy_corrected=-25.0 * len(rows[3].atoms))
    with pytest.raises(RowsDiffer, match="reference energies"):
        fitted(tmp_path, write_frames(tmp_path / "frames", rows, copper(4, 2)), PARAMS)


def test_a_program_that_is_refused_memory_is_told(frames: Files, tmp_path: Path) -> None:
    """Too little for TensorFlow's largest library: what is refused later does not always say that it was memory."""
    with pytest.raises(OutOfMemory):
        fitted(tmp_path, frames, PARAMS, program(tmp_path, 'ulimit -v 900000\nexec "$real" "$@"'))


def test_a_ladder_crashes_when_early_stopping_meets_the_last_iteration(frames: Files, tmp_path: Path) -> None:
    """A fault of pacemaker's: its last look at the validation frame raises what nobody catches."""
    potential = TINY.model_copy(update={"functions_per_element": 8})
    stopping = {"min_relative_test_loss_per_iter": 0.99}
    params = but(potential=potential, ladder_step=4, maxiter=4, display_step=1, fit=stopping)
    params = params.model_copy(update={"early_stop": EarlyStop(min_relative_loss_per_iteration=1e-12, patience=5)})
    metrics = fitted(tmp_path, frames, params).metrics
    assert (metrics["stop_reason"], metrics["functions"]) == ("crashed", 4)
    assert metrics["iterations"] == 4


def test_rows_without_a_potential_are_no_fit(frames: Files, tmp_path: Path) -> None:
    """A program that exits with 0 and tells of iterations that it has not done."""
    row = "0 0 {} {} 1 1 0 .1 .2 .1"
    names = (
        "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp"
    )
    lines = "\\n".join([names, row.format(0, 3), row.format(1, 2)])
    script = f"printf '{lines}\\n' > metrics.txt\necho 'Iteration   #1'\nexit 0"
    with pytest.raises(Crashed, match="exit code 0 and left no potential"):
        fitted(tmp_path, frames, PARAMS, program(tmp_path, script))


def test_the_best_on_the_validation_frame_is_kept_and_not_the_last(tmp_path: Path) -> None:
    """Four structures and many parameters: the validation error has a minimum at about the twelfth of 30 iterations."""
    big = TINY.model_copy(update={"functions_per_element": 25, "order": 3})
    files = write_frames(tmp_path / "frames", copper(4, 1), copper(4, 2))
    fit = fitted(tmp_path / "fit", files, but(potential=big, maxiter=30, display_step=1))
    metrics, looks = fit.metrics, fit.history("validation").loc[1:]
    error = looks["energy_loss"] + looks["force_loss"]
    best, last = looks.loc[metrics["best_iteration"]], looks.iloc[-1]
    assert metrics["best_iteration"] == (looks["energy_mae_meV_per_atom"] * looks["force_mae_meV_per_A"]).idxmin()
    assert error[metrics["best_iteration"]] < 0.5 * error.iloc[-1]
    for name in looks.columns.intersection([key.removeprefix("validation_") for key in metrics]):
        assert metrics[f"validation_{name}"] == pytest.approx(best[name], rel=1e-6)
    for name in ("energy_mae_meV_per_atom", "force_mae_meV_per_A"):
        assert metrics[f"last_validation_{name}"] == pytest.approx(last[name], rel=1e-6)


def test_a_failure_is_told_as_it_is_also_where_kappa_was_left_to_pacemaker(frames: Files, tmp_path: Path) -> None:
    dies = program(tmp_path, "echo std::bad_alloc; kill -ABRT $$")
    with pytest.raises(OutOfMemory, match="left no potential"):
        fitted(tmp_path, frames, but(loss=Loss(kappa="auto")), dies)
