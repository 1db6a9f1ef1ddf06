"""Following a program that writes what pacemaker writes, in its order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from containers.contract import Machine, Resources
from containers.tensorpot.fit_copies import kept
from containers.tensorpot.fit_following import Asked, Course, RowsDiffer, follow
from containers.tensorpot.fit_resume import Earlier

TITLE = "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp"
TABLE = """\
echo '--------------------------------------------{title}--------------------------------------------'
echo 'Iteration:  #{n}   Loss:    Total:  1.0e+00 (100%)'
echo 'Number of params./funcs:     60/12                            Avg. time:     {time} mcs/at'
echo '    MAE:            4.50                 4.50               5.50                    5.50'
echo ' MAX_AE:           40.50                40.50              50.50                   50.50'
"""
BEGIN = f"""\
echo '{TITLE}' > metrics.txt
echo '{TITLE}' > test_metrics.txt
echo 'Fitting dataset size: 3 structures / 9 atoms'
echo 'Test dataset size: 2 structures / 9 atoms'
echo 'Total number of functions: 12 / number of parameters: 60'
row() {{ echo "0 0 $1 $2 .25 .5 0 .01 .02 .015" >> metrics.txt; }}
look() {{ echo "0 0 $1 $2 .125 .25 0 .03 .04 .025" >> test_metrics.txt; }}
tell() {{ echo "Iteration   #$1    (3 evals):        Loss: $2 | Time/eval: 100.00 mcs/at"; }}
save() {{ echo "potential $1" > interim_potential_0.yaml; sleep 0.4; }}
row 0 9.0; echo 'Initial state:#0    (1 evals):        Loss: 9 | Time/eval: 900.00 mcs/at'
look 0 8.0; echo 'Initial(TEST):#0    (1 evals):        Loss: 8 | Time/eval:   0.00 mcs/at'
row 1 7.0; tell 1 7.0; save 1
"""
LOOK = f"""\
row 2 5.0
{TABLE.format(title="FIT STATS", n=2, time="200.00")}
look 2 4.0
{TABLE.format(title="TEST STATS", n=2, time="  0.00")}
save 2
row 3 4.0; tell 3 4.0; save 3
"""
CLOSE = "echo 'Optimization result(success=False, status=1, message=Maximum number, nfev=9, njev=9)'\n"
ASKED = Asked({"train": 3, "validation": 2}, maxiter=3)


def followed(
    folder: Path, script: str, asked: Asked = ASKED, earlier: Earlier | None = None
) -> tuple[Course, list[tuple[float, dict[str, float]]]]:
    """The course of a program, and what was told of it: iterations and figures."""
    program, told = folder / "program", list[tuple[float, dict[str, float]]]()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)

    def hear(done: float, total: float, text: str = "", figures: Any = None) -> None:
        told.append((done, dict(figures)))

    return follow(program, folder, asked, Machine(Resources(), hear), earlier or Earlier()), told


def test_every_iteration_is_told_with_the_figures_of_both_sides(tmp_path: Path) -> None:
    course, told = followed(tmp_path, BEGIN + LOOK + CLOSE)
    assert course.stop.reason == "max_iterations"
    assert sorted({done for done, _ in told}) == [1, 2, 3]
    figures = told[-1][1]
    assert figures["microseconds_per_atom"] == 100.0
    assert figures["iteration"] == 3
    assert (figures["train_loss"], figures["validation_loss"]) == (4.0, 4.0)
    assert (figures["train_force_mae_meV_per_A"], figures["validation_force_mae_meV_per_A"]) == (15.0, 25.0)
    assert figures["validation_energy_mae_meV_per_atom"] == 4.5
    assert (figures["validation_energy_max_meV_per_atom"], figures["validation_force_max_meV_per_A"]) == (40.5, 50.5)


def test_each_copy_is_of_its_iteration(tmp_path: Path) -> None:
    course, _ = followed(tmp_path, BEGIN + LOOK + CLOSE)
    assert {n: path.read_text() for n, path in kept(tmp_path).items()} == {n: f"potential {n}\n" for n in (1, 2, 3)}
    assert [n for n, _ in course.latest()] == [3, 2, 1]
    assert [n for n, _ in course.best()] == [2]


def test_what_was_taken_up_counts_on(tmp_path: Path) -> None:
    (tmp_path / "kept_000030.yaml").write_text("of before")
    earlier = Earlier(iterations=40, in_part=40, errors={30: 0.1}, shapes=((12, 60),))
    course, told = followed(tmp_path, BEGIN + LOOK + CLOSE, earlier=earlier)
    assert (course.iterations, told[-1][0], told[-1][1]["iteration"]) == (43, 43, 43)
    assert [n for n, _ in course.latest()] == [43, 42, 41, 30]
    assert [n for n, _ in course.best()] == [30, 42]


def test_the_final_potential_is_believed_only_of_a_fit_that_ended_itself(tmp_path: Path) -> None:
    final = "echo final > interim_potential_best_cycle.yaml\n"
    course, _ = followed(tmp_path, BEGIN + LOOK + final + CLOSE)
    assert course.latest()[0][1].name == "interim_potential_best_cycle.yaml"
    broken, _ = followed(tmp_path, BEGIN + LOOK + final + "exit 1\n")
    assert broken.stop.reason == "crashed"
    assert broken.latest()[0][1].name == "kept_000003.yaml"


def test_a_loss_that_is_no_number_ends_the_program_at_once(tmp_path: Path) -> None:
    course, _ = followed(tmp_path, BEGIN + "row 2 nan; tell 2 nan; exec sleep 60\n")
    assert course.stop.reason == "diverged"


def test_the_time_ends_a_program_that_says_nothing(tmp_path: Path) -> None:
    asked = Asked(ASKED.sizes, maxiter=3, ends_at=0.0)
    course, _ = followed(tmp_path, "exec sleep 60\n", asked)
    assert course.stop.reason == "time_limit"
    assert course.iterations == 0


def test_other_rows_than_given_are_told(tmp_path: Path) -> None:
    with pytest.raises(RowsDiffer, match="3 train structures, it was given 4 rows"):
        followed(tmp_path, BEGIN + "exec sleep 60\n", Asked({"train": 4, "validation": 2}, maxiter=3))
