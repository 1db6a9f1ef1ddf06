"""D-optimal selection with pyace's own basis and MaxVol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ruamel.yaml import YAML

from containers.contract import Inputs, Machine, no_progress
from containers.split import Split, side
from containers.structures import labels_table, structure_id, write_table
from containers.tensorpot import select
from containers.tensorpot.frames import Labelled, frame, write_frame
from containers.tensorpot.pacemaker_input import Potential

pytestmark = pytest.mark.e2e
FAMILIES = [name for name in map(str, range(600)) if side(name, Split()) == "train"]
PROGRAMS = Path(sys.executable).parent


def potential(functions: int = 30, elements: tuple[str, ...] = ("Si",)) -> Potential:
    """A small basis of 5 Å."""
    return Potential(elements=elements, cutoff=5.0, functions_per_element=functions, b_basis="small")


def labelled(structures: list[Atoms]) -> list[Atoms]:
    """The structures on the training side, each its own family, with labels of zero."""
    for k, atoms in enumerate(structures):
        atoms.info = {"id": structure_id(atoms), "source": "x", "row": k, "group": "", "family": FAMILIES[k]}
        forces = np.zeros((len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-float(len(atoms)), forces=forces, stress=np.zeros(6))
    return structures


def rattled(count: int, amount: float = 0.2) -> list[Atoms]:
    """Different silicon cells of 8 atoms."""
    made = []
    for seed in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.set_cell(atoms.cell.array * (0.92 + 0.01 * (seed % 17)), scale_atoms=True)
        atoms.rattle(amount, seed=seed)
        made.append(atoms)
    return labelled(made)


def translated(atoms: Atoms, count: int) -> list[Atoms]:
    """The same structure in other places: other ids, equal environments."""
    made = []
    for shift in np.random.default_rng(0).normal(size=(count, 3)):
        copy = atoms.copy()
        copy.positions += shift
        made.append(copy)
    return made


def run(folder: Path, structures: list[Atoms], **params: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The selection table and the metrics."""
    folder.mkdir(exist_ok=True)
    write_table(folder / "labels.parquet", labels_table(structures))
    given = select.Params.model_validate({"potential": potential()} | params)
    metrics = select.run(Inputs({"labels": (folder / "labels.parquet",)}), folder, given, Machine())
    return pq.read_table(folder / "selection.parquet").to_pandas(), metrics


@pytest.mark.parametrize("functions", [10, 30, 116])
@pytest.mark.parametrize(("usual", "odd"), [(0.0, 0.15), (0.15, 0.0), (0.15, 0.15)])
def test_of_ten_identical_structures_and_a_different_one_the_different_one_is_kept(
    tmp_path: Path, usual: float, odd: float, functions: int
) -> None:
    same, different = bulk("Si", cubic=True), bulk("Si", cubic=True)
    same.rattle(usual, seed=1)
    different.set_cell(different.cell.array * 1.05, scale_atoms=True)
    different.rattle(odd, seed=2)
    structures = labelled([*translated(same, 10), different])
    chosen, metrics = run(tmp_path, structures, potential=potential(functions), max_structures=2)
    assert metrics["selected"] == 2
    assert structures[-1].info["id"] in set(chosen["id"])


def test_the_choice_is_that_of_pace_select(tmp_path: Path) -> None:
    from pyace.basisextension import construct_bbasisconfiguration

    structures = sorted(rattled(60), key=lambda atoms: atoms.info["id"])
    chosen, metrics = run(tmp_path, structures, max_structures=60)
    rows = [Labelled(atoms.info["id"], atoms, 0.0, 0.0, atoms.get_forces(), None) for atoms in structures]
    write_frame(tmp_path / "pool.pckl.gzip", frame(rows))
    construct_bbasisconfiguration(potential().section()).save(str(tmp_path / "target.yaml"))
    command = [str(PROGRAMS / "pace_select"), "-p", "target.yaml", "-b", "none", "-o", "theirs.pkl", "pool.pckl.gzip"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = pd.read_pickle(tmp_path / "theirs.pkl")
    ours = chosen[chosen["how"] == "d_optimal"]
    assert set(ours["id"]) == set(theirs["name"])
    assert 1 < metrics["d_optimal"] < 60
    assert metrics["d_optimal"] + metrics["filled"] == metrics["selected"] == 60


def test_more_than_the_maximum_are_ranked_and_runs_repeat(tmp_path: Path) -> None:
    structures = rattled(60)
    few, metrics = run(tmp_path / "a", structures, max_structures=5)
    assert metrics["d_optimal"] == metrics["selected"] == 5
    run(tmp_path / "b", structures[::-1], max_structures=5)
    one, two = (tmp_path / name / "selection.parquet" for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    more, _ = run(tmp_path / "c", structures, max_structures=8)
    assert few["id"].tolist() == more["id"].tolist()[:5]


def test_every_structure_with_a_scarce_element_is_taken(tmp_path: Path) -> None:
    structures = rattled(40)
    for atoms in structures[3:6]:
        atoms.numbers[0] = 32
    both = potential(20, ("Ge", "Si"))
    chosen, metrics = run(tmp_path, labelled(structures), potential=both, max_structures=30)
    assert metrics["scarce_elements"] == ["Ge"]
    assert metrics["environments"]["Ge"] == 3 < metrics["functions"]["Ge"]
    rare = {atoms.info["id"] for atoms in structures[3:6]}
    assert set(chosen[chosen["how"] == "scarce"]["id"]) == rare
    assert metrics["selected"] == 30


def test_blocks_of_projections_span_what_one_block_spans() -> None:
    from containers.tensorpot.projections import active_sets, project, unfitted_basis

    basis, structures = unfitted_basis(potential()), rattled(60)
    whole = active_sets(basis, structures, 1.01, no_progress)["Si"]
    parts = active_sets(basis, structures, 1.01, no_progress, block_bytes=8 * 30 * 100)["Si"]
    assert whole.environments == parts.environments == 480
    rows = project(basis, structures)[0]["Si"]
    assert np.abs(rows @ np.linalg.inv(whole.rows)).max() < 1.02
    assert np.abs(rows @ np.linalg.inv(parts.rows)).max() < 3
    placed = np.concatenate([project(basis, [structures[k]])[0]["Si"] for k in sorted(set(parts.owners))])
    for row in parts.rows:
        assert (placed == row).all(axis=1).any()


def test_the_basis_is_the_one_of_pacemakers_dry_run(tmp_path: Path) -> None:
    from containers.tensorpot.projections import unfitted_basis

    rows = [Labelled(a.info["id"], a, 0.0, -1.0 * len(a), a.get_forces(), None) for a in rattled(3)]
    write_frame(tmp_path / "train.pckl.gzip", frame(rows))
    text = {
        "data": {"filename": "train.pckl.gzip"},
        "potential": potential().section(),
        "fit": {"loss": {"kappa": 0.3}, "maxiter": 1},
        "backend": {"evaluator": "tensorpot", "batch_size": 3},
    }
    YAML().dump(text, tmp_path / "input.yaml")
    command = [str(PROGRAMS / "pacemaker"), "--dry-run", "input.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    unfitted_basis(potential()).to_BBasisConfiguration().save(str(tmp_path / "ours.yaml"))
    ours, theirs = (YAML(typ="safe").load(tmp_path / name) for name in ("ours.yaml", "target_potential.yaml"))
    assert ours["species"] == theirs["species"]
    assert len(theirs["species"][0]["nbody"]) == 30
