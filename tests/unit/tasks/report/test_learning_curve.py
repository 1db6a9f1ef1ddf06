"""Learning curves show what they are given, and the live ones stay small however long the fit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.report.plots import BEST, BLUE, ORANGE, STAGE, Course, learning_curve, live_curve

PNG = b"\x89PNG\r\n\x1a\n"


def ink(png: bytes, colour: str, third: int | None = None) -> int:
    """Pixels that are nearly of a colour, in one third of the width if it is given."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    if third is not None:
        width = pixels.shape[1] // 3
        pixels = pixels[:, third * width : (third + 1) * width]
    return int((np.abs(pixels - wanted).max(axis=2) < 24).sum())


def test_every_panel_has_both_sides(history: Path) -> None:
    png = learning_curve([Course("attempt 1", 1, pq.read_table(history))])
    assert png.startswith(PNG)
    for panel in range(3):
        assert ink(png, BLUE, panel) > 150
        assert ink(png, ORANGE, panel) > 50


def test_attempts_stand_in_sequence(history: Path) -> None:
    table = pq.read_table(history)
    one, two = (learning_curve([Course(f"attempt {n}", 1, table) for n in range(count)]) for count in (1, 2))
    assert ink(two, BLUE) > 1.2 * ink(one, BLUE)


def test_a_new_stage_is_marked_by_a_solid_line(history: Path) -> None:
    table = pq.read_table(history)
    same, new = (learning_curve([Course("one", 1, table), Course("two", stage, table)]) for stage in (1, 2))
    assert ink(new, STAGE) > ink(same, STAGE) + 200


def test_the_best_iteration_is_marked(history: Path) -> None:
    table = pq.read_table(history)
    plain, marked = (learning_curve([Course("one", 1, table, best)]) for best in (None, 30))
    assert ink(marked, BEST) > ink(plain, BEST) + 10


def rows(*values: float | None) -> pa.Table:
    names = ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
    return pa.Table.from_pylist(
        [{"iteration": n, "side": "train", **dict.fromkeys(names, value)} for n, value in enumerate(values)]
    )


def test_a_diverged_fit_leaves_gaps() -> None:
    gappy = learning_curve([Course("one", 1, rows(1.0, float("inf"), float("nan"), None, 0.0))])
    assert gappy.startswith(PNG)
    assert ink(gappy, BLUE) > 10


def test_an_empty_history(history: Path) -> None:
    assert learning_curve([Course("one", 1, pq.read_table(history).slice(0, 0))]).startswith(PNG)


def curves(count: int) -> dict[tuple[str, str], Any]:
    return {
        (side, name): [(n, shift * (0.01 + 1 / (n + 1))) for n in range(count)]
        for side, shift in (("train", 1.0), ("validation", 1.3))
        for name in ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
    }


def test_a_live_curve_stays_small_and_keeps_its_end() -> None:
    short, long = live_curve(curves(300)), live_curve(curves(20_000))
    assert len(long) < 30_000  # 100,000 as a data URI would be the most
    assert len(long) < 2 * len(short)
    fallen = curves(20_001)
    fallen["train", "loss"][-1] = (20_000, 1e-9)
    assert live_curve(fallen) != live_curve(curves(20_001))


def test_a_live_curve_of_one_point_or_none() -> None:
    assert live_curve({("train", "loss"): [(1, 0.5)]}).startswith(PNG)
    assert live_curve({("train", "loss"): [(1, -0.5)]}).startswith(PNG)
    assert live_curve({}).startswith(PNG)


def test_same_data_same_bytes(history: Path) -> None:
    course = Course("one", 1, pq.read_table(history), 30)
    assert learning_curve([course]) == learning_curve([course])
    assert live_curve(curves(50)) == live_curve(curves(50))
