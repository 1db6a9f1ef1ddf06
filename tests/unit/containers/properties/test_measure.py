"""Properties of potentials whose answers are known: what comes out is what theory says, not only a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import all_changes
from ase.calculators.lj import LennardJones
from ase.units import _amu, _e

from containers.properties.compare import deviations
from containers.properties.measure import measure, measure_all
from containers.properties.results import Crystal, Settings

SIGMA, EPSILON = 2.5, 0.3  # Å, eV
NOTHING = Settings(elastic=False, phonons=False, vacancies=False, surfaces=False)


def pairs(reach: float) -> LennardJones:
    return LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=reach * SIGMA, smooth=True, ro=0.8 * reach * SIGMA)


@pytest.fixture(scope="module")
def crystal() -> Crystal:
    """fcc of a pair potential that reaches the third neighbours."""
    return measure(bulk("Ar", "fcc", a=1.55 * SIGMA), pairs(2.5), Settings(), {})


def test_a_pair_potential_at_rest_fulfils_cauchy_s_relation(crystal: Crystal) -> None:
    """C12 = C44 for central forces where every atom is a centre of inversion (Born and Huang)."""
    elastic = crystal.elastic_GPa
    assert elastic is not None
    assert set(crystal.lattice_A) == {"a"}, "b and c are the same, and would count three times"
    assert elastic["C12"] == pytest.approx(elastic["C44"], rel=0.005)
    assert crystal.bulk_GPa is not None
    assert crystal.bulk_GPa["B"] == pytest.approx((elastic["C11"] + 2 * elastic["C12"]) / 3, rel=0.01)


def test_phonons_have_the_speed_of_sound_of_the_elastic_constants(crystal: Crystal) -> None:
    """Along [100] the longitudinal branch begins with sqrt(C11/ρ), the transverse ones with sqrt(C44/ρ)."""
    assert crystal.elastic_GPa is not None
    assert crystal.bands_THz is not None
    assert crystal.band_x is not None
    density = crystal.atoms().get_masses().sum() * _amu / (crystal.atoms().get_volume() * 1e-30)  # kg/m³
    wave_number = (crystal.band_x[3] - crystal.band_x[0]) * 1e10  # 1/m, with its 2 pi
    slow, _, fast = np.array(crystal.bands_THz[3]) * 1e12 * 2 * np.pi / wave_number  # m/s
    assert fast == pytest.approx((crystal.elastic_GPa["C11"] * 1e9 / density) ** 0.5, rel=0.03)
    assert slow == pytest.approx((crystal.elastic_GPa["C44"] * 1e9 / density) ** 0.5, rel=0.03)
    assert crystal.imaginary_share == 0


def test_a_vacancy_of_a_pair_potential_costs_the_cohesive_energy(crystal: Crystal) -> None:
    """Unrelaxed it is exactly so; relaxation gains little in a close-packed crystal."""
    assert crystal.vacancy_eV is not None
    assert crystal.vacancy_eV["Ar"] == pytest.approx(-crystal.energy_eV_per_atom, rel=0.02)
    assert crystal.vacancy_eV["Ar"] < -crystal.energy_eV_per_atom


def test_faces_cost_half_the_bonds_that_they_cut() -> None:
    """Nearest neighbours alone, unrelaxed: (111) cuts 3 bonds an atom, (100) 4, (110) 6 (of the first two layers)."""
    crystal = measure(
        bulk("Ar", "fcc", a=1.58 * SIGMA), pairs(1.4), Settings(elastic=False, phonons=False, vacancies=False), {}
    )
    assert crystal.surface_J_per_m2 is not None
    bond, a = -crystal.energy_eV_per_atom / 6, crystal.lattice_A["a"]
    for face, bonds, area in (("111", 3, 3**0.5 / 4), ("100", 4, 0.5), ("110", 6, 0.5**0.5)):
        expected = bonds * bond / 2 / (area * a**2) * _e * 1e20
        assert crystal.surface_J_per_m2[face] == pytest.approx(expected, rel=0.02), face


def test_what_fails_is_said_and_the_rest_is_measured() -> None:
    """Atoms that do not see one another have an energy and a lattice, and no faces."""
    properties = measure_all([bulk("Ar", "fcc", a=20.0)], pairs(1.4), Settings(elastic=False, phonons=False))
    (crystal,) = properties.crystals
    assert set(crystal.failed) >= {"surfaces"}
    assert crystal.energy_eV_per_atom == 0


def test_a_crystal_that_does_not_come_to_rest_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("containers.properties.measure.RELAX_STEPS", 1)
    properties = measure_all([bulk("Ar", "fcc", a=1.45 * SIGMA)], pairs(2.5), Settings())
    assert properties.crystals == ()
    assert properties.left_out == {"Ar": "Ar does not come to rest within 1 steps"}


class Broken(LennardJones):
    """Lennard-Jones; all values are this number beyond a volume of an atom (Å³)."""

    def __init__(self, value: float, beyond_A3: float) -> None:
        super().__init__(**pairs(2.5).parameters)
        self.value, self.beyond_A3 = value, beyond_A3

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if atoms.get_volume() / len(atoms) > self.beyond_A3:
            self.results = {name: np.full_like(found, self.value) for name, found in self.results.items()}


def test_values_that_are_no_numbers_fail_and_do_not_end_the_run() -> None:
    (crystal,) = measure_all([bulk("Ar", "fcc", a=1.55 * SIGMA)], Broken(np.nan, 15.6), NOTHING).crystals
    assert crystal.failed == {"equation of state": "a value is no number"}
    none = measure_all([bulk("Ar", "fcc", a=1.55 * SIGMA)], Broken(np.nan, 0.0), NOTHING)
    assert none.left_out == {"Ar": "Ar has an energy or forces that are no numbers"}
    apart = measure_all([bulk("Ar", "fcc", a=1.55 * SIGMA)], Broken(-1.0, 0.0), NOTHING)
    assert "Ar does not hold as it relaxes: its volume went from 14.5 to " in apart.left_out["Ar"]


def test_two_phases_of_one_formula_and_space_group_have_two_names_which_the_student_keeps() -> None:
    phases = [bulk("Ar", "fcc", a=1.55 * SIGMA), bulk("Ar", "fcc", a=20.0)]
    teacher = measure_all(phases, pairs(1.4), NOTHING)
    assert [one.name for one in teacher.crystals] == ["Ar Fm-3m", "Ar Fm-3m (2)"]
    names = [one.name for one in teacher.crystals]
    student = measure_all(phases, pairs(1.3), NOTHING, names=names)
    found = {row.crystal: row.deviation for row in deviations(teacher, student) if row.property == "a"}
    assert found["Ar Fm-3m (2)"] == 0
    assert found["Ar Fm-3m"] != 0


def test_a_vacancy_or_face_that_does_not_come_to_rest_has_no_value(
    crystal: Crystal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("containers.properties.measure.RELAX_STEPS", 1)
    found = measure(crystal.atoms(), pairs(2.5), Settings(elastic=False, phonons=False), {})
    assert found.failed["vacancies"] == "the cell with a vacancy of Ar does not come to rest within 1 steps"
    assert found.failed["surfaces"].startswith("the face 1")
    assert found.vacancy_eV is None
    assert found.surface_J_per_m2 is None
