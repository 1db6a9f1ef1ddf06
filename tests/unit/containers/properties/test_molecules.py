"""Molecules of potentials whose answers are known, and which structures of a pool are molecules."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from containers.properties.compare import deviations
from containers.properties.molecules import Molecule, dimers, lowest_molecules, measure_molecules, pair_distances
from containers.properties.results import Properties

SIGMA, EPSILON = 2.0, 0.5
REST_A = 2 ** (1 / 6) * SIGMA
STIFFNESS = 72 / 2 ** (1 / 3) * EPSILON / SIGMA**2  # eV/Å², second derivative at the minimum


def pair() -> LennardJones:
    return LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=50.0)


def terahertz(stiffness_over_mass: float) -> float:
    return float(np.sqrt(stiffness_over_mass) / (2 * np.pi) * units.s * 1e-12)


def measured(atoms: Atoms, calculator: Calculator) -> Molecule:
    (found,) = measure_molecules([atoms], calculator, {})
    return found


def test_a_dimer_has_the_bond_and_the_frequency_of_its_potential() -> None:
    found = measured(Atoms("Si2", positions=[[0, 0, 0], [2.4, 0.1, 0]]), pair())
    assert found.name == "Si2 molecule"
    assert found.bonds_A["Si-Si"] == pytest.approx(REST_A, abs=1e-3)
    assert found.angles_degrees == {}
    assert found.vibrations_THz == pytest.approx([terahertz(STIFFNESS / (28.085 / 2))], rel=2e-3)


def test_a_trimer_is_an_equilateral_triangle_with_a_breathing_mode_above_a_pair_of_equals() -> None:
    """Springs k between three masses m: ω² = 3k/m once and 3k/2m twice (Herzberg, Infrared and Raman Spectra)."""
    found = measured(Atoms("Si3", positions=[[0, 0, 0], [2.3, 0, 0], [1.2, 2.0, 0.1]]), pair())
    assert found.angles_degrees == {"Si-Si-Si": pytest.approx(60, abs=0.1)}
    low, high = terahertz(1.5 * STIFFNESS / 28.085), terahertz(3 * STIFFNESS / 28.085)
    assert found.vibrations_THz == pytest.approx([low, low, high], rel=5e-3)


def test_molecules_are_isolated_small_and_in_one_piece_and_the_lowest_is_taken() -> None:
    def labelled(atoms: Atoms, energy: float) -> Atoms:
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        return atoms

    water, high = molecule("H2O"), molecule("H2O")
    water.center(vacuum=5.0)
    water.pbc = True  # a box as wide
    water.positions += water.cell.diagonal() / 2  # across its faces
    water.wrap()
    far = Atoms("N2", positions=[[0, 0, 0], [4, 0, 0]])
    pool = [
        (high, -14.0),
        (water, -14.2),
        (far, -20.0),
        (Atoms("O"), -1.0),
        (bulk("Cu"), -3.5),
        (bulk("Cu") * (3, 3, 3), -99.0),
    ]
    (found,) = lowest_molecules([labelled(atoms, energy) for atoms, energy in pool], 3)
    assert found.get_chemical_formula() == "H2O"
    assert found.get_all_distances() == pytest.approx(molecule("H2O").get_all_distances()), "whole again"
    assert not found.pbc.any()


def test_deviations_of_bonds_in_percent_of_angles_in_degrees_of_vibrations_mode_by_mode() -> None:
    def water(**changes: object) -> Properties:
        values = {
            "name": "H2O molecule", "numbers": [8, 1, 1], "positions_A": [[0, 0, 0]] * 3, "energy_eV": -14.0,
            "bonds_A": {"H-O": 1.0}, "angles_degrees": {"H-O-H": 104.0}, "vibrations_THz": [48.0, 110.0, 112.0],
        }  # fmt: skip
        return Properties(crystals=(), molecules=(Molecule.model_validate({**values, **changes}),))

    other = water(bonds_A={"H-O": 1.02}, angles_degrees={"H-O-H": 101.0}, vibrations_THz=[48.0, 113.0, 109.0])
    found = {(row.kind, row.property): row.deviation for row in deviations(water(), other)}
    assert found == {
        ("bond", "H-O"): pytest.approx(2.0),
        ("angle", "H-O-H"): pytest.approx(-3.0),
        ("vibration", "mean over the modes"): pytest.approx(2.0),
    }
    lost = deviations(water(), Properties(crystals=()))
    assert [row.deviation for row in lost] == [None, None, None]


def test_a_dimer_curve_is_the_pair_potential() -> None:
    distances = pair_distances(["Si"], 6.0)
    assert distances["Si-Si"][0] == pytest.approx(0.8 * 2 * 1.11)
    assert distances["Si-Si"][-1] == 6.0
    found = dimers(distances, pair())["Si-Si"]
    ratio = (SIGMA / np.array(found.distance_A)) ** 6
    assert found.energy_eV == pytest.approx(4 * EPSILON * (ratio**2 - ratio), abs=1e-6)
    curve = dimers(pair_distances(["Cu", "Al"], 5.0), EMT())
    assert list(curve) == ["Al-Al", "Cu-Cu", "Al-Cu"]


class Repulsion(Calculator):
    """Charges of one sign."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str] = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        apart = self.atoms.positions[0] - self.atoms.positions[1]
        distance = np.linalg.norm(apart)
        force = apart / distance**3
        self.results = {"energy": 1 / distance, "forces": np.array([force, -force])}


@pytest.mark.parametrize(
    ("steps", "reason"), [(500, "falls apart as it relaxes"), (3, "does not come to rest within 3 steps")]
)
def test_a_molecule_that_the_potential_does_not_hold_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, steps: int, reason: str
) -> None:
    monkeypatch.setattr("containers.properties.molecules.RELAX_STEPS", steps)
    left_out: dict[str, str] = {}
    assert measure_molecules([Atoms("Si2", positions=[[0, 0, 0], [2.4, 0, 0]])], Repulsion(), left_out) == ()
    assert left_out == {"Si2 molecule": reason}
