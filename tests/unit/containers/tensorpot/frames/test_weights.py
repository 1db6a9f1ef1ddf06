"""Less weight on high energies and large forces."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from containers.structures.split import Side
from containers.tensorpot.frames.frame_file import Labelled
from containers.tensorpot.frames.rows import TrainingRow
from containers.tensorpot.frames.weights import above_hull, energy_weighted


def row(symbols: str, per_atom: float, force: float = 0.0, side: Side = "train", weight: float = 1.0) -> TrainingRow:
    """A structure with this energy (eV/atom) and the same force (eV/Å) on every atom."""
    atoms = Atoms(symbols, positions=[[2.5 * k, 0, 0] for k in range(len(Atoms(symbols)))])
    forces = np.tile([force, 0.0, 0.0], (len(atoms), 1))
    label = Labelled(symbols, atoms, per_atom * len(atoms), per_atom * len(atoms), forces, None, weight)
    return TrainingRow(atoms, "teacher", side, label)


def weights(*rows: TrainingRow) -> list[tuple[float, float]]:
    """Weights of energy and forces of training rows."""
    done = energy_weighted({"train": rows, "validation": [], "test": []})
    return [(one.label.weight, one.label.w_forces) for one in done["train"]]


def test_a_structure_one_eV_above_the_ground_state_counts_a_quarter() -> None:
    assert weights(row("Ni2", -5.0), row("Ni4", -4.0)) == [(1.0, 1.0), (0.25, 0.25)]


def test_forces_of_one_eV_per_A_count_half_and_leave_the_energy() -> None:
    assert weights(row("Ni2", -5.0, force=1.0, weight=8.0)) == [(8.0, pytest.approx(4.0))]


def test_the_hull_is_over_composition_so_reference_energies_do_not_matter() -> None:
    shares = np.array([[0, 1], [1, 0], [0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
    energies = np.array([-5.0, -3.0, -4.5, -3.65, -4.0])
    expected = [0, 0, 0, 0.1, 0.5]  # Ni, Al, NiAl below the line, 75 % between NiAl and Al, NiAl above
    assert above_hull(shares, energies) == pytest.approx(expected)
    assert above_hull(shares, energies + shares @ [7.0, -900.0]) == pytest.approx(expected, abs=1e-9)


def test_test_structures_decide_nothing_and_validation_has_the_same_rule() -> None:
    sides: dict[Side, list[TrainingRow]] = {
        "train": [row("Ni2", -5.0)],
        "validation": [row("Ni2", -4.0, side="validation")],
        "test": [row("Ni2", -9.0, force=3.0, side="test")],
    }
    done = energy_weighted(sides)
    assert [one.label.weight for name in ("train", "validation") for one in done[name]] == [1.0, 0.25]
    assert done["test"] == sides["test"]
