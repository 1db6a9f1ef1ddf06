"""Pictures are PNGs that show the data they are given, small enough for an artifact, and the same every time."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tasks.report import plots

PNG = b"\x89PNG\r\n\x1a\n"
PAIR = {"r_in_A": 1.9, "shortest_distance_A": 1.8, "distance_A": [0.5, 1.0, 2.0], "energy_eV": [900.0, 80.0, -1.0],
        "zbl_eV": [900.0, 80.0, 3.0], "force_eV_per_A": [4000.0, 300.0, 1.0],
        "zbl_force_eV_per_A": [4000.0, 300.0, 2.0]}  # fmt: skip


def ink(png: bytes, colour: str) -> int:
    """Pixels that are nearly of a colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((np.abs(pixels - wanted).max(axis=2) < 12).sum())


def points(count: int, quantity: str = "force_eV_per_A") -> pa.Table:
    reference = np.random.default_rng(1).normal(size=count)
    columns = {"against": ["teacher"] * count, "quantity": [quantity] * count}
    return pa.table({**columns, "reference": reference, "predicted": reference + 0.01})


def test_few_points_are_dots_and_many_a_density() -> None:
    few, many = (plots.parity(points(count), "teacher") for count in (200, 100_000))
    assert ink(few, "#1f6feb") + ink(few, "#79a9f3") > 50
    assert ink(many, "#1f6feb") == 0
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


def test_core_repulsion_grows_with_the_pairs_up_to_a_bound() -> None:
    one, two, many = (
        Image.open(io.BytesIO(plots.core_repulsion({f"pair {n}": PAIR for n in range(count)}, most=4)))
        for count in (1, 2, 9)
    )
    assert one.width < two.width < many.width
    assert many.height == 2 * one.height


def test_core_repulsion_of_a_pair_that_the_data_lack() -> None:
    assert plots.core_repulsion({"Al-Ni": {**PAIR, "shortest_distance_A": None}}).startswith(PNG)


def test_grades_before_and_after_are_both_drawn() -> None:
    after = {"histogram": {"edges": [0.0, 1.0, 5.0], "counts": [90, 10]}}
    before = {"histogram": {"edges": [0.0, 1.0, 5.0], "counts": [20, 80]}}
    alone = plots.grades({"pool": {"before": None, "after": after}, "test": {"before": None, "after": after}})
    both = plots.grades({"pool": {"before": before, "after": after}, "test": {"before": before, "after": after}})
    assert ink(both, plots.GREY) > ink(alone, plots.GREY) + 100
    assert ink(alone, plots.BLUE) > 300


def test_same_data_same_bytes(parity_table: pa.Table) -> None:
    assert plots.parity(parity_table, "dft") == plots.parity(parity_table, "dft")


def test_importing_the_module_does_not_import_matplotlib() -> None:
    code = "import sys, tasks.report.publish; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=False).returncode == 0


@pytest.mark.parametrize("bound", [100.0, None])
def test_forces_are_drawn_with_and_without_a_bound(bound: float | None) -> None:
    histogram = {"edges": [0.1, 0.2, 0.4], "counts": [0, 5]}
    assert plots.forces(histogram, bound).startswith(PNG)
    assert plots.forces(histogram, bound) == plots.forces(histogram, bound)


def test_the_bound_of_the_forces_is_marked() -> None:
    histogram = {"edges": [0.1, 0.2, 0.4], "counts": [0, 5]}
    assert plots.forces(histogram, 1.0) != plots.forces(histogram, 2.0)
