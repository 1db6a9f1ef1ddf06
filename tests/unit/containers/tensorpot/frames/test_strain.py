"""Strained structures, and less weight on high energies and large forces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import voigt_6_to_full_3x3_stress

from containers.contract import BadInput, Inputs, Machine
from containers.structures.split import Side
from containers.structures.table import STRUCTURES, read_atoms, structure_id, write_table
from containers.tensorpot.frames import strain
from containers.tensorpot.frames.frame_file import Labelled
from containers.tensorpot.frames.rows import TrainingRow
from containers.tensorpot.frames.weights import above_hull, energy_weighted
from tests.unit.containers.tensorpot.cells import data_set

PARAMS = strain.Params()


def cell(seed: int, pbc: bool = True) -> Atoms:
    """A silicon cell of eight atoms, another for every seed."""
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.set_pbc((True, True, pbc))
    atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": seed, "group": "bulk", "family": f"f{seed}"}
    atoms.calc = SinglePointCalculator(atoms, energy=-8.0, forces=np.zeros((len(atoms), 3)))
    return atoms


def make(
    folder: Path,
    structures: Sequence[Atoms],
    selected: Sequence[Atoms] | None = None,
    params: strain.Params = PARAMS,
    origin: str = "teacher",
    side: str = "train",
) -> list[Atoms]:
    """The strained structures of a run in which all are selected unless told."""
    folder.mkdir(exist_ok=True)
    write_table(folder / "dataset.parquet", data_set([(atoms, origin, side) for atoms in structures]))
    chosen = [atoms.info["id"] for atoms in (structures if selected is None else selected)]
    pq.write_table(pa.table({"id": chosen}), folder / "selection.parquet")
    files = {name: (folder / f"{name}.parquet",) for name in ("dataset", "selection")}
    outputs = folder / "outputs"
    outputs.mkdir()
    metrics = strain.run(Inputs(files), outputs, params, Machine())
    assert [path.name for path in outputs.iterdir()] == ["structures.parquet"]
    assert pq.read_schema(outputs / "structures.parquet") == STRUCTURES
    made = read_atoms(outputs / "structures.parquet")
    assert metrics["structures"] == len(made)
    return made


def strain_of(copy: Atoms, parent: Atoms) -> np.ndarray:
    """The strain (3, 3) that makes the parent's cell the copy's."""
    return np.linalg.solve(parent.cell.array, copy.cell.array) - np.eye(3)


def test_copies_are_small_symmetric_strains_of_their_parents(tmp_path: Path) -> None:
    parents = {atoms.info["id"]: atoms for atoms in map(cell, range(20))}
    made = make(tmp_path, list(parents.values()))
    assert len(made) == strain.strained(20) == 9
    for copy in made:
        parent = parents[copy.info["source"].removeprefix("strain of ")]
        applied = strain_of(copy, parent)
        np.testing.assert_allclose(applied, applied.T, rtol=0, atol=1e-14)
        assert np.linalg.norm(applied) == pytest.approx(PARAMS.size)
        np.testing.assert_allclose(copy.get_scaled_positions(), parent.get_scaled_positions(), rtol=0, atol=1e-12)
        assert (copy.info["family"], copy.info["group"]) == (parent.info["family"], "bulk")
        assert copy.info["id"] == structure_id(copy)
        assert not copy.info["id"].startswith("augmented")
    assert [copy.info["id"] for copy in made] == sorted(copy.info["id"] for copy in made)
    assert len({copy.info["source"] for copy in made}) == len(made)  # one of each parent while there are enough
    # volume changes more than by random components
    traces = {
        isotropic: np.mean(
            [
                abs(np.trace(strain.random_strain(seed, PARAMS.model_copy(update={"isotropic": isotropic}))))
                for seed in range(200)
            ]
        )
        for isotropic in (0.0, 2.0)
    }
    assert traces[2.0] > 1.4 * traces[0.0]


def test_energies_of_parent_and_copy_hold_the_stress(tmp_path: Path) -> None:
    parent = cell(1)
    (copy,) = make(tmp_path, [parent], params=PARAMS.model_copy(update={"size": 1e-5}))
    energies = []
    for atoms in (parent, copy):
        atoms.calc = LennardJones(sigma=2.1, epsilon=0.5, rc=6.0, smooth=True)
        energies.append(atoms.get_potential_energy())
    stress = voigt_6_to_full_3x3_stress(parent.get_stress())
    expected = parent.get_volume() * float(np.sum(stress * strain_of(copy, parent)))
    assert abs(expected) > 1e-6
    assert energies[1] - energies[0] == pytest.approx(expected, rel=1e-2)


def test_only_selected_training_structures_with_a_stress_are_strained(tmp_path: Path) -> None:
    structures = [cell(1), cell(2, pbc=False), cell(3)]
    made = make(tmp_path, structures, selected=structures[:2])
    assert {copy.info["source"] for copy in made} == {f"strain of {structures[0].info['id']}"}
    # a copy is in the state of its parent
    parent = cell(1)
    parent.info["state"] = "total_charge=1"
    (made,) = make(tmp_path / "state", [parent])
    assert made.info["state"] == "total_charge=1"
    assert made.info["id"] == structure_id(made, "total_charge=1")
    # without enough parents each has several copies
    made = make(tmp_path / "few", [cell(1), cell(2)], params=PARAMS.model_copy(update={"share": 0.7}))
    assert len(made) == strain.strained(2, 0.7) == 5
    assert sorted(copy.info["row"] for copy in made) == [0, 0, 1, 1, 2]
    assert len({copy.info["id"] for copy in made}) == 5


@pytest.mark.parametrize("case", [{"origin": "dft"}, {"side": "test"}])
def test_other_rows_are_no_parents(tmp_path: Path, case: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"none of the 1 selected structures is periodic .* set loss_stress to 0"):
        make(tmp_path, [cell(1)], **case)


def test_a_parent_s_copy_depends_on_the_seed_alone(tmp_path: Path) -> None:
    parent, others = cell(0), [cell(seed) for seed in range(1, 5)]
    (alone,) = make(tmp_path / "a", [parent])
    among = make(tmp_path / "b", [parent, *others], params=PARAMS.model_copy(update={"share": 0.5}))
    assert alone.info["id"] in {copy.info["id"] for copy in among}
    structures = [cell(seed) for seed in range(4)]
    make(tmp_path / "c", structures)
    make(tmp_path / "d", structures[::-1])
    make(tmp_path / "e", structures, params=PARAMS.model_copy(update={"seed": 1}))
    a, b, c = ((tmp_path / name / "outputs" / "structures.parquet").read_bytes() for name in "cde")
    assert a == b != c


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_selected_and_strained_structures_fill_the_budget(share: float) -> None:
    for total in range(20, 400, 7):
        selected = strain.to_select(total, share)
        assert total - round(1 / (1 - share)) <= selected + strain.strained(selected, share) <= total


# ---- less weight on high energies and large forces


def weighed(
    symbols: str, per_atom: float, force: float = 0.0, side: Side = "train", weight: float = 1.0
) -> TrainingRow:
    """A structure with this energy (eV/atom) and the same force (eV/Å) on every atom."""
    atoms = Atoms(symbols, positions=[[2.5 * k, 0, 0] for k in range(len(Atoms(symbols)))])
    forces = np.tile([force, 0.0, 0.0], (len(atoms), 1))
    label = Labelled(symbols, atoms, per_atom * len(atoms), per_atom * len(atoms), forces, None, weight)
    return TrainingRow(atoms, "teacher", side, label)


def weights_of(*rows: TrainingRow) -> list[tuple[float, float]]:
    done = energy_weighted({"train": rows, "validation": [], "test": []})
    return [(one.label.weight, one.label.w_forces) for one in done["train"]]


def test_one_eV_above_the_ground_state_counts_a_quarter_and_one_eV_per_A_half() -> None:
    assert weights_of(weighed("Ni2", -5.0), weighed("Ni4", -4.0)) == [(1.0, 1.0), (0.25, 0.25)]
    assert weights_of(weighed("Ni2", -5.0, force=1.0, weight=8.0)) == [(8.0, pytest.approx(4.0))]


def test_the_hull_is_over_composition_so_reference_energies_do_not_matter() -> None:
    shares = np.array([[0, 1], [1, 0], [0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
    energies = np.array([-5.0, -3.0, -4.5, -3.65, -4.0])
    expected = [0, 0, 0, 0.1, 0.5]  # Ni, Al, NiAl below the line, 75 % between NiAl and Al, NiAl above
    assert above_hull(shares, energies) == pytest.approx(expected)
    assert above_hull(shares, energies + shares @ [7.0, -900.0]) == pytest.approx(expected, abs=1e-9)


def test_test_structures_decide_nothing_and_validation_has_the_same_rule() -> None:
    sides: dict[Side, list[TrainingRow]] = {
        "train": [weighed("Ni2", -5.0)],
        "validation": [weighed("Ni2", -4.0, side="validation")],
        "test": [weighed("Ni2", -9.0, force=3.0, side="test")],
    }
    done = energy_weighted(sides)
    assert [one.label.weight for name in ("train", "validation") for one in done[name]] == [1.0, 0.25]
    assert done["test"] == sides["test"]
