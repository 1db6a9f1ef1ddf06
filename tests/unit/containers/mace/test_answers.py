from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from containers.mace.answers import REJECTED, Label, labels_table, rejected_table
from containers.structures import LABELS, atoms_from_table, structure_id, structures_table


def table(*structures: Atoms):
    for row, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": row, "group": "g", "family": "f"}
    return structures_table(structures)


LABEL = Label(-1 / 3, np.array([[0.1, 0.2, 1 / 7]]), np.arange(6) / 9)


def test_labels_and_reasons_part_in_order():
    structures = table(Atoms("Si", pbc=True, cell=[3, 3, 3]), Atoms("Si"), Atoms("C"))
    answers = [LABEL, "too odd", Label(2.0, np.zeros((1, 3)), None)]
    labels = labels_table(structures, answers)
    assert labels.schema == LABELS
    assert labels.column("row").to_pylist() == [0, 2]
    first, second = atoms_from_table(labels)
    assert first.get_potential_energy() == LABEL.energy
    assert np.array_equal(first.get_forces(), LABEL.forces)
    assert np.array_equal(first.get_stress(), LABEL.stress)
    assert "stress" not in second.calc.results
    rejected = rejected_table(structures, answers)
    assert rejected.schema == REJECTED
    expected = {"id": structures.column("id")[1].as_py(), "source": "a.xyz", "row": 1, "reason": "too odd"}
    assert rejected.to_pylist() == [expected]


def test_no_rows_give_tables_of_the_same_schema():
    assert labels_table(table(), []).schema == LABELS
    assert rejected_table(table(), []).schema == REJECTED


@pytest.mark.parametrize(
    ("energy", "force", "stress", "finite"),
    [
        (1, 1, 1, True),
        (np.nan, 1, 1, False),
        (1, np.inf, 1, False),
        (1, 1, np.nan, False),
        (1, 1, None, True),
    ],
)
def test_a_label_is_finite_when_every_number_is(energy, force, stress, finite):
    voigt = None if stress is None else np.full(6, stress, dtype=float)
    assert Label(float(energy), np.full((2, 3), force, dtype=float), voigt).finite is finite
