"""pacemaker itself says, in a dry run on our input.yaml, what it understood."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ruamel.yaml import YAML

from containers.contract import Resources
from containers.tensorpot.fitted_potential import functions_offered
from containers.tensorpot.frames import Labelled, frame, write_frame
from containers.tensorpot.pacemaker_input import (
    TRAIN_FILE,
    VALIDATION_FILE,
    Fit,
    Loss,
    PacemakerInput,
    Potential,
    Preset,
)
from containers.tensorpot.pacemaker_run import child_environment, find_program

pytestmark = pytest.mark.e2e

OWN = {
    "elements": ["Cu"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 4.3, "dcut": 0.01}},
    "functions": {
        "number_of_functions_per_element": 17,
        "ALL": {"nradmax_by_orders": [7, 3], "lmax_by_orders": [0, 2]},
    },
}


def copper(name: str) -> Labelled:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=len(name))
    labelled = atoms.copy()
    labelled.calc = EMT()
    energy = labelled.get_potential_energy()
    return Labelled(name, atoms, energy, energy, np.array(labelled.get_forces()), None)


def dry_run(folder: Path, potential: Potential) -> tuple[str, list[dict[str, object]]]:
    """The log and the blocks of target_potential.yaml."""
    fit = Fit(loss=Loss(kappa=0.25, l1=3e-7, l2=2e-9), maxiter=3, repulsion=True)
    asked = PacemakerInput(potential=potential, fit=fit, batch_size=2, seed=7)
    (folder / "input.yaml").write_text(asked.text())
    write_frame(folder / TRAIN_FILE, frame([copper("a"), copper("bb")]))
    write_frame(folder / VALIDATION_FILE, frame([copper("ccc")]))
    done = subprocess.run(
        [str(find_program()), "--dry-run", "input.yaml"],
        cwd=folder,
        env=child_environment(Resources()),
        capture_output=True,
        text=True,
        check=True,
    )
    blocks = YAML(typ="safe", pure=True).load(folder / "target_potential.yaml")["species"]
    return done.stdout + done.stderr, blocks


@pytest.mark.parametrize(
    ("preset", "order", "functions"), [("mace", 3, 250), ("small", 2, 40), ("medium", 4, 500), ("large", 3, 1000)]
)
def test_a_preset_becomes_the_potential_we_asked_for(
    preset: Preset, order: int, functions: int, tmp_path: Path
) -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, order=order, functions_per_element=functions, b_basis=preset)
    log, (block,) = dry_run(tmp_path, potential)
    assert block["speciesblock"] == "Cu"
    assert block["rcutij"] == 4.3
    assert block["ndensityi"] == 2
    assert "deduced from the potential: 4.300 A" in log
    assert "Set numpy random seed to 7" in log
    of_functions = block["nbody"]
    assert len(of_functions) == functions  # type: ignore[arg-type]
    assert max(len(function["nr"]) for function in of_functions) == order  # type: ignore[attr-defined]
    assert f"it contains {functions} functions" in log


def test_a_shape_that_offers_less_gives_what_it_has() -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, order=2, functions_per_element=1000, b_basis="small")
    assert functions_offered(potential.section()) == 42
    assert potential.functions_asked() == 1000


@pytest.mark.parametrize(("elements", "offered"), [(("Al", "Ni"), 500), (("Al", "Cu", "Ni"), 744)])
def test_several_elements_get_their_share(elements: tuple[str, ...], offered: int) -> None:
    """pacemaker deals 250 functions an element evenly to the 4 or 12 blocks of elements, rounded down."""
    potential = Potential(elements=elements, cutoff=5.0)
    assert functions_offered(potential.section()) == offered


def test_a_section_of_the_user_arrives_unchanged(tmp_path: Path) -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, b_basis=OWN)
    _, (block,) = dry_run(tmp_path, potential)
    assert (block["radbase"], block["ndensityi"], block["rcutij"]) == ("ChebExpCos", 1, 4.3)
    assert len(block["nbody"]) == 17  # type: ignore[arg-type]
