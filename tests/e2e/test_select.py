"""The selection with pyace's own basis and MaxVol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ruamel.yaml import YAML

from containers.contract import BadInput, Inputs, Machine, Resources
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.active_set.maxvol import LOG_DET_TOLERANCE
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection import pace_select
from containers.tensorpot.student.baseline import Baseline

pytestmark = pytest.mark.e2e
PROGRAMS = Path(sys.executable).parent


def potential(functions: int = 30, elements: tuple[str, ...] = ("Si",)) -> Potential:
    """A small basis of 5 Å."""
    return Potential(elements=elements, cutoff=5.0, functions_per_element=functions, b_basis="small")


def labelled(structures: list[Atoms], side: str = "train", origin: str = "teacher") -> list[Atoms]:
    """The structures on one side with labels of zero force."""
    for k, atoms in enumerate(structures):
        key = structure_id(atoms)
        atoms.info = {"id": key, "source": "x", "row": k, "group": "", "family": key, "side": side, "origin": origin}
        forces = np.zeros((len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-float(len(atoms)), forces=forces, stress=np.zeros(6))
    return structures


def rattled(count: int, amount: float = 0.2, first: int = 0) -> list[Atoms]:
    """Different silicon cells of 8 atoms."""
    made = []
    for seed in range(first, first + count):
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


def files(folder: Path, structures: list[Atoms], **more: Path) -> Inputs:
    """The inputs of a run on these structures."""
    table = labels_table(structures)
    for column in ("origin", "side"):
        table = table.append_column(column, pa.array([atoms.info[column] for atoms in structures]))
    write_table(folder / "dataset.parquet", table.append_column("version", pa.array([0] * len(table), pa.int32())))
    Baseline(e0s_eV={"Si": 0.0, "Ge": 0.0}).write(folder / "baseline.json")
    paths = {"dataset": folder / "dataset.parquet", "baseline": folder / "baseline.json"} | more
    return Inputs({name: (path,) for name, path in paths.items()})


def run(
    folder: Path, structures: list[Atoms], machine: Machine | None = None, given: Path | None = None, **params: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The selection table and the metrics."""
    outputs = folder / "outputs"
    outputs.mkdir(parents=True)
    chosen = pace_select.Params.model_validate({"potential": potential(), "method": "d_optimal"} | params)
    inputs = files(folder, structures, **({} if given is None else {"given": given}))
    metrics = pace_select.run(inputs, outputs, chosen, machine or Machine())
    assert [path.name for path in outputs.iterdir()] == ["selection.parquet"]
    assert not list((folder / "work").iterdir())
    return pq.read_table(outputs / "selection.parquet").to_pandas(), metrics


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


def test_the_first_pass_is_that_of_pace_select(tmp_path: Path) -> None:
    from pyace.basisextension import construct_bbasisconfiguration

    structures = sorted(rattled(60), key=lambda atoms: atoms.info["id"])
    chosen, metrics = run(tmp_path / "run", structures, max_structures=60)
    rows = [Labelled(atoms.info["id"], atoms, 0.0, 0.0, atoms.get_forces(), None) for atoms in structures]
    write_frame(tmp_path / "pool.pckl.gzip", frame(rows))
    construct_bbasisconfiguration(potential().section()).save(str(tmp_path / "target.yaml"))
    command = [str(PROGRAMS / "pace_select"), "-p", "target.yaml", "-b", "none", "-o", "theirs.pkl", "pool.pckl.gzip"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = pd.read_pickle(tmp_path / "theirs.pkl")
    first = metrics["structures_of_one_pass"]
    assert set(chosen["id"][:first]) == set(theirs["name"])
    assert 1 < first < 60
    assert metrics["how"]["d_optimal"] == metrics["selected"] == 60
    assert metrics["passes"] > 1


def test_fewer_than_one_pass_gives_are_ranked_and_runs_repeat(tmp_path: Path) -> None:
    structures = rattled(60)
    few, metrics = run(tmp_path / "a", structures, max_structures=5)
    assert metrics["how"]["d_optimal"] == metrics["selected"] == 5
    both = [tmp_path / name / "outputs" / "selection.parquet" for name in "ab"]
    run(tmp_path / "b", structures, Machine(Resources(threads=2)), max_structures=5)
    assert both[0].read_bytes() == both[1].read_bytes()
    more, _ = run(tmp_path / "c", structures, max_structures=8)
    assert few["id"].tolist() == more["id"].tolist()[:5]


def test_every_structure_with_a_scarce_element_is_taken(tmp_path: Path) -> None:
    structures = rattled(40)
    for atoms in structures[3:6]:
        atoms.numbers[0] = 32
    both = potential(20, ("Ge", "Si"))
    for method in ("d_optimal", "combined"):
        chosen, metrics = run(tmp_path / method, labelled(structures), potential=both, max_structures=30, method=method)
        assert metrics["scarce_elements"] == ["Ge"]
        assert metrics["environments"]["Ge"] == 3 < metrics["functions"]["Ge"]
        assert metrics["log_det"]["Ge"] is None
        rare = {atoms.info["id"] for atoms in structures[3:6]}
        assert set(chosen[chosen["how"] == "scarce"]["id"]) == rare
        assert metrics["selected"] == 30


def test_combined_is_d_optimal_in_part_and_its_weights_say_what_each_stands_for(tmp_path: Path) -> None:
    chosen, metrics = run(tmp_path, rattled(60), method="combined", max_structures=24)
    assert metrics["selected"] == metrics["how"]["d_optimal"] + metrics["how"]["bulk"] == 24
    assert 0 < metrics["how"]["d_optimal"] < 24
    assert chosen["weight"].mean() == pytest.approx(1.0)
    assert chosen["weight"].min() < 1 < chosen["weight"].max()


def test_a_pool_that_grows_extends_the_set(tmp_path: Path) -> None:
    structures = rattled(40)
    before, _ = run(tmp_path / "a", structures, max_structures=12)
    given = tmp_path / "a" / "outputs" / "selection.parquet"
    strange = rattled(5, amount=0.5, first=900)
    same, _ = run(tmp_path / "b", structures, given=given, max_structures=12)
    assert same["id"].tolist() == before["id"].tolist()
    grown, metrics = run(tmp_path / "c", [*structures, *strange], given=given, max_structures=17)
    assert grown["id"].tolist()[:12] == before["id"].tolist()
    assert set(grown["how"][:12]) == {"given"}
    assert {atoms.info["id"] for atoms in strange} & set(grown["id"][12:])
    pool = metrics["grades"]["pool"]
    assert pool["before"]["max"] > pool["after"]["max"]


def test_what_copies_dft_structures_adds_nothing(tmp_path: Path) -> None:
    known = rattled(40)
    dft = labelled([atoms.copy() for atoms in known], origin="dft")
    moved = labelled([translated(atoms, 1)[0] for atoms in known])
    odd = rattled(2, amount=0.4, first=500)
    chosen, metrics = run(tmp_path, [*dft, *moved, *odd], max_structures=2)
    assert metrics["dft"] == 40
    assert set(chosen["id"]) == {atoms.info["id"] for atoms in odd}


def test_grades_are_those_of_pyace_before_and_after(tmp_path: Path) -> None:
    test = labelled(rattled(6, amount=0.3, first=700), side="test")
    _, metrics = run(tmp_path, [*rattled(50), *test], max_structures=50)
    grades = metrics["grades"]
    assert grades["pool"]["before"] is grades["test"]["before"] is None
    assert (grades["pool"]["after"]["structures"], grades["test"]["after"]["structures"]) == (56, 6)
    assert grades["test"]["after"]["max"] == grades["pool"]["after"]["max"] > 1
    assert grades["test"]["after"]["max"] == pytest.approx(largest_grade(rattled(50), test), rel=1e-6)


def largest_grade(train: list[Atoms], test: list[Atoms]) -> float:
    """By pyace's own functions."""
    from pyace.activelearning import (
        compute_A_active_inverse,
        compute_active_set,
        compute_B_projections,
        compute_extrapolation_grade,
    )

    from containers.tensorpot.active_set.projections import unfitted_basis

    basis = unfitted_basis(potential())
    active = compute_active_set(compute_B_projections(basis, train), tol=1.01)
    graded = compute_extrapolation_grade(compute_B_projections(basis, test), compute_A_active_inverse(active))
    return float(graded[0].max())


def test_pieces_and_processes_do_not_change_the_active_set(tmp_path: Path) -> None:
    from containers.tensorpot.active_set.maxvol import active_set
    from containers.tensorpot.active_set.projection_files import Work, projected
    from containers.tensorpot.active_set.projections import Projector, project, unfitted_basis

    basis, structures = unfitted_basis(potential()), rattled(60)
    rows = project(basis, structures)[0]["Si"]
    found = []
    for number, (processes, block) in enumerate([(1, 100), (2, 100), (2, 10)]):
        (folder := tmp_path / str(number)).mkdir()
        work = Work(Projector(basis), folder, features=True)
        made = projected(iter(structures), work, processes, block)
        assert made.features is not None
        np.testing.assert_allclose(made.features, rows.reshape(60, 8, -1).mean(axis=1), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(made.elements["Si"].together()[0], rows)
        found.append(active_set(made.elements["Si"], 1.01, one_shot_bytes=0))
        assert np.abs(rows @ np.linalg.inv(found[-1].rows)).max() < 1.02
    whole = active_set(made.elements["Si"], 1.01, one_shot_bytes=2**20)
    assert whole.environments == found[0].environments == 480
    for other in found[1:]:
        assert found[0].log_det == pytest.approx(other.log_det, abs=LOG_DET_TOLERANCE * 30)
    assert found[0].log_det is not None
    assert whole.log_det is not None
    assert found[0].log_det > whole.log_det - LOG_DET_TOLERANCE * 30


def test_rows_that_do_not_span_every_function_in_many_pieces(tmp_path: Path) -> None:
    from containers.tensorpot.active_set.maxvol import active_set
    from containers.tensorpot.active_set.projection_files import Work, projected
    from containers.tensorpot.active_set.projections import Projector, unfitted_basis

    perfect = bulk("Si", cubic=True)
    odd = rattled(1, amount=0.1)
    structures = [*translated(perfect, 60), *odd, *translated(perfect, 60)]
    made = projected(iter(structures), Work(Projector(unfitted_basis(potential())), tmp_path, False), 1, 50)
    found = active_set(made.elements["Si"], 1.01, one_shot_bytes=0)
    assert len(found.rows) == 9  # the perfect crystal has one environment, the other structure eight
    assert (found.owners == 60).sum() == 8
    assert found.log_det is None


def test_full_projections_are_derivatives_by_the_coefficients_and_need_a_fit(tmp_path: Path) -> None:
    structures = rattled(60)
    with pytest.raises(BadInput, match="full needs a fitted potential"):
        run(tmp_path / "a", structures, max_structures=5, projections="full")
    (tmp_path / "b" / "outputs").mkdir(parents=True)
    fitted = write_fitted(tmp_path / "fitted.yaml")
    chosen = pace_select.Params(potential=potential(), method="d_optimal", max_structures=20, projections="full")
    inputs = files(tmp_path / "b", structures, potential=fitted)
    metrics = pace_select.run(inputs, tmp_path / "b" / "outputs", chosen, Machine())
    assert metrics["functions"] == {"Si": 60}
    assert metrics["spanned"] == {"Si": 60}  # the embedding is not linear: twice the directions
    two = chosen.model_copy(update={"potential": potential(30, ("Ge", "Si"))})
    with pytest.raises(BadInput, match=r"fitted\.yaml is a potential of Si, the one to be fitted is of Ge, Si"):
        pace_select.run(inputs, tmp_path / "b" / "outputs", two, Machine())
    larger = chosen.model_copy(update={"potential": potential(40)})
    with pytest.raises(BadInput, match=r"another basis \(cutoff 5 Å, functions Si 30\) than .* functions Si 40\)"):
        pace_select.run(inputs, tmp_path / "b" / "outputs", larger, Machine())


def write_fitted(path: Path) -> Path:
    """A potential with random coefficients."""
    from pyace.basisextension import construct_bbasisconfiguration

    config = construct_bbasisconfiguration(potential().section())
    coefficients = np.array(config.get_all_coeffs())
    coefficients[-60:] = 0.05 * np.random.default_rng(0).normal(size=60)
    config.set_all_coeffs(coefficients)
    config.save(str(path))
    return path


def test_full_projections_are_what_pyace_computes_with_such_an_active_set(tmp_path: Path) -> None:
    from pyace import ACEBBasisSet, ACEBEvaluator, ACECalculator, BBasisConfiguration
    from pyace.atomicenvironment import aseatoms_to_atomicenvironment

    from containers.tensorpot.active_set.pace_activeset import asi_bytes
    from containers.tensorpot.active_set.projections import project

    basis = ACEBBasisSet(BBasisConfiguration(str(write_fitted(tmp_path / "fitted.yaml"))))
    (tmp_path / "full.asi").write_bytes(asi_bytes({"Si": np.eye(60)}))
    evaluator = ACEBEvaluator(basis)
    evaluator.load_active_set(str(tmp_path / "full.asi"))
    calculator, structures = ACECalculator(evaluator), rattled(2)
    theirs = []
    for atoms in structures:
        environment = aseatoms_to_atomicenvironment(atoms, 5.0, basis.elements_to_index_map)
        calculator.compute(environment, compute_projections=True)
        theirs.append(np.array(calculator.dE_dc))
    np.testing.assert_array_equal(project(basis, structures, "full")[0]["Si"], np.concatenate(theirs))


def test_linear_projections_are_those_of_pyace_for_two_elements() -> None:
    from pyace.activelearning import compute_B_projections

    from containers.tensorpot.active_set.projections import project, unfitted_basis

    structures = rattled(4)
    for atoms in structures[1:]:
        atoms.numbers[::3] = 32
    basis = unfitted_basis(potential(20, ("Ge", "Si")))
    ours, owners = project(basis, structures)
    theirs, places = compute_B_projections(basis, structures, return_structure_ind_dict=True)
    for index, name in enumerate(basis.elements_name):
        np.testing.assert_array_equal(ours[name], theirs[index])
        np.testing.assert_array_equal(owners[name], places[index])


def test_the_basis_is_the_one_of_pacemakers_dry_run(tmp_path: Path) -> None:
    from containers.tensorpot.active_set.projections import unfitted_basis

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
