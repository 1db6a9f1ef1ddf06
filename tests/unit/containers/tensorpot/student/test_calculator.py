"""Pair terms and the calculator of the sum, with a potential of known answers in pyace's place; the .yace."""

from __future__ import annotations

import ast
import copy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list

from containers.tensorpot.student import calculator, committee_calculator
from containers.tensorpot.student.yace import spread
from tests.unit.containers.tensorpot.cells import Ace

ZBL = {"form": "zbl", "inner_A": 1.1, "outer_A": 2.6}
LJ = {"form": "lj", "epsilon_eV": 0.2, "sigma_A": 2.3, "inner_A": 3.0, "outer_A": 4.5}
CASES = {
    "zbl": {"Si-Si": ZBL, "C-Si": ZBL, "C-C": ZBL},
    "lj": {"Si-Si": LJ, "C-Si": {**LJ, "sigma_A": 2.0}, "C-C": {**LJ, "epsilon_eV": 0.4}},
}
PERIODIC = [(1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 0)]


def carbide(pbc: tuple[int, ...] = (1, 1, 1)) -> Atoms:
    """A rattled, sheared cell of silicon carbide with atoms outside of it."""
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.08, 0], [0, 0.95, 0.1], [-0.1, 0, 1.02]], scale_atoms=True)
    atoms.rattle(0.15, seed=3)
    atoms.positions[2] += 2 * atoms.cell.array[0] - atoms.cell.array[1]
    atoms.set_pbc(pbc)
    return atoms


def test_zbl_is_the_bare_repulsion_far_inside_screened_symmetric_and_falls_outward() -> None:
    assert calculator.zbl(1, 1, np.array([1e-4]))[0][0] == pytest.approx(14.399645 / 1e-4, rel=1e-3)
    distances = np.linspace(0.3, 3, 200)
    energies, slopes = calculator.zbl(14, 8, distances)
    assert (np.diff(energies) < 0).all()
    assert (slopes < 0).all()
    assert np.array_equal(energies, calculator.zbl(8, 14, distances)[0])
    assert energies[-1] < 0.01 * 14.399645 * 14 * 8 / 3


def test_lennard_jones_has_its_well_where_it_should_and_is_that_of_ase() -> None:
    energies, slopes = calculator.lennard_jones(0.3, 2.0, np.array([2.0, 2.0 * 2 ** (1 / 6)]))
    assert energies == pytest.approx([0.0, -0.3])
    assert slopes[1] == pytest.approx(0.0, abs=1e-12)
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [3.5, 0, 0], [0, 4.2, 1.0]])
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.01, rc=20.0, smooth=False)
    shifted = 3 * 4 * 0.01 * ((3.4 / 20) ** 12 - (3.4 / 20) ** 6)  # ASE moves every pair to zero at its cutoff
    term = {"form": "lj", "epsilon_eV": 0.01, "sigma_A": 3.4, "inner_A": 19.0, "outer_A": 20.0}
    energy, forces, _ = calculator.pair_terms(atoms, {"Ar-Ar": term})
    assert energy - shifted == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-12)


def test_the_switch_is_smooth_to_its_second_derivative() -> None:
    def second(at: float) -> float:
        step = 1e-4
        values = calculator.switch(np.array([at - step, at, at + step]), 2.0, 3.0)[0]
        return float((values[0] - 2 * values[1] + values[2]) / step**2)

    values, slopes = calculator.switch(np.array([1.0, 2.0, 2.5, 3.0, 4.0]), 2.0, 3.0)
    assert values == pytest.approx([1, 1, 0.5, 0, 0])
    assert slopes[[0, 1, 3, 4]] == pytest.approx(0)
    assert [second(2.001), second(2.999)] == pytest.approx([0, 0], abs=0.1)
    assert abs(second(2.2)) > 1


@pytest.mark.parametrize("pbc", PERIODIC)
@pytest.mark.parametrize("reach", [2.2, 5.0, 9.0])
def test_neighbours_are_those_of_ase(pbc: tuple[int, ...], reach: float) -> None:
    atoms = carbide(pbc)
    found = sorted(zip(*calculator.neighbours(atoms, reach)[:2], strict=True))
    assert found == sorted(zip(*neighbor_list("ij", atoms, reach), strict=True))
    ours, theirs = (np.sort(np.linalg.norm(v, axis=1)) for v in (
        calculator.neighbours(atoms, reach)[2], neighbor_list("D", atoms, reach)
    ))  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("pbc", PERIODIC)
@pytest.mark.parametrize("case", sorted(CASES))
def test_forces_are_the_negative_gradient(case: str, pbc: tuple[int, ...]) -> None:
    atoms, step = carbide(pbc), 1e-5
    _, forces, _ = calculator.pair_terms(atoms, CASES[case])
    assert np.abs(forces).max() > 0.1
    for atom, axis in np.ndindex(forces.shape):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(calculator.pair_terms(moved, CASES[case])[0])
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("case", sorted(CASES))
def test_stress_is_the_strain_derivative(case: str) -> None:
    atoms, step = carbide(), 1e-5
    _, _, stress = calculator.pair_terms(atoms, CASES[case])
    assert np.abs(stress).max() > 1e-3
    for voigt, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(calculator.pair_terms(strained, CASES[case])[0])
        slope = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert stress[voigt] == pytest.approx(slope, abs=1e-7)


def test_a_pair_without_a_term_has_none() -> None:
    energy, forces, stress = calculator.pair_terms(carbide(), {})
    assert (energy, np.abs(forces).max(), np.abs(stress).max()) == (0, 0, 0)
    both = calculator.pair_terms(carbide(), CASES["zbl"])[0]
    parts = [calculator.pair_terms(carbide(), {name: term})[0] for name, term in CASES["zbl"].items()]
    assert sum(parts) == pytest.approx(both)


BASELINE: dict[str, Any] = {"e0s_eV": {"C": -7.0, "Si": -3.0}, "pairs": CASES["lj"]}


@pytest.mark.parametrize("pbc", PERIODIC)
def test_the_calculator_is_the_sum(pbc: tuple[int, ...]) -> None:
    atoms = carbide(pbc)
    atoms.calc = calculator.Student(Ace(), BASELINE)
    energy, forces, stress = calculator.pair_terms(atoms, CASES["lj"])
    assert atoms.get_potential_energy() == pytest.approx(-8 + energy - 4 * 10.0, abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), forces + 0.1, atol=1e-12)
    assert atoms.calc.results["gamma"].tolist() == [2.0 * place for place in range(8)]
    if all(pbc):
        np.testing.assert_allclose(atoms.get_stress(), stress + 0.01, atol=1e-12)
    else:
        assert "stress" not in atoms.calc.results


def test_a_deep_copy_has_results_of_its_own() -> None:
    """pyace's evaluator cannot be copied, and the packages that validate potentials copy calculators."""
    student = calculator.Student(Ace(), BASELINE)
    other = copy.deepcopy(student)
    energy = other.get_potential_energy(carbide())
    assert student.results == {}
    assert student.get_potential_energy(carbide()) == energy


def test_a_left_handed_cell_is_turned_for_pyace_and_an_unknown_element_named() -> None:
    atoms = carbide()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    atoms.calc = calculator.Student(Ace(), BASELINE)
    assert atoms.get_potential_energy() == pytest.approx(-48 + calculator.pair_terms(atoms, CASES["lj"])[0])
    with pytest.raises(ValueError, match="knows C, Si, not Ge"):
        calculator.Student(Ace(), BASELINE).get_potential_energy(bulk("Ge"))


@pytest.mark.parametrize("module", [calculator, committee_calculator], ids=lambda module: module.__name__)
def test_the_module_needs_nothing_of_ours(module: ModuleType) -> None:
    """It is copied alone into the folder of a run; that of a committee beside the other."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert roots <= {"numpy", "scipy", "ase", "pyace"} | ({"calculator"} if module is committee_calculator else set())


def sizes_of(structures: list[Atoms]) -> list[int]:
    return [len(atoms) for atoms in structures]


def test_the_structures_are_spread_over_their_sizes_ends_included() -> None:
    structures = [Atoms("H" * count) for count in (7, 1, 96, 3, 2, 54, 8, 4, 5, 6)]
    assert sizes_of(spread(structures, 4)) == [1, 4, 7, 96]
    assert sizes_of(spread(structures, 20)) == sorted(sizes_of(structures))
    assert sizes_of(spread(structures[:1], 20)) == [7]
