"""Pictures are PNGs that show the data they are given, small enough for an artifact, and the same every time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.report import plots, structure_plots
from tasks.report.plots import BEST, BLUE, ORANGE, STAGE, Course, learning_curve, live_curve
from tests.unit.tasks.pictures import ink

PNG = b"\x89PNG\r\n\x1a\n"
PAIR = {"r_in_A": 1.9, "shortest_distance_A": 1.8, "distance_A": [0.5, 1.0, 2.0], "energy_eV": [900.0, 80.0, -1.0],
        "zbl_eV": [900.0, 80.0, 3.0], "force_eV_per_A": [4000.0, 300.0, 1.0],
        "zbl_force_eV_per_A": [4000.0, 300.0, 2.0]}  # fmt: skip


def points(count: int, quantity: str = "force_eV_per_A") -> pa.Table:
    reference = np.random.default_rng(1).normal(size=count)
    columns = {"against": ["teacher"] * count, "quantity": [quantity] * count}
    return pa.table({**columns, "reference": reference, "predicted": reference + 0.01})


def test_few_points_are_dots_and_many_a_density() -> None:
    few, many = (plots.parity(points(count), "teacher") for count in (200, 100_000))
    assert ink(few, BLUE) + ink(few, "#66aad1") > 50
    assert ink(many, BLUE) == 0
    assert len(many) < 200_000  # an artifact must stay under 1 MB, as base64 too


def test_parity_draws_a_panel_for_each_quantity(parity_table: pa.Table) -> None:
    three = Image.open(io.BytesIO(plots.parity(parity_table, "dft")))
    one = Image.open(io.BytesIO(plots.parity(points(10), "teacher")))
    assert three.width > 2.5 * one.width


def test_parity_without_points_or_with_equal_or_lost_ones_is_still_a_picture() -> None:
    equal = pa.table({"against": ["dft"], "quantity": ["energy_eV_per_atom"], "reference": [1.0], "predicted": [1.0]})
    lost = equal.set_column(3, "predicted", [[float("nan")]])
    for table in (points(0), equal, lost):
        assert plots.parity(table, "dft").startswith(PNG)


def test_errors_over_gamma_are_a_point_for_each_structure(parity_table: pa.Table) -> None:
    few = plots.error_against_gamma(parity_table)
    assert ink(few, BLUE) + ink(few, "#66aad1") > 50
    assert ink(few, ORANGE) > 50, "where extrapolation begins"
    assert plots.error_against_gamma(parity_table.slice(0, 0)).startswith(PNG)
    many = pa.concat_tables([parity_table] * 30)
    names = pa.array([str(number) for number in range(len(many))])
    assert ink(plots.error_against_gamma(many.set_column(1, "id", names)), BLUE) == 0, "a density"


def test_core_repulsion_grows_with_the_pairs_up_to_a_bound() -> None:
    one, two, many = (
        Image.open(io.BytesIO(plots.core_repulsion({f"pair {n}": PAIR for n in range(count)}, most=4)))
        for count in (1, 2, 9)
    )
    assert one.width < two.width < many.width
    assert many.height == 2 * one.height
    assert plots.core_repulsion({"Al-Ni": {**PAIR, "shortest_distance_A": None}}).startswith(PNG)


def test_grades_before_and_after_are_both_drawn() -> None:
    after = {"histogram": {"edges": [0.0, 1.0, 5.0], "counts": [90, 10]}}
    before = {"histogram": {"edges": [0.0, 1.0, 5.0], "counts": [20, 80]}}
    alone = plots.grades({"pool": {"before": None, "after": after}, "test": {"before": None, "after": after}})
    both = plots.grades({"pool": {"before": before, "after": after}, "test": {"before": before, "after": after}})
    assert ink(both, plots.GREY) > ink(alone, plots.GREY) + 100
    assert ink(alone, plots.BLUE) > 300


def test_same_data_same_bytes(parity_table: pa.Table, history: Path) -> None:
    assert plots.parity(parity_table, "dft") == plots.parity(parity_table, "dft")
    course = Course("one", 1, pq.read_table(history), 30)
    assert learning_curve([course]) == learning_curve([course])
    assert live_curve(curves(50)) == live_curve(curves(50))


def test_the_bound_of_the_forces_is_marked_where_there_is_one() -> None:
    histogram = {"edges": [0.1, 0.2, 0.4], "counts": [0, 5]}
    pictures = {bound: plots.forces(histogram, bound) for bound in (100.0, 1.0, 2.0, None)}
    assert all(picture.startswith(PNG) for picture in pictures.values())
    assert pictures[1.0] == plots.forces(histogram, 1.0)
    assert pictures[1.0] != pictures[2.0]


# ---- learning curves


def test_every_panel_has_both_sides_the_stages_and_the_best_iteration(history: Path) -> None:
    table = pq.read_table(history)
    png = learning_curve([Course("attempt 1", 1, table)])
    assert png.startswith(PNG)
    for panel in range(3):
        assert ink(png, BLUE, panel, near=24) > 150
        assert ink(png, ORANGE, panel, near=24) > 50
    # attempts stand in sequence
    one, two = (learning_curve([Course(f"attempt {n}", 1, table) for n in range(count)]) for count in (1, 2))
    assert ink(two, BLUE, near=24) > 1.2 * ink(one, BLUE, near=24)
    # a solid line marks a new stage
    same, new = (learning_curve([Course("one", 1, table), Course("two", stage, table)]) for stage in (1, 2))
    assert ink(new, STAGE, near=24) > ink(same, STAGE, near=24) + 200
    plain, marked = (learning_curve([Course("one", 1, table, best)]) for best in (None, 30))
    assert ink(marked, BEST, near=24) > ink(plain, BEST, near=24) + 10
    assert learning_curve([Course("one", 1, table.slice(0, 0))]).startswith(PNG)


def rows(*values: float | None) -> pa.Table:
    names = ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
    return pa.Table.from_pylist(
        [{"iteration": n, "side": "train", **dict.fromkeys(names, value)} for n, value in enumerate(values)]
    )


def curves(count: int) -> dict[tuple[str, str], Any]:
    return {
        (side, name): [(n, shift * (0.01 + 1 / (n + 1))) for n in range(count)]
        for side, shift in (("train", 1.0), ("validation", 1.3))
        for name in ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
    }


def test_a_live_curve_stays_small_and_keeps_its_end_and_gaps_stay_gaps() -> None:
    short, long = live_curve(curves(300)), live_curve(curves(20_000))
    assert len(long) < 30_000  # 100,000 as a data URI would be the most
    assert len(long) < 2 * len(short)
    fallen = curves(20_001)
    fallen["train", "loss"][-1] = (20_000, 1e-9)
    assert live_curve(fallen) != live_curve(curves(20_001))
    assert live_curve({("train", "loss"): [(1, 0.5)]}).startswith(PNG)
    assert live_curve({("train", "loss"): [(1, -0.5)]}).startswith(PNG)
    assert live_curve({}).startswith(PNG)
    gappy = learning_curve([Course("one", 1, rows(1.0, float("inf"), float("nan"), None, 0.0))])
    assert gappy.startswith(PNG)
    assert ink(gappy, BLUE, near=24) > 10


def test_structures_have_a_colour_for_each_element_and_equal_bytes() -> None:
    """B2 NiAl has as much of the one colour as of the other, about; nickel alone has the first one."""
    rows = [
        {"numbers": numbers, "positions": [0.0, 0, 0, 1.4, 1.4, 1.4], "cell": [2.8, 0, 0, 0, 2.8, 0, 0, 0, 2.8]}
        for numbers in ([13, 28], [28, 28])
    ]
    both = structure_plots.structures(rows[:1])
    assert both == structure_plots.structures(rows[:1])
    assert min(ink(both, BLUE), ink(both, ORANGE)) > 500
    nickel = structure_plots.structures(rows[1:])
    assert ink(nickel, BLUE) > 1000
    assert ink(nickel, ORANGE) == 0
