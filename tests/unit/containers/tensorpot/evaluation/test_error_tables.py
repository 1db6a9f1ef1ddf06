"""Errors by group and composition, and formation energies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.tensorpot.evaluation.error_tables import MOST_ROWS, Compared, composition_names, lowest_pure, tables


def judged(counts: dict[str, int], reference: float, student: float, group: str = "", force: float = 0.0) -> Compared:
    """Energies in eV/atom; the student's forces are off by `force` (eV/Å) in every component."""
    atoms = sum(counts.values())
    energies, forces = (np.array([reference]), np.array([student])), (np.zeros(3 * atoms), np.full(3 * atoms, force))
    values = {"energy_eV_per_atom": energies, "force_eV_per_A": forces}
    return Compared("", values, np.zeros(atoms), group, counts)


PURE = {"Al": judged({"Al": 1}, -3.0, -3.1), "Ni": judged({"Ni": 1}, -5.0, -4.8)}


def test_errors_are_those_of_each_group_and_composition() -> None:
    found = tables(
        [
            judged({"Ni": 1, "Al": 1}, -4.5, -4.6, "B2", 0.02),
            judged({"Ni": 2, "Al": 2}, -4.5, -4.4, "B2", 0.02),
            judged({"Ni": 4}, -5.0, -4.8, "fcc"),
        ],
        PURE,
    )
    b2, fcc = found["by_group"]
    assert (b2["name"], b2["structures"], b2["atoms"], fcc["name"], fcc["structures"]) == ("B2", 2, 6, "fcc", 1)
    assert b2["energy_mae_meV_per_atom"] == pytest.approx(100)
    assert b2["force_mae_meV_per_A"] == pytest.approx(20)
    assert fcc["energy_max_meV_per_atom"] == pytest.approx(200)
    assert [row["name"] for row in found["by_composition"]] == ["AlNi", "Ni"]


def test_a_formation_energy_is_relative_to_the_elements_by_each_of_the_two() -> None:
    """NiAl: the reference has -4.5 + 4.0 = -0.5 eV/atom, the student -4.6 + 3.95 = -0.65; nickel itself has none."""
    found = tables([judged({"Ni": 1, "Al": 1}, -4.5, -4.6), judged({"Ni": 1}, -5.0, -4.8)], PURE)
    alloy, nickel = found["by_composition"]
    assert alloy["formation_energy_mae_meV_per_atom"] == pytest.approx(150)
    assert nickel["formation_energy_mae_meV_per_atom"] == pytest.approx(0, abs=1e-9)


def test_without_an_element_alone_there_is_no_formation_energy_and_it_is_named() -> None:
    found = tables([judged({"Ni": 1, "Al": 1}, -4.5, -4.6), judged({"Ni": 1}, -5.0, -4.9)], {"Ni": PURE["Ni"]})
    assert found["formation_energies"]["missing"] == ["Al"]
    assert [row["formation_energy_mae_meV_per_atom"] for row in found["by_composition"]] == [None, pytest.approx(100)]


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        (
            [{"Ni": 40 - k, "Al": k} for k in range(41)],
            {"Al", "Ni", "00 to 10 % Ni", "90 to 100 % Ni", "50 to 60 % Ni"},
        ),
        ([{"C": 1, "H": k, "O": 1} for k in range(1, 30)], {"CH10O", "others"}),
    ],
)
def test_many_compositions_make_few_rows(counts: list[dict[str, int]], names: set[str]) -> None:
    name = composition_names(counts)
    found = {name({symbol: number for symbol, number in one.items() if number}) for one in counts}
    assert names <= found
    assert len(found) <= MOST_ROWS


def test_an_element_is_its_structure_of_the_lowest_energy_an_atom() -> None:
    structures = [Atoms("Ni2", positions=[[0, 0, 0], [0, 0, 2]]), Atoms("Ni"), Atoms("NiAl", positions=np.eye(3)[:2])]
    for atoms, energy in zip(structures, (-9.0, -5.0, -99.0), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    assert lowest_pure(structures) == {"Ni": structures[1]}
