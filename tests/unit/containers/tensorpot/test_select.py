"""The choice of training structures: what needs no program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.split import Split, side
from containers.structures import labels_table, structure_id, write_table
from containers.tensorpot import select
from containers.tensorpot.active_rows import OUTSIDE, greedy_order, inverse, span
from containers.tensorpot.pacemaker_input import Potential

POTENTIAL = Potential(elements=("Si",), cutoff=5.0, functions_per_element=20)


def pool(count: int = 40, symbol: str = "Si") -> list[Atoms]:
    """Different two-atom cells, each its own family, energy -1 eV an atom."""
    made = []
    for seed in range(count):
        atoms = bulk(symbol, "diamond", a=5.43)
        atoms.rattle(0.1, seed=seed)
        key = structure_id(atoms)
        atoms.info = {"id": key, "source": "pool.xyz", "row": seed, "group": "", "family": key}
        atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.zeros((2, 3)))
        made.append(atoms)
    return made


def params(**more: object) -> select.Params:
    """Parameters with a small basis."""
    return select.Params.model_validate({"potential": POTENTIAL} | more)


def selection(folder: Path, structures: list[Atoms], chosen: select.Params) -> tuple[list[str], list[str]]:
    """Ids and reasons that a run on these structures gives."""
    write_table(folder / "labels.parquet", labels_table(structures))
    select.run(Inputs({"labels": (folder / "labels.parquet",)}), folder, chosen, Machine())
    table = pq.read_table(folder / "selection.parquet")
    assert table.schema == select.SELECTION
    assert table.column("order").to_pylist() == list(range(table.num_rows))
    return table.column("id").to_pylist(), table.column("how").to_pylist()


def test_only_the_training_side_takes_part(tmp_path: Path) -> None:
    structures = pool()
    ids, how = selection(tmp_path, structures, params(method="all"))
    assert set(how) == {"all"}
    assert set(ids) == {a.info["id"] for a in structures if side(a.info["family"], Split()) == "train"}
    assert len(ids) < len(structures)


def test_random_is_by_hash_whatever_the_order(tmp_path: Path) -> None:
    wanted = params(method="random", max_structures=5)
    first = selection(tmp_path, pool(), wanted)
    assert first == selection(tmp_path, pool()[::-1], wanted)
    assert len(first[0]) == 5
    assert first != selection(tmp_path, pool(), wanted.model_copy(update={"seed": 1}))


def test_a_larger_random_set_contains_the_smaller(tmp_path: Path) -> None:
    few, _ = selection(tmp_path, pool(), params(method="random", max_structures=5))
    more, _ = selection(tmp_path, pool(), params(method="random", max_structures=9))
    assert more[:5] == few


def test_structures_pacemaker_cannot_use_are_no_candidates(tmp_path: Path) -> None:
    hot = next(a for a in pool() if side(a.info["family"], Split()) == "train")
    others = [a for a in pool() if a.info["id"] != hot.info["id"]]
    hot.calc.results["energy"] = 2000.0
    everything = params(method="all", e0s_eV={"Si": 0.0})
    ids, _ = selection(tmp_path, [hot, *others], everything)
    assert hot.info["id"] not in ids
    ids, _ = selection(tmp_path, [hot, *others], everything.model_copy(update={"e0s_eV": None}))
    assert hot.info["id"] in ids


def test_nothing_to_train_on_is_said_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"40 labelled, \d+ of them on the training side .* raise the cutoff"):
        selection(tmp_path, pool(), params(method="all", potential=POTENTIAL.model_copy(update={"cutoff": 1.0})))
    with pytest.raises(BadInput, match="no structure is left"):
        selection(tmp_path, pool(symbol="Ge"), params(method="all"))


def test_the_stub_writes_a_valid_selection(tmp_path: Path) -> None:
    write_table(tmp_path / "labels.parquet", labels_table(pool()))
    metrics = select.stub(Inputs({"labels": (tmp_path / "labels.parquet",)}), tmp_path, params(), Machine())
    assert metrics["selected"] == pq.read_table(tmp_path / "selection.parquet").num_rows > 0


def test_scarce_come_before_the_fill_and_the_maximum_holds() -> None:
    ids = [f"{k:02}" for k in range(20)]
    choices = select.ranked(["07", "03"], {"03", "11", "12"}, ids, 8, seed=0)
    assert [(c.id, c.how) for c in choices[:2]] == [("07", "d_optimal"), ("03", "scarce")]
    assert {(c.id, c.how) for c in choices[2:4]} == {("11", "scarce"), ("12", "scarce")}
    assert [c.how for c in choices[4:]] == ["fill"] * 4
    assert len({c.id for c in choices}) == 8
    assert [c.id for c in select.ranked(["07", "03"], {"03"}, ids, 1, seed=0)] == ["07"]


def test_span_counts_directions_not_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 6)) * 10.0 ** np.arange(6)
    copies = np.repeat(rows, 4, axis=0) * (1 + 1e-15)
    assert span(copies).inside.shape == (6, 3)
    assert span(rng.normal(size=(50, 6))).complete
    assert span(np.zeros((4, 6))).inside.shape == (6, 0)


def test_inverse_gives_grade_one_to_active_rows_and_huge_outside() -> None:
    rng = np.random.default_rng(1)
    active = rng.normal(size=(3, 5)) * [1, 10, 1000, 1, 0.1]
    grade = inverse(active, 5)
    assert grade.shape == (5, 5)
    np.testing.assert_allclose(np.abs(active @ grade).max(axis=1), 1.0, atol=1e-4)
    assert np.abs(rng.normal(size=5) @ grade).max() > 1e-3 / OUTSIDE
    full = rng.normal(size=(5, 5))
    np.testing.assert_allclose(full @ inverse(full, 5), np.eye(5), atol=1e-9)
    assert np.abs(np.ones(5) @ inverse(np.zeros((0, 5)), 5)).max() == 1 / OUTSIDE


def test_copies_add_nothing_to_the_first() -> None:
    same = np.eye(4)[:3]  # three structures hold the same three rows, the active ones spread over them
    different = np.eye(4)[3:]
    order = greedy_order([same, same, different], [np.array([0, 1]), np.array([2]), np.array([3])])
    assert order == [0, 2, 1]
