"""The LAMMPS input: the lines that LAMMPS runs, apart from its comments."""

from __future__ import annotations

from tasks.lammps import lammps_input

TEXT = lammps_input("alloy", ("Al", "Ni"), {"Al": -0.1, "Ni": -0.2500000000000001})


def commands(text: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def test_runs_one_point_with_this_potential() -> None:
    assert commands(TEXT) == [
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "mass 1 26.9815",
        "mass 2 58.6934",
        "pair_style pace recursive",
        "pair_coeff * * potential.yace Al Ni",
        "thermo 10",
        "run 0",
    ]


def test_says_that_energies_exclude_the_e0s_and_gives_every_digit() -> None:
    assert "Energies exclude the reference energies" in TEXT
    assert "#   Al: -0.1 eV" in TEXT
    assert "#   Ni: -0.2500000000000001 eV" in TEXT


def test_structure_and_extrapolation_grade_are_comments() -> None:
    assert "# read_data structure.data" in TEXT
    assert "exactly 2 atom types: 1 = Al, 2 = Ni" in TEXT
    assert "# pair_style pace/extrapolation" in TEXT
    assert "# pair_coeff * * potential.yaml potential.asi Al Ni" in TEXT
