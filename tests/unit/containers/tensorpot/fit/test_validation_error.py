from __future__ import annotations

import math
from dataclasses import replace

from containers.tensorpot.fit.history import Row
from containers.tensorpot.fit.validation_error import errors_by_iteration, measure, ranked, validation_error


def row(step: int, iteration: int, energy: float = 10.0, force: float = 40.0, cycle: int = 0) -> Row:
    return Row(step, iteration, 99.0, 0.1, 0.2, 99.0, 99.0, force, cycle, energy_mae_meV_per_atom=energy)


def test_half_the_energy_error_is_worth_more_than_a_tenth_of_the_forces() -> None:
    assert validation_error(row(0, 1, 10, 40)) == 20.0
    assert validation_error(row(0, 2, 5, 44)) < validation_error(row(0, 1, 10, 40))


def test_an_energy_error_that_was_not_told_counts_by_its_square() -> None:
    silent = replace(row(0, 1, force=40), energy_mae_meV_per_atom=None, energy_rmse_meV_per_atom=22.5)
    assert validation_error(silent) == 30.0


def test_what_kappa_leaves_out_does_not_count() -> None:
    assert validation_error(replace(row(0, 1), force_loss=0.0)) == measure(10, 40, 0.0) == 10
    assert validation_error(replace(row(0, 1), energy_loss=0.0)) == measure(10, 40, 1.0) == 40
    assert measure(None, 40, 0.3) == measure(10, None, 0.3) == math.inf


def test_the_look_after_the_end_is_of_the_last_iteration_and_the_first_of_none() -> None:
    train = [row(0, n) for n in range(8)]
    validation = [row(0, 0), row(0, 5, 10, 40), row(0, 8, 10, 10)]
    assert errors_by_iteration(train, validation) == {5: 20.0, 7: 10.0}


def test_all_steps_of_a_ladder_count_and_all_cycles() -> None:
    train = [row(0, 0), row(0, 1), row(1, 0), row(1, 1), row(1, 2), row(1, 0, cycle=1), row(1, 1, cycle=1)]
    validation = [row(0, 1, 9, 9), row(1, 2, 8, 8), row(1, 1, 7, 7, cycle=1)]
    assert errors_by_iteration(train, validation) == {1: 9.0, 3: 8.0, 4: 7.0}
    assert errors_by_iteration([], []) == {}


def test_the_best_is_first_and_no_number_is_left_out() -> None:
    assert ranked({10: 3.0, 20: 1.0, 30: float("nan"), 40: 2.0, 50: 1.0}) == [20, 50, 40, 10]
