"""The section on crystals: teacher and student side by side, what failed, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from containers.properties.measure import Crystal, Properties
from tasks.report.markup import Table
from tasks.report.publish import publish
from tasks.report.quality import properties
from tasks.report.summary import RunSummary


def silicon(**changes: Any) -> Crystal:
    atoms = bulk("Si")
    values = {
        "formula": "Si", "space_group": "Fd-3m", "cell_A": atoms.cell.tolist(), "numbers": [14, 14],
        "scaled_positions": atoms.get_scaled_positions().tolist(), "lattice_A": {"a": 5.43}, "volume_A3_per_atom": 20,
        "energy_eV_per_atom": -5.4, "bulk_GPa": {"B": 100.0}, "elastic_GPa": {"C44": 80.0}, "vacancy_eV": {"Si": 3.2},
        "equation_of_state": [[18, -5.3], [20, -5.4], [22, -5.3]], "bands_THz": [[0, 0], [3, 5]], "band_x": [0, 1],
        "band_path": [["G", 0], ["X", 1]],
    }  # fmt: skip
    return Crystal.model_validate({**values, **changes})


@pytest.fixture
def compared(finished: RunSummary, tmp_path: Path) -> RunSummary:
    """A run that compared one crystal; the student's vacancy failed."""
    soft = silicon(elastic_GPa={"C44": 60.0}, vacancy_eV=None, failed={"vacancies": "RuntimeError: no rest"})
    files = dict(finished.files)
    for whose, crystal in (("teacher", silicon()), ("student", soft)):
        files[f"properties_{whose}.json"] = tmp_path / f"of_{whose}.json"
        made = Properties(crystals=(crystal,), left_out={"Si2": "does not come to rest"} if whose == "teacher" else {})
        files[f"properties_{whose}.json"].write_text(made.model_dump_json())
    files["properties_deviations.json"] = tmp_path / "deviations.json"
    files["properties_deviations.json"].write_text("[]")
    return finished.model_copy(update={"files": files})


def test_every_property_has_both_values_and_the_deviation(compared: RunSummary) -> None:
    means, rows, failed = (part for part in properties(compared).parts if isinstance(part, Table))
    assert means.rows == [("Si Fd-3m", "8.333")]
    assert ("Si Fd-3m", "C44", "80", "60", "GPa", "-25 %") in rows.rows
    assert ("Si Fd-3m", "bulk modulus", "100", "100", "GPa", "0 %") in rows.rows
    assert ("Si Fd-3m", "vacancy of Si", "3.2", "–", "eV", "not there") in rows.rows
    assert [text for (text,) in failed.rows] == [
        "Si2: does not come to rest", "Si Fd-3m, vacancies (student): RuntimeError: no rest",
    ]  # fmt: skip


def test_the_run_folder_has_the_properties_and_the_page_their_pictures(compared: RunSummary, tmp_path: Path) -> None:
    texts = publish(compared, tmp_path / "run")
    assert texts["properties"].count("data:image/png") == 1
    assert Properties.read(tmp_path / "run" / "properties_teacher.json").crystals == (silicon(),)
    assert "Energy over volume and phonons of Si Fd-3m" in (tmp_path / "run" / "report.html").read_text()


def test_without_crystals_the_section_says_so(finished: RunSummary) -> None:
    assert properties(finished).parts == ["Not compared: `properties` has no crystals."]
