from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from containers.tensorpot.fit.history import (
    HISTORY,
    MetricsFile,
    MetricsRow,
    errors_by_iteration,
    history_table,
    iterations,
    last_step,
    measure,
    ranked,
)

TEXT = """\
ladder_step cycle_step iter_num loss                   e_loss_contrib         f_loss_contrib         reg_loss \
 rmse_epa               rmse_f_comp            low_rmse_epa           low_rmse_f_comp        mae_f_comp
0           0          0        1.25                   0.25                   1.0                    0.0      \
 0.5                    0.75                   0.5                    0.75                   0.375
0           0          1        0.5                    0.125                  0.375                  0.0      \
 0.25                   0.5                    0.25                   0.5                    0.25
"""


def row(step: int, iteration: int, loss: float = 1.0) -> MetricsRow:
    return MetricsRow(step, iteration, loss, 0.1, 0.9, 10.0, 20.0, 15.0)


def test_rows_are_in_milli_units_with_their_part_and_the_launcher_s_columns(tmp_path: Path) -> None:
    (tmp_path / "metrics.txt").write_text(TEXT)
    first, second = MetricsFile(tmp_path / "metrics.txt").follow()
    assert first == MetricsRow(0, 0, 1.25, 0.25, 1.0, 500.0, 750.0, 375.0, regularisation_loss=0.0)
    assert second.force_mae_meV_per_A == 250.0
    first = next(line for line in TEXT.splitlines() if line.startswith("0"))
    (tmp_path / "metrics.txt").write_text(f"{TEXT}0 1 0 {first.split(maxsplit=3)[3]}\n")
    file = MetricsFile(tmp_path / "metrics.txt")
    assert [row.part for row in file.follow()] == [(0, 0), (0, 0), (0, 1)]
    assert len(last_step(file.rows)) == 1
    # the columns of the launcher are read where they are
    added = (
        "mae_epa max_abs_epa max_abs_f_comp eval_count eval_time nat",
        "0.125 2.0 4.0 7 0.001 40",
        "1 2 nan 9 0 40",
    )
    lines = [f"{line} {more}" for line, more in zip(TEXT.splitlines(), added, strict=True)]
    (tmp_path / "metrics.txt").write_text("\n".join(lines) + "\n")
    first, second = MetricsFile(tmp_path / "metrics.txt").follow()
    assert (first.energy_mae_meV_per_atom, first.energy_max_meV_per_atom, first.force_max_meV_per_A) == (
        125,
        2000,
        4000,
    )
    assert (first.evaluations, first.microseconds_per_atom) == (7, 25.0)
    assert second.microseconds_per_atom is None
    assert second.force_max_meV_per_A is not None
    assert math.isnan(second.force_max_meV_per_A)


def test_a_file_is_read_on_as_it_grows_and_half_a_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.txt"
    file = MetricsFile(path)
    assert file.follow() == []
    seen = []
    for end in (20, len(TEXT) - 8, len(TEXT)):
        path.write_text(TEXT[:end])
        seen.append([row.step_iteration for row in file.follow()])
    assert seen == [[], [0], [1]]
    assert [row.step_iteration for row in file.rows] == [0, 1]
    assert file.follow() == []


def test_the_history_continues_that_of_an_interrupted_run() -> None:
    before = history_table([row(0, 0, 9), row(0, 1, 8), row(0, 2, 7)], [row(0, 0, 10)])
    table = history_table([row(0, 0, 7), row(0, 1, 6)], [row(0, 0, 7.5), row(0, 2, 6.5)], before).to_pydict()
    both = list(zip(table["iteration"], table["side"], table["loss"], strict=True))
    assert [(n, loss) for n, side, loss in both if side == "train"] == [(0, 9), (1, 8), (2, 7), (3, 6)]
    assert [(n, loss) for n, side, loss in both if side == "validation"] == [(0, 10), (2, 7.5), (3, 6.5)]


def test_history_counts_on_over_a_ladder_and_each_iteration_is_there_once() -> None:
    train = [row(0, 0, 5), row(0, 1, 4), row(0, 2, 3), row(1, 0, 3), row(1, 1, 2)]
    table = history_table(train, []).to_pydict()
    assert table["iteration"] == [0, 1, 2, 3]
    assert table["loss"] == [5, 4, 3, 2]
    assert iterations([]) == 0
    assert iterations([row(0, 0)]) == 0
    assert iterations([row(0, 0), row(0, 1), row(1, 0), row(1, 1), row(1, 2)]) == 3
    rows = [row(0, 0), row(0, 1), row(1, 0), row(1, 1)]
    assert last_step(rows) == rows[2:]
    # pacemaker's last look at the validation frame is of the last iteration
    train = [row(0, iteration, 9 - iteration) for iteration in range(4)]
    validation = [row(0, 0, 10), row(0, 2, 8), row(0, 4, 7)]
    looks = [row for row in history_table(train, validation).to_pylist() if row["side"] == "validation"]
    assert [(row["iteration"], row["loss"]) for row in looks] == [(0, 10), (2, 8), (3, 7)]
    table = history_table([row(0, 0), row(0, 1, float("nan"))], [row(0, 0)])
    assert table.schema == HISTORY
    assert table.num_rows == 2
    assert history_table([], []).num_rows == 0


def look(step: int, iteration: int, energy: float = 10.0, force: float = 40.0, cycle: int = 0) -> MetricsRow:
    return MetricsRow(step, iteration, 99.0, 0.1, 0.2, 99.0, 99.0, force, cycle, energy_mae_meV_per_atom=energy)


def error(row: MetricsRow) -> float:
    """The measure of a single look at the validation frame."""
    return errors_by_iteration([row], [row])[row.step_iteration]


def test_the_measure_weighs_energies_and_forces_and_ranks_the_best_first() -> None:
    assert error(look(0, 1, 10, 40)) == 20.0
    assert error(look(0, 2, 5, 44)) < error(look(0, 1, 10, 40))
    assert error(replace(look(0, 1), force_loss=0.0)) == measure(10, 40, 0.0) == 10
    assert error(replace(look(0, 1), energy_loss=0.0)) == measure(10, 40, 1.0) == 40
    assert measure(None, 40, 0.3) == measure(10, None, 0.3) == math.inf
    assert ranked({10: 3.0, 20: 1.0, 30: float("nan"), 40: 2.0, 50: 1.0}) == [20, 50, 40, 10]


def test_looks_are_of_their_iterations_in_all_steps_and_cycles() -> None:
    train = [look(0, n) for n in range(8)]
    validation = [look(0, 0), look(0, 5, 10, 40), look(0, 8, 10, 10)]
    assert errors_by_iteration(train, validation) == {5: 20.0, 7: 10.0}
    train = [look(0, 0), look(0, 1), look(1, 0), look(1, 1), look(1, 2), look(1, 0, cycle=1), look(1, 1, cycle=1)]
    validation = [look(0, 1, 9, 9), look(1, 2, 8, 8), look(1, 1, 7, 7, cycle=1)]
    assert errors_by_iteration(train, validation) == {1: 9.0, 3: 8.0, 4: 7.0}
    assert errors_by_iteration([], []) == {}
