"""Which crystals are chosen, and the waves made of them."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_vacuum, bulk, make_supercell
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput
from containers.properties.crystals import Prototype, distinct, lowest_of_each_composition
from containers.properties.waves import waves


def labelled(atoms: Atoms, energy: float, rattle_A: float = 0.0) -> Atoms:
    """A structure with a label, in eV/atom."""
    made = atoms.copy()
    made.rattle(rattle_A, seed=1)
    made.calc = SinglePointCalculator(made, energy=energy * len(made))
    return made


def cu3au() -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.74)
    atoms.symbols[0] = "Au"
    return atoms


def test_the_lowest_solid_of_each_composition_is_found_primitive_through_its_rattle() -> None:
    slab = bulk("Cu", cubic=True) * (1, 1, 3)
    add_vacuum(slab, 10)
    pool = [
        labelled(bulk("Cu", "bcc", a=2.9, cubic=True), -3.4),
        labelled(bulk("Cu", cubic=True) * (2, 2, 2), -3.5, rattle_A=0.01),
        labelled(slab, -9.0),  # lower, but no crystal
        labelled(cu3au(), -3.7),
    ]
    copper, alloy = lowest_of_each_composition(pool)
    assert (copper.get_chemical_formula(), len(copper)) == ("Cu", 1)
    assert copper.get_volume() == pytest.approx(3.61**3 / 4, rel=0.01)
    assert alloy.get_chemical_formula() == "AuCu3"


def test_where_the_lowest_is_a_disordered_cell_the_next_small_one_stands_for_its_composition() -> None:
    disordered = labelled(bulk("Cu", cubic=True) * (2, 2, 2), -3.6, rattle_A=0.5)
    assert lowest_of_each_composition([disordered]) == []
    (copper,) = lowest_of_each_composition([labelled(bulk("Cu", "bcc", a=2.9), -3.4)] + [disordered] * 30)
    assert copper.get_volume() == pytest.approx(2.9**3 / 2)


def test_relaxed_crystals_that_are_the_same_are_kept_once() -> None:
    left_out: dict[str, str] = {}
    sheared = make_supercell(bulk("Cu", a=3.5), [[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    found = distinct([bulk("Cu", a=3.7)], [sheared, bulk("Cu", "bcc", a=2.9), cu3au()], EMT(), 2, left_out)
    assert [(len(one), one.get_chemical_formula()) for one in found] == [(1, "Cu"), (1, "Cu"), (4, "AuCu3")]
    assert left_out == {}
    assert len(distinct([], [bulk("Cu"), cu3au()], EMT(), 1, left_out)) == 1


def test_a_crystal_that_the_teacher_cannot_compute_is_left_out_with_the_reason() -> None:
    left_out: dict[str, str] = {}
    found = distinct([bulk("Si"), bulk("Si", "fcc", a=4), bulk("Cu")], [], EMT(), 0, left_out)
    assert [one.get_chemical_formula() for one in found] == ["Cu"]
    assert left_out == dict.fromkeys(("Si", "Si (2)"), "NotImplementedError: No EMT-potential for Si")


def test_a_prototype_is_built_or_refused() -> None:
    assert Prototype(structure="cesiumchloride", formula="NiAl", a_A=2.88).atoms().get_chemical_formula() == "AlNi"
    with pytest.raises(BadInput, match="no cesiumchloride crystal of Ni: "):
        Prototype(structure="cesiumchloride", formula="Ni", a_A=2.88).atoms()


@pytest.mark.parametrize("crystal", [bulk("Cu", cubic=True), cu3au(), bulk("Ti", "hcp", a=2.95, c=4.68)], ids=str)
def test_a_wave_is_one_period_along_its_normal_and_fits_its_cell(crystal: Atoms) -> None:
    """The displacement of two atoms that are a lattice vector in the plane apart is equal, also across the cell."""
    made = list(waves(crystal, 12.0, 0.1, 100.0))
    assert len({wave.miller for wave in made}) == len(made) / 3 >= 3
    for wave in made:
        moved = wave.structure.positions - wave.rest.positions
        height = wave.rest.get_scaled_positions()[:, 2]
        np.testing.assert_allclose(moved, np.outer(wave.amplitude_A * np.sin(2 * np.pi * height), wave.axis), atol=1e-9)
        normal = np.cross(wave.rest.cell[0], wave.rest.cell[1])
        assert abs(wave.axis @ normal) / np.linalg.norm(normal) == pytest.approx(
            float(wave.polarisation == 0), abs=1e-9
        )
        assert 12.0 <= wave.length_A <= 12.0 + crystal.cell.lengths().max() * 2


def test_the_forces_of_a_wave_are_those_of_the_elastic_constants() -> None:
    """Longitudinal along [100] of copper: F = C11 q² u V, with EMT's own C11; the wave is long."""
    from containers.properties.measure import measure
    from containers.properties.results import Settings

    crystal = measure(bulk("Cu"), EMT(), Settings(phonons=False, vacancies=False, surfaces=False), {})
    assert crystal.elastic_GPa is not None
    rest = bulk("Cu", a=crystal.lattice_A["a"], cubic=True)
    wave = next(one for one in waves(rest, 30.0, 0.05, crystal.elastic_GPa["C11"]) if one.miller == (1, 0, 0))
    atoms = wave.structure
    atoms.calc = EMT()
    assert np.abs(atoms.get_forces()).max() == pytest.approx(0.05, rel=0.06)
