"""The LAMMPS input: the lines that LAMMPS runs, apart from its comments."""

from __future__ import annotations

from containers.tensorpot.student.lammps_table import POINTS
from tasks.report.lammps import lammps_input

FROM = "pool.extxyz, row 3 (from 0)"
TEXT = lammps_input("alloy", ("Al", "Ni"), {"Al": -0.1, "Ni": -0.2500000000000001}, False, FROM, neighbours=120)
SUM = lammps_input("alloy", ("Ni", "Al"), {"Al": -0.1, "Ni": -0.2}, True, FROM, neighbours=381)


def commands(text: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def test_runs_one_point_with_this_potential() -> None:
    assert commands(TEXT) == [
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "read_data structure.data",
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


def test_says_how_to_get_such_a_lammps_and_warns_of_too_many_neighbours_for_a_gpu() -> None:
    assert "conda install -c conda-forge lammps" in TEXT
    assert "up to 120 neighbours" in TEXT
    assert "WARNING" not in TEXT
    assert "up to 381 neighbours" in SUM
    assert "WARNING: pace/kk on a GPU stops above about 380" in SUM.replace("\n# ", " ")
    assert max(map(len, (TEXT + SUM).splitlines())) <= 120


def test_own_structure_and_extrapolation_grade_are_comments() -> None:
    assert f"# A structure of the training set: {FROM}." in TEXT
    assert "exactly 2 atom types: 1 = Al, 2 = Ni" in TEXT
    assert "# pair_style pace/extrapolation" in TEXT
    assert "# pair_coeff * * potential.yaml potential.asi Al Ni" in TEXT


def test_with_pair_terms_their_tables_are_laid_over_the_potential() -> None:
    assert [line for line in commands(SUM) if line.startswith("pair_")] == [
        f"pair_style hybrid/overlay pace recursive table spline {POINTS}",
        "pair_coeff * * pace potential.yace Ni Al",
        "pair_coeff 1 1 table reference.table Ni-Ni",
        "pair_coeff 1 2 table reference.table Al-Ni",
        "pair_coeff 2 2 table reference.table Al-Al",
    ]
    assert f"# pair_style hybrid/overlay pace/extrapolation table spline {POINTS}" in SUM
    assert "# pair_coeff * * pace/extrapolation potential.yaml potential.asi Ni Al" in SUM
    assert SUM.count("pair_coeff 1 2 table reference.table Al-Ni") == 2
