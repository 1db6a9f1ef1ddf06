"""Each invariant catches the calculator that breaks it; LAMMPS is compared and timed where a program has pace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from containers.properties.results import Crystal
from containers.tensorpot.evaluation import invariants
from containers.tensorpot.evaluation.invariants import InvariantBroken, Probe, check, differences, representatives
from containers.tensorpot.evaluation.student_speed import LAMMPS_STEPS, student_speed
from containers.tensorpot.student.calculator import Student
from containers.tensorpot.student.lammps import NO_PACE, NONE, Files, LammpsFails, find_lammps

BASELINE: dict[str, Any] = {"e0s_eV": {"Ar": -1.0, "Kr": -2.0}, "pairs": {}}
LMP = """#!{python}
import sys
if "-h" in sys.argv:
    sys.exit(print("pair styles:  {style}  table"))
import ase.io
import numpy as np
from ase.calculators.lj import LennardJones
for line in open("in.lammps"):
    words = line.split()
    if words[0] == "read_data":
        atoms = ase.io.read(words[1], format="lammps-data")
        atoms.calc = LennardJones(epsilon=0.01, sigma=3.4, rc=6.0, smooth=True)
    if words[0] == "print":
        print("energy_eV", float(atoms.get_potential_energy()) * {factor})
    if words[0] == "write_dump":
        rows = [(n, *force) for n, force in enumerate(atoms.get_forces(), start=1)]
        np.savetxt(words[3], rows, header="\\n" * 8, comments="", fmt="%.17g")
    if words[0] == "run":
        print(f"Loop time of 0.5 on 1 procs for {{words[1]}} steps with {{len(atoms)}} atoms")
sys.exit({code})
"""


class Argon(LennardJones):
    """Argon; `fault` changes the results, given the structure."""

    cutoff = 6.0

    def __init__(self, fault: Callable[[dict[str, Any], Atoms], None] | None = None) -> None:
        super().__init__(epsilon=0.01, sigma=3.4, rc=6.0, smooth=True)
        self.fault = fault

    def calculate(self, atoms: Any = None, *more: Any, **named: Any) -> None:
        super().calculate(atoms, *more, **named)
        self.results = {"energy": self.results["energy"], "forces": self.results["forces"], "stress": np.zeros(6)}
        if self.fault:
            self.fault(self.results, atoms)


def leaning(results: dict[str, Any], atoms: Atoms) -> None:
    results["energy"] += 1e-6 * abs(float(atoms.cell.array[0, 2]))


def placed(results: dict[str, Any], atoms: Atoms) -> None:
    results["energy"] += 1e-5 * float(atoms.positions[:, 2].sum())
    results["forces"] -= [0, 0, 1e-5]


def ordered(results: dict[str, Any], atoms: Atoms) -> None:
    results["forces"][0] += 1e-3


def too_strong(results: dict[str, Any], atoms: Atoms) -> None:
    results["forces"] *= 1.01


def not_finite(results: dict[str, Any], atoms: Atoms) -> None:
    results["energy"] = np.nan


def cells(count: int = 3) -> list[Atoms]:
    """Rattled cells of argon and krypton."""
    made = [bulk("Ar", cubic=True, a=5.3) for _ in range(count)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.2, seed=seed)
        atoms.symbols[0] = "Kr"
    return made


def frame(structures: list[Atoms]) -> pd.DataFrame:
    """The columns that are read, of structures named a, b, c."""
    forces = [invariants.evaluated(Argon(), atoms)[1] for atoms in structures]
    return pd.DataFrame({"name": list("abcdefgh"[: len(structures)]), "ase_atoms": structures, "forces": forces})


def broken(fault: Callable[[dict[str, Any], Atoms], None] | None) -> set[str]:
    """Figures beyond their limits, of one structure."""
    found = differences(Argon(fault), Probe("Ar", "a", cells()[0]))
    limits = invariants.LIMITS
    return {name for name, value, size in found if not value <= limits[name].absolute + limits[name].relative * size}


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        (None, set()),
        (leaning, {"rotation_energy_meV_per_atom"}),
        (placed, {f"{name}_energy_meV_per_atom" for name in ("rotation", "translation")}),
        (ordered, {"permutation_force_meV_per_A"}),
        (too_strong, {"gradient_force_meV_per_A"}),
        (not_finite, {f"{name}_energy_meV_per_atom" for name in ("rotation", "translation", "permutation")}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_is_caught_by_the_invariant_that_it_breaks(
    fault: Callable[[dict[str, Any], Atoms], None] | None, caught: set[str]
) -> None:
    found = broken(fault)
    assert caught <= found
    assert bool(found) == bool(caught)


def test_every_element_has_the_structure_with_most_environments_and_the_first_and_one_comes_without_images() -> None:
    plain, kr = bulk("Ar", cubic=True, a=5.3), bulk("Kr", cubic=True, a=5.6)
    large = bulk("Ar", a=5.3, cubic=True) * (3, 3, 2)
    large.rattle(0.1)
    probes = representatives(frame([plain, cells()[1], kr, large]))
    assert [(one.element, one.name) for one in probes[:-1]] == [("Ar", "b"), ("Ar", "a"), ("Kr", "b")]
    assert not probes[-1].atoms.pbc.any()
    (only, _) = representatives(frame([large]))
    assert len(only.atoms) == 72, "no smaller one has the element"


@pytest.fixture
def lmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Files]:
    """Puts a program `lmp` on the PATH."""

    def install(style: str = "pace", factor: float = 1.0, code: int = 0) -> Files:
        program = tmp_path / "lmp"
        program.write_text(LMP.format(python=sys.executable, style=style, factor=factor, code=code))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / "potential.yace").touch()
        (tmp_path / "reference.table").touch()
        return Files(tmp_path / "potential.yace", tmp_path / "reference.table", ["Ar", "Kr"], False)

    return install


def test_lammps_is_compared_with_the_calculator(lmp: Callable[..., Files]) -> None:
    student, structures = Student(Argon(), BASELINE), frame(cells())
    found = check(student, structures, lmp())
    assert set(found.figures) == set(invariants.LIMITS)
    assert all(one.value <= one.limit for one in found.figures.values())
    assert found.lammps_missing == ""
    with pytest.raises(InvariantBroken, match=r"LAMMPS gives other .* lammps_energy_meV_per_atom is .* Structure a \("):
        check(student, structures, lmp(factor=1.001))
    left_out = check(student, structures, lmp(code=1))
    assert "does not run the potential (exit code 1)" in left_out.lammps_missing
    assert set(left_out.figures) == {name for name in invariants.LIMITS if not name.startswith("lammps")}


def test_a_missing_lammps_is_said_and_is_no_error(
    lmp: Callable[..., Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LammpsFails, match=NONE):
        find_lammps()
    found = check(Student(Argon(), BASELINE), frame(cells(1)), lmp(style="snap"))
    assert found.lammps_missing == NO_PACE
    assert "lammps_force_meV_per_A" not in found.figures
    assert found.structures == {"a": "Ar, Kr", "a (without images)": "Ar"}


def test_calculator_and_lammps_are_timed_on_the_teachers_crystal(lmp: Callable[..., Files]) -> None:
    atoms = bulk("Ar", a=5.3)
    crystal = Crystal(
        formula="Ar", space_group="Fm-3m", cell_A=atoms.cell.tolist(), numbers=(18,), scaled_positions=((0, 0, 0),),
        lattice_A={"a": 5.3}, energy_eV_per_atom=-1, volume_A3_per_atom=37,
    )  # fmt: skip
    student = Student(Argon(), BASELINE)
    found = student_speed(student, [crystal], lmp())
    assert (found.cell, found.atoms, found.device) == ("Ar Fm-3m, 64 atoms", 64, "cpu")
    assert found.atoms_per_s["lammps"] == pytest.approx(64 * LAMMPS_STEPS / 0.5)
    assert min(found.atoms_per_s.values()) > 0
    assert student_speed(student, [crystal], lmp(style="snap")).missing == {"lammps": NO_PACE}
    assert student_speed(student, [], lmp()).cell == ""
