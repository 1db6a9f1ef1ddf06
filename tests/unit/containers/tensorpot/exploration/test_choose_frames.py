"""Frames that extrapolate most are chosen and near copies are not, on a potential with random coefficients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import BadInput, Inputs, Machine
from containers.structures.table import STRUCTURES, structure_id, structures_table, write_table
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.active_set.active_rows import OUTSIDE, active_rows, inverse
from containers.tensorpot.active_set.maxvol import maxvol_from
from containers.tensorpot.active_set.projection_files import Projected, Rows
from containers.tensorpot.exploration.choose_frames import (
    GradedFrames,
    Metrics,
    Params,
    choose_largest,
    run,
    stub,
    why_unphysical,
)
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.potential import load_student

CUTOFF = 4.0
PARAMS = Params(structures=10, elements=("Al", "Ni"), cutoff=CUTOFF)


def cell(seed: int, rattle_A: float, source: str = "run 1") -> Atoms:
    """Eight atoms of B2 NiAl, moved by chance."""
    atoms = bulk("NiAl", "cesiumchloride", a=2.9) * (2, 2, 1)
    atoms.rattle(rattle_A, seed=seed)
    return named(atoms, source, seed)


def named(atoms: Atoms, source: str, row: int) -> Atoms:
    """The structure with everything a row of a table has."""
    atoms.info = {"id": structure_id(atoms), "source": source, "row": row, "group": "NVT", "family": source}
    return atoms


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A potential with core repulsion, random coefficients, and both active sets of 40 cells moved by 0.05 Å."""
    from pyace.basisextension import construct_bbasisconfiguration

    folder = tmp_path_factory.mktemp("student")
    shape = Potential(elements=("Al", "Ni"), cutoff=CUTOFF, functions_per_element=10, b_basis="small")
    config = construct_bbasisconfiguration(shape.section())
    random = np.random.default_rng(0)
    for block in config.funcspecs_blocks:
        block.inner_cutoff_type, block.r_in, block.delta_in = "zbl", 1.9, 0.3
        functions = block.funcspecs
        for function in functions:
            function.coeffs = random.uniform(0.5, 1.5, 2).tolist()  # two densities
        block.funcspecs = functions
    config.save(str(folder / "potential.yaml"))
    rows = [Labelled(a.info["id"], a, 0.0, 0.0, np.zeros((8, 3)), None) for a in (cell(k, 0.05) for k in range(40))]
    write_frame(folder / "train.pckl.gzip", frame(rows))
    Baseline(e0s_eV={"Al": 0.0, "Ni": 0.0}).write(folder / "baseline.json")
    files = {"potential": folder / "potential.yaml", "baseline": folder / "baseline.json"}
    given = Inputs({"potential": (files["potential"],), "train": (folder / "train.pckl.gzip",)})
    for kind in ("linear", "full"):
        (folder / kind / "outputs").mkdir(parents=True)
        params = pace_activeset.Params.model_validate({"projections": kind})
        pace_activeset.run(given, folder / kind / "outputs", params, Machine())
        files[kind] = folder / kind / "outputs" / "potential.asi"
    return files


def chosen(
    folder: Path, student: dict[str, Path], frames: list[list[Atoms]], params: Params = PARAMS, asi: str = "linear"
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Metrics, record and rows of the step, run on one file for each list of frames."""
    outputs = folder / "outputs"
    outputs.mkdir(parents=True)
    paths = tuple(folder / f"{number}.parquet" for number in range(len(frames)))
    for path, structures in zip(paths, frames, strict=True):
        write_table(path, structures_table(structures))
    given = Inputs({"frames": paths, "potential": (student["potential"],), "asi": (student[asi],)})
    metrics = run(given, outputs, params, Machine())
    Metrics.model_validate(metrics)
    table = pq.read_table(outputs / "structures.parquet")
    assert table.schema == STRUCTURES
    assert sorted(path.name for path in outputs.iterdir()) == ["choice.json", "structures.parquet"]
    return metrics, json.loads((outputs / "choice.json").read_text()), table.to_pylist()


@pytest.mark.parametrize("kind", ["linear", "full"])
def test_the_grades_are_those_of_the_student_and_the_largest_is_first(
    tmp_path: Path, student: dict[str, Path], kind: str
) -> None:
    near, slab = cell(7, 0.15), cell(8, 0.15)
    near.positions[1] = near.positions[0] + [0.0, 0.0, 1.6]  # and 1.3 from its image: within the core
    slab.pbc = (True, True, False)
    frames = [cell(k, 0.04 * k) for k in range(6)] + [named(near, "run 1", 7), named(slab, "run 1", 8)]
    calculator = load_student(student["potential"], student[kind], student["baseline"])
    grades = {}
    for atoms in frames:
        calculator.calculate(atoms)
        grades[atoms.info["id"]] = float(calculator.results["gamma"].max())
    params = PARAMS.model_copy(update={"projections": kind, "closest": 0.3})
    metrics, record, _ = chosen(tmp_path, student, [frames], params, kind)
    assert metrics["gamma_max_before"] == pytest.approx(max(grades.values()), rel=1e-6)
    for one in record["chosen"]:
        assert one["gamma_before"] == pytest.approx(grades[one["id"]], rel=1e-6)
    assert record["chosen"][0]["id"] == max(grades, key=grades.__getitem__)
    assert metrics["extrapolating"] == sum(grade > 2 for grade in grades.values())
    assert 1 <= metrics["chosen"] < metrics["extrapolating"]
    assert metrics["gamma_max_left"] <= 2


def test_of_near_copies_one_is_chosen_and_nothing_below_the_limit(tmp_path: Path, student: dict[str, Path]) -> None:
    first, other = cell(1, 0.2), cell(2, 0.2, "run 2")
    copies = list[Atoms]()
    for seed in range(3):
        copy = first.copy()
        copy.rattle(0.001, seed=seed)
        copies.append(named(copy, "run 1", 10 + seed))
    inside = [cell(k, 0.03) for k in range(20, 25)]
    metrics, record, rows = chosen(tmp_path, student, [[first, *copies, *inside], [other]])
    assert metrics["by_source"] == {"run 1": 1, "run 2": 1}
    assert (metrics["frames"], metrics["extrapolating"], metrics["chosen"]) == (10, 5, 2)
    assert metrics["gamma_max_left"] < 2 < metrics["gamma_max_before"]
    assert [row["id"] for row in rows] == sorted(one["id"] for one in record["chosen"])
    assert other.info["id"] in {row["id"] for row in rows}


def test_the_same_frames_in_other_files_give_the_same_bytes(tmp_path: Path, student: dict[str, Path]) -> None:
    frames = [cell(k, 0.2) for k in range(6)]
    params = PARAMS.model_copy(update={"structures": 2, "gamma_select": 1.2})
    metrics, _, rows = chosen(tmp_path / "one", student, [frames], params)
    assert metrics["chosen"] == len(rows) == 2
    chosen(tmp_path / "two", student, [frames[3:], frames[2::-1]], params)
    for name in ("structures.parquet", "choice.json"):
        assert (tmp_path / "one/outputs" / name).read_bytes() == (tmp_path / "two/outputs" / name).read_bytes()


def test_chance_draws_the_number_wanted_by_hash_from_all_that_are_physical(
    tmp_path: Path, student: dict[str, Path]
) -> None:
    frames = [cell(k, 0.03) for k in range(12)]
    drawn = list[set[str]]()
    for number, (seed, given) in enumerate([(1, frames), (1, frames[::-1]), (2, frames)]):
        params = PARAMS.model_copy(update={"structures": 5, "method": "random", "seed": seed})
        _, _, rows = chosen(tmp_path / str(number), student, [given], params)
        drawn.append({row["id"] for row in rows})
    assert len(drawn[0]) == len(drawn[2]) == 5
    assert drawn[0] == drawn[1] != drawn[2]


def test_equal_and_unphysical_frames_are_dropped_with_their_reason(tmp_path: Path, student: dict[str, Path]) -> None:
    good, near, broken = cell(1, 0.2), cell(2, 0.2), cell(3, 0.2)
    near.positions[1] = near.positions[0] + [0.0, 0.0, 1.3]  # radii 1.21 and 1.24 Å
    broken.positions[2, 0] = np.nan
    frames = [[good, named(near, "run 1", 2), named(broken, "run 1", 3)], [named(good.copy(), "run 2", 0)]]
    metrics, record, rows = chosen(tmp_path, student, frames)
    assert (metrics["frames"], metrics["equal"], metrics["unphysical"], metrics["chosen"]) == (4, 1, 2, 1)
    assert metrics["unphysical_because"] == {"a pair too near": 1, "not finite": 1}
    reasons = {(one["source"], one["row"]): one["because"] for one in record["dropped"]}
    assert reasons == {("run 1", 2): "a pair too near", ("run 1", 3): "not finite", ("run 2", 0): "equal"}
    assert [(row["source"], row["row"]) for row in rows] == [("run 1", 1)]


def test_a_pair_across_the_cell_is_near_too() -> None:
    assert why_unphysical(Atoms("Ni", cell=[1.4, 9, 9], pbc=True), 0.6) == "a pair too near"  # 0.6 · 2.48 Å
    assert why_unphysical(Atoms("Ni", cell=[1.4, 9, 9]), 0.6) is None
    assert why_unphysical(Atoms("Ni2", [[0, 0, 0], [0, 0, 1.5]]), 0.6) is None
    assert why_unphysical(Atoms("Ni2", [[0, 0, 0], [0, 0, 0]]), 0.6) == "a pair too near"


@pytest.mark.parametrize("frames", [[], [[]], [[], [cell(1, 0.02)]]])
def test_nothing_to_choose_is_an_empty_table(
    tmp_path: Path, student: dict[str, Path], frames: list[list[Atoms]]
) -> None:
    metrics, _, rows = chosen(tmp_path, student, frames)
    assert (rows, metrics["chosen"], metrics["by_source"]) == ([], 0, {})
    assert metrics["frames"] == sum(map(len, frames))
    assert (metrics["gamma_max_left"] is None) == (metrics["frames"] == 0)


def test_files_of_another_potential_are_refused(tmp_path: Path, student: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match="20 functions of Al, and the potential has 10 with linear"):
        chosen(tmp_path / "full", student, [[cell(1, 0.1)]], asi="full")
    with pytest.raises(BadInput, match=r"run 9, row 4: the frame has Cu"):
        chosen(tmp_path / "copper", student, [[named(bulk("Cu"), "run 9", 4)]])
    with pytest.raises(BadInput, match="cutoff of 4 Å, and the step was given 3 Å"):
        chosen(tmp_path / "short", student, [], PARAMS.model_copy(update={"cutoff": 3.0}))


def test_the_stub_chooses_as_many(tmp_path: Path) -> None:
    write_table(tmp_path / "f.parquet", structures_table([cell(k, 0.1) for k in range(4)]))
    params = PARAMS.model_copy(update={"structures": 3})
    metrics = stub(Inputs({"frames": (tmp_path / "f.parquet",)}), tmp_path, params, Machine())
    Metrics.model_validate(metrics)
    assert pq.read_table(tmp_path / "structures.parquet").num_rows == metrics["chosen"] == 3
    assert metrics["gamma_max_left"] < params.gamma_select < metrics["gamma_max_before"]


@pytest.mark.parametrize("spanned", [12, 9])
def test_a_chosen_frame_no_longer_extrapolates(tmp_path: Path, spanned: int) -> None:
    """Columns differ by 1e4; a training set that lacks directions gives grades of 1e10 to what has them."""
    random = np.random.default_rng(3)
    scale = np.logspace(0, -4, 12)
    train = random.normal(size=(80, 12)) * scale * (np.arange(12) < spanned)
    student = inverse(train[active_rows(train, 1.01)], 12)
    rows = 3 * random.normal(size=(4, 20, 12)) * scale
    rows[3] = rows[0] * (1 + 1e-3 * random.normal(size=(20, 12)))
    np.save(tmp_path / "rows.npy", rows.reshape(80, 12))
    owners = np.repeat(np.arange(4), 20)
    projected = Projected({"X": Rows(12, (tmp_path / "rows.npy",), (owners,), np.ones(4, dtype=bool))}, None)
    frames = GradedFrames(projected, {"X": student})
    before = [frames.grade(place) for place in range(4)]
    assert before == pytest.approx([float(np.abs(one @ student).max()) for one in rows], rel=1e-9)
    assert min(before) > (2 if spanned == 12 else 1e-3 / OUTSIDE)
    frames.add(0)
    assert frames.grade(0) <= 1.0101
    assert frames.grade(3) < 1.2
    plain = np.concatenate([np.linalg.inv(student), rows[0]])  # the rows themselves, not in units of the active set
    enlarged = plain[maxvol_from(plain, np.arange(12), 1.01)]
    assert frames.grade(1) == pytest.approx(float(np.abs(rows[1] @ np.linalg.inv(enlarged)).max()), rel=1e-4)


def test_a_grade_that_rises_by_a_swap_is_seen_before_the_end() -> None:
    now = {0: 9.0, 1: 1.5, 2: 1.2}

    def add(place: int) -> None:
        now[place], now[2] = 1.0, 3.0 if place == 0 else 1.0

    assert choose_largest([9.0, 1.5, 1.2], now.__getitem__, add, PARAMS, Machine()) == [0, 2]
