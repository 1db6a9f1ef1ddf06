"""The section on crystals: teacher and student side by side, what failed, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from containers.properties.compare import PropertyLimits
from containers.properties.molecules import Dimer, Molecule
from containers.properties.results import Crystal, Properties
from tasks.report import card, property_plots
from tasks.report.markup import Table
from tasks.report.plots import BLACK, BLUE
from tasks.report.properties import properties
from tasks.report.publish import publish
from tasks.report.summary import RunSummary
from tests.unit.tasks.pictures import ink


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


DIMER = Dimer(distance_A=(1.8, 2.2, 5.0), energy_eV=(2.0, -0.5, 0.0))


def water(bond: float) -> Molecule:
    return Molecule(
        name="H2O molecule", numbers=(8, 1, 1), positions_A=((0, 0, 0),) * 3, energy_eV=-14, bonds_A={"H-O": bond},
        angles_degrees={"H-O-H": 104.0}, vibrations_THz=(48.0, 110.0, 112.0),
    )  # fmt: skip


@pytest.fixture
def compared(finished: RunSummary, tmp_path: Path) -> RunSummary:
    """A run that compared one crystal; the student's vacancy failed."""
    soft = silicon(elastic_GPa={"C44": 60.0}, vacancy_eV=None, failed={"vacancies": "RuntimeError: no rest"})
    files = dict(finished.files)
    for whose, crystal in (("teacher", silicon()), ("student", soft)):
        files[f"properties_{whose}.json"] = tmp_path / f"of_{whose}.json"
        bond = 1.0 if whose == "teacher" else 1.02
        made = Properties(
            crystals=(crystal,),
            molecules=(water(bond),),
            dimers={"Si-Si": DIMER},
            left_out={"Si2": "does not come to rest"} if whose == "teacher" else {},
        )
        files[f"properties_{whose}.json"].write_text(made.model_dump_json())
    files["properties_deviations.json"] = tmp_path / "deviations.json"
    files["properties_deviations.json"].write_text("[]")
    return finished.model_copy(update={"files": files})


def test_every_property_has_both_values_and_the_deviation(compared: RunSummary) -> None:
    means, rows, failed = (part for part in properties(compared).parts if isinstance(part, Table))
    assert means.rows == [("Si Fd-3m", "8.333")]
    assert ["Si Fd-3m", "C44", "80", "60", "GPa", "-25 %", "10", "no"] in rows.rows
    assert ["Si Fd-3m", "bulk modulus", "100", "100", "GPa", "0 %", "5", "yes"] in rows.rows
    assert ["Si Fd-3m", "vacancy of Si", "3.2", "–", "eV", "no value", "0.2", "no"] in rows.rows
    assert [text for (text,) in failed.rows] == [
        "Si2: does not come to rest", "Si Fd-3m, vacancies (student): RuntimeError: no rest",
    ]  # fmt: skip


def test_the_run_folder_has_the_properties_and_the_page_their_pictures(compared: RunSummary, tmp_path: Path) -> None:
    texts = publish(compared, tmp_path / "run")
    assert texts["properties"].count("data:image/png") == 2, "the crystal, the dimers"
    assert Properties.read(tmp_path / "run" / "properties_teacher.json").crystals == (silicon(),)
    assert (
        "Energy over volume and phonons of Si Fd-3m, teacher and student"
        in (tmp_path / "run" / "report.html").read_text()
    )


def test_limits_of_the_config_and_values_of_experiment_stand_beside_the_properties(compared: RunSummary) -> None:
    limits = PropertyLimits(vacancy_eV=None, bond_percent=5.0)
    reference = {"Si Fd-3m": {"C44": 79.6, "vacancy Si": 3.6, "C99": 1.0}}
    config = {**compared.config, "properties": {"reference": reference}}
    run = compared.model_copy(update={"config": config, "property_limits": limits})
    table = next(part for part in properties(run).parts if isinstance(part, Table) and len(part.head) > 5)
    assert list(table.head)[-3:] == ["limit", "within", "DFT or experiment"]
    by_name = {row[1]: row for row in table.rows}
    assert by_name["C44"][-4:] == ["-25 %", "10", "no", "79.6"]
    assert by_name["vacancy of Si"][-3:] == ["–", "–", "3.6"], "it is not judged"
    assert by_name["bond H-O"] == ["H2O molecule", "bond H-O", "1", "1.02", "Å", "2 %", "5", "yes", "–"]
    assert properties(run).parts[-1].rows[-1] == ("properties.reference: Si Fd-3m has no C99 here",)
    assert any("A molecule has no elastic constants" in part for part in properties(run).parts if isinstance(part, str))
    missed = next(one for one in card.judge(run) if one.section == "properties")
    assert missed.grade == "fails"
    assert missed.reason.endswith("1 not: elastic C44 of Si Fd-3m")
    free = run.model_copy(update={"property_limits": PropertyLimits(**dict.fromkeys(PropertyLimits.model_fields))})
    unlimited = next(one for one in card.judge(free) if one.section == "properties")
    assert unlimited.grade == "check"
    assert "no limit applies" in unlimited.reason


def test_pictures_show_both_curves_of_crystals_and_dimers() -> None:
    both, alone = (
        property_plots.crystals(
            Properties(crystals=(silicon(frequencies_THz=[[3, 5]]),)), Properties(crystals=student)
        )[0]
        for student in ((silicon(equation_of_state=[[18, -5.2], [20, -5.4], [22, -5.2]]),), ())
    )
    assert ink(both, BLUE) > ink(alone, BLUE) + 100
    assert ink(alone, BLACK) > 300
    along, states = property_plots.density_of_states(silicon(frequencies_THz=[[3, 5], [3, 5]]))
    assert np.trapezoid(states, along) == pytest.approx(2, rel=0.01), "modes of a cell"
    assert ink(property_plots.dimers({"Si-Si": DIMER}, {"Si-Si": DIMER}), BLUE) > 50
    assert property_plots.dimers({"Si-Si": DIMER}, {}).startswith(b"\x89PNG")


def test_without_crystals_the_section_says_so(finished: RunSummary) -> None:
    assert properties(finished).parts == ["Not compared: `properties` has no crystals."]


def test_crystals_that_the_teacher_cannot_relax_are_named_where_there_is_no_other(compared: RunSummary) -> None:
    none = Properties(crystals=(), left_out={"Si": "does not come to rest"})
    for whose in ("teacher", "student"):
        compared.files[f"properties_{whose}.json"].write_text(none.model_dump_json())
    (table,) = (part for part in properties(compared).parts if isinstance(part, Table))
    assert table.rows == [("Si: does not come to rest",)] * 2
    assert card.properties(compared).reason == "Si: does not come to rest"
