from __future__ import annotations

from containers.tensorpot.fit_choice import errors_by_iteration, ranked, validation_error
from containers.tensorpot.fit_history import Row


def row(step: int, iteration: int, energy: float = 0.1, force: float = 0.2, cycle: int = 0) -> Row:
    return Row(step, iteration, 99.0, energy, force, 10.0, 20.0, 15.0, cycle)


def test_the_error_leaves_regularisation_out() -> None:
    assert validation_error(row(0, 1, 0.25, 0.5)) == 0.75


def test_the_look_after_the_end_is_of_the_last_iteration_and_the_first_of_none() -> None:
    train = [row(0, n) for n in range(8)]
    validation = [row(0, 0), row(0, 5, 0.5, 0.5), row(0, 8, 0.25, 0.5)]
    assert errors_by_iteration(train, validation) == {5: 1.0, 7: 0.75}


def test_all_steps_of_a_ladder_count_and_all_cycles() -> None:
    train = [row(0, 0), row(0, 1), row(1, 0), row(1, 1), row(1, 2), row(1, 0, cycle=1), row(1, 1, cycle=1)]
    validation = [row(0, 1, 0.25, 0.5), row(1, 2, 0.5, 0.5), row(1, 1, 1.0, 0.5, cycle=1)]
    assert errors_by_iteration(train, validation) == {1: 0.75, 3: 1.0, 4: 1.5}
    assert errors_by_iteration([], []) == {}


def test_the_best_is_first_and_no_number_is_left_out() -> None:
    assert ranked({10: 3.0, 20: 1.0, 30: float("nan"), 40: 2.0, 50: 1.0}) == [20, 50, 40, 10]
