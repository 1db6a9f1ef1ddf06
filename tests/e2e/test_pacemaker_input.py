"""pacemaker itself says, in its log and its files, what it understood of our input.yaml."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ruamel.yaml import YAML

from containers.contract import Resources
from containers.tensorpot.frames.frame_file import Labelled, frame, read_frame, write_frame
from containers.tensorpot.pacemaker.input import (
    TRAIN_FILE,
    VALIDATION_FILE,
    Fit,
    Loss,
    Overrides,
    PacemakerInput,
    Potential,
    Preset,
)
from containers.tensorpot.pacemaker.program import child_environment, find_program
from containers.tensorpot.student.potential import functions_offered, predict
from tests.e2e.copper import effective_medium

pytestmark = pytest.mark.e2e

Blocks = dict[str, dict[str, Any]]

OWN = {
    "elements": ["Cu"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "ChebExpCos", "radparameters": [5.25], "rcut": 4.3, "dcut": 0.01}},
    "functions": {
        "number_of_functions_per_element": 17,
        "ALL": {"nradmax_by_orders": [7, 3], "lmax_by_orders": [0, 2]},
    },
}
OVERRIDES = Overrides.model_validate(
    {
        "embeddings": {"Al": {"ndensity": 1}},
        "bonds": {"Al-Ni": {"rcut": 3.6, "radbase": "ChebExpCos"}},
        "functions": {
            "Al": {"nradmax_by_orders": [4, 2], "lmax_by_orders": [0, 1]},
            "Al-Ni": {"nradmax_by_orders": [5, 2, 1], "lmax_by_orders": [0, 1, 1]},
        },
    }
)
PRESETS: list[tuple[Preset, int, int, int]] = [
    ("mace", 3, 250, 2),
    ("mace", 4, 300, 4),  # of the config's preset `accurate`
    ("small", 2, 40, 2),
    ("medium", 4, 500, 2),
    ("large", 3, 1000, 2),
]


def labelled(name: str, elements: tuple[str, ...]) -> Labelled:
    """A small cell, shaken, with the elements in turn."""
    atoms = bulk(elements[0], cubic=True, crystalstructure="fcc", a=3.8)
    atoms.symbols = [elements[i % len(elements)] for i in range(len(atoms))]
    atoms.rattle(0.1, seed=len(name))
    return effective_medium(name, atoms)


def run(folder: Path, asked: PacemakerInput, *flags: str) -> tuple[str, Blocks]:
    """The log, and the blocks of target_potential.yaml by their names."""
    elements = asked.potential.elements
    (folder / "input.yaml").write_text(asked.text())
    write_frame(folder / TRAIN_FILE, frame([labelled(name, elements) for name in ("a", "bb", "dddd")]))
    write_frame(folder / VALIDATION_FILE, frame([labelled("ccc", elements)]))
    done = subprocess.run(
        [str(find_program()), *flags, "input.yaml"],
        cwd=folder,
        env=child_environment(Resources()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr, blocks_of(folder / "target_potential.yaml")


def basis_of(section: dict[str, Any]) -> list[Any]:
    """Blocks that pyace makes of a potential section."""
    from pyace.basisextension import construct_bbasisconfiguration

    return list(construct_bbasisconfiguration(section).funcspecs_blocks)


def blocks_of(path: Path) -> Blocks:
    return {block["speciesblock"]: block for block in YAML(typ="safe", pure=True).load(path)["species"]}


def asked(potential: Potential, fit: Fit | None = None, **changes: Any) -> PacemakerInput:
    return PacemakerInput(potential=potential, fit=fit or Fit(maxiter=3, seed=7, core=False), batch_size=2, **changes)


def order_of(block: dict[str, Any]) -> int:
    return max(len(function["nr"]) for function in block["nbody"])


@pytest.mark.parametrize(("preset", "order", "functions", "densities"), PRESETS)
def test_a_preset_deals_its_functions_to_the_blocks(preset: Preset, order: int, functions: int, densities: int) -> None:
    """Of one element to its block, of two elements evenly to four."""
    shape = {"order": order, "functions_per_element": functions, "densities": densities, "b_basis": preset}
    one, two = (
        {block.block_name: block for block in basis_of(Potential.model_validate(given | shape).section())}
        for given in ({"elements": elements, "cutoff": 4.3} for elements in (("Cu",), ("Al", "Ni")))
    )
    assert set(one) == {"Cu"}
    assert len(one["Cu"].funcspecs) == functions
    assert max(len(function.ns) for function in one["Cu"].funcspecs) == order
    assert set(two) == {"Al", "Ni", "Al Ni", "Ni Al"}
    assert max(len(function.ns) for block in two.values() for function in block.funcspecs) == order
    assert all(0 < len(block.funcspecs) <= functions // 2 for block in two.values())
    assert len(two["Al Ni"].funcspecs) == functions // 2
    for block in (*one.values(), *two.values()):
        assert block.rcutij == 4.3
        assert len(block.block_name.split()) > 1 or block.ndensityi == densities


def test_the_fit_has_the_potential_and_the_loss_we_asked_for(tmp_path: Path) -> None:
    """Two cycles of two iterations, with the balance of the loss left to pacemaker and keys of the user's own."""
    potential = Potential(elements=("Cu",), cutoff=4.3, order=2, functions_per_element=20, b_basis="small")
    own = {"loss": {"w1_rad": 1e-7}, "options": {"c1": 0.001}, "trainable_parameters": "func"}
    loss = Loss(kappa="auto", l1=3e-7, l2=2e-9)
    fit = Fit(loss=loss, maxiter=2, seed=7, core=True, fit=own, cycles=2, noise=0.01)
    log, target = run(tmp_path, asked(potential, fit), "--no-predict")
    assert list(target) == ["Cu"]
    assert (target["Cu"]["rcutij"], target["Cu"]["ndensityi"], order_of(target["Cu"])) == (4.3, 2, 2)
    assert len(target["Cu"]["nbody"]) == 20
    assert "deduced from the potential: 4.300 A" in log
    assert "Set numpy random seed to 7" in log
    assert "Batch size: 2" in log
    assert "Minimizer options: {'gtol': 1e-08, 'disp': True, 'c1': 0.001, 'maxiter': 2}" in log
    assert "Inner cutoff / core-repulsion initialized with ZBL" in log
    assert "Number of fit attempts: 1/2" in log
    assert "Applying Gaussian noise with relative sigma/mean = 1.0000e-02" in log
    fitted = blocks_of(tmp_path / "output_potential.yaml")["Cu"]
    assert fitted["radcoefficients"] == target["Cu"]["radcoefficients"], "only functions are trained"
    assert fitted["nbody"] != target["Cu"]["nbody"]
    pattern = r"LossFunctionSpecification\(kappa=([0-9.e-]+), L1=3e-07, L2=2e-09, DeltaRad=\(0, 1e-07, 0\), w_orth=0\)"
    (kappa,) = set(re.findall(pattern, log))
    train = read_frame(tmp_path / TRAIN_FILE)
    energies = np.array([e / len(a) for e, a in zip(train["energy_corrected"], train["ase_atoms"], strict=True)])
    variances = energies.var(ddof=1), np.linalg.norm(np.vstack(list(train["forces"])), axis=1).var()
    assert float(kappa) == pytest.approx(variances[0] / sum(variances)), "the share of the energies by variances"


def test_overrides_change_the_blocks_they_name_and_no_other(tmp_path: Path) -> None:
    plain = Potential(elements=("Al", "Ni"), cutoff=4.3, functions_per_element=60, b_basis="small")
    usual = {block.block_name: block for block in basis_of(plain.section())}
    _, blocks = run(tmp_path, asked(plain.model_copy(update={"overrides": OVERRIDES})), "--dry-run")
    assert {name: block["rcutij"] for name, block in blocks.items()} == {
        "Al": 4.3,
        "Ni": 4.3,
        "Al Ni": 3.6,
        "Ni Al": 3.6,
    }
    assert (blocks["Al"]["ndensityi"], blocks["Ni"]["ndensityi"]) == (1, 2)
    assert {name: order_of(block) for name, block in blocks.items()} == {"Al": 2, "Al Ni": 3, "Ni": 3, "Ni Al": 3}
    assert {name: len(block.funcspecs) for name, block in usual.items()} == dict.fromkeys(usual, 30)
    assert {name: len(block["nbody"]) for name, block in blocks.items()} == {
        "Al": 10,
        "Al Ni": 27,
        "Ni": 30,
        "Ni Al": 27,
    }


def test_trainer_and_evaluator_agree_on_a_potential_with_overrides(tmp_path: Path) -> None:
    """Other radial functions, cutoffs and densities in one potential mean the same to TensorFlow and to pyace."""
    potential = Potential(
        elements=("Al", "Ni"), cutoff=4.3, functions_per_element=40, b_basis="small", overrides=OVERRIDES
    )
    run(tmp_path, asked(potential, Fit(maxiter=3, seed=7, core=False, coefficients="random")), "--no-fit")
    told = pd.read_pickle(tmp_path / "train_pred.pckl.gzip", compression="gzip")
    structures = [labelled(name, ("Al", "Ni")).atoms for name in ("a", "bb", "dddd")]
    energies, forces = predict(str(tmp_path / "target_potential.yaml"), structures)
    assert np.abs(energies).min() > 1e-4  # random coefficients are small
    np.testing.assert_allclose(told["energy_pred"].to_numpy(), energies, rtol=1e-4)
    for one, other in zip(told["forces_pred"], forces, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


def test_random_coefficients_differ_by_the_seed_and_zeros_do_not() -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, functions_per_element=20, b_basis="small")

    def begin(coefficients: str, seed: int) -> np.ndarray:
        np.random.seed(seed)  # as pacemaker does with the seed of input.yaml
        (block,) = basis_of(asked(potential, Fit(coefficients=coefficients)).sections()["potential"])
        return np.array([function.coeffs for function in block.funcspecs])

    assert np.abs(begin("zero", 1)).max() == 0
    assert np.abs(begin("random", 1) - begin("random", 2)).min() > 0
    assert np.array_equal(begin("random", 1), begin("random", 1))


def test_a_shape_that_offers_less_gives_what_it_has() -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, order=2, functions_per_element=1000, b_basis="small")
    assert functions_offered(potential.section()) == 42
    assert potential.functions_asked() == 1000


@pytest.mark.parametrize(("elements", "offered"), [(("Al", "Ni"), 500), (("Al", "Cu", "Ni"), 744)])
def test_several_elements_get_their_share(elements: tuple[str, ...], offered: int) -> None:
    """pacemaker deals 250 functions an element evenly to the 4 or 12 blocks of elements, rounded down."""
    potential = Potential(elements=elements, cutoff=5.0)
    assert functions_offered(potential.section()) == offered


def test_no_preset_has_functions_of_a_momentum_that_pacemaker_lacks() -> None:
    """What `HIGHEST_L` says is what pyace offers: one more changes nothing."""
    from containers.tensorpot.pacemaker.blocks import HIGHEST_L

    section = Potential(elements=("Cu",), cutoff=4.3, order=4, b_basis="small").section()
    del section["functions"]["number_of_functions_per_element"]
    for order in (2, 3, 4):
        shape = {"nradmax_by_orders": [1] * order, "lmax_by_orders": [0] * (order - 1) + [HIGHEST_L[order - 1]]}
        most = functions_offered({**section, "functions": {"ALL": shape}})
        shape["lmax_by_orders"][-1] -= 1
        fewer = functions_offered({**section, "functions": {"ALL": shape}})
        shape["lmax_by_orders"][-1] += 2
        assert fewer < most == functions_offered({**section, "functions": {"ALL": shape}})


def test_a_section_of_the_user_arrives_unchanged(tmp_path: Path) -> None:
    potential = Potential(elements=("Cu",), cutoff=4.3, b_basis=OWN)
    _, blocks = run(tmp_path, asked(potential), "--dry-run")
    assert (blocks["Cu"]["radbase"], blocks["Cu"]["ndensityi"], blocks["Cu"]["rcutij"]) == ("ChebExpCos", 1, 4.3)
    assert len(blocks["Cu"]["nbody"]) == 17
