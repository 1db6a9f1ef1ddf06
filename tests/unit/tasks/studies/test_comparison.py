"""Runs side by side: a column for each, and the curves of all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from containers.properties.results import Crystal, Properties
from containers.properties.speed import Speed
from tasks.errors import UserError
from tasks.report.plots import BLACK
from tasks.report.publish import report_json
from tasks.report.run_folder import json_text
from tasks.report.summary import RunSummary
from tasks.studies.comparison import COLOURS, comparison_page, picture, read_runs
from tests.unit.tasks.pictures import ink


def silicon(c44: float, top_THz: float) -> Crystal:
    """A crystal with both curves."""
    atoms = bulk("Si")
    return Crystal(
        formula="Si", space_group="Fd-3m", cell_A=atoms.cell.tolist(), numbers=(14, 14),
        scaled_positions=atoms.get_scaled_positions().tolist(), lattice_A={"a": 5.43}, volume_A3_per_atom=20,
        energy_eV_per_atom=-5.4, elastic_GPa={"C44": c44}, equation_of_state=((18, -5.3), (20, -5.4), (22, -5.2)),
        bands_THz=((0, 0), (3, top_THz)), band_x=(0, 1), band_path=(("G", 0), ("X", 1)),
    )  # fmt: skip


def run_folder(place: Path, run: RunSummary, c44: float | None, speed: float = 1e4, teacher_c44: float = 80.0) -> Path:
    """What the comparison reads of a run folder; no crystals where `c44` is None."""
    place.mkdir(parents=True)
    timed = Speed(cell="Si Fd-3m, 64 atoms", atoms_per_s={"calculator": speed}).model_dump()
    student = run.steps["ingest"].model_copy(update={"metrics": {"speed": timed}})
    report = report_json(run.model_copy(update={"steps": run.steps | {"student_properties": student}}))
    (place / "report.json").write_text(json_text(report))
    if c44 is not None:
        for whose, crystal in (("teacher", silicon(teacher_c44, 15)), ("student", silicon(c44, c44 / 5))):
            (place / f"properties_{whose}.json").write_text(Properties(crystals=(crystal,)).model_dump_json())
    return place


@pytest.fixture
def two(finished: RunSummary, tmp_path: Path) -> list[Path]:
    missed: dict[str, Any] = {"name": "second", "converged": False, "not_converged_because": "C44 misses <its> limit"}
    return [
        run_folder(tmp_path / "one", finished, 60.0),
        run_folder(tmp_path / "two", finished.model_copy(update=missed), 78.0, 2e4),
    ]


def text(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(style|script).*?</\1>", "", page)).split())


def test_the_page_has_a_column_for_each_run_and_needs_nothing_from_outside(two: list[Path]) -> None:
    page = comparison_page(read_runs(two))
    shown = text(page)
    assert "silicon second verdict converged not converged: C44 misses &lt;its&gt; limit" in shown
    assert re.search(r"card: invariants not measured: .* not measured: ", shown)
    assert "force MAE (meV/Å) 45.3 45.3" in shown
    assert "Si Fd-3m elastic: C44 GPa 80 60 (-25 %) 78 (-2.5 %)" in shown
    assert "Si Fd-3m 12.5 1.25" in shown
    assert "student, calculator.py without γ 10,000 20,000" in shown
    assert "WARNING" not in shown
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == 1
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_the_curves_of_every_run_lie_over_the_teachers(two: list[Path]) -> None:
    drawn = picture("Si Fd-3m", read_runs(two))
    assert all(ink(drawn, colour) > 100 for colour in (BLACK, *COLOURS[:2]))
    assert ink(drawn, COLOURS[2]) == 0


def test_runs_of_other_teachers_or_without_crystals_are_told_apart(finished: RunSummary, tmp_path: Path) -> None:
    same = [
        run_folder(tmp_path / "a" / "silicon", finished, 60.0),
        run_folder(tmp_path / "b" / "silicon", finished, 90.0, teacher_c44=100.0),
        run_folder(tmp_path / "c" / "silicon", finished, None),
    ]
    shown = text(comparison_page(read_runs(same)))
    assert f"{tmp_path}/a/silicon {tmp_path}/b/silicon" in shown
    assert "WARNING: the teachers of these runs differ." in shown
    assert "elastic: C44 GPa differs 60 (-25 %) 90 (-10 %) –" in shown


def test_a_report_or_properties_of_something_else_are_named(two: list[Path]) -> None:
    (two[1] / "properties_student.json").write_text('{"crystals": [{"formula": 3}]}')
    with pytest.raises(UserError, match=r"two: its properties are of another version \(crystals.0"):
        read_runs(two)
    report = json.loads((two[1] / "report.json").read_text())
    other = {**report, "metrics": {"student_properties": {"speed": {"of another version": 1}}}}
    for wrong in ('{"name": "x"}', "null", json.dumps({**report, "selection": None}), json.dumps(other)):
        (two[1] / "report.json").write_text(wrong)
        with pytest.raises(UserError, match=r"report\.json is no report of this program"):
            read_runs(two)
