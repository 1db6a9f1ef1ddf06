"""Which structures join the selection: those that a student of known answers does worst on, or extrapolates on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from containers import processes
from containers.contract import BadInput, Inputs, Machine
from containers.structures.table import structure_id, write_table
from containers.tensorpot.selection.candidates import DataSet
from containers.tensorpot.selection.pace_select import SELECTION
from containers.tensorpot.selection.representatives import representing
from containers.tensorpot.selection.weak_spots import (
    Params,
    Spot,
    choose,
    evaluate_each,
    evaluate_one,
    figures,
    spread,
    stub,
)
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import Student
from tests.unit.containers.tensorpot.cells import data_set

PARAMS = Params(elements=("Si",), cutoff=5.0, structures=4, force_limit_meV_per_A=100, energy_limit_meV_per_atom=10)
SIDES = ("train", "train", "train", "validation", "test")


class Ace(Calculator):
    """No energy; forces of 0.1 eV/Å along x on the first atom; grades 0.5 and twice the first atom's x (Å)."""

    cutoff = 5.0

    def calculate(self, atoms: Atoms, *_: object) -> None:
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = 0.1
        gamma = np.full(len(atoms), 0.5)
        gamma[-1] = 2 * atoms.positions[0, 0]
        self.results = {"energy": 0.0, "forces": forces, "stress": np.zeros(6), "gamma": gamma}


def student() -> Student:
    return Student(Ace(), Baseline(e0s_eV={"Si": -3.0}).model_dump())


def pool(count: int = 20, symbol: str = "Si") -> list[Atoms]:
    """Two-atom cells of five families of four; energy -3 eV an atom and a little more from one to the next."""
    made = []
    for seed in range(count):
        atoms = bulk(symbol, "diamond", a=5.43)
        atoms.rattle(0.1, seed=seed)
        atoms.info = {"id": structure_id(atoms), "source": "pool.xyz", "row": seed, "group": "bulk"}
        atoms.info |= {"family": f"family {seed % 5}", "origin": "teacher", "side": SIDES[seed % len(SIDES)]}
        atoms.calc = SinglePointCalculator(atoms, energy=-6.0 + 0.002 * seed, forces=np.zeros((2, 3)))
        made.append(atoms)
    return made


def inputs(folder: Path, structures: list[Atoms], selected: list[str]) -> Inputs:
    """The data set, a selection whose rows are not in their order, and the baseline."""
    rows = [(atoms, atoms.info["origin"], atoms.info["side"]) for atoms in structures]
    write_table(folder / "dataset.parquet", data_set(rows))
    count = len(selected)
    columns = {"id": selected[::-1], "order": range(count)[::-1], "how": ["bulk"] * count, "weight": [0.5] * count}
    write_table(folder / "given.parquet", pa.Table.from_pydict(columns, schema=SELECTION))
    Baseline(e0s_eV={"Si": -3.0, "Ge": -3.0}).write(folder / "baseline.json")
    names = {"dataset": "dataset.parquet", "selection": "given.parquet", "baseline": "baseline.json"}
    return Inputs({name: (folder / file,) for name, file in names.items()})


def ids(structures: list[Atoms], side: str = "train") -> list[str]:
    return [atoms.info["id"] for atoms in structures if atoms.info["side"] == side]


def spot(name: str, family: str = "", force: float = 0.0, energy: float = 0.0, gamma: float = 0.0) -> Spot:
    return Spot(name, family or name, "", "", 2, force, force, force, energy, gamma)


def names(chosen: list[tuple[Spot, Any]]) -> list[str]:
    return [one.id for one, _ in chosen]


def test_a_structure_is_compared_with_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = pool()[3]
    found = evaluate_one(atoms, student())
    assert found.force_mae == pytest.approx(100 / 6)  # 0.1 eV/Å on one of six components
    assert found.force_rmse == pytest.approx(100 / np.sqrt(6))
    assert found.force_max == pytest.approx(100)
    assert found.energy == pytest.approx(3.0)  # 3 · 2 meV over two atoms; both sides have the reference energies
    assert found.gamma == pytest.approx(max(0.5, 2 * atoms.positions[0, 0]))
    assert (found.family, found.place, found.atoms) == ("family 3", "pool.xyz, row 3", 2)
    monkeypatch.setattr(processes, "processes_for", lambda wanted: wanted)  # also where other tests left threads
    alone = list(evaluate_each(iter(pool()), student(), 1))
    assert list(evaluate_each(iter(pool()), student(), 2)) == alone
    assert len({one.id for one in alone}) == 20


def test_errors_are_ranked_in_units_of_their_limits_where_nothing_extrapolates() -> None:
    found = [spot("force", force=150), spot("energy", energy=20), spot("both", force=90, energy=9), spot("good")]
    assert names(choose(found, PARAMS)) == ["energy", "force", "both", "good"]
    assert {how for _, how in choose(found, PARAMS)} == {"error"}
    found = [spot(str(k), force=k, gamma=1.005) for k in range(1, 9)]  # what MaxVol leaves just above 1 is inside
    assert names(choose(found, PARAMS)) == ["8", "7", "6", "5"]
    found = [spot("far", gamma=50), spot("bad", force=500)]
    assert names(choose(found, PARAMS.model_copy(update={"structures": 1}))) == ["bad"]


def test_half_are_those_that_extrapolate_most() -> None:
    far = [spot(f"far {grade}", gamma=grade) for grade in (1.5, 9.0, 3.0)]
    near = [spot(f"near {error}", force=error, gamma=0.9) for error in (10, 30, 20)]
    chosen = choose(far + near, PARAMS)
    assert [(one.id, how) for one, how in chosen] == [
        ("far 9.0", "extrapolates"),
        ("far 3.0", "extrapolates"),
        ("near 30", "error"),
        ("near 20", "error"),
    ]


def test_a_family_waits_until_the_others_had_their_turn() -> None:
    copies = [spot(f"copy {k}", "one", force=1000 - k) for k in range(6)]
    others = [spot("other", "two", force=5), spot("third", "three", force=4)]
    assert names(choose(copies + others, PARAMS)) == ["copy 0", "copy 1", "other", "third"]
    assert len(choose(copies, PARAMS)) == 4  # nothing else is there
    far = [spot(f"far {k}", "one", gamma=9 - k) for k in range(2)]
    copies = [spot(f"copy {k}", "one", force=1000 - k) for k in range(3)]
    others = [spot(str(k), str(k), force=10 - k) for k in range(2)]
    assert names(choose(far + copies + others, PARAMS)) == ["far 0", "far 1", "0", "1"]
    found = [spot(str(k), "ab"[k % 2]) for k in range(9)]
    turned = spread(found, {"a": 1}, 2)
    assert sorted(one.id for one in turned) == [str(k) for k in range(9)]
    assert [one.id for one in turned] == ["0", "1", "3", "2", "4", "5", "7", "6", "8"]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_means_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [spot(f"{k:02d}", str(k % 7), force=float(k % 4), gamma=float(k % 3)) for k in range(30)]
    shuffled = [found[int(k)] for k in rng.permutation(30)]
    params = PARAMS.model_copy(update={"structures": 12})
    assert choose(shuffled, params) == choose(found, params)


def test_each_part_is_read_with_its_own_labels(tmp_path: Path) -> None:
    structures = pool()
    twin = structures[0].copy()
    twin.info |= {"origin": "dft"}
    twin.calc = SinglePointCalculator(twin, energy=-5.0, forces=np.zeros((2, 3)))
    told = list[tuple[Any, ...]]()
    given = [atoms.info["id"] for atoms in structures[5:] if atoms.info["side"] == "train"]
    path = inputs(tmp_path, [*structures, twin], given).one("dataset")
    data = DataSet(
        path, ("Si",), 5.0, Baseline(e0s_eV={"Si": -3.0}), tuple(given), lambda *done, **_: told.append(done)
    )
    candidates, dft = list(data.labelled("candidate")), list(data.labelled("dft"))
    assert [atoms.info["row"] for atoms in candidates] == [1, 2]  # row 0 is trained on with its DFT label
    assert candidates[0].get_potential_energy() == -6.0 + 0.002
    assert [atoms.get_potential_energy() for atoms in dft] == [-5.0]
    assert len(list(data.structures())) == len(list(data.structures())) == 20  # a second time too
    assert (told[0][:2], told[-1][:2], len(told)) == (
        (2, 21),
        (21, 21),
        20,
    )  # of the rows; what takes no part is passed


def added(folder: Path, structures: list[Atoms], selected: list[str], most: int = 4) -> tuple[list[dict], dict]:
    """Rows of the selection and metrics of the stub, which does everything but look at the student."""
    metrics = stub(
        inputs(folder, structures, selected), folder, PARAMS.model_copy(update={"structures": most}), Machine()
    )
    table = pq.read_table(folder / "selection.parquet")
    assert table.schema == SELECTION
    return table.to_pylist(), metrics


def test_the_selection_grows_and_keeps_what_it_had(tmp_path: Path) -> None:
    structures = pool()
    before = ids(structures)[:3]
    rows, metrics = added(tmp_path, structures, before)
    assert [row["id"] for row in rows[:3]] == before
    assert {(row["how"], row["weight"]) for row in rows[:3]} == {("bulk", 0.5)}
    assert [row["order"] for row in rows] == list(range(7))
    assert {(row["how"], row["weight"]) for row in rows[3:]} == {("error", 1.0)}
    assert len({row["id"] for row in rows}) == 7
    assert (metrics["candidates"], metrics["added"], metrics["selected"]) == (9, 4, 7)
    assert metrics["how"] == {"bulk": 3, "error": 4}
    rows, metrics = added(tmp_path, structures, ids(structures))
    assert len(rows) == 12
    assert (metrics["candidates"], metrics["added"], metrics["added_by"]) == (0, 0, {})
    assert metrics["candidate_force_mae_meV_per_A"] is None
    with pytest.raises(BadInput, match="no such id, row 0"):
        added(tmp_path, pool(), ["no such id"])


def test_neither_other_sides_nor_what_dft_labelled_are_candidates(tmp_path: Path) -> None:
    structures = pool()
    rows, metrics = added(tmp_path, structures, [], most=1000)
    assert {row["id"] for row in rows} == set(ids(structures))
    assert metrics["added"] == metrics["candidates"] == 12
    twin = structures[0].copy()
    twin.info |= {"origin": "dft"}
    twin.calc = SinglePointCalculator(twin, energy=-6.0, forces=np.zeros((2, 3)))
    rows, metrics = added(tmp_path, [*structures, twin], [], most=1000)
    assert metrics["candidates"] == 11
    assert twin.info["id"] not in {row["id"] for row in rows}
    # what pacemaker could not take is no candidate
    structures = pool()
    lonely = Atoms("Si2", positions=[[0, 0, 0], [9, 0, 0]], cell=[30, 30, 30], pbc=True)
    high = bulk("Si", "diamond", a=5.43)
    for row, atoms in enumerate((lonely, high, *pool(1, "Ge")), 100):
        energy = 9999.0 if atoms is high else -6.0
        atoms.info = structures[0].info | {"id": structure_id(atoms), "row": row}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((2, 3)))
        structures.append(atoms)
    _, metrics = added(tmp_path, structures, [])
    assert metrics["candidates"] == 12


def test_figures_weigh_forces_by_atoms() -> None:
    small, large = spot("small", force=10, gamma=3), replace(spot("large", force=40, energy=6), atoms=8)
    found = figures([small, large], [(large, "error")], PARAMS)
    assert found["candidate_force_mae_meV_per_A"] == pytest.approx((2 * 10 + 8 * 40) / 10)
    assert found["candidate_energy_mae_meV_per_atom"] == pytest.approx(3.0)
    assert (found["candidate_share_above_1"], found["candidate_gamma_max"]) == (0.5, 3.0)
    assert found["added_force_mae_meV_per_A"] == pytest.approx(40)
    assert [one["gamma"] for one in found["worst"]] == [0.0, 3.0]


def test_weights_are_anew_what_each_stands_for(tmp_path: Path) -> None:
    """Two groups, of three and of nine: each chosen one stands for its own, the other sides count for nothing."""
    structures = pool()
    train = ids(structures)
    data = DataSet(
        inputs(tmp_path, structures, train[:1]).one("dataset"),
        ("Si",),
        5.0,
        Baseline(e0s_eV={"Si": -3.0}),
        (train[0],),
    )
    assert data.rows == len(structures)
    near = np.array([[0.0], [1.0]])[[int(one.id in train[:3]) for one in data.usable]]
    features = near + 1e-3 * np.arange(len(data.usable))[:, None]
    weights = representing(data, features, [train[0], train[5], "gone"])
    assert list(weights) == [train[0], train[5]]
    assert weights[train[0]] == pytest.approx(2 * 3 / 12)  # of the training side alone, mean 1
    assert weights[train[5]] == pytest.approx(2 * 9 / 12)
