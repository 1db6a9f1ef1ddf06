"""The data set: sides, what is set aside and why, reference energies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.split import SIDES, Split, side
from containers.structures import labels_table, structure_id, write_table
from containers.tensorpot import dataset
from containers.tensorpot.frames import read_frame

PARAMS = dataset.Params(e0s_eV={"Si": -3.0, "Ge": -2.0}, elements=("Ge", "Si"), cutoff=5.0)
FAMILIES = {name: [f for f in map(str, range(200)) if side(f, Split()) == name] for name in SIDES}


def labelled(atoms: Atoms, family: str, energy: float = -8.0) -> Atoms:
    """The structure with everything a label has."""
    forces = np.full((len(atoms), 3), 0.25)
    stress = np.arange(6.0) if atoms.pbc.all() else None
    atoms.info = {"id": structure_id(atoms), "source": "some.xyz", "row": 7, "group": "", "family": family}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    if stress is not None:
        atoms.calc.results["stress"] = stress
    return atoms


def cell(seed: int, family: str, energy: float = -8.0) -> Atoms:
    """A two-atom silicon cell, another for every seed."""
    atoms = bulk("Si")
    atoms.rattle(0.1, seed=seed)
    return labelled(atoms, family, energy)


def pool() -> list[Atoms]:
    """Three structures on every side."""
    return [cell(10 * k + i, FAMILIES[name][i]) for k, name in enumerate(SIDES) for i in range(3)]


def make(
    folder: Path,
    structures: Sequence[Atoms],
    selected: Sequence[Atoms] | None = None,
    params: dataset.Params = PARAMS,
    **dft: Sequence[Atoms],
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Ids by side, and reasons by id of what was set aside, of a run on these structures."""
    write_table(folder / "labels.parquet", labels_table(structures))
    ids = [atoms.info["id"] for atoms in (structures if selected is None else selected)]
    pq.write_table(pa.table({"id": ids}), folder / "selection.parquet")
    files = {name: (folder / f"{name}.parquet",) for name in ("labels", "selection", *dft)}
    for name, given in dft.items():
        write_table(folder / f"{name}.parquet", labels_table(given))
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    metrics = dataset.run(Inputs(files), outputs, params, Machine())
    assert {path.name for path in outputs.iterdir()} == set(dataset.OUTPUTS.values())
    sides: dict[str, list[str]] = {name: read_frame(outputs / dataset.OUTPUTS[name])["name"].tolist() for name in SIDES}
    aside = pq.read_table(outputs / "set_aside.parquet").to_pylist()
    assert metrics["set_aside"] == len(aside)
    return sides, {row["id"]: row["reason"] for row in aside}


def test_every_structure_is_on_the_side_of_its_family_and_only_selected_ones_train(tmp_path: Path) -> None:
    structures = pool()
    sides, aside = make(tmp_path, structures, selected=structures[:2])
    assert set(sides["train"]) == {atoms.info["id"] for atoms in structures[:2]}
    assert set(sides["validation"]) == {atoms.info["id"] for atoms in structures[3:6]}
    assert set(sides["test"]) == {atoms.info["id"] for atoms in structures[6:]}
    assert not aside


def test_energies_are_corrected_and_labels_untouched(tmp_path: Path) -> None:
    make(tmp_path, pool())
    row = read_frame(tmp_path / "outputs" / "train.pckl.gzip").iloc[0]
    assert row["energy"] == -8.0
    assert row["energy_corrected"] == -2.0
    assert np.array_equal(row["forces"], np.full((2, 3), 0.25))
    assert np.array_equal(row["stress"], np.arange(6.0))
    facts = json.loads((tmp_path / "outputs" / "dataset.json").read_text())
    assert facts["sides"]["train"]["energy_corrected_min_eV_per_atom"] == -1.0
    assert 2.0 < facts["sides"]["train"]["shortest_distance_A"]["Si-Si"] < 2.36


def test_the_order_of_the_pool_does_not_change_a_byte(tmp_path: Path) -> None:
    digests = []
    for name, structures in (("a", pool()), ("b", pool()[::-1])):
        (tmp_path / name).mkdir()
        make(tmp_path / name, structures)
        digests.append([(tmp_path / name / "outputs" / file).read_bytes() for file in dataset.OUTPUTS.values()])
    assert digests[0] == digests[1]


def test_what_pacemaker_would_drop_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), FAMILIES["train"][4], energy=-3.0)
    hot = cell(70, FAMILIES["train"][5], energy=1000.0)
    alien = labelled(Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]), FAMILIES["validation"][5])
    sides, aside = make(tmp_path, [*pool(), lonely, hot, alien])
    assert "no neighbour" in aside[lonely.info["id"]]
    assert "outside pacemaker's range" in aside[hot.info["id"]]
    assert "has C" in aside[alien.info["id"]]
    assert [len(sides[name]) for name in SIDES] == [3, 3, 3]


def test_a_training_structure_that_could_not_be_selected_is_set_aside_too(tmp_path: Path) -> None:
    structures = pool()
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), FAMILIES["train"][4], energy=-3.0)
    sides, aside = make(tmp_path, [*structures, lonely], selected=structures[:2])
    assert "no neighbour" in aside[lonely.info["id"]]
    assert set(sides["train"]) == {atoms.info["id"] for atoms in structures[:2]}


def test_open_cells_train_padded_and_lonely_atoms_are_tested(tmp_path: Path) -> None:
    slab = bulk("Si", cubic=True)
    slab.set_pbc((True, True, False))
    slab = labelled(slab, FAMILIES["train"][4])
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), FAMILIES["test"][4], energy=-3.0)
    sides, aside = make(tmp_path, [*pool(), slab, lonely])
    assert not aside
    assert lonely.info["id"] in sides["test"]
    rows = read_frame(tmp_path / "outputs" / "train.pckl.gzip").set_index("name")
    assert rows.loc[slab.info["id"], "ase_atoms"].pbc.all()
    assert rows.loc[slab.info["id"], "stress"] is None


def test_dft_data_train_with_their_weight_and_never_on_the_test_side(tmp_path: Path) -> None:
    dft = [cell(100 + k, FAMILIES[name][9]) for k, name in enumerate(SIDES)]
    sides, aside = make(tmp_path, pool(), dft=dft)
    assert dft[0].info["id"] in sides["train"]
    assert dft[1].info["id"] in sides["validation"]
    assert not any(dft[2].info["id"] in ids for ids in sides.values())
    assert "test side" in aside[dft[2].info["id"]]
    rows = read_frame(tmp_path / "outputs" / "train.pckl.gzip").set_index("name")
    assert rows.loc[dft[0].info["id"], "w_energy"] == 10.0
    assert rows["w_energy"].sum() == 10.0 + 3


def test_a_dft_label_replaces_the_teachers_and_stays_on_the_pools_side(tmp_path: Path) -> None:
    structures = pool()
    again = cell(0, FAMILIES["validation"][8], energy=-7.5)  # the same structure as the first of the pool
    unseen = cell(20, FAMILIES["train"][8])  # the same as one of the pool's test side
    assert again.info["id"] == structures[0].info["id"]
    sides, aside = make(tmp_path, structures, dft=[again, unseen])
    rows = read_frame(tmp_path / "outputs" / "train.pckl.gzip").set_index("name")
    assert rows.loc[again.info["id"], "energy"] == -7.5
    assert again.info["id"] not in sides["validation"]
    assert unseen.info["id"] not in sides["train"] + sides["validation"]
    assert set(aside) == {again.info["id"], unseen.info["id"]}


def test_structures_of_the_dft_test_files_never_train(tmp_path: Path) -> None:
    structures = pool()
    reserved = [cell(0, "x"), cell(10, "y"), cell(100, "z")]
    dft = [cell(100, FAMILIES["train"][9])]
    sides, aside = make(tmp_path, structures, dft=dft, dft_test=reserved)
    assert not {atoms.info["id"] for atoms in reserved} & {*sides["train"], *sides["validation"]}
    assert all("DFT test files" in aside[atoms.info["id"]] for atoms in reserved)


@pytest.mark.parametrize("name", SIDES)
def test_an_empty_side_names_the_families_and_the_mend(tmp_path: Path, name: str) -> None:
    structures = [atoms for atoms in pool() if side(atoms.info["family"], Split()) != name]
    with pytest.raises(BadInput, match=rf"on the {name} side.* 6 families .*0 {name}.*raise the share"):
        make(tmp_path, structures)


def test_an_empty_side_says_why_its_structures_were_set_aside(tmp_path: Path) -> None:
    structures = [atoms for atoms in pool() if side(atoms.info["family"], Split()) != "validation"]
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), FAMILIES["validation"][4], energy=-3.0)
    with pytest.raises(BadInput, match=r"1 set aside because: atom 0 .* no neighbour"):
        make(tmp_path, [*structures, lonely])
