"""A tiny real fit to ASE's effective-medium copper: what the step says of it, and what it does not believe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from containers.contract import BadInput, file_digest
from containers.tensorpot.core.inner_radius import set_cores
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.follow import RowsDiffer
from containers.tensorpot.fit.pace_train import OUTPUTS, NoIteration
from containers.tensorpot.student.potential import load, shape_of, usable
from tests.e2e.copper import STUDENT, Fit, fitted, program, wide

pytestmark = pytest.mark.e2e


def test_the_fit_iterates_and_says_how_it_ended(copper_fit: Fit) -> None:
    metrics = copper_fit.metrics
    assert metrics["stop_reason"] == "max_iterations"
    assert metrics["iterations"] == 30
    assert metrics["functions"] == metrics["functions_asked"] == 30
    assert (metrics["structures"], metrics["fits"]) == (24, 1)
    assert metrics["microseconds_per_atom"] > 0
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert {path.name for path in copper_fit.outputs.iterdir()} == set(OUTPUTS.values())
    for side in ("train", "validation"):
        assert copper_fit.losses(side)[-1] < 0.05 * copper_fit.losses(side)[0]


def test_pacemaker_understood_the_loss_and_the_batch(copper_fit: Fit) -> None:
    assert "kappa=0.35, L1=2e-08, L2=3e-08" in copper_fit.log
    assert "Batch size: 24" in copper_fit.log


def test_the_errors_are_of_the_best_potential(copper_fit: Fit) -> None:
    """pacemaker's own figures of its iteration are met."""
    for side in ("train", "validation"):
        row = copper_fit.history(side).loc[copper_fit.metrics["best_iteration"]]
        for name in ("energy_rmse_meV_per_atom", "force_rmse_meV_per_A", "force_mae_meV_per_A"):
            assert copper_fit.metrics[f"{side}_{name}"] == pytest.approx(row[name], rel=1e-6)


def test_nothing_of_time_or_user_is_in_the_outputs(copper_fit: Fit) -> None:
    text = copper_fit.path("interim").read_text()
    assert "time" not in text
    assert "user" not in text


def test_the_same_fit_gives_the_same_bytes_whatever_its_seed(copper_fit: Fit, tmp_path: Path) -> None:
    """The seed draws nothing where coefficients begin at zero; only input.yaml says another."""
    again = fitted(tmp_path / "again", copper_fit.files, STUDENT.model_copy(update={"seed": STUDENT.seed + 1}))
    for name in OUTPUTS:
        same = file_digest(again.path(name)) == file_digest(copper_fit.path(name))
        assert same is (name != "input"), name
    told = again.path("input").read_text().replace(f"seed: {STUDENT.seed + 1}", f"seed: {STUDENT.seed}")
    assert told == copper_fit.path("input").read_text()


def test_a_fit_begins_where_another_ended_also_with_a_ladder(copper_fit: Fit, tmp_path: Path) -> None:
    """Where the basis is whole, pacemaker's ladder would fit nothing."""
    params = STUDENT.model_copy(update={"maxiter": 4, "ladder_step": 10})
    files = {**copper_fit.files, "start": (copper_fit.path("interim"),)}
    second = fitted(tmp_path / "second", files, params)
    assert second.metrics["iterations"] == 4
    assert second.losses()[0] == pytest.approx(copper_fit.losses()[-1], rel=1e-6)
    assert second.losses()[-1] < second.losses()[0]


def test_exit_zero_without_an_iteration_is_a_failure(copper_fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(NoIteration, match="all is well"):
        fitted(tmp_path, copper_fit.files, STUDENT, program(tmp_path, "echo all is well; exit 0"))


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("echo boom; exit 1", pace_train.Crashed),
        ("kill -TERM $$", pace_train.Killed),
        ("echo std::bad_alloc; kill -ABRT $$", pace_train.OutOfMemory),
    ],
)
def test_a_program_that_dies_at_once_is_told_by_its_kind(
    script: str, kind: type[Exception], copper_fit: Fit, tmp_path: Path
) -> None:
    with pytest.raises(kind, match="left no potential"):
        fitted(tmp_path, copper_fit.files, STUDENT, program(tmp_path, script))


def test_other_rows_than_given_end_the_fit_at_once(copper_fit: Fit, tmp_path: Path) -> None:
    script = "echo Fitting dataset size: 23 structures / 70 atoms; sleep 60"
    with pytest.raises(RowsDiffer, match="23 train structures, it was given 24 rows"):
        fitted(tmp_path, copper_fit.files, STUDENT, program(tmp_path, script))


def test_a_potential_with_its_core_cannot_be_continued_from(copper_fit: Fit, tmp_path: Path) -> None:
    configuration = load(copper_fit.path("interim"))
    set_cores(configuration, {"Cu-Cu": 1.8}, whole=True)
    configuration.save(str(tmp_path / "core.yaml"))
    with pytest.raises(BadInput, match="core repulsion"):
        fitted(tmp_path, {**copper_fit.files, "start": (tmp_path / "core.yaml",)}, STUDENT)


def test_half_a_file_is_not_usable(copper_fit: Fit, tmp_path: Path) -> None:
    probe = wide(1, 9)[0].atoms
    text = copper_fit.path("interim").read_text()
    shapes = {shape_of(load(copper_fit.path("interim")))}
    for share in (0.3, 0.9):
        (tmp_path / "half.yaml").write_text(text[: int(share * len(text))])
        assert not usable(tmp_path / "half.yaml", shapes, probe)
    (tmp_path / "line.yaml").write_text("\n".join(text.splitlines()[:-1]) + "\n")  # whole lines, one function short
    assert not usable(tmp_path / "line.yaml", shapes, probe)
    assert usable(copper_fit.path("interim"), shapes, probe)
