"""What is written of a fit whose train and validation losses disagree; pyace is replaced at the border."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from containers.tensorpot.fit.follow import FINAL, FitRun
from containers.tensorpot.fit.history import MetricsRow
from containers.tensorpot.fit.log import Closing, FitLog
from containers.tensorpot.fit.results import first_whole, write_results
from containers.tensorpot.fit.stop_reason import Ending, stop
from containers.tensorpot.fit.working_folder import Checkpoint
from containers.tensorpot.student import potential

SHAPE = (30, 156)


def row(iteration: int, loss: float, cycle: int, error: float = 1.0) -> MetricsRow:
    return MetricsRow(0, iteration, loss, 1.0, 1.0, error, error, error, cycle, energy_mae_meV_per_atom=error)


@pytest.fixture(autouse=True)
def potentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A potential is a file with its validation errors, all alike."""

    def errors_on(path: Path, frame: object) -> dict[str, float]:
        quantities = (("energy", "meV_per_atom"), ("force", "meV_per_A"))
        return {
            f"{name}_{kind}_{unit}": float(path.read_text()) for name, unit in quantities for kind in ("mae", "rmse")
        }

    monkeypatch.setattr(potential, "usable", lambda path, shapes, probe: True)
    monkeypatch.setattr(potential, "load", lambda path: path.read_text())
    monkeypatch.setattr(potential, "write_stripped", lambda text, path: path.write_text(text))
    monkeypatch.setattr(potential, "errors_on", errors_on)
    monkeypatch.setattr(potential, "shape_of", lambda configuration: SHAPE)


def written(work: Path, train: list[MetricsRow], validation: list[MetricsRow]) -> dict[str, Any]:
    """Metrics, and what both files hold."""
    ending = Ending(0, tuple(train), FitLog(closing=Closing(False, 1, "Maximum", 9)), 2)
    run = FitRun(work, ending, stop(ending), train, validation, Checkpoint(shapes=(SHAPE,)))
    frames, counts = cast(Any, SimpleNamespace(read=lambda side: None)), cast(Any, SimpleNamespace(probe=None))
    last = first_whole(run.latest(), run, counts)
    assert last is not None
    told = write_results(last, run, frames, counts, 0.3, work / "interim.yaml", work / "best.yaml")
    return told | {name: (work / f"{name}.yaml").read_text() for name in ("interim", "best")}


def test_the_best_of_two_cycles_is_that_of_the_validation_frame(tmp_path: Path) -> None:
    """The first cycle ends with the lower train loss, the second with the lower validation loss."""
    train = [row(0, 9, 0), row(1, 3, 0), row(2, 2.0, 0), row(0, 4, 1), row(1, 3, 1), row(2, 2.1, 1)]
    validation = [row(0, 9, 0, 9), row(3, 2, 0, 5.0), row(0, 9, 1, 9), row(3, 2, 1, 3.0)]
    for name, loss in (("kept_000002.yaml", "5.0"), ("kept_000004.yaml", "3.0"), (FINAL, "5.0")):
        (tmp_path / name).write_text(loss)
    told = written(tmp_path, train, validation)
    assert (told["best"], told["best_iteration"], told["validation_force_mae_meV_per_A"]) == ("3.0", 4, 3.0)
    assert (told["interim"], told["last_validation_force_mae_meV_per_A"]) == ("5.0", 5.0)


def test_an_earlier_best_is_taken_and_an_equal_one_is_the_last(tmp_path: Path) -> None:
    train, validation = [row(0, 9, 0), row(1, 3, 0), row(2, 2, 0)], [row(1, 3, 0, 1.0), row(3, 2, 0, 2.0)]
    for name, loss in (("kept_000001.yaml", "1.0"), ("kept_000002.yaml", "2.0"), (FINAL, "2.0")):
        (tmp_path / name).write_text(loss)
    assert written(tmp_path, train, validation)["best_iteration"] == 1
    (tmp_path / "kept_000001.yaml").write_text("2.0")
    assert written(tmp_path, train, validation)["best_iteration"] == 2
