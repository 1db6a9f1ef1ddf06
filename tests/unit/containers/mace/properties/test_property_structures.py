"""Structures that decide properties, made for EMT copper."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.core.surface import SlabGenerator, get_symmetrically_distinct_miller_indices
from pymatgen.io.ase import AseAtomsAdaptor

from containers.mace.properties.property_structures import (
    DISPLACEMENTS_A,
    EACH,
    FEWEST,
    MAKERS,
    NARROWER,
    STRAIN,
    STRAINED,
    WAVE_FORCE,
    molecule,
    thicker,
    wider,
)
from containers.properties.compare import Group
from containers.properties.measure import measure
from containers.properties.molecules import measure_molecules
from containers.properties.results import Crystal, Settings
from containers.structures.cells import grown

NOTHING = Settings(elastic=False, phonons=False, vacancies=False, surfaces=False)
SIZES = Settings(supercell_A=5.0, slab_A=5.0, vacuum_A=8.0)
REST = 1e-3  # eV/Å: forces of what counts as at rest


@pytest.fixture(scope="module")
def copper() -> Crystal:
    return measure(bulk("Cu"), EMT(), NOTHING, {})


def made(copper: Crystal, group: Group) -> list[tuple[float, int]]:
    """Largest force component (eV/Å) and number of atoms of each structure."""
    found = []
    for atoms in MAKERS[group](copper, EMT(), SIZES, np.random.default_rng(1)):
        atoms.calc = EMT()
        found.append((float(np.abs(atoms.get_forces()).max()), len(atoms)))
    return found


def test_waves_show_elastic_constants_as_forces_of_the_size_wanted(copper: Crystal) -> None:
    """fcc has three distinct directions. A soft wave stays below the force, at a tenth of the distance of atoms."""
    waves = made(copper, "elastic")[:-STRAINED]
    assert len(waves) == 2 * 3 * 3
    forces = np.array([force for force, _ in waves])
    assert forces.max() < 1.05 * WAVE_FORCE
    assert (forces > 0.9 * WAVE_FORCE).sum() >= 9
    assert forces.min() > 0.1 * WAVE_FORCE


def test_strained_cells_are_within_the_strain_and_differ(copper: Crystal) -> None:
    cells = list(MAKERS["elastic"](copper, EMT(), SIZES, np.random.default_rng(1)))[-STRAINED:]
    strains = [np.linalg.solve(copper.atoms().cell.array, atoms.cell.array) - np.eye(3) for atoms in cells]
    assert max(np.abs(strain).max() for strain in strains) <= STRAIN
    assert all(np.allclose(strain, strain.T) for strain in strains)
    assert len({round(strain[0, 1], 6) for strain in strains}) == STRAINED


def test_defects_and_displaced_cells_are_never_at_rest_and_of_other_sizes_than_the_tested_ones(copper: Crystal) -> None:
    phonon, vacancy, surface = (made(copper, group) for group in ("phonon", "vacancy", "surface"))
    assert len(phonon) == len(DISPLACEMENTS_A)
    assert len(vacancy) >= 3
    assert len(surface) >= 9, "three faces, three states or more"
    assert min(force for force, _ in phonon + vacancy) > 10 * REST
    tested = len(grown(copper.atoms(), 1, SIZES.supercell_A))
    assert tested not in {atoms for _, atoms in phonon} | {atoms + 1 for _, atoms in vacancy}
    assert sum(force > REST for force, _ in surface) >= len(surface) - 3, "a face as cut may be at rest by symmetry"


def test_a_vacancy_is_in_a_narrower_cell_than_the_tested_one(copper: Crystal) -> None:
    ordinary, random = Settings(), np.random.default_rng(1)
    sizes = {len(atoms) + 1 for atoms in MAKERS["vacancy"](copper, EMT(), ordinary, random)}
    tested = len(grown(copper.atoms(), 1, ordinary.supercell_A))
    assert sizes == {len(grown(copper.atoms(), FEWEST, NARROWER * ordinary.supercell_A))}
    assert FEWEST <= max(sizes) < tested


@pytest.mark.parametrize("a_A", [4.05, 4.95, 5.6])
def test_no_cell_and_no_slab_is_as_large_as_the_tested_one(copper: Crystal, a_A: float) -> None:
    """A quarter more is the same number of layers on (100) of 4.95 Å, and the same cell of vacancies of 5.6 Å."""
    cell = bulk("Cu", a=a_A)
    crystal = copper.model_copy(update={"cell_A": tuple(map(tuple, cell.cell.tolist()))})
    assert len(wider(crystal, Settings())) > len(grown(cell, 1, Settings().supercell_A))
    conventional = AseAtomsAdaptor.get_structure(crystal.conventional())
    for face in get_symmetrically_distinct_miller_indices(conventional, 1):
        tested = SlabGenerator(conventional, face, 10.0, 15.0, center_slab=True, primitive=True).get_slabs()
        assert len(thicker(conventional, face, Settings())[0]) > len(tested[0]), face


def test_molecules_are_displaced_from_rest() -> None:
    given = measure_molecules([Atoms("Cu2", positions=[(0, 0, 0), (0, 0, 2.2)])], EMT(), {})[0]
    lengths = [atoms.get_distance(0, 1) for atoms in molecule(given, np.random.default_rng(1))]
    assert len(set(lengths)) == len(lengths) == EACH * len(DISPLACEMENTS_A)
    assert 0 < max(abs(length - given.bonds_A["Cu-Cu"]) for length in lengths) < 0.3
