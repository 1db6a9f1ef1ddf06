"""Speed of the student: its ASE calculator, and LAMMPS where `lmp` is installed."""

from __future__ import annotations

from collections.abc import Sequence

from containers.properties.results import Crystal
from containers.properties.speed import Speed, atoms_per_s, timed_cell
from containers.tensorpot.student.calculator import Student
from containers.tensorpot.student.lammps import Files, LammpsFails, run_lammps

LAMMPS_STEPS = 50


def student_speed(student: Student, crystals: Sequence[Crystal], files: Files) -> Speed:
    """Time the student on the teacher's first crystal; an empty `Speed` without crystals.

    LAMMPS is timed by its own clock, over steps of molecular dynamics.
    """
    found = timed_cell(crystals)
    if found is None:
        return Speed()
    name, atoms = found
    speeds, missing = dict[str, float](), dict[str, str]()
    speeds["calculator_with_gamma"] = atoms_per_s(lambda: student.calculate(atoms), len(atoms))
    student.ace.compute_projections = False
    speeds["calculator"] = atoms_per_s(lambda: student.calculate(atoms), len(atoms))
    student.ace.compute_projections = True
    try:
        (answer,) = run_lammps(files, [atoms], float(student.ace.cutoff), LAMMPS_STEPS)
        if answer.us_per_atom:
            speeds["lammps"] = 1e6 / answer.us_per_atom
        else:
            missing["lammps"] = "it printed no loop time"
    except LammpsFails as error:
        missing["lammps"] = str(error)
    return Speed(cell=name, atoms=len(atoms), atoms_per_s=speeds, missing=missing)
