"""Student beside teacher: deviations, energies of phases and compounds."""

from __future__ import annotations

import pytest
from ase.build import bulk

from containers.properties.compare import deviations, mean_percent
from containers.properties.results import Crystal, Properties


def crystal(formula: str, energy: float, group: str = "Fm-3m", **changes: object) -> Crystal:
    atoms = bulk("Cu") if formula == "Cu" else bulk("Al") if formula == "Al" else bulk("CuAl", "cesiumchloride", a=3)
    return Crystal.model_validate(
        {
            "formula": formula, "space_group": group, "cell_A": atoms.cell.tolist(), "numbers": atoms.numbers.tolist(),
            "scaled_positions": atoms.get_scaled_positions().tolist(), "lattice_A": {"a": 3.6},
            "energy_eV_per_atom": energy, "volume_A3_per_atom": 12.0, **changes,
        }
    )  # fmt: skip


def rows(teacher: list[Crystal], student: list[Crystal]) -> dict[tuple[str, str], float | None]:
    found = deviations(Properties(crystals=tuple(teacher)), Properties(crystals=tuple(student)))
    return {(row.crystal, row.property): row.deviation for row in found}


def test_a_length_and_a_modulus_in_percent_a_vacancy_in_eV_frequencies_point_by_point() -> None:
    given = {"elastic_GPa": {"C11": 100.0, "C44": 2.0}, "vacancy_eV": {"Cu": 1.2}, "frequencies_THz": [[1, 2], [3, 4]]}
    other = {"elastic_GPa": {"C11": 90.0, "C44": 3.0}, "vacancy_eV": {"Cu": 1.0}, "frequencies_THz": [[1, 3], [3, 3]]}
    found = rows([crystal("Cu", -3, **given)], [crystal("Cu", -3, **other, lattice_A={"a": 3.618})])
    name = "Cu Fm-3m"
    assert found[name, "a"] == pytest.approx(0.5)
    assert found[name, "C11"] == pytest.approx(-10)
    assert found[name, "C44"] == pytest.approx(20), "a soft modulus is compared with 5 GPa"
    assert found[name, "Cu"] == pytest.approx(-0.2)
    assert found[name, "mean over the mesh"] == pytest.approx(0.5), "sizes, not differences that cancel"


def test_phases_stand_against_the_lowest_and_compounds_against_their_elements() -> None:
    teacher = [crystal("Cu", -3.0), crystal("Cu", -2.9, "Im-3m"), crystal("Al", -2.0), crystal("AlCu", -2.8, "Pm-3m")]
    student = [crystal("Cu", -3.0), crystal("Cu", -2.95, "Im-3m"), crystal("Al", -2.0), crystal("AlCu", -2.7, "Pm-3m")]
    found = rows(teacher, student)
    assert found["Cu Im-3m", "phase energy"] == pytest.approx(-50)
    assert found["AlCu Pm-3m", "formation energy"] == pytest.approx(100)


def test_no_energy_is_relative_to_another_crystal_where_the_student_lost_the_lowest() -> None:
    phases = [crystal("Cu", -3.0), crystal("Cu", -2.9, "Im-3m"), crystal("Cu", -2.8, "Pm-3m")]
    compound = [crystal("Al", -2.0), crystal("AlCu", -2.8, "Pm-3m")]
    found = rows([*phases, *compound], [*phases[1:], *compound])
    assert found["Cu Pm-3m", "phase energy"] is None
    assert found["AlCu Pm-3m", "formation energy"] is None


def test_a_crystal_that_the_student_does_not_hold_has_no_deviation() -> None:
    found = rows([crystal("Cu", -3.0)], [crystal("Cu", -3.0, "P1")])
    assert found == {("Cu Fm-3m", "a"): None}


def test_the_mean_is_over_lattice_and_moduli_of_a_crystal() -> None:
    given, other = {"elastic_GPa": {"C11": 100.0}}, {"elastic_GPa": {"C11": 97.0}}
    found = deviations(
        Properties(crystals=(crystal("Cu", -3, **given),)),
        Properties(crystals=(crystal("Cu", -3, **other, lattice_A={"a": 3.564}),)),
    )
    assert mean_percent(found) == {"Cu Fm-3m": pytest.approx(2.0)}
