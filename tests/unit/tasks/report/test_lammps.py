"""The LAMMPS input: the lines that LAMMPS runs, apart from its comments."""

from __future__ import annotations

import pytest

from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.lammps_table import POINTS
from tasks.report.summary import RunSummary
from tasks.report.usage import lammps_input

FROM = "pool.extxyz, row 3 (from 0)"
E0S = {"Al": -0.1, "Ni": -0.2500000000000001}
TERM = PairTerm(form="lj", epsilon_eV=0.5, sigma_A=2.125, inner_A=4.0, outer_A=5.0)


def written(finished: RunSummary, elements: tuple[str, ...], baseline: Baseline, neighbours: int) -> str:
    frames = finished.steps["frames"]
    metrics = {**frames.metrics, "lammps_structure": FROM, "lammps_neighbours": neighbours}
    steps = {"frames": frames.model_copy(update={"metrics": metrics})}
    return lammps_input(finished.model_copy(update={"elements": elements, "baseline": baseline, "steps": steps}))


@pytest.fixture
def text(finished: RunSummary) -> str:
    """Input of a potential without pair terms."""
    return written(finished, ("Al", "Ni"), Baseline(e0s_eV=E0S), 120)


@pytest.fixture
def with_pairs(finished: RunSummary) -> str:
    """Input of a potential with pair terms, and more neighbours than LAMMPS takes on a GPU."""
    return written(finished, ("Ni", "Al"), Baseline(e0s_eV=E0S, pairs={"Al-Ni": TERM}), 381)


def commands(text: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def test_runs_one_point_with_this_potential_and_says_the_rest_in_comments(text: str) -> None:
    assert commands(text) == [
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
    assert "Energies exclude the reference energies" in text
    assert "#   Al: -0.1 eV" in text
    assert "#   Ni: -0.2500000000000001 eV" in text
    assert f"# A structure of the training set: {FROM}." in text
    assert "exactly 2 atom types: 1 = Al, 2 = Ni" in text
    assert "# pair_style pace/extrapolation" in text
    assert "# pair_coeff * * potential.yaml potential.asi Al Ni" in text


def test_with_pair_terms_their_tables_are_laid_over_the_potential(with_pairs: str, text: str) -> None:
    assert [line for line in commands(with_pairs) if line.startswith("pair_")] == [
        f"pair_style hybrid/overlay pace recursive table spline {POINTS}",
        "pair_coeff * * pace potential.yace Ni Al",
        "pair_coeff 1 1 table reference.table Ni-Ni",
        "pair_coeff 1 2 table reference.table Al-Ni",
        "pair_coeff 2 2 table reference.table Al-Al",
    ]
    assert f"# pair_style hybrid/overlay pace/extrapolation table spline {POINTS}" in with_pairs
    assert "# pair_coeff * * pace/extrapolation potential.yaml potential.asi Ni Al" in with_pairs
    assert with_pairs.count("pair_coeff 1 2 table reference.table Al-Ni") == 2
    assert "conda install -c conda-forge lammps" in text
    assert "up to 120 neighbours" in text
    assert "WARNING" not in text
    assert "up to 381 neighbours" in with_pairs
    assert "WARNING: pace/kk on a GPU stops above about 380" in with_pairs.replace("\n# ", " ")
    assert max(map(len, (text + with_pairs).splitlines())) <= 120
