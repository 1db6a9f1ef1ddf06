"""DFT energies, forces and stress beside the teacher's: units, signs, zeros, and teachers that are merely wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput
from containers.tensorpot.baseline.dft_agreement import (
    Both,
    check_energies,
    check_outliers,
    check_units,
    check_zero,
    matched,
    not_compared,
    offsets,
    other_reference,
    place_of,
    refused,
    teachers_errors,
)
from containers.tensorpot.baseline.force_check import check_forces
from containers.tensorpot.baseline.stress_check import check_stress


def both(row: int, symbols: str = "Si4", error: float = 0.0, **wrong: float) -> Both:
    """One structure on which the teacher's forces err by `error` eV/Å.

    Args:
        wrong: `energy` and `forces` multiply DFT's; `shift` is added to its energy, eV/atom.
    """
    rng = np.random.default_rng(row)
    atoms = Atoms(symbols, positions=rng.normal(0, 3, (len(Atoms(symbols)), 3)))
    atoms.info = {"id": f"id{row}", "source": "dft.xyz", "row": row}
    energy, forces = len(atoms) * (-5.0 + rng.normal(0, 0.1)), rng.normal(0, 1.0, (len(atoms), 3))
    labels = {
        "energy": energy * wrong.get("energy", 1.0) + wrong.get("shift", 0.0) * len(atoms),
        "forces": forces * wrong.get("forces", 1.0),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return Both(atoms, {"energy": energy, "forces": forces + rng.normal(0, error, forces.shape)})


def several(count: int = 10, **how: Any) -> list[Both]:
    return [both(row, **how) for row in range(count)]


@pytest.mark.parametrize(
    ("size", "unit"),
    [(51.422067, "Hartree/Bohr"), (25.711034, "Rydberg/Bohr"), (0.0433641, "kcal/mol/Å"), (0.001, "meV/Å")],
)
def test_forces_in_another_unit_are_named_with_their_frame(size: float, unit: str) -> None:
    with pytest.raises(BadInput, match=rf"^dft\.xyz, frame 10 \(from 0\): its forces are .*looks like {unit}\. Give"):
        check_units([*several(), both(10, error=0.1, forces=1 / size)])


def test_forces_of_an_unknown_unit_are_refused_without_a_guess_and_near_zero_show_none() -> None:
    with pytest.raises(BadInput, match=r"forces are 7 times the teacher's on the same structure\. Give eV/Å"):
        check_units([both(0, forces=7.0)])
    relaxed = both(0, forces=0.001)
    check_units([Both(relaxed.atoms, {**relaxed.teacher, "forces": relaxed.teacher["forces"] * 0.01})])


@pytest.mark.parametrize("error", [0.1, 1.0, 10.0])
def test_a_teacher_that_errs_is_no_other_unit(error: float) -> None:
    check_units(several(error=error))


def changed(ones: list[Both], change: Callable[[np.ndarray], np.ndarray]) -> list[Both]:
    for one in ones:
        one.atoms.calc.results["forces"] = change(one.atoms.calc.results["forces"])
    return ones


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("point against .* look like gradients", lambda forces: -forces),
        ("point against .* look like gradients", lambda forces: -forces / 51.4),
        ("in the reversed order of the atoms", lambda forces: forces[::-1]),
        (r"with other axes \(y z x\)", lambda forces: forces[:, [1, 2, 0]]),
        ("frames 0, 1, 2, 3, 4 and 5 more, from 0 have forces of exactly zero", lambda forces: 0 * forces),
    ],
)
def test_forces_of_another_sign_or_order_are_refused(words: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(BadInput, match=rf"^dft\.xyz: .*{words}"):
        check_forces(changed(several(error=0.2), change))


def test_some_frames_of_another_sign_or_order_are_refused_and_few_are_a_warning() -> None:
    with pytest.raises(BadInput, match=r"5 of 15 frames point against .*\(frames 10, 11, 12, 13, 14, from 0"):
        check_forces([*several(error=0.2), *(both(row, forces=-1) for row in range(10, 15))])
    (warning,) = check_forces([*several(error=0.2), both(10, forces=-1)])
    assert "the forces of 1 of 11 frames point against the teacher's (frames 10, from 0" in warning
    assert check_forces([both(0, forces=-1)])
    mixed = [both(row, "SiCSiC", error=0.2) for row in range(6)]
    with pytest.raises(BadInput, match="its forces are sorted by chemical "):
        check_forces(changed(mixed, lambda forces: forces[[1, 3, 0, 2]]))  # C, C, Si, Si


def test_forces_of_other_structures_are_a_warning_and_a_poor_teacher_is_none() -> None:
    assert check_forces(several(error=0.5)) == []
    mixed = several()
    other = [Both(one.atoms, {**one.teacher, "forces": two.teacher["forces"]}) for one, two in pairwise(mixed)]
    (warning,) = check_forces(other)
    assert "hardly agree" in warning
    (warning,) = check_forces(several(forces=0.53))
    assert "0.53 times the teacher's" in warning


def test_an_energy_far_from_all_others_is_refused_where_the_forces_agree() -> None:
    good = [both(row, shift=0.2 * (row % 3 == 0)) for row in range(10)]  # compressed cells are 0.2 eV/atom off
    assert check_outliers(good, {}) == []
    with pytest.raises(BadInput, match=r"^dft\.xyz, frame 10 \(from 0\): its energy is -10 eV/atom from the teacher's"):
        check_outliers([*good, both(10, shift=-10.0)], {})
    unknown = both(10, shift=-10.0, error=5.0)
    (warning,) = check_outliers([*good, unknown], {})
    assert "frame 10" in warning
    unknown.atoms.calc.results["energy"] = 0.0
    with pytest.raises(BadInput, match="it is 0 eV, which is no energy"):
        check_outliers([*good, unknown], {})
    (warning,) = check_outliers([both(row, energy=-2.0) for row in range(10)], {"Si": 10.0})
    assert "scatter" in warning


def test_energies_in_another_unit_are_refused_with_it() -> None:
    """The zero is another too, so that the numbers themselves show no unit."""
    with pytest.raises(BadInput, match=r"^dft\.xyz: its energies vary 0\.0367 times .*looks like Hartree\. Give eV"):
        check_units(several(energy=1 / 27.211386, shift=-8.0))
    mixed = [both(row, "Si4" if row % 2 else "SiC", energy=1 / 13.605693) for row in range(4)]
    with pytest.raises(BadInput, match=r"^dft\.xyz: its energies are given in Rydberg"):
        check_units(mixed)
    check_energies(several(), {})
    with pytest.raises(BadInput, match=r"^dft\.xyz, frame 10 \(from 0\): its energy is given in kcal/mol"):
        check_energies([*several(), both(10, energy=1 / 0.0433641)], {})


def test_offsets_are_found_for_each_element_in_spite_of_a_wild_structure() -> None:
    mixed = [both(row, ("Si4", "SiC", "Si3C")[row % 3], shift=0.2) for row in range(12)] + [both(12, shift=9.0)]
    constants, before, after = offsets(mixed, ("C", "Si"))
    assert constants == pytest.approx({"C": 0.2, "Si": 0.2}, abs=0.01)
    assert other_reference(before, after)
    listed = f"C {constants['C']:+.4f}, Si {constants['Si']:+.4f} eV an"
    assert listed in refused(constants, before, after, 13)
    rest = offsets(mixed, ("C", "Si"), constants)
    assert not other_reference(*rest[1:])
    # test files have the zero of the training files
    check_zero(several(shift=0.2), ("Si",), {"Si": 0.2}, "test", "training")
    with pytest.raises(BadInput, match=r"energies of the test have another zero than those of the training \(Si -0\.2"):
        check_zero(several(), ("Si",), {"Si": 0.2}, "test", "training")
    # the teacher's errors leave the constants out
    figures = teachers_errors(several(shift=0.2), {"Si": 0.19})
    assert figures["energy_mae_meV_per_atom"] == pytest.approx(10.0)
    assert figures["force_mae_meV_per_A"] == 0.0
    assert teachers_errors([], {})["energy_mae_meV_per_atom"] is None


def test_structures_are_matched_by_id_and_the_rest_is_counted() -> None:
    ones = several(4)
    dft = [one.atoms for one in ones]
    answers = []
    for one in ones[:3]:
        atoms = one.atoms.copy()
        atoms.calc = SinglePointCalculator(atoms, **one.teacher)
        answers.append(atoms)
    found = matched(dft, answers)
    assert [place_of(one.atoms) for one in found] == [f"dft.xyz, frame {row} (from 0)" for row in range(3)]
    figures = not_compared(dft, answers, {"id3": "too large a force"})
    assert figures == {"dft_not_compared": 1, "dft_not_compared_first": "dft.xyz, frame 3 (from 0): too large a force"}


# ---- stress: units, signs and orders that are named, and errors that are no unit


VASP, LAMMPS = [0, 1, 2, 5, 3, 4], [0, 1, 2, 5, 4, 3]  # which of ASE's six each of them writes, in its order


def stressed(count: int, write: Callable[[np.ndarray, float], np.ndarray], error: float = 0.003) -> list[Both]:
    """Structures whose teacher errs by `error` (eV/Å³); the file holds what `write` makes of the stress and volume."""
    rng = np.random.default_rng(7)
    made = []
    for row in range(count):
        true = rng.normal(0, 0.03, 6)
        atoms = Atoms("Si2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[4 + row / 10, 3, 3], pbc=True)
        atoms.info = {"source": "dft.xyz", "row": row}
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, stress=write(true, atoms.get_volume()))
        made.append(Both(atoms, {"energy": 0.0, "stress": true + rng.normal(0, error, 6)}))
    return made


STRESSES = {
    r"is 1[56]\d\d times .* looks like kBar \(1 kBar = 0\.000624151 eV/Å³\)": lambda stress, volume: stress * 1602.1766,
    r"is -1[56]\d\d times .* looks like kBar with the other sign": lambda stress, volume: -stress * 1602.1766,
    r"is 1[56]\d(\.\d)? times .* looks like GPa \(": lambda stress, volume: stress * 160.21766,
    r"is -1[56]\d(\.\d)? times .* looks like GPa with the other sign": lambda stress, volume: -stress * 160.21766,
    r"times .* looks like meV/Å³": lambda stress, volume: stress * 1000,
    r"times .* looks like Hartree/Bohr³": lambda stress, volume: stress / 183.6315,
    r"times .* looks like a virial in eV \(minus stress times volume\)": lambda stress, volume: -stress * volume,
    r"times .* looks like stress times volume in eV": lambda stress, volume: stress * volume,
    r"is -(0\.9|1\.0)\d* times .* looks like eV/Å³ with the other sign": lambda stress, volume: -stress,
    r"is (6|7)\.\d* times the teacher's on the same structures\. Give": lambda stress, volume: 7 * stress,
    r"in the order xx yy zz xy yz zx \(VASP\)": lambda stress, volume: stress[VASP],
    r"in the order xx yy zz xy xz yz \(LAMMPS\)": lambda stress, volume: stress[LAMMPS],
    r"in the order xx xy xz yy yz zz": lambda stress, volume: stress[[0, 5, 4, 1, 3, 2]],
    r"stress of 12 frames is exactly zero \(frames 0, 1, 2, 3, 4 and 7 more": lambda stress, volume: 0 * stress,
}


@pytest.mark.parametrize("words", STRESSES)
def test_another_unit_sign_or_order_is_named(words: str) -> None:
    with pytest.raises(BadInput, match=rf"^dft\.xyz: .*{words}"):
        check_stress(stressed(12, STRESSES[words]))


def some_stressed(rows: range, factor: float) -> list[Both]:
    ones = stressed(12, lambda stress, volume: stress)
    for row in rows:
        ones[row].atoms.calc.results["stress"] = ones[row].atoms.calc.results["stress"] * factor
    return ones


def test_frames_of_another_unit_or_sign_are_named() -> None:
    with pytest.raises(BadInput, match=r"stress of 3 of 12 frames looks like kBar .*\(frames 0, 1, 2, from 0\)"):
        check_stress(some_stressed(range(3), 1602.1766))
    with pytest.raises(BadInput, match=r"stress of 6 of 12 frames looks like eV/Å³ with the other sign .*\(frames 0,"):
        check_stress(some_stressed(range(0, 12, 2), -1))
    (warning,) = check_stress(some_stressed(range(7, 8), -1))
    assert "(frames 7, from 0)" in warning
    # one structure shows a unit and no sign
    with pytest.raises(BadInput, match="looks like kBar"):
        check_stress(stressed(1, lambda stress, volume: stress * 1602.1766, error=0.001))
    check_stress(stressed(1, lambda stress, volume: -stress))
    # files are judged apart
    good = stressed(12, lambda stress, volume: stress)
    bad = stressed(6, lambda stress, volume: stress * 160.21766)
    for one in bad:
        one.atoms.info["source"] = "b.xyz"
    with pytest.raises(BadInput, match=r"^b\.xyz: its stress"):
        check_stress(good + bad)


@pytest.mark.parametrize("error", [0.003, 0.03, 0.1])
def test_a_teacher_that_errs_in_stress_is_no_other_unit(error: float) -> None:
    check_stress(stressed(30, lambda stress, volume: stress, error))


def test_numbers_of_no_proportion_are_refused_by_their_size() -> None:
    """A teacher that learned no stress shows no proportion; stress of 20 and more is not in eV/Å³ all the same."""
    noise = iter(np.random.default_rng(1).normal(0, 20, (10, 6)))
    with pytest.raises(
        BadInput, match=r"some \d\d\d times as large .* nearest unit of pressure is kBar \(1 kBar = 0\.000624"
    ):
        check_stress(stressed(10, lambda stress, volume: next(noise)))
    small = stressed(10, lambda stress, volume: stress / 100)
    for one in small:
        one.atoms.calc.results["stress"] = np.full(6, 1e-4)
    for one in small[:5]:
        del one.atoms.calc.results["stress"]
    check_stress([Both(one.atoms, {"energy": 0.0, "stress": np.full(6, -2e-4)}) for one in small])
    check_stress([Both(one.atoms, {"energy": 0.0}) for one in small])
