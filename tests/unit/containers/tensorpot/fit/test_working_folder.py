"""What an interrupted run left is taken up; pyace is replaced at the border where a potential is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ase import Atoms

from containers.contract import RESUMES
from containers.tensorpot.fit import working_folder
from containers.tensorpot.fit.follow import FINAL, FitRun
from containers.tensorpot.fit.history import MetricsFile, MetricsRow, history_table
from containers.tensorpot.fit.log import Closing, FitLog
from containers.tensorpot.fit.results import first_whole, write_results
from containers.tensorpot.fit.stop_reason import Ending, stop
from containers.tensorpot.fit.working_folder import Checkpoint, hand_over, read_left
from containers.tensorpot.pacemaker.input import EarlyStop, Fit, PacemakerInput, Potential, Start
from containers.tensorpot.student import potential as fitted_potential

TITLE = "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp"
TITLE += " mae_epa\n"
PROBE = Atoms("Cu")
SHAPE = "Total number of functions: 30 / number of parameters: 156\n"
KAPPA = "LossFunctionSpecification(kappa=0.25, L1=1e-08, L2=1e-08)\n"


def line(step: int, cycle: int, iteration: int, loss: float) -> str:
    return f"{step} {cycle} {iteration} {loss} {loss / 4} {loss / 2} 0 .1 .2 {loss / 1000} {loss / 1000}\n"


def metrics(*parts: tuple[int, int, int]) -> str:
    """Rows of parts: step of the ladder, cycle, iterations; the loss falls by one a row from 100."""
    lines = [(step, cycle, n) for step, cycle, iterations in parts for n in range(iterations + 1)]
    return TITLE + "".join(line(*place, 100.0 - number) for number, place in enumerate(lines))


def leave(run: Path, text: str, copies: list[int], looks: str = "") -> Path:
    left = run / "left"
    left.mkdir(parents=True, exist_ok=True)
    (left / "metrics.txt").write_text(text)
    (left / "test_metrics.txt").write_text(TITLE + looks)
    (left / "log.txt").write_text(KAPPA + SHAPE)
    for iteration in copies:
        (left / f"kept_{iteration:06d}.yaml").write_text(f"potential {iteration}")
    return left


def left_in(run: Path) -> Checkpoint:
    """Read what is left, which is something."""
    found = read_left(run, PROBE)
    assert found is not None
    return found


def next_run(run: Path, earlier: Checkpoint) -> Path:
    """The folder of a run that takes up what was left in `run`."""
    new = run / "next" / "left"
    new.mkdir(parents=True)
    hand_over(run, earlier, new)
    return new.parent


@pytest.fixture(autouse=True)
def potentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is a whole potential unless it says that it is broken; it may hold its validation errors, all equal."""

    def errors_on(path: Path, frame: object) -> dict[str, float]:
        quantities = (("energy", "meV_per_atom"), ("force", "meV_per_A"))
        error = float(path.read_text())
        return {f"{name}_{kind}_{unit}": error for name, unit in quantities for kind in ("mae", "rmse")}

    monkeypatch.setattr(fitted_potential, "usable", lambda path, shapes, probe: "broken" not in path.read_text())
    monkeypatch.setattr(fitted_potential, "load", lambda path: path.read_text())
    monkeypatch.setattr(fitted_potential, "write_stripped", lambda text, path: path.write_text(text))
    monkeypatch.setattr(fitted_potential, "errors_on", errors_on)
    monkeypatch.setattr(fitted_potential, "shape_of", lambda configuration: WHOLE)


def test_nothing_left_is_nothing_to_take_up(tmp_path: Path) -> None:
    assert read_left(tmp_path, PROBE) is None
    leave(tmp_path, metrics((0, 0, 3)), [])
    assert read_left(tmp_path, PROBE) is None
    (tmp_path / "run").mkdir()
    leave(tmp_path / "elsewhere", metrics((0, 0, 3)), [3])
    (tmp_path / "run" / "left").symlink_to(tmp_path / "elsewhere" / "left")
    assert read_left(tmp_path / "run", PROBE) is None


def test_a_run_resumes_from_the_last_whole_copy_of_its_step_and_cycle(tmp_path: Path) -> None:
    left = leave(tmp_path, metrics((0, 0, 9)), [6, 7, 8], looks=line(0, 0, 0, 9) + line(0, 0, 5, 8) + line(0, 0, 8, 7))
    (left / "kept_000008.yaml").write_text("broken")
    earlier = left_in(tmp_path)
    assert (earlier.iterations, earlier.in_part, earlier.cycle) == (7, 7, 0)
    assert (earlier.shapes, earlier.kappa) == (((30, 156),), 0.25)
    assert earlier.errors == {5: pytest.approx(8.0)}
    assert max(earlier.history["iteration"].to_pylist()) == 7
    # a copy beyond the last row is not believed
    leave(tmp_path / "beyond", metrics((0, 0, 4)), [3, 5])
    earlier = left_in(tmp_path / "beyond")
    assert earlier.iterations == 3
    # a later step of a ladder counts its own iterations
    leave(tmp_path / "ladder", metrics((0, 0, 5), (1, 0, 3)), [8], looks=line(0, 0, 5, 8) + line(1, 0, 2, 4))
    earlier = left_in(tmp_path / "ladder")
    assert (earlier.iterations, earlier.in_part) == (8, 3)
    assert earlier.errors == {5: pytest.approx(8.0), 7: pytest.approx(4.0)}
    # the end of a cycle is of that cycle also when the next has begun
    leave(tmp_path / "cycle", metrics((0, 0, 20), (0, 1, 0)), [20])
    earlier = left_in(tmp_path / "cycle")
    assert (earlier.iterations, earlier.in_part, earlier.cycle) == (20, 20, 0)


def test_an_interruption_of_what_was_taken_up_counts_on(tmp_path: Path) -> None:
    leave(tmp_path, metrics((0, 0, 9)), [2, 7], looks=line(0, 0, 2, 4))
    first = left_in(tmp_path)
    run = next_run(tmp_path, first)
    assert (run / "left" / "start.yaml").read_text() == "potential 7"
    leave(run, metrics((0, 0, 5)), [11], looks=line(0, 0, 4, 2))
    second = left_in(run)
    assert (second.iterations, second.in_part) == (11, 11)
    assert second.errors == {2: pytest.approx(4.0), 11: pytest.approx(2.0)}
    sides = zip(second.history["side"].to_pylist(), second.history["iteration"].to_pylist(), strict=True)
    assert [iteration for side, iteration in sides if side == "train"] == list(range(12))
    # one that was killed before its first iteration hands on what it was given
    leave(tmp_path / "other", metrics((0, 0, 9)), [7])
    first = left_in(tmp_path / "other")
    run = next_run(tmp_path / "other", first)
    second = left_in(run)
    assert (second.iterations, second.in_part, second.kappa) == (7, 7, 0.25)
    assert second.history == first.history


def test_a_step_of_a_ladder_that_began_anew_counts_its_own_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a step, the ladder goes on with the next one; killed in that, the rest of it is done."""
    asked = given(maxiter=50, ladder_step=30)
    leave(tmp_path, metrics((0, 0, 50), (1, 0, 40)), [90])
    first = left_in(tmp_path)
    monkeypatch.setattr(working_folder, "kind_of_start", lambda potential, start: "extend")
    remaining, first = working_folder.what_remains(asked, first)
    assert (remaining.start, remaining.fit.maxiter, first.iterations) == ("extend", 50, 90)
    run = next_run(tmp_path, first)
    leave(run, metrics((0, 0, 20)), [110])
    second = left_in(run)
    assert (second.iterations, second.in_part) == (110, 20)
    monkeypatch.setattr(working_folder, "kind_of_start", lambda potential, start: "continue")
    remaining, _ = working_folder.what_remains(asked, second)
    assert remaining.fit.maxiter == 30


def test_two_interruptions_of_cycles_keep_all_validation_errors(tmp_path: Path) -> None:
    leave(tmp_path, metrics((0, 0, 30)), [20, 30], looks=line(0, 0, 20, 4))
    first = left_in(tmp_path)
    run = next_run(tmp_path, first)
    leave(run, metrics((0, 0, 5), (0, 1, 3)), [37], looks=line(0, 1, 2, 8))
    second = left_in(run)
    assert second.errors == {20: pytest.approx(4.0), 37: pytest.approx(8.0)}


@pytest.mark.parametrize("name", ["metrics.txt", "log.txt", "earlier.json", "earlier.parquet"])
def test_no_link_is_read_whatever_its_name(name: str, tmp_path: Path) -> None:
    left = leave(tmp_path, metrics((0, 0, 9)), [7])
    (tmp_path / "secret").write_text("none of ours")
    (left / name).unlink(missing_ok=True)
    (left / name).symlink_to(tmp_path / "secret")
    read_left(tmp_path, PROBE)
    assert not (left / name).exists()
    assert (tmp_path / "secret").read_text() == "none of ours"


def given(maxiter: int = 20, cycles: int = 1, **more: object) -> PacemakerInput:
    fit = Fit(maxiter=maxiter, cycles=cycles, early_stop=EarlyStop(), **more)
    return PacemakerInput(potential=Potential(elements=("Cu",), cutoff=4.0), fit=fit, batch_size=3)


def earlier_of(in_part: int, cycle: int = 0) -> Checkpoint:
    return Checkpoint(iterations=in_part, in_part=in_part, cycle=cycle, potential=Path("some.yaml"))


@pytest.mark.parametrize(
    ("asked", "done", "kind", "left"),
    [
        (given(), earlier_of(7), "continue", (13, 1)),
        (given(), earlier_of(20), "continue", None),
        (given(), earlier_of(25), "continue", None),
        (given(ladder_step=10), earlier_of(7), "extend", (20, 1)),
        (given(ladder_step=10), earlier_of(7), "continue", (13, 1)),
        (given(cycles=3), earlier_of(7), "continue", (20, 3)),
        (given(cycles=3), earlier_of(7, cycle=2), "continue", (13, 1)),
        (given(cycles=3), earlier_of(20, cycle=1), "continue", (20, 2)),  # noise comes between two cycles of a run
        (given(cycles=3), earlier_of(20, cycle=2), "continue", None),
    ],
)
def test_what_remains(
    asked: PacemakerInput, done: Checkpoint, kind: Start, left: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working_folder, "kind_of_start", lambda potential, start: kind)
    remaining, _ = working_folder.what_remains(asked, done)
    if left is None:
        assert remaining is None
    else:
        assert (remaining.fit.maxiter, remaining.fit.cycles, remaining.start) == (*left, kind)


def test_without_an_interruption_the_request_stays_and_names_agree_with_the_engine() -> None:
    assert working_folder.what_remains(given(), Checkpoint()) == (given(), Checkpoint())
    from tasks.store import results

    assert working_folder.LEFT == results.LEFT
    assert "pace_train" in RESUMES


def test_rows_that_were_cut_off_are_not_read_twice(tmp_path: Path) -> None:
    """The joined history has each iteration once, also when the copy is older than the rows."""
    leave(tmp_path, metrics((0, 0, 9)), [7])
    earlier = left_in(tmp_path)
    (tmp_path / "metrics.txt").write_text(metrics((0, 0, 4)))
    file = MetricsFile(tmp_path / "metrics.txt")
    table = history_table(file.follow(), [], earlier.history)
    assert table["iteration"].to_pylist() == list(range(12))


# ---- what is written of a fit whose train and validation losses disagree


WHOLE = (30, 156)


def metrics_row(iteration: int, loss: float, cycle: int, error: float = 1.0) -> MetricsRow:
    return MetricsRow(0, iteration, loss, 1.0, 1.0, error, error, error, cycle, energy_mae_meV_per_atom=error)


def written(work: Path, train: list[MetricsRow], validation: list[MetricsRow]) -> dict[str, Any]:
    """Metrics, and what both files hold."""
    ending = Ending(0, tuple(train), FitLog(closing=Closing(False, 1, "Maximum", 9)), 2)
    run = FitRun(work, ending, stop(ending), train, validation, Checkpoint(shapes=(WHOLE,)))
    frames, counts = cast(Any, SimpleNamespace(read=lambda side: None)), cast(Any, SimpleNamespace(probe=None))
    last = first_whole(run.latest(), run, counts)
    told = write_results(last, run, frames, counts, 0.3, "best", work / "interim.yaml", work / "best.yaml")
    return told | {name: (work / f"{name}.yaml").read_text() for name in ("interim", "best")}


def test_the_best_of_two_cycles_is_that_of_the_validation_frame(tmp_path: Path) -> None:
    """The first cycle ends with the lower train loss, the second with the lower validation loss."""
    train = [
        metrics_row(0, 9, 0),
        metrics_row(1, 3, 0),
        metrics_row(2, 2.0, 0),
        metrics_row(0, 4, 1),
        metrics_row(1, 3, 1),
        metrics_row(2, 2.1, 1),
    ]
    validation = [
        metrics_row(0, 9, 0, 9),
        metrics_row(3, 2, 0, 5.0),
        metrics_row(0, 9, 1, 9),
        metrics_row(3, 2, 1, 3.0),
    ]
    for name, loss in (("kept_000002.yaml", "5.0"), ("kept_000004.yaml", "3.0"), (FINAL, "5.0")):
        (tmp_path / name).write_text(loss)
    told = written(tmp_path, train, validation)
    assert (told["best"], told["best_iteration"], told["validation_force_mae_meV_per_A"]) == ("3.0", 4, 3.0)
    assert (told["interim"], told["last_validation_force_mae_meV_per_A"]) == ("5.0", 5.0)


def test_an_earlier_best_is_taken_and_an_equal_one_is_the_last(tmp_path: Path) -> None:
    train, validation = (
        [metrics_row(0, 9, 0), metrics_row(1, 3, 0), metrics_row(2, 2, 0)],
        [metrics_row(1, 3, 0, 1.0), metrics_row(3, 2, 0, 2.0)],
    )
    for name, loss in (("kept_000001.yaml", "1.0"), ("kept_000002.yaml", "2.0"), (FINAL, "2.0")):
        (tmp_path / name).write_text(loss)
    assert written(tmp_path, train, validation)["best_iteration"] == 1
    (tmp_path / "kept_000001.yaml").write_text("2.0")
    assert written(tmp_path, train, validation)["best_iteration"] == 2
