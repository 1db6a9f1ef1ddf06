"""The data set: how it grows, sides, leaks, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import BadInput, Inputs, Machine
from containers.structures import external_sort
from containers.structures.split import SIDES, Side, Split, side
from containers.structures.table import LABELS, atoms_from_table, labels_table, structure_id, write_table
from containers.tensorpot.baseline.rows import BaselineLabels
from containers.tensorpot.dataset import dataset
from containers.tensorpot.dataset.dataset import Params
from containers.tensorpot.dataset.history import DATASET, HISTORY
from tests.unit.containers.tensorpot.cells import cell, labelled

PARAMS = Params(elements=("Ge", "Si"), teachers=("a" * 64,))
FAMILIES = {name: [f for f in map(str, range(300)) if side(f, Split()) == name] for name in SIDES}


def on(name: Side, seed: int, number: int = 0, **place: Any) -> Atoms:
    """A cell of a family of that side."""
    return cell(seed, FAMILIES[name][number], **place)


def pool(first: int = 0) -> list[Atoms]:
    """Three structures on every side."""
    return [on(name, first + 10 * k + i, i) for k, name in enumerate(SIDES) for i in range(3)]


@dataclass
class Made:
    folder: Path
    metrics: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / "outputs" / "dataset.parquet"

    @property
    def table(self) -> pa.Table:
        return pq.read_table(self.path)

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "outputs" / "dataset.json").read_text())
        return facts

    @property
    def aside(self) -> dict[str, str]:
        rows = pq.read_table(self.folder / "outputs" / "set_aside.parquet").to_pylist()
        assert self.metrics["set_aside"] == len(rows)
        return {row["id"]: row["reason"] for row in rows}

    def sides(self, origin: str) -> dict[str, str]:
        """Side by id of the rows of an origin."""
        return {row["id"]: row["side"] for row in self.table.to_pylist() if row["origin"] == origin}


def make(
    folder: Path, labels: Sequence[Atoms], params: Params = PARAMS, base: Made | None = None, **dft: Sequence[Atoms]
) -> Made:
    (folder / "outputs").mkdir(parents=True)
    files = {"base": (base.path,)} if base else {}
    for name, given in {"labels": labels, **dft}.items():
        write_table(folder / f"{name}.parquet", labels_table(given))
        files[name] = (folder / f"{name}.parquet",)
    metrics = dataset.run(Inputs(files), folder / "outputs", params, Machine())
    assert {path.name for path in (folder / "outputs").iterdir()} == set(dataset.OUTPUTS.values())
    return Made(folder, metrics)


def refused(folder: Path, message: str, labels: Sequence[Atoms], **rest: Any) -> None:
    """The run ends with a message, and nothing is left."""
    with pytest.raises(BadInput, match=message):
        make(folder, labels, **rest)
    assert not list((folder / "outputs").iterdir())
    assert not (folder / "work").exists()


def test_rows_are_as_they_came_with_origin_side_and_version(tmp_path: Path) -> None:
    structures, dft = pool(), [on("train", 100, 9, energy=-7.123456789)]
    made = make(tmp_path, structures, dft=dft)
    assert made.table.schema.equals(DATASET)
    expected = [("dft", dft[0])] + [("teacher", one) for one in sorted(structures, key=lambda one: one.info["id"])]
    assert made.table.select(LABELS.names).equals(labels_table([one for _, one in expected]))
    assert made.table["origin"].to_pylist() == [origin for origin, _ in expected]
    assert made.table["side"].to_pylist() == [side(one.info["family"], Split()) for _, one in expected]
    assert set(made.table["version"].to_pylist()) == {1}
    assert {name: made.metrics[f"{name}_structures"] for name in SIDES} == {"train": 4, "validation": 3, "test": 3}
    assert made.facts["rows"]["teacher"]["test"] == {"bulk": 3}
    assert made.facts["rows"]["dft"] == {"train": {"bulk": 1}, "validation": {}, "test": {}}
    # structures come back bit for bit
    odd = labelled(Atoms("Si2", positions=[[-0.0, 5e-324, 1e17], [0.1, 1 / 3, -2.0]], cell=np.eye(3) / 7), "0")
    odd.calc.results |= {"energy": -1.0000000000000002, "forces": np.array([[5e-324, -0.0, 1e-17], [1e300, 3.0, 0.1]])}
    back = {one.info["id"]: one for one in atoms_from_table(make(tmp_path / "odd", [*pool(), odd]).table)}[
        odd.info["id"]
    ]
    for one, other in ((odd.positions, back.positions), (odd.cell.array, back.cell.array)):
        assert one.tobytes() == other.tobytes()
    assert back.calc.results["forces"].tobytes() == odd.calc.results["forces"].tobytes()
    assert back.calc.results["energy"] == odd.calc.results["energy"]
    assert "stress" not in back.calc.results


def test_the_set_grows_and_old_rows_stay_first_and_unchanged(tmp_path: Path) -> None:
    first = make(tmp_path / "1", pool(), dft=[on("train", 100, 9)])
    second = make(tmp_path / "2", pool() + pool(300), base=first, dft=[on("train", 101, 9), on("train", 100, 9)])
    old = first.table.num_rows
    assert second.table.slice(0, old).equals(first.table)
    assert second.table["version"].to_pylist() == [1] * old + [2] * 10
    new = second.table.slice(old)
    assert new["origin"].to_pylist() == ["dft"] + ["teacher"] * 9
    assert new["id"].to_pylist()[1:] == sorted(new["id"].to_pylist()[1:])
    assert second.facts["came_in"] == {"dft": 1, "teacher": 9}
    assert [version["teacher"] for version in second.facts["history"]] == [9, 9]
    assert second.facts["history"][0]["digest"] == first.facts["digest"] != second.facts["digest"]
    third = make(tmp_path / "3", [on("train", 400)], base=first)
    assert third.table.num_rows == old + 1, "rows of the base stay when the pool no longer has them"


def test_merging_the_same_again_changes_no_byte(tmp_path: Path) -> None:
    first = make(tmp_path / "1", pool(), dft=[on("train", 100, 9)])
    again = make(tmp_path / "2", pool(), base=first, dft=[on("train", 100, 9)])
    assert again.path.read_bytes() == first.path.read_bytes()
    assert again.metrics["version"] == 1
    assert again.metrics["new_teacher_rows"] == again.metrics["new_dft_rows"] == 0
    # the same label rounded is the same
    again = make(tmp_path / "3", pool(), base=first, dft=[on("train", 100, 9, energy=-8.00001)])
    assert again.path.read_bytes() == first.path.read_bytes()


def test_the_order_of_what_comes_at_once_changes_no_byte(tmp_path: Path) -> None:
    base = make(tmp_path / "base", pool())
    dft = [on("train", 100 + number, 9, source="b.xyz") for number in range(4)] + [on("train", 100, 9, source="a.xyz")]
    lonely = labelled(Atoms("C"), "0")
    made = []
    for name, step in (("a", 1), ("b", -1)):
        new = [lonely, *pool(500)][::step]
        made.append(make(tmp_path / name, new, base=base, dft=dft[::step]))
    for file in dataset.OUTPUTS.values():
        assert len({(one.folder / "outputs" / file).read_bytes() for one in made}) == 1
    assert "a.xyz" in made[0].table["source"].to_pylist()


def test_the_digest_is_of_the_rows_not_of_how_they_came(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", pool() + pool(300))
    steps = make(tmp_path / "2", pool(300), base=make(tmp_path / "1", pool()))
    assert steps.facts["digest"] == whole.facts["digest"]
    other = [*pool(), *pool(300)[:-1], on("test", 322, 2, energy=-8.00000001)]
    assert make(tmp_path / "other", other).facts["digest"] != whole.facts["digest"]
    other[-1] = on("test", 322, 2)
    other[-1].calc.results["stress"] = np.zeros(6)
    assert make(tmp_path / "stress", other).facts["digest"] != whole.facts["digest"]


def test_two_labels_of_one_origin_are_refused_and_both_named(tmp_path: Path) -> None:
    one = on("train", 100, 9, source="a.xyz", row=3)
    other = on("train", 100, 9, energy=-7.9, source="b.xyz", row=5)
    both = r"b\.xyz: frame 5 .* structure of a\.xyz: frame 3 .*another label .*\(dft\).* 0\.05 eV/atom.*remove one"
    refused(tmp_path / "1", both, pool(), dft=[one, other])
    refused(tmp_path / "2", both, pool(), dft=[other, one])
    base = make(tmp_path / "base", pool(), dft=[one])
    known = r"b\.xyz: frame 5 .* a\.xyz: frame 3 \(from 0\) \(in the set since version 1\).*remove it"
    refused(tmp_path / "3", known, pool(), base=base, dft=[other])
    forces = on("train", 100, 9, source="c.xyz")
    forces.calc.results["forces"] = np.full((2, 3), 0.2502)
    refused(tmp_path / "4", r"forces by up to 0\.0002 eV/Å", pool(), base=base, dft=[forces])


def test_teacher_and_dft_may_both_label_a_structure_on_the_pools_side(tmp_path: Path) -> None:
    structures = pool()
    theirs = cell(0, FAMILIES["validation"][8], energy=-7.5)  # the first structure of the pool
    unseen = cell(20, FAMILIES["train"][8])  # one of the pool's test side
    made = make(tmp_path, structures, dft=[theirs, unseen])
    assert made.sides("dft") == {structures[0].info["id"]: "train"}
    assert made.sides("teacher")[structures[0].info["id"]] == "train"
    assert "test side" in made.aside[unseen.info["id"]]
    # a structure of the base keeps its side whatever family a file gives it
    base = make(tmp_path / "base", structures)
    made = make(tmp_path / "grown", structures[3:], base=base, dft=[cell(0, FAMILIES["validation"][8])])
    assert made.sides("dft") == {structures[0].info["id"]: "train"}


def test_sides_stay_when_the_shares_change_or_the_pool_grows(tmp_path: Path) -> None:
    base = make(tmp_path / "1", pool())
    wide = PARAMS.model_copy(update={"split": Split(validation=0.05, test=0.9)})
    kin = on("train", 700)  # of a family that the base has on its training side
    stranger = cell(701, FAMILIES["train"][50])
    made = make(tmp_path / "2", [*pool(), kin, stranger], params=wide, base=base)
    before = base.sides("teacher")
    assert {key: made.sides("teacher")[key] for key in before} == before
    assert made.sides("teacher")[kin.info["id"]] == "train"
    assert made.sides("teacher")[stranger.info["id"]] == side(FAMILIES["train"][50], wide.split)
    assert made.facts["families_on_another_side_than_split_says"] > 0
    assert base.facts["families_on_another_side_than_split_says"] == 0
    after = make(tmp_path / "3", pool(900) + pool()).sides("teacher")
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("by", ["id", "family"])
def test_dft_data_like_the_test_files_are_refused_and_both_places_named(tmp_path: Path, by: str) -> None:
    dft = on("train", 100, 9, source="train.xyz", row=4)
    number = 100 if by == "id" else 101
    family = "x" if by == "id" else FAMILIES["train"][9]
    test = [cell(number, family, source="held_out.xyz", row=2)]
    message = r"train\.xyz: frame 4 .*held_out\.xyz: frame 2 .*DFT test files.*likeness_A"
    refused(tmp_path / "1", message, pool(), dft=[dft], dft_test=test)
    params = PARAMS.model_copy(update={"test_leaks": "set_aside"})
    made = make(tmp_path / "2", pool(), params=params, dft=[dft], dft_test=test)
    assert "held_out.xyz: frame 2" in made.aside[dft.info["id"]]
    assert not made.sides("dft")


def test_pool_structures_like_the_test_files_are_set_aside(tmp_path: Path) -> None:
    structures = [*pool(), on("train", 600, 20), on("validation", 601, 20), on("test", 602, 20)]
    test = [
        cell(0, "x"),
        cell(603, FAMILIES["train"][20]),
        cell(604, FAMILIES["validation"][20]),
        cell(20, FAMILIES["test"][20]),
    ]
    made = make(tmp_path, structures, dft_test=test)
    leaking = [structures[0], structures[-3], structures[-2]]
    assert set(made.aside) == {one.info["id"] for one in leaking}
    assert "some.xyz: frame 7" in made.aside[leaking[0].info["id"]]
    assert "family" in made.aside[leaking[1].info["id"]]
    assert set(made.sides("teacher")) == {one.info["id"] for one in structures} - set(made.aside)
    reserved_families = {one.info["family"] for one in test}
    for row in made.table.to_pylist():
        assert row["side"] == "test" or row["family"] not in reserved_families


@pytest.mark.parametrize("test", [cell(0, "x", source="held_out.xyz"), on("validation", 999, source="held_out.xyz")])
def test_a_base_that_trained_on_the_test_files_is_refused(tmp_path: Path, test: Atoms) -> None:
    base = make(tmp_path / "1", pool())
    message = r"some\.xyz: frame 7 .*base set.*held_out\.xyz: frame 7.*never leave.*without a base"
    refused(tmp_path / "2", message, pool(), base=base, dft_test=[test])
    make(tmp_path / "3", pool(), base=base, dft_test=[on("test", 20)])


def test_a_base_of_another_teacher_no_data_set_or_one_that_was_changed_is_refused(tmp_path: Path) -> None:
    base = make(tmp_path / "1", pool())
    other = PARAMS.model_copy(update={"teachers": ("b" * 64,)})
    refused(tmp_path / "2", "aaaaaaaaaaaa, .*bbbbbbbbbbbb .*new set", pool(), base=base, params=other)
    metadata = pq.ParquetFile(base.path).metadata.metadata
    table = base.table
    energies = pa.array([*table["energy"].to_pylist()[:-1], -9.0])
    table = table.set_column(table.schema.get_field_index("energy"), "energy", energies)
    with pq.ParquetWriter(base.path, DATASET) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})
    refused(tmp_path / "3", "was changed since", pool(), base=base)
    pq.write_table(table, base.path)
    refused(tmp_path / "4", "dataset.parquet: not a data set", pool(), base=base)
    write_table(base.path, labels_table(pool()))
    refused(tmp_path / "5", "its columns are id, numbers", pool(), base=base)
    base.path.write_bytes(b"PAR1")
    refused(tmp_path / "6", "not a data set", pool(), base=base)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("energy", float("nan"), "energy is missing or not finite"),
        ("forces", np.full((2, 3), np.inf), "one finite force"),
        ("forces", np.zeros((1, 3)), "one finite force"),
        ("stress", np.array([0, 0, np.nan, 0, 0, 0]), "stress is not finite"),
    ],
)
@pytest.mark.parametrize("name", ["labels", "dft"])
def test_a_broken_label_is_refused_with_its_place(
    tmp_path: Path, name: str, key: str, value: Any, message: str
) -> None:
    broken = on("train", 50, source="bad.xyz", row=11)
    broken.calc.results[key] = value
    given = {"labels": pool(), "dft": [on("train", 51)]}
    given[name] = [*given[name], broken]
    refused(tmp_path, rf"bad\.xyz: frame 11 .*{message}", **given)


def test_elements_that_the_potential_lacks_are_set_aside(tmp_path: Path) -> None:
    alien = labelled(Atoms("SiCO", positions=np.eye(3) * 1.4), FAMILIES["validation"][5])
    made = make(tmp_path, [*pool(), alien])
    assert made.aside == {alien.info["id"]: "has C, O, which the potential does not"}
    assert alien.info["id"] not in made.table["id"].to_pylist()
    # an empty side says why its structures were set aside
    structures = [atoms for atoms in pool() if side(atoms.info["family"], Split()) != "validation"]
    alien = labelled(Atoms("C"), FAMILIES["validation"][4])
    refused(tmp_path / "empty", r"1 set aside because: has C, which", [*structures, alien])


@pytest.mark.parametrize("name", SIDES)
def test_an_empty_side_names_the_families_and_the_fix(tmp_path: Path, name: Side) -> None:
    structures = [atoms for atoms in pool() if side(atoms.info["family"], Split()) != name]
    refused(tmp_path, rf"on the {name} side.* 6 families .*0 {name}.*raise the share", structures)


def test_structures_pass_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one block of rows, and every row once, in order."""
    monkeypatch.setattr(external_sort, "ROWS", 500)
    first = bulk("Si")
    structures = []
    for number in range(900):
        atoms = first.copy()
        atoms.positions[1, 0] += 1e-5 * number
        structures.append(labelled(atoms, f"family{number % 700}", row=number))
    made = make(tmp_path / "1", structures)
    ids = made.table["id"].to_pylist()
    assert ids == sorted(one.info["id"] for one in structures)
    assert pq.ParquetFile(made.path).num_row_groups == 2
    again = make(tmp_path / "2", structures[::-1], base=made)
    assert again.path.read_bytes() == made.path.read_bytes()


def test_a_base_from_before_there_were_states_grows(tmp_path: Path) -> None:
    first = make(tmp_path / "first", pool())
    history = {HISTORY: pq.read_metadata(first.path).metadata[HISTORY]}
    old = first.table.drop_columns("state")
    pq.write_table(old.replace_schema_metadata(history), first.path)
    charged = on("train", 99, 1)
    charged.info |= {"state": "total_charge=1", "id": structure_id(charged, "total_charge=1")}
    second = make(tmp_path / "second", [*pool(), charged], base=first)
    states = dict(zip(second.table["id"].to_pylist(), second.table["state"].to_pylist(), strict=True))
    assert {key for key, state in states.items() if state} == {charged.info["id"]}
    assert len(states) == first.table.num_rows + 1
    rows = BaselineLabels(tmp_path / "second" / "labels.parquet", first.path, Split())
    assert sum(table.num_rows for table in rows.of_teacher()) == len(states)
    assert {*chain.from_iterable(table["state"].to_pylist() for table in rows.of_teacher())} == {"", "total_charge=1"}
