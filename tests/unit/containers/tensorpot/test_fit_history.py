from __future__ import annotations

from containers.tensorpot.fit_history import HISTORY, Row, history_table, iterations, last_step, parse_metrics

TEXT = """\
ladder_step cycle_step iter_num loss                   e_loss_contrib         f_loss_contrib         reg_loss \
 rmse_epa               rmse_f_comp            low_rmse_epa           low_rmse_f_comp        mae_f_comp
0           0          0        1.25                   0.25                   1.0                    0.0      \
 0.5                    0.75                   0.5                    0.75                   0.375
0           0          1        0.5                    0.125                  0.375                  0.0      \
 0.25                   0.5                    0.25                   0.5                    0.25
"""


def row(step: int, iteration: int, loss: float = 1.0) -> Row:
    return Row(step, iteration, loss, 0.1, 0.9, 10.0, 20.0, 15.0)


def test_parse_gives_milli_units() -> None:
    first, second = parse_metrics(TEXT)
    assert first == Row(0, 0, 1.25, 0.25, 1.0, 500.0, 750.0, 375.0)
    assert second.force_mae_meV_per_A == 250.0


def test_a_line_that_is_being_written_is_left_out() -> None:
    assert parse_metrics(TEXT[:-8]) == parse_metrics(TEXT)[:1]
    assert parse_metrics("") == []
    assert parse_metrics("ladder_step cycle") == []


def test_iteration_zero_is_no_iteration() -> None:
    assert iterations([]) == 0
    assert iterations([row(0, 0)]) == 0
    assert iterations([row(0, 0), row(0, 1), row(1, 0), row(1, 1), row(1, 2)]) == 3


def test_the_last_step_of_a_ladder() -> None:
    rows = [row(0, 0), row(0, 1), row(1, 0), row(1, 1)]
    assert last_step(rows) == rows[2:]


def test_history_counts_on_over_a_ladder_and_each_iteration_is_there_once() -> None:
    train = [row(0, 0, 5), row(0, 1, 4), row(0, 2, 3), row(1, 0, 3), row(1, 1, 2)]
    table = history_table(train, []).to_pydict()
    assert table["iteration"] == [0, 1, 2, 3]
    assert table["loss"] == [5, 4, 3, 2]


def test_pacemakers_last_look_at_the_validation_frame_belongs_to_the_last_iteration() -> None:
    train = [row(0, iteration, 9 - iteration) for iteration in range(4)]
    validation = [row(0, 0, 10), row(0, 2, 8), row(0, 4, 7)]
    table = history_table(train, validation).filter(
        [side == "validation" for side in history_table(train, validation)["side"].to_pylist()]
    )
    assert table["iteration"].to_pylist() == [0, 2, 3]
    assert table["loss"].to_pylist() == [10, 8, 7]


def test_history_has_its_schema_and_only_numbers() -> None:
    table = history_table([row(0, 0), row(0, 1, float("nan"))], [row(0, 0)])
    assert table.schema == HISTORY
    assert table.num_rows == 2
    assert history_table([], []).num_rows == 0
