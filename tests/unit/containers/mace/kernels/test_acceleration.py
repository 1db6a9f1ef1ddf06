from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import ProgramMissing, StepError
from containers.mace.kernels.acceleration import PACKAGES, accelerated
from containers.mace.labelling.parity import BOUNDS, PROBES, AccelerationRefused, check_parity, probe_structures
from containers.mace.labelling.predictions import Answer, Label


@dataclass
class Found:
    answers: list[Answer]


@dataclass
class Fake:
    """-1 eV for each atom, no forces, no stress; `spoil` changes the label of the structures that have a row there."""

    spoil: dict[int, Answer] = field(default_factory=dict)

    def label(self, structures):
        return Found([self.spoil.get(atoms.info["row"], honest(atoms)) for atoms in structures])


def honest(atoms: Atoms) -> Label:
    return Label(-1.0 * len(atoms), np.zeros((len(atoms), 3)), np.zeros(6) if atoms.pbc.all() else None)


def label(atoms: Atoms, energy: float = 0.0, force: float = 0.0, stress: float = 0.0) -> Label:
    """The honest label with one number changed, as a difference would."""
    forces = np.zeros((len(atoms), 3))
    forces[-1, 1] = force
    return Label(-1.0 * len(atoms) + energy, forces, np.array([0, 0, 0, stress, 0, 0]))


def pool(count: int = 40) -> list[Atoms]:
    """Cells of 1 to 8 atoms at five densities."""
    structures = [bulk("Si", "sc", a=2.2 + 0.1 * (n % 5)).repeat((1 + n % 8, 1, 1)) for n in range(count)]
    for row, atoms in enumerate(structures):
        atoms.info |= {"source": "pool.xyz", "row": row}
    return structures


def test_equal_labels_are_admitted_and_the_largest_differences_reported():
    assert check_parity(Fake(), Fake(), pool(5)) == {**dict.fromkeys(BOUNDS, 0.0), "parity_structures": 5}
    structures = pool(4)
    spoil = {
        1: label(structures[1], energy=2 * 5e-5),
        2: label(structures[2], force=-9e-4),
        3: label(structures[3], stress=3e-5),
    }
    found = check_parity(Fake(), Fake(spoil), structures)
    assert found["parity_energy_eV_per_atom"] == pytest.approx(5e-5)
    assert found["parity_force_eV_per_A"] == pytest.approx(9e-4)
    assert found["parity_stress_eV_per_A3"] == pytest.approx(3e-5)
    # labels that the teacher lacks do not count
    found = check_parity(Fake({0: "not finite", 2: "not finite"}), Fake({0: label(Atoms("Si"), energy=9)}), pool(3))
    assert found["parity_structures"] == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"energy": 3 * 1.1e-4}, r"0.00011 eV/atom.*energy most in pool.xyz, row 2 \(from 0\), Si3"),
        ({"force": -1.1e-3}, r"0.0011 eV/Å.*0.0001 and 0.001 and 0.0001.*force most in pool.xyz, row 2"),
        ({"stress": 2e-4}, r"0.0002 eV/Å³.*stress most in pool.xyz, row 2"),
        ({"energy": float("nan")}, r"nan eV/atom.*energy most in pool.xyz, row 2"),
    ],
)
def test_a_difference_above_its_bound_is_refused_with_numbers_structure_and_fix(change, says):
    structures = pool(4)
    with pytest.raises(AccelerationRefused, match=says) as refused:
        check_parity(Fake(), Fake({2: label(structures[2], **change)}), structures)
    assert "on 4 structures" in str(refused.value)
    assert "DISTILL_ACCELERATION=none" in str(refused.value)


def test_nothing_to_compare_and_a_label_that_only_the_teacher_has_are_refused():
    with pytest.raises(AccelerationRefused, match="labels none of 2 structures"):
        check_parity(Fake({0: "no", 1: "no"}), Fake(), pool(2))
    with pytest.raises(AccelerationRefused, match="labels none of 0 structures"):
        check_parity(Fake(), Fake(), [])
    with pytest.raises(AccelerationRefused, match=r"no label for pool.xyz, row 1 \(from 0\), Si2: not finite"):
        check_parity(Fake(), Fake({1: "not finite"}), pool(3))


def test_the_probe_is_spread_over_size_and_density_and_the_same_every_time():
    structures = pool()
    probe = probe_structures(structures)
    assert len(probe) == PROBES
    assert len({atoms.info["row"] for atoms in probe}) == PROBES
    assert {len(atoms) for atoms in probe} >= {1, 7}
    assert {round(atoms.cell.lengths()[1], 3) for atoms in probe} >= {2.2, 2.6}
    assert probe == probe_structures(structures)
    for count in (0, 1, 2, 7, 8, 9, 10):
        assert len(probe_structures(pool(count))) == min(count, PROBES)
    # structures that cannot be labelled are no probes
    broken = Atoms("Si", positions=[[np.nan, 0, 0]])
    flat = Atoms("Si2", positions=[[0, 0, 0], [2.3, 0, 0]])
    assert probe_structures([Atoms(), broken, flat]) == [flat]


def test_no_acceleration_is_the_model_itself_and_another_class_is_refused():
    model = object()
    assert accelerated(model, "none", "float32", "cpu") is model
    with pytest.raises(StepError, match=r"this teacher is a object\. DISTILL_ACCELERATION=none"):
        accelerated(object(), "compile", "float32", "cpu")


@pytest.mark.skipif(importlib.util.find_spec(PACKAGES[0]) is not None, reason=f"{PACKAGES[0]} is installed here")
def test_a_missing_package_is_named_with_the_way_to_install_it():
    class ScaleShiftMACE:
        """Only the name counts before the conversion."""

    with pytest.raises(ProgramMissing, match=r"pip install cuequivariance cuequivariance-torch.*ACCELERATION=none"):
        accelerated(ScaleShiftMACE(), "cuequivariance", "float32", "cpu")
