"""The three frames: sides, weights, what is set aside and why, what is taken from the labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine, StepError
from containers.structures.split import SIDES
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.dataset import roles
from containers.tensorpot.dataset.admission import SET_ASIDE
from containers.tensorpot.frames import frames
from containers.tensorpot.frames.frame_file import read_frame
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import pair_terms
from tests.unit.containers.tensorpot.cells import cell, data_set, labelled

PARAMS = frames.Params(elements=("Si",), cutoff=5.0, energy_weights=False)
E0S = {"Si": -3.0, "Ge": -2.0}
ZBL = {"Si-Si": PairTerm(form="zbl", inner_A=2.0, outer_A=2.6)}


def pool() -> dict[str, list[Atoms]]:
    """Three structures on every side."""
    return {name: [cell(10 * k + i) for i in range(3)] for k, name in enumerate(SIDES)}


def ids(structures: Sequence[Atoms]) -> list[str]:
    return [str(atoms.info["id"]) for atoms in structures]


class Made:
    def __init__(self, outputs: Path, metrics: Mapping[str, Any]) -> None:
        self.outputs, self.metrics = outputs, metrics
        self.sides: dict[str, pd.DataFrame] = {name: read_frame(outputs / frames.OUTPUTS[name]) for name in SIDES}
        self.aside = {row["id"]: row["reason"] for row in pq.read_table(outputs / "set_aside.parquet").to_pylist()}
        self.facts = json.loads((outputs / "frames.json").read_text())

    def train(self, atoms: Atoms) -> Any:
        return self.sides["train"].set_index("name").loc[atoms.info["id"]]


def make(
    folder: Path,
    rows: Sequence[tuple[Atoms, str, str]] = (),
    selected: Mapping[str, float] | None = None,
    params: frames.Params = PARAMS,
    baseline: Baseline | None = None,
    strains: Sequence[Atoms] = (),
    properties: Sequence[Atoms] = (),
    aside: Sequence[Mapping[str, Any]] = (),
) -> Made:
    """Run on the structures of `pool` and these; all of the pool's training side is selected unless told."""
    folder.mkdir(exist_ok=True)
    every = [*((atoms, "teacher", name) for name, ones in pool().items() for atoms in ones), *rows]
    chosen = dict.fromkeys(ids(pool()["train"]), 1.0) if selected is None else dict(selected)
    write_table(folder / "dataset.parquet", data_set(every))
    pq.write_table(pa.table({"id": list(chosen), "weight": list(chosen.values())}), folder / "selection.parquet")
    (baseline or Baseline(e0s_eV=E0S)).write(folder / "baseline.json")
    files = {"dataset": "dataset.parquet", "selection": "selection.parquet", "baseline": "baseline.json"}
    if strains:
        write_table(folder / "strains.parquet", labels_table(strains))
        files["strains"] = "strains.parquet"
    if properties:
        write_table(folder / "properties.parquet", labels_table(properties))
        files["properties"] = "properties.parquet"
    if aside:
        pq.write_table(pa.Table.from_pylist([dict(one) for one in aside], schema=SET_ASIDE), folder / "aside.parquet")
        files["dataset_set_aside"] = "aside.parquet"
    outputs = folder / "outputs"
    outputs.mkdir()
    inputs = Inputs({name: (folder / file,) for name, file in files.items()})
    metrics = frames.run(inputs, outputs, params, Machine())
    assert {path.name for path in outputs.iterdir()} == set(frames.OUTPUTS.values())
    return Made(outputs, metrics)


def test_only_selected_structures_train_the_other_sides_are_whole_and_labels_untouched(tmp_path: Path) -> None:
    chosen = ids(pool()["train"])[:2]
    made = make(tmp_path, selected=dict.fromkeys(chosen, 1.0))
    assert made.sides["train"]["name"].tolist() == sorted(chosen)
    for name in ("validation", "test"):
        assert made.sides[name]["name"].tolist() == sorted(ids(pool()[name]))
    assert not made.aside
    assert made.metrics["train_structures"] == 2
    made = make(tmp_path / "all")
    row = made.sides["train"].iloc[0]
    assert (row["energy"], row["energy_corrected"]) == (-8.0, -2.0)
    assert np.array_equal(row["forces"], np.full((2, 3), 0.25))
    assert np.array_equal(row["forces_total"], row["forces"])
    assert np.array_equal(row["stress"], np.arange(6.0))
    assert made.facts["sides"]["train"]["energy_corrected_min_eV_per_atom"] == -1.0
    assert 2.0 < made.facts["sides"]["train"]["shortest_distance_A"]["Si-Si"] < 2.36
    assert made.facts["baseline"]["e0s_eV"] == E0S


def test_dft_energies_are_on_the_teachers_scale_and_replace_its_labels(tmp_path: Path) -> None:
    dft = cell(100, energy=-10.0)
    baseline = Baseline(e0s_eV=E0S, dft_offsets_eV={"Si": -0.5})
    made = make(tmp_path, [(dft, "dft", "train")], baseline=baseline)
    assert (made.train(dft)["energy"], made.train(dft)["energy_corrected"]) == (-9.0, -3.0)
    assert made.train(pool()["train"][0])["energy"] == -8.0
    again = cell(0, energy=-7.5)  # the first of the training side
    made = make(tmp_path / "again", [(again, "dft", "train")])
    assert made.train(again)["energy"] == -7.5
    assert set(made.aside) == {again.info["id"]}
    assert "DFT label is used" in made.aside[again.info["id"]]


def test_the_order_and_pieces_of_the_data_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = [(cell(100 + k), origin, "train") for k, origin in enumerate(["dft", "teacher", "dft"])]
    digests = []
    for name, rows in (("a", more), ("b", more[::-1])):
        made = make(tmp_path / name, rows)
        digests.append([(made.outputs / file).read_bytes() for file in frames.OUTPUTS.values()])
    assert digests[0] == digests[1]
    monkeypatch.setattr(roles, "AT_ONCE", 2)
    pieces = make(tmp_path / "c", more)
    assert (made.outputs / "frames.extxyz").read_bytes() == (pieces.outputs / "frames.extxyz").read_bytes()


def test_what_pacemaker_would_drop_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), energy=-3.0)
    hot = cell(70, energy=1000.0)
    alien = labelled(Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]))
    double = labelled(Atoms("Si2", positions=[[0, 0, 0], [0, 0, 1e-6]]))
    rows = [(lonely, "teacher", "train"), (hot, "dft", "train"), (double, "teacher", "test")]
    made = make(tmp_path, [*rows, (alien, "teacher", "validation")], baseline=Baseline(e0s_eV=E0S, pairs=ZBL))
    assert "no neighbour" in made.aside[lonely.info["id"]]  # it was not selected either: told all the same
    assert "outside pacemaker's range" in made.aside[hot.info["id"]]
    assert "has C" in made.aside[alien.info["id"]]
    assert "in one place" in made.aside[double.info["id"]]
    assert [made.metrics[f"{name}_structures"] for name in SIDES] == [3, 3, 3]


def test_what_was_set_aside_is_passed_on_and_strained_structures_join_it(
    tmp_path: Path,
) -> None:
    theirs = {"id": "ff", "source": "a.xyz", "row": 3, "side": "train", "reason": "why not"}
    hot = cell(70, energy=1000.0)
    made = make(tmp_path, [(hot, "dft", "train")], aside=[theirs])
    rows = pq.read_table(made.outputs / "set_aside.parquet").to_pylist()
    assert theirs in rows
    assert made.metrics["set_aside"] == len(rows) == 2
    # strained structures need a share in the loss
    with pytest.raises(StepError, match="loss_stress is 0"):
        make(tmp_path / "without", strains=[cell(200)])
    hot = cell(200, energy=1000.0)
    params = PARAMS.model_copy(update={"loss_stress": 1.0})
    made = make(tmp_path / "strained", strains=[hot, cell(201)], params=params)
    assert "outside pacemaker's range" in made.aside[hot.info["id"]]
    assert made.metrics["strained_structures"] == 1


def test_open_cells_train_padded_and_lonely_atoms_are_tested(tmp_path: Path) -> None:
    slab = bulk("Si", cubic=True)
    slab.set_pbc((True, True, False))
    slab = labelled(slab)
    lonely = labelled(Atoms("Si", positions=[[0, 0, 0]]), energy=-3.0)
    chosen = dict.fromkeys([*ids(pool()["train"]), slab.info["id"]], 1.0)
    made = make(tmp_path, [(slab, "teacher", "train"), (lonely, "teacher", "test")], chosen)
    assert not made.aside
    assert lonely.info["id"] in made.sides["test"]["name"].tolist()
    assert made.train(slab)["ase_atoms"].pbc.all()
    assert made.train(slab)["stress"] is None
    written = {atoms.info["id"]: atoms for atoms in read(made.outputs / "frames.extxyz", ":")}
    assert structure_id(written[slab.info["id"]]) == slab.info["id"]  # as it was labelled, not padded


def test_weights_of_origin_group_and_selection_multiply_on_both_sides(tmp_path: Path) -> None:
    first, *others = ids(pool()["train"])
    dft = [cell(100, group="melt"), cell(101, group="melt")]
    params = PARAMS.model_copy(update={"weight_dft": 10.0, "weights": {"melt": 0.5}})
    rows = [(dft[0], "dft", "train"), (dft[1], "dft", "validation"), (cell(102, group="melt"), "teacher", "validation")]
    made = make(tmp_path, rows, {first: 3.0} | dict.fromkeys(others, 1.0), params)
    assert sorted(made.sides["train"]["w_energy"]) == [1.0, 1.0, 3.0, 5.0]
    assert made.train(dft[0])["w_energy"] == 5.0
    assert sorted(made.sides["validation"]["w_energy"]) == [0.5, 1.0, 1.0, 1.0, 5.0]
    for name in ("train", "validation"):
        frame = made.sides[name]
        for energy, forces in zip(frame["w_energy"], frame["w_forces"], strict=True):
            assert forces.tolist() == [energy, energy]


@pytest.mark.parametrize("bad", [{"weights": {"bulk": 0.0}}, {"loss_energy": 0.0, "loss_stress": 0.1}])
def test_settings_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be above 0"):
        frames.Params(**(PARAMS.model_dump() | bad))


def test_strained_structures_together_weigh_as_the_loss_says(tmp_path: Path) -> None:
    strains = [cell(200), cell(201, group="melt")]
    params = PARAMS.model_copy(
        update={"loss_energy": 0.5, "loss_stress": 1.5, "weights": {"melt": 3.0}, "weight_dft": 7.0}
    )
    made = make(tmp_path, [(cell(100, group="melt"), "dft", "train")], params=params, strains=strains)
    train = made.sides["train"].set_index("name")
    is_strained = train.index.isin(ids(strains))
    assert train.index[-2:].isin(ids(strains)).all()
    assert train["w_energy"][is_strained].sum() == pytest.approx(1.5 / 0.5 * train["w_energy"][~is_strained].sum())
    assert train["w_energy"][ids(strains)[1]] == pytest.approx(3 * train["w_energy"][ids(strains)[0]])
    assert [train["w_forces"][key].tolist() for key in ids(strains)] == [[1.0, 1.0], [3.0, 3.0]]
    assert made.metrics["strained_structures"] == 2


def test_structures_for_properties_together_weigh_their_share_by_group(tmp_path: Path) -> None:
    made_for = [cell(200, group="property elastic"), *(cell(place, group="property surface") for place in (201, 202))]
    params = PARAMS.model_copy(update={"property_shares": {"elastic": 0.5, "surface": 0.25}})
    made = make(tmp_path, params=params, properties=[*made_for, made_for[0]])
    train = made.sides["train"].set_index("name")
    theirs = train.loc[ids(made_for)]
    others = train.drop(index=ids(made_for))["w_energy"].sum()
    assert (theirs["w_energy"] / others).tolist() == pytest.approx([0.5, 0.125, 0.125])
    assert [forces[0] / others for forces in theirs["w_forces"]] == pytest.approx([0.5, 0.125, 0.125])
    assert (made.metrics["property_structures"], made.metrics["strained_structures"]) == (3, 0)


def test_a_selection_of_another_data_set_an_empty_side_and_an_unknown_group_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"the selection names .* does not have"):
        make(tmp_path, selected=dict.fromkeys(ids(pool()["test"]), 1.0))
    params = PARAMS.model_copy(update={"elements": ("Ge",)})
    with pytest.raises(BadInput, match=r"on the train and the validation and the test side\. 9 set aside because: has"):
        make(tmp_path / "empty", params=params)
    params = PARAMS.model_copy(update={"weights": {"bulk": 2.0, "melt": 2.0}})
    with pytest.raises(BadInput, match=r"'melt', which no structure has; there are 'bulk', 'slab'"):
        make(tmp_path / "group", [(cell(100, group="slab"), "teacher", "train")], params=params)


def test_the_text_file_has_every_digit_of_labels_and_weights(tmp_path: Path) -> None:
    dft = cell(100, energy=-1 / 3, group="T 1")
    made = make(tmp_path, [(dft, "dft", "validation")], baseline=Baseline(e0s_eV=E0S, pairs=ZBL))
    written = {atoms.info["id"]: atoms for atoms in read(made.outputs / "frames.extxyz", ":")}
    assert sorted(written) == sorted(key for frame in made.sides.values() for key in frame["name"])
    back = written[dft.info["id"]]
    place = {"side": "validation", "origin": "dft", "source": "some.xyz", "row": 7, "group": "T 1", "family": "f"}
    assert back.info.items() >= (place | {"w_energy": 10.0, "w_forces": 10.0}).items()
    assert back.positions.tobytes() == dft.positions.tobytes()
    assert back.cell.array.tobytes() == dft.cell.array.tobytes()
    assert back.get_potential_energy() == -1 / 3
    assert np.array_equal(back.get_forces(), dft.get_forces())
    assert np.array_equal(back.get_stress(), np.arange(6.0))


def with_germanium(seed: int = 3) -> Atoms:
    """A cell of silicon in which one atom is germanium."""
    alloy = bulk("Si", cubic=True)
    alloy.symbols[0] = "Ge"
    alloy.rattle(0.01, seed=seed)
    return labelled(alloy, energy=-31.0)


BOTH = PARAMS.model_copy(update={"elements": ("Ge", "Si"), "cutoff": 3.0})


@pytest.mark.parametrize(
    ("side", "message"),
    [
        *(
            (side, rf"trained on has Ge.* 1 structures .* frame 7 .* family 'f' on the {side} side")
            for side in ("validation", "test")
        ),
        ("train", "no structure that is trained on has Ge"),  # it is not selected
    ],
)
def test_an_element_that_training_lacks_is_refused_with_its_structures(tmp_path: Path, side: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make(tmp_path, [(with_germanium(), "teacher", side)], params=BOTH)


def test_every_pair_says_what_each_side_has_of_it(tmp_path: Path) -> None:
    found = make(tmp_path, [(with_germanium(), "dft", "train")], params=BOTH)
    pairs = found.metrics["pairs"]
    assert pairs == found.facts["pairs"]
    assert pairs["Ge-Ge"]["train"] == {"structures": 0, "shortest_A": None}
    assert pairs["Ge-Si"]["train"] == {"structures": 1, "shortest_A": pytest.approx(5.43 * 3**0.5 / 4, abs=0.1)}
    assert [pairs["Si-Si"][side]["structures"] for side in SIDES] == [4, 3, 3]
    assert found.facts["sides"]["test"]["shortest_distance_A"].keys() == {"Si-Si"}
    # pair terms are taken from what is fitted and not from the labels
    row = make(tmp_path / "terms", baseline=Baseline(e0s_eV=E0S, pairs=ZBL)).sides["test"].iloc[0]
    energy, forces, _ = pair_terms(row["ase_atoms"], {"Si-Si": ZBL["Si-Si"].model_dump()})
    assert energy > 0.01
    assert row["energy"] == -8.0
    assert row["energy_corrected"] + energy == pytest.approx(-2.0, abs=1e-10)
    assert np.array_equal(row["forces_total"], np.full((2, 3), 0.25))
    np.testing.assert_allclose(row["forces"] + forces, row["forces_total"], rtol=0, atol=1e-10)
