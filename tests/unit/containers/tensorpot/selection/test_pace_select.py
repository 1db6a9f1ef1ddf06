"""The choice of training structures: what needs no program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine, Resources
from containers.structures.table import structure_id, write_table
from containers.tensorpot.active_set.active_rows import OUTSIDE, greedy_order, inverse, span
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection import pace_select
from containers.tensorpot.selection.combined import choose
from containers.tensorpot.selection.d_optimal import FirstPass
from containers.tensorpot.selection.grades import Grades, summary
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import pair_terms
from tests.unit.containers.tensorpot.cells import data_set

POTENTIAL = Potential(elements=("Si",), cutoff=5.0, functions_per_element=20)
SIDES = ("train", "train", "train", "train", "validation", "test")


def pool(count: int = 40, symbol: str = "Si") -> list[Atoms]:
    """Different two-atom cells, energy -1 eV an atom; two thirds are on the training side."""
    made = []
    for seed in range(count):
        atoms = bulk(symbol, "diamond", a=5.43)
        atoms.rattle(0.1, seed=seed)
        key = structure_id(atoms)
        atoms.info = {"id": key, "source": "pool.xyz", "row": seed, "group": "", "family": key}
        atoms.info |= {"origin": "teacher", "side": SIDES[seed % len(SIDES)]}
        atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.zeros((2, 3)))
        made.append(atoms)
    return made


def as_dft(atoms: Atoms, energy: float = -2.0) -> Atoms:
    """The same structure as DFT labelled it."""
    copy = atoms.copy()
    copy.info |= {"origin": "dft"}
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=np.zeros((2, 3)))
    return copy


def write_given(path: Path, ids: list[str]) -> Path:
    """A selection of an earlier run, its rows not in their order."""
    order = list(range(len(ids)))
    columns: dict[str, list[Any]] = {"id": ids[::-1], "order": order[::-1], "how": ["random"] * len(ids)}
    columns["weight"] = [1.0] * len(ids)
    write_table(path, pa.Table.from_pydict(columns, schema=pace_select.SELECTION))
    return path


def files(
    folder: Path, structures: list[Atoms], given: list[str] | None = None, baseline: Baseline | None = None
) -> Inputs:
    (baseline or Baseline(e0s_eV={"Si": 0.0, "Ge": 0.0})).write(folder / "baseline.json")
    rows = [(atoms, atoms.info["origin"], atoms.info["side"]) for atoms in structures]
    write_table(folder / "dataset.parquet", data_set(rows))
    paths = {"dataset": folder / "dataset.parquet", "baseline": folder / "baseline.json"}
    if given is not None:
        paths["given"] = write_given(folder / "given.parquet", given)
    return Inputs({name: (path,) for name, path in paths.items()})


def params(**more: object) -> pace_select.Params:
    """Parameters with a small basis that need no projections."""
    budget = {} if "fraction" in more else {"max_structures": 300}
    return pace_select.Params.model_validate(
        {"potential": POTENTIAL, "method": "random", "grades": False} | budget | more
    )


def selection(
    folder: Path, structures: list[Atoms], chosen: pace_select.Params, **more: Any
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Ids, reasons and metrics of a run on these structures."""
    metrics = pace_select.run(files(folder, structures, **more), folder, chosen, Machine())
    table = pq.read_table(folder / "selection.parquet")
    assert table.schema == pace_select.SELECTION
    assert table.column("order").to_pylist() == list(range(table.num_rows))
    assert table.column("weight").to_pylist() == [1.0] * table.num_rows
    return table.column("id").to_pylist(), table.column("how").to_pylist(), metrics


def training(structures: list[Atoms]) -> list[str]:
    return [atoms.info["id"] for atoms in structures if atoms.info["side"] == "train"]


def test_only_the_training_side_takes_part(tmp_path: Path) -> None:
    structures = pool()
    ids, how, metrics = selection(tmp_path, structures, params(method="all"))
    assert set(how) == {"all"}
    assert set(ids) == set(training(structures))
    assert metrics["candidates"] == metrics["selected"] == metrics["how"]["all"] == len(ids) < len(structures)


def test_random_sets_are_by_hash_nested_and_within_the_budget(
    tmp_path: Path,
) -> None:
    wanted = params(max_structures=5)
    first = selection(tmp_path, pool(), wanted)[:2]
    assert first == selection(tmp_path, pool()[::-1], wanted)[:2]
    assert len(first[0]) == 5
    assert first != selection(tmp_path, pool(), wanted.model_copy(update={"seed": 1}))[:2]
    few, _, _ = selection(tmp_path, pool(), params(max_structures=5))
    more, _, _ = selection(tmp_path, pool(), params(max_structures=9))
    assert more[:5] == few
    structures = pool()
    ids, _, _ = selection(tmp_path, structures, params(fraction=0.25))
    assert len(ids) == round(0.25 * len(training(structures)))
    for wrong in ({"max_structures": None}, {"max_structures": 3, "fraction": 0.5}):
        with pytest.raises(ValidationError, match="either max_structures or fraction"):
            params(**wrong)


def test_every_element_is_drawn_where_the_budget_allows(tmp_path: Path) -> None:
    both = POTENTIAL.model_copy(update={"elements": ("Ge", "Si")})
    structures = [*pool(), *pool(1, "Ge")]
    few, _, _ = selection(tmp_path, structures, params(max_structures=3, potential=both))
    assert structures[-1].info["id"] in few
    assert len(few) == 3
    with pytest.raises(BadInput, match=r"room for 1 new structures, but 2 are needed"):
        selection(tmp_path, structures, params(max_structures=1, potential=both))


def test_what_was_selected_stays_first_and_counts_in_the_budget(tmp_path: Path) -> None:
    structures = pool()
    before = training(structures)[3:7]
    ids, how, metrics = selection(tmp_path, structures, params(max_structures=6), given=before)
    assert ids[:4] == before
    assert how == ["given"] * 4 + ["random"] * 2
    assert len(set(ids)) == 6
    assert metrics["how"] == {"given": 4, "random": 2}
    fewer, _, _ = selection(tmp_path, structures, params(max_structures=2), given=before)
    assert fewer == before


def test_a_selection_of_another_data_set_is_refused(tmp_path: Path) -> None:
    structures = pool()
    stranger = next(atoms.info["id"] for atoms in structures if atoms.info["side"] == "test")
    given = [training(structures)[0], stranger]
    with pytest.raises(BadInput, match=f"{stranger}, row 1, which is not on the training side"):
        selection(tmp_path, structures, params(), given=given)
    write_table(tmp_path / "x.parquet", pa.table({"name": ["a"]}))
    inputs = {**files(tmp_path, structures).files, "given": (tmp_path / "x.parquet",)}
    with pytest.raises(BadInput, match=r"x\.parquet is no selection: it has no column id"):
        pace_select.run(Inputs(inputs), tmp_path, params(), Machine())


def test_dft_structures_are_no_candidates_and_take_the_place_of_the_teachers(tmp_path: Path) -> None:
    structures = pool()
    both = next(atoms for atoms in structures if atoms.info["side"] == "train")
    ids, _, metrics = selection(tmp_path, [*structures, as_dft(both)], params(method="all"))
    assert both.info["id"] not in ids
    assert len(ids) == len(training(structures)) - 1
    assert metrics["dft"] == 1
    _, _, metrics = selection(
        tmp_path, [*structures, as_dft(both)], params(method="all"), given=training(structures)[:3]
    )
    assert (metrics["how"]["given"], metrics["given_unusable"]) == (2, 1)


def test_structures_pacemaker_cannot_use_are_no_candidates(tmp_path: Path) -> None:
    structures = pool()
    hot = structures[0]
    hot.calc.results["energy"] = 2000.0
    ids, _, _ = selection(tmp_path, structures, params(method="all"))
    assert hot.info["id"] not in ids
    ids, _, _ = selection(tmp_path, structures, params(method="all"), baseline=Baseline(e0s_eV={"Si": 900.0}))
    assert ids == [hot.info["id"]]
    # pair terms are taken off before the energy is judged
    structures = pool()
    close = structures[0]
    close.positions[1] = close.positions[0] + [0.35, 0, 0]
    close.info["id"] = structure_id(close)
    pairs = {"Si-Si": PairTerm(form="zbl", inner_A=1.0, outer_A=1.5)}
    repulsion, _, _ = pair_terms(close, {"Si-Si": pairs["Si-Si"].model_dump()})
    assert repulsion > 600  # eV: beyond pacemaker's 250 an atom
    close.calc = SinglePointCalculator(close, energy=repulsion, forces=np.zeros((2, 3)))
    everything = params(method="all")
    assert close.info["id"] not in selection(tmp_path, structures, everything)[0]
    less_zbl = selection(tmp_path, structures, everything, baseline=Baseline(e0s_eV={"Si": 0.0}, pairs=pairs))
    assert close.info["id"] in less_zbl[0]


def test_nothing_to_train_on_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"40 labelled structures, of which 28 are on the training side .* the cutoff"):
        selection(tmp_path, pool(), params(method="all", potential=POTENTIAL.model_copy(update={"cutoff": 1.0})))
    with pytest.raises(BadInput, match="no structure is left"):
        selection(tmp_path, pool(symbol="Ge"), params(method="all"))


def test_the_stub_writes_a_valid_selection_that_keeps_what_was_given(tmp_path: Path) -> None:
    structures = pool()
    before = training(structures)[:2]
    inputs = files(tmp_path, structures, before)
    metrics = pace_select.stub(inputs, tmp_path, params(method="combined", max_structures=7), Machine())
    table = pq.read_table(tmp_path / "selection.parquet")
    assert table.schema == pace_select.SELECTION
    assert table["id"].to_pylist()[:2] == before
    assert metrics["selected"] == table.num_rows == 7


def test_too_many_structures_for_the_memory_are_refused_before_the_work_unless_none_of_it_is_kept() -> None:
    limit, functions = Resources(memory_bytes=10**9), {"Ge": 250, "Si": 250}
    with pytest.raises(BadInput, match="compares 100,000 structures by 500 functions"):
        pace_select._sizes(params(method="combined"), limit, 100_000, functions)
    held = pace_select._sizes(params(method="combined"), limit, 10_000, functions)
    assert held == pace_select._sizes(params(method="d_optimal"), limit, 100_000, functions)  # room enough for both


def test_scarce_elements_are_wanted_before_the_bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    from containers.tensorpot.selection import combined as module

    rare = np.array([False, False, True, True, False, False])
    first = FirstPass([4, 2, 1], rare, {})
    monkeypatch.setattr(module, "first_pass", lambda *_, **__: first)
    monkeypatch.setattr(module, "further_passes", lambda _, chosen, count: ([0, 5][:count], 1))
    search: Any = type("Search", (), {"free": np.ones(6, dtype=bool), "given": np.zeros(6, dtype=bool)})()
    elements = [{"Si"}] * 6
    chosen = choose(search, 5, False, elements)
    assert chosen.how == {4: "d_optimal", 2: "scarce", 1: "d_optimal", 3: "scarce", 0: "d_optimal"}
    assert list(chosen.how) == [4, 2, 1, 3, 0]
    assert list(choose(search, 2, False, elements).how) == [4, 2]
    elements[1] = {"Ge", "Si"}  # the least important one, and no other has germanium
    assert list(choose(search, 2, False, elements).how) == [4, 1]
    elements[0] = {"C"}
    assert list(choose(search, 5, False, elements).how)[:3] == [4, 2, 1]
    elements[2] = {"C"}
    with pytest.raises(BadInput, match=r"room for 1 new structures, but 2 are needed .*max_structures"):
        choose(search, 1, False, elements)


def test_grades_are_summed_up_with_a_histogram() -> None:
    found = Grades(np.array([0.2, 1.005, 3.0, 30.0, 9.0, 2e9]), np.array([0, 0, 1, 1, 2, 3]))
    told = summary(found, np.array([True, True, False, False]))
    assert (told["structures"], told["atoms"], told["max"]) == (2, 4, 30.0)
    assert (told["share_above_1"], told["share_above_25"], told["share_of_structures_above_1"]) == (0.5, 0.25, 0.5)
    assert sum(told["histogram"]["counts"]) == 4
    assert len(told["histogram"]["counts"]) + 1 == len(told["histogram"]["edges"])
    outside = summary(found, np.array([False, False, False, True]))
    assert outside["histogram"]["counts"][-1] == 1
    assert summary(found, np.zeros(4, dtype=bool)) is None


def test_span_counts_directions_and_active_rows_have_grade_one() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 6)) * 10.0 ** np.arange(6)
    copies = np.repeat(rows, 4, axis=0) * (1 + 1e-15)
    assert span(copies).inside.shape == (6, 3)
    assert span(rng.normal(size=(50, 6))).complete
    assert span(np.zeros((4, 6))).inside.shape == (6, 0)
    rng = np.random.default_rng(1)
    active = rng.normal(size=(3, 5)) * [1, 10, 1000, 1, 0.1]
    grade = inverse(active, 5)
    assert grade.shape == (5, 5)
    np.testing.assert_allclose(np.abs(active @ grade).max(axis=1), 1.0, atol=1e-4)
    assert np.abs(rng.normal(size=5) @ grade).max() > 1e-3 / OUTSIDE
    full = rng.normal(size=(5, 5))
    np.testing.assert_allclose(full @ inverse(full, 5), np.eye(5), atol=1e-9)
    assert np.abs(np.ones(5) @ inverse(np.zeros((0, 5)), 5)).max() == 1 / OUTSIDE


NONE = np.zeros(0, dtype=np.int64)


def test_copies_add_nothing_to_the_first_or_to_what_is_given() -> None:
    same = np.eye(4)[:3]  # three structures hold the same three rows, the active ones spread over them
    different = np.eye(4)[3:]
    order = greedy_order([same, same, different].__getitem__, 4, [np.array([0, 1]), np.array([2]), np.array([3])], NONE)
    assert order == [0, 2, 1]
    held, own = [np.eye(4)[:2], np.eye(4)[2:3]], [np.array([0, 1]), np.array([2])]
    assert greedy_order(held.__getitem__, 4, own, NONE) == [0, 1]
    assert greedy_order(held.__getitem__, 4, own, np.array([3])) == [0, 1]
    near = [0.9 * np.eye(4)[3:] + 0.1 * np.eye(4)[:1], np.eye(4)[2:3]]
    assert greedy_order(near.__getitem__, 4, [np.array([0]), np.array([2])], np.array([3, 0])) == [1, 0]
