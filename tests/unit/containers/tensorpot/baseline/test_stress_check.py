"""DFT stress beside the teacher's: units, signs and orders that are named, and errors that are no unit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput
from containers.tensorpot.baseline.dft_agreement import Both
from containers.tensorpot.baseline.stress_check import check_stress

VASP, LAMMPS = [0, 1, 2, 5, 3, 4], [0, 1, 2, 5, 4, 3]  # which of ASE's six each of them writes, in its order


def compared(count: int, write: Callable[[np.ndarray, float], np.ndarray], error: float = 0.003) -> list[Both]:
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


UNITS = {
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


@pytest.mark.parametrize("words", UNITS)
def test_another_unit_sign_or_order_is_named(words: str) -> None:
    with pytest.raises(BadInput, match=rf"^dft\.xyz: .*{words}"):
        check_stress(compared(12, UNITS[words]))


def some(rows: range, factor: float) -> list[Both]:
    ones = compared(12, lambda stress, volume: stress)
    for row in rows:
        ones[row].atoms.calc.results["stress"] = ones[row].atoms.calc.results["stress"] * factor
    return ones


def test_frames_of_another_unit_or_sign_are_named() -> None:
    with pytest.raises(BadInput, match=r"stress of 3 of 12 frames looks like kBar .*\(frames 0, 1, 2, from 0\)"):
        check_stress(some(range(3), 1602.1766))
    with pytest.raises(BadInput, match=r"stress of 6 of 12 frames looks like eV/Å³ with the other sign .*\(frames 0,"):
        check_stress(some(range(0, 12, 2), -1))
    (warning,) = check_stress(some(range(7, 8), -1))
    assert "(frames 7, from 0)" in warning


def test_one_structure_shows_a_unit_and_no_sign() -> None:
    with pytest.raises(BadInput, match="looks like kBar"):
        check_stress(compared(1, lambda stress, volume: stress * 1602.1766, error=0.001))
    check_stress(compared(1, lambda stress, volume: -stress))


@pytest.mark.parametrize("error", [0.003, 0.03, 0.1])
def test_a_teacher_that_errs_is_no_other_unit(error: float) -> None:
    check_stress(compared(30, lambda stress, volume: stress, error))


def test_numbers_of_no_proportion_are_refused_by_their_size() -> None:
    """A teacher that learned no stress shows no proportion; stress of 20 and more is not in eV/Å³ all the same."""
    noise = iter(np.random.default_rng(1).normal(0, 20, (10, 6)))
    with pytest.raises(
        BadInput, match=r"some \d\d\d times as large .* nearest unit of pressure is kBar \(1 kBar = 0\.000624"
    ):
        check_stress(compared(10, lambda stress, volume: next(noise)))


def test_small_stress_and_structures_without_one_show_nothing() -> None:
    small = compared(10, lambda stress, volume: stress / 100)
    for one in small:
        one.atoms.calc.results["stress"] = np.full(6, 1e-4)
    for one in small[:5]:
        del one.atoms.calc.results["stress"]
    check_stress([Both(one.atoms, {"energy": 0.0, "stress": np.full(6, -2e-4)}) for one in small])
    check_stress([Both(one.atoms, {"energy": 0.0}) for one in small])


def test_files_are_judged_apart() -> None:
    good = compared(12, lambda stress, volume: stress)
    bad = compared(6, lambda stress, volume: stress * 160.21766)
    for one in bad:
        one.atoms.info["source"] = "b.xyz"
    with pytest.raises(BadInput, match=r"^b\.xyz: its stress"):
        check_stress(good + bad)
