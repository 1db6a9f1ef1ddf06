"""The value curve's folder: every point in the table, every curve in the picture, published as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.report.plots import BLUE, GREY, ORANGE
from tasks.studies.value_curve import (
    SHOWN,
    MissingPoint,
    Point,
    ValueCurve,
    value_picture,
)
from tests.unit.tasks.pictures import ink


def point(method: str, structures: int, seed: int = 1, error: float = 50.0) -> Point:
    return Point(
        method=method, seed=seed, structures=structures, atoms=40 * structures, fit_s=0.5 * structures, iterations=9,
        ended="time_limit" if method == "all" else "iterations_used_up",
        figures=dict.fromkeys(SHOWN, error / structures**0.5) | {"structures": 100},
    )  # fmt: skip


@pytest.fixture
def curve() -> ValueCurve:
    points = [point(method, size) for size in (200, 50) for method in ("d_optimal", "combined")]
    points += [point("random", size, seed, 50.0 + 9 * seed) for size in (50, 200) for seed in (1, 2)]
    return ValueCurve(name="si<b>", config={}, points=(*points, point("all", 1000)))


def test_every_method_and_the_spread_of_random_choices_are_drawn(curve: ValueCurve) -> None:
    png = value_picture(curve.points)
    assert min(ink(png, colour) for colour in (BLUE, ORANGE, GREY)) > 50
    without = value_picture([one for one in curve.points if one.method != "combined"])
    assert ink(without, BLUE) == 0
    assert value_picture(curve.points) == png
    one_seed = [one for one in curve.points if one.method != "random" or one.seed == 1]
    assert png != value_picture(one_seed)


@pytest.mark.parametrize("value", [0.0, None])
def test_a_figure_that_no_logarithm_takes_is_drawn_or_left_out(curve: ValueCurve, value: float | None) -> None:
    odd = [one.model_copy(update={"figures": dict.fromkeys(SHOWN, value)}) for one in curve.points]
    assert value_picture(odd).startswith(b"\x89PNG")
    assert value_picture([*curve.points[:-1], odd[-1]]) != value_picture(curve.points)


def test_the_table_has_a_row_a_point_by_size_and_what_gave_none_is_named(curve: ValueCurve) -> None:
    told = curve.parts()[2].rows
    assert len(told) == len(curve.points)
    assert {len(row) for row in told} == {len(curve.parts()[2].head)}
    assert [row[1] for row in told] == ["50"] * 4 + ["200"] * 4 + ["1,000"]
    assert told[0][:4] == ("combined", "50", "2,000", "25 s")
    assert "random, seed 2" in {row[0] for row in told}
    lost = curve.points[0].model_copy(update={"figures": {}})
    assert curve.model_copy(update={"points": (lost,)}).parts()[2].rows[0][4:-1] == ("–",) * 4
    assert {row[-1] for row in curve.parts()[2].rows if row[0] == "all"} == {"time_limit"}
    assert "time\\_limit" in curve.text()
    assert "si<b>" not in curve.page(b"png")
    assert "STUB" not in curve.page(b"png")
    stub = curve.model_copy(update={"stub": True})
    assert "STUB RUN" in stub.page(b"png")
    assert "STUB RUN" in stub.text()
    png = value_picture(curve.points)
    assert "no point" not in curve.text() + curve.page(png)
    failure = MissingPoint(method="d_optimal", seed=1, size=7, step="pace_train", message="the loss <is> infinite")
    failed = curve.model_copy(update={"failures": (failure,)})
    assert "| d\\_optimal | 7 | pace\\_train | the loss &lt;is&gt; infinite |" in failed.text()
    assert "the loss &lt;is&gt; infinite" in failed.page(png)


def test_the_folder_is_published_as_a_whole(curve: ValueCurve, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "si" / "value_curve"
    text = curve.publish(folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {"value_curve.png", "value_curve.json", "value_curve.md", "index.html", "manifest.json"}
    assert ValueCurve.model_validate_json((folder / "value_curve.json").read_bytes()) == curve
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == names - {"manifest.json"}
    assert "data:image/png;base64," in text
    assert len(text) < 1_000_000
    assert "data:image" not in (folder / "value_curve.md").read_text()


def test_a_stub_without_any_error_is_drawn_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    value_picture([point("combined", 5, error=0.0)])
    drawn = [warning for warning in recwarn if not issubclass(warning.category, ResourceWarning)]  # of another test
    assert not [str(warning.message) for warning in drawn]
