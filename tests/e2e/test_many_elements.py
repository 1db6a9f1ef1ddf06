"""Many elements in pacemaker itself: the functions that we count, and a fit whose section names its blocks.

pacemaker builds a graph for every ordered pair of elements before the first iteration, so the fit has three elements:
twelve took minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from containers.contract import Inputs, Machine
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.fit.pace_train import Params
from containers.tensorpot.frames.frame_file import Labelled
from containers.tensorpot.pacemaker.basis_functions import basis_functions
from containers.tensorpot.pacemaker.input import Potential
from tests.e2e.copper import fitted, write_frames

pytestmark = pytest.mark.e2e
ELEMENTS = ("Ag", "Al", "Au", "Cu", "Mo", "Nb", "Ni", "Pd", "Pt", "Ti", "W", "Zr")


def potential(elements: int, **changes: Any) -> Potential:
    return Potential.model_validate({"elements": ELEMENTS[:elements], "cutoff": 4.5, **changes})


@pytest.mark.parametrize(
    "wanted",
    [
        potential(1, order=4, functions_per_element=300, densities=4),
        potential(2),
        potential(3, order=2, b_basis="small"),
        potential(4, functions_per_element=30),
        potential(5, functions_per_element=200, b_basis="small"),
        potential(12, functions_per_element=60, b_basis="small"),
        potential(3, overrides={"functions": {"Ag-Al": {"nradmax_by_orders": [3, 2], "lmax_by_orders": [0, 1]}}}),
    ],
    ids=lambda one: f"{len(one.elements)}-{one.functions_per_element}-{one.order}",
)
def test_functions_and_parameters_are_those_of_pacemaker(wanted: Potential) -> None:
    from pyace import ACEBBasisSet
    from pyace.multispecies_basisextension import create_multispecies_basis_config

    made = create_multispecies_basis_config(wanted.section())
    ours = basis_functions(wanted.section())
    assert ours.blocks == {tuple(block.block_name.split()): len(block.funcspecs) for block in made.funcspecs_blocks}
    assert ours.parameters == len(ACEBBasisSet(made).all_coeffs)


def alloys(count: int, seed: int) -> list[Labelled]:
    """Cells of 16 atoms of three elements, of no energy that means anything."""
    random, cells = np.random.default_rng(seed), []
    for number in range(count):
        atoms = bulk("Cu", "fcc", a=4.1, cubic=True).repeat((2, 2, 1))
        atoms.set_chemical_symbols([str(symbol) for symbol in random.permutation((ELEMENTS[:3] * 6)[:16])])
        atoms.rattle(0.1, rng=random)
        energy = float(random.normal(0, 1))
        cells.append(Labelled(f"{seed}-{number}", atoms, energy, energy, random.normal(0, 0.1, (16, 3)), None))
    return cells


def test_a_fit_with_named_blocks_gets_an_active_set(tmp_path: Path) -> None:
    files = write_frames(tmp_path, alloys(3, 1), alloys(2, 2))
    params = Params(potential=potential(3, order=1, functions_per_element=12), maxiter=2)
    made = fitted(tmp_path / "fit", files, params)
    assert made.metrics["functions"] == made.metrics["functions_asked"] == 36
    assert made.metrics["iterations"] > 0
    inputs = {"potential": (made.path("interim"),), "train": files["train"]}
    active = pace_activeset.run(Inputs(inputs), tmp_path, pace_activeset.Params(), Machine())
    assert active["functions"] == dict.fromkeys(ELEMENTS[:3], 12)
    assert set(active["environments"]) == set(ELEMENTS[:3])
