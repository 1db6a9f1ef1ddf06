"""Following a program that writes what pacemaker writes, in its order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from containers.contract import Machine, Resources
from containers.tensorpot.fit.follow import FitRequest, FitRun, Follower, RowsDiffer, follow
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.stop_reason import Ending, FitStop
from containers.tensorpot.fit.working_folder import Checkpoint
from containers.tensorpot.pacemaker.launcher import kept

TITLE = (
    "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp"
    " mae_epa max_abs_epa max_abs_f_comp eval_count eval_time nat"
)
BEGIN = f"""\
echo '{TITLE}' > metrics.txt
echo '{TITLE}' > test_metrics.txt
echo 'Fitting dataset size: 3 structures / 9 atoms'
echo 'Test dataset size: 2 structures / 9 atoms'
echo 'Total number of functions: 12 / number of parameters: 60'
row() {{ echo "0 0 $1 $2 .25 .5 0 .01 .02 .015 .0055 .05 .06 $((2 * $1 + 1)) .001 10" >> metrics.txt; }}
look() {{ echo "0 0 $1 $2 .125 .25 0 .03 .04 .025 .0045 .0405 .0505 9 0 10" >> test_metrics.txt; }}
tell() {{ echo "Iteration   #$1    (3 evals):        Loss: $2 | Time/eval: 100.00 mcs/at"; }}
save() {{ echo "potential $1" > kept_$(printf %06d $1).yaml; }}
row 0 9.0; echo 'Initial state:#0    (1 evals):        Loss: 9 | Time/eval: 900.00 mcs/at'
look 0 8.0; echo 'Initial(TEST):#0    (1 evals):        Loss: 8 | Time/eval:   0.00 mcs/at'
row 1 7.0; tell 1 7.0; save 1
"""
LOOK = """\
row 2 5.0; tell 2 5.0; look 2 4.0; save 2
row 3 4.0; tell 3 4.0; save 3
"""
CLOSE = "echo 'Optimization result(success=False, status=1, message=Maximum number, nfev=9, njev=9)'\n"
REQUEST = FitRequest({"train": 3, "validation": 2}, maxiter=3)


def followed(
    folder: Path, script: str, request: FitRequest = REQUEST, earlier: Checkpoint | None = None
) -> tuple[FitRun, list[tuple[float, dict[str, float]]]]:
    """The course of a program, and what was told of it: iterations and figures."""
    program, told = folder / "program", list[tuple[float, dict[str, float]]]()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)

    def hear(done: float, total: float, text: str = "", figures: Any = None) -> None:
        told.append((done, dict(figures)))

    return follow((str(program),), folder, request, Machine(Resources(), hear), earlier or Checkpoint()), told


def test_every_iteration_is_reported_with_the_figures_of_both_sides_and_kept(tmp_path: Path) -> None:
    course, told = followed(tmp_path, BEGIN + LOOK + CLOSE)
    assert course.stop.reason == "max_iterations"
    assert {1, 2, 3} >= {done for done, _ in told} >= {3}
    assert course.evaluations == 9
    figures = told[-1][1]
    assert figures["microseconds_per_atom"] == 100.0
    assert figures["iteration"] == 3
    assert (figures["train_loss"], figures["validation_loss"]) == (4.0, 4.0)
    assert (figures["train_force_mae_meV_per_A"], figures["validation_force_mae_meV_per_A"]) == (15.0, 25.0)
    assert figures["validation_energy_mae_meV_per_atom"] == 4.5
    assert (figures["validation_energy_max_meV_per_atom"], figures["validation_force_max_meV_per_A"]) == (40.5, 50.5)
    assert {n: path.read_text() for n, path in kept(tmp_path).items()} == {n: f"potential {n}\n" for n in (1, 2, 3)}
    assert [n for n, _ in course.latest()] == [3, 2, 1]
    assert [n for n, _ in course.best()] == [2]


def test_what_was_taken_up_counts_on(tmp_path: Path) -> None:
    (tmp_path / "kept_000030.yaml").write_text("of before")
    earlier = Checkpoint(iterations=40, in_part=40, errors={30: 0.1}, shapes=((12, 60),))
    save = 'save() { echo "potential $1" > kept_$(printf %06d $((40 + $1))).yaml; }\n'
    course, told = followed(tmp_path, BEGIN.replace("row 0", save + "row 0") + LOOK + CLOSE, earlier=earlier)
    assert (course.iterations, told[-1][0], told[-1][1]["iteration"]) == (43, 43, 43)
    assert [n for n, _ in course.latest()] == [43, 42, 41, 30]
    assert [n for n, _ in course.best()] == [30, 42]


def test_the_final_potential_is_believed_only_of_a_fit_that_ended_itself(tmp_path: Path) -> None:
    final = "echo final > interim_potential_best_cycle.yaml\n"
    course, _ = followed(tmp_path, BEGIN + LOOK + final + CLOSE)
    assert course.latest()[0][1].name == "interim_potential_best_cycle.yaml"
    broken, _ = followed(tmp_path, BEGIN + LOOK + final + "exit 1\n")
    assert (broken.stop.reason, broken.evaluations) == ("crashed", 7)
    assert broken.latest()[0][1].name == "kept_000003.yaml"


RISING = "".join(f"row {n} {20 + n}; tell {n} {20 + n}\n" for n in range(2, 7))


@pytest.mark.parametrize(
    ("script", "request_", "reason", "iterations", "criterion"),
    [
        (BEGIN + "row 2 nan; tell 2 nan\n", REQUEST, "diverged", 2, "no number"),
        (BEGIN + RISING, replace(REQUEST, maxiter=99), "diverged", 6, "are all above"),
        ("", replace(REQUEST, ends_at=0.0), "time_limit", 0, "nearly over"),
    ],
    ids=["no number", "rising losses", "time"],
)
def test_a_lost_fit_and_the_time_end_the_program_at_once(
    tmp_path: Path, script: str, request_: FitRequest, reason: str, iterations: int, criterion: str
) -> None:
    course, _ = followed(tmp_path, script + "exec sleep 60\n", request_)
    assert (course.stop.reason, course.iterations) == (reason, iterations)
    assert criterion in course.stop.criterion


def test_other_rows_than_given_are_named(tmp_path: Path) -> None:
    with pytest.raises(RowsDiffer, match="3 train structures, it was given 4 rows"):
        followed(tmp_path, BEGIN + "exec sleep 60\n", FitRequest({"train": 4, "validation": 2}, maxiter=3))


CYCLES = f"""\
echo '{TITLE}' > metrics.txt
row() {{ echo "0 $1 $2 $3 1 1 0 .01 .02 .015" >> metrics.txt; echo "Iteration   #$2"; }}
row 0 0 9; row 0 1 3; row 0 2 2.0
row 1 0 4; row 1 1 2.5; row 1 2 2.1
"""


def test_the_final_potential_is_the_end_of_the_cycle_of_the_lowest_train_loss(tmp_path: Path) -> None:
    final = "echo final > interim_potential_best_cycle.yaml\n"
    course, _ = followed(tmp_path, CYCLES + final + CLOSE, earlier=Checkpoint(iterations=40))
    assert course.iterations == 44
    assert course.latest()[0] == (42, tmp_path / "interim_potential_best_cycle.yaml")


@pytest.mark.parametrize(("cycles", "reason"), [(2, "max_iterations"), (3, "crashed")])
def test_early_stopping_that_comes_too_late_ends_the_last_cycle_alone(tmp_path: Path, cycles: int, reason: str) -> None:
    late = "echo 'pyace.generalfit.TestLossChangeTooSmallException: EARLY STOPPING'; exit 1\n"
    course, _ = followed(tmp_path, CYCLES + late, replace(REQUEST, maxiter=2, cycles=cycles))
    assert course.stop.reason == reason


def test_progress_is_whole_only_when_all_steps_and_cycles_are_done(tmp_path: Path) -> None:
    totals: list[tuple[float, float]] = []
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n" + CYCLES + CLOSE)
    program.chmod(0o755)
    machine = Machine(Resources(), lambda done, total, text="", figures=None: totals.append((done, total)))
    follow((str(program),), tmp_path, replace(REQUEST, maxiter=2, cycles=3), machine, Checkpoint(iterations=40))
    assert set(totals) <= {(40 + done, 46) for done in range(1, 5)}
    assert totals[-1] == (44, 46)


def test_the_best_of_an_earlier_step_of_a_ladder_is_kept_and_offered(tmp_path: Path) -> None:
    """The larger basis overfits: no look at it is as good as the first step's."""
    looks = {(0, 2): 1.0, (0, 4): 1.1, (1, 2): 2.0, (1, 4): 1.5, (1, 6): 1.8}
    metrics, validation = tmp_path / "metrics.txt", tmp_path / "test_metrics.txt"
    for path in (metrics, validation):
        path.write_text(f"{TITLE}\n")
    follower, done = Follower(tmp_path, REQUEST, Machine(Resources()), Checkpoint()), 0
    for step, n in [(0, n) for n in range(5)] + [(1, n) for n in range(10)]:
        with metrics.open("a") as rows, validation.open("a") as looked:
            rows.write(f"{step} 0 {n} {9 - n / 10} 1 1 0 .1 .2 .1 .1 .1 .1 1 1 1\n")
            error = looks.get((step, n))
            looked.write(f"{step} 0 {n} 9 {error} 0 0 .1 .2 .1 {error} .1 .1 1 0 1\n" if error else "")
        if n > 0:
            done += 1
            (tmp_path / f"kept_{done:06d}.yaml").write_text(f"{step}-{n}")
        follower.look()
    ending = Ending(0, (), FitLog(), 9)
    course = FitRun(tmp_path, ending, FitStop("max_iterations", ""), follower.train.rows, follower.validation.rows)
    assert [(n, path.read_text()) for n, path in course.best()] == [(2, "0-2"), (4, "0-4")]
    assert list(kept(tmp_path)) == [13, 12, 11, 4, 2]
