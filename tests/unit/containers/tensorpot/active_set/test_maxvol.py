"""MaxVol by swaps and in passes over files, and projections on disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from containers import processes
from containers.arrays import Floats, Indices
from containers.contract import OutOfMemory
from containers.tensorpot.active_set.active_rows import inverse
from containers.tensorpot.active_set.maxvol import Active, active_set, grades, maxvol_from
from containers.tensorpot.active_set.projection_files import Projected, Rows, Work, projected, scratch

SIZE, FUNCTIONS = 600, 12


def rows(condition: float = 1e6, seed: int = 0) -> Floats:
    """Random rows whose columns differ by `condition` in size."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(SIZE, FUNCTIONS)) ** 3 * np.geomspace(1, condition, FUNCTIONS)


def on_disk(folder: Path, values: Floats, piece: int) -> Rows:
    """Two rows a structure, in files of `piece` rows."""
    folder.mkdir()
    files, owners = [], []
    for number, start in enumerate(range(0, len(values), piece)):
        files.append(folder / f"{number}.npy")
        np.save(files[-1], values[start : start + piece])
        owners.append(np.arange(start, min(start + piece, len(values))) // 2)
    return Rows(values.shape[1], tuple(files), tuple(owners), np.ones(-(-len(values) // 2), dtype=bool))


def log_det(values: Floats) -> float:
    return float(np.linalg.slogdet(values)[1])


@pytest.mark.parametrize("condition", [1.0, 1e6])
def test_swaps_enlarge_the_volume_until_no_row_extrapolates(condition: float) -> None:
    values = rows(condition)
    start = np.arange(FUNCTIONS)
    picked = maxvol_from(values, start, 1.01)
    assert log_det(values[picked]) > log_det(values[start]) + 1
    assert np.abs(values @ np.linalg.inv(values[picked])).max() <= 1.01 + 1e-6
    assert len(set(picked.tolist())) == FUNCTIONS


def test_many_swaps_stay_exact_and_rows_of_a_smaller_span_independent() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([1e-4 * rng.normal(size=(60, 60)) + 1e-6 * np.eye(60), rng.normal(size=(3000, 60))])
    picked = maxvol_from(values, np.arange(60), 1.0001)
    assert np.abs(values @ np.linalg.inv(values[picked])).max() <= 1.0001 + 1e-9
    values = rows()[:, :5] @ np.random.default_rng(1).normal(size=(5, FUNCTIONS))
    picked = maxvol_from(values, np.arange(5), 1.01)
    assert np.linalg.matrix_rank(values[picked]) == 5
    assert np.abs(values @ np.linalg.pinv(values[picked])).max() <= 1.01 + 1e-6


def test_pieces_change_nothing_and_a_start_that_needs_nothing_is_kept(tmp_path: Path) -> None:
    values = rows()
    start = Active(values[:FUNCTIONS], np.arange(FUNCTIONS) // 2, FUNCTIONS)
    whole = active_set(on_disk(tmp_path / "a", values, SIZE), 1.01, 0, start)
    parts = active_set(on_disk(tmp_path / "b", values, 7), 1.01, 0, start)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_array_equal(whole.owners, parts.owners)
    assert np.abs(values @ np.linalg.inv(whole.rows)).max() <= 1.01 + 1e-6
    assert whole.environments == SIZE
    for row, owner in zip(whole.rows, whole.owners, strict=True):
        assert (values[2 * owner : 2 * owner + 2] == row).all(axis=1).any()
    best = values[maxvol_from(values, np.arange(FUNCTIONS), 1.0)]
    start = Active(best, np.zeros(FUNCTIONS, dtype=np.int64), FUNCTIONS)
    again = active_set(on_disk(tmp_path / "c", values, 100), 1.01, 0, start)
    np.testing.assert_array_equal(again.rows, best)
    assert again.passes == 1


def test_rows_of_some_structures_alone_and_active_rows_have_grade_one(tmp_path: Path) -> None:
    values = rows()
    wanted = np.zeros(SIZE // 2, dtype=bool)
    wanted[[3, 250]] = True
    some = on_disk(tmp_path / "a", values, 100).of(wanted)
    found, owners = some.together()
    np.testing.assert_array_equal(found, values[[6, 7, 500, 501]])
    assert owners.tolist() == [3, 3, 250, 250]
    assert len(some) == 4
    grading = inverse(values[:FUNCTIONS], FUNCTIONS)
    found = list(grades(on_disk(tmp_path / "b", values, 99), grading))
    np.testing.assert_allclose(np.concatenate([part for part, _ in found]), np.abs(values @ grading).max(axis=1))
    np.testing.assert_array_equal(np.concatenate([owners for _, owners in found]), np.arange(SIZE) // 2)
    assert found[0][0][:FUNCTIONS] == pytest.approx(1.0)


# ---- projections on disk, with a projector that needs no program


class Projector:
    """Two functions an element: x and y of the atom. A structure at x = 666 kills a process that is not the test's."""

    functions = {"Si": 2, "Ge": 2}

    def __init__(self) -> None:
        self.made_by = os.getpid()

    def project(self, structures: list[Atoms]) -> tuple[dict[str, Floats], dict[str, Indices]]:
        rows: dict[str, list[Any]] = {name: [] for name in self.functions}
        owners: dict[str, list[int]] = {name: [] for name in self.functions}
        for place, atoms in enumerate(structures):
            if atoms.positions[0, 0] == 666:
                assert os.getpid() != self.made_by, "not forked"
                os.kill(os.getpid(), signal.SIGKILL)
            for symbol, position in zip(atoms.symbols, atoms.positions, strict=True):
                rows[symbol].append(position[:2])
                owners[symbol].append(place)
        return (
            {name: np.array(rows[name]).reshape(-1, 2) for name in rows},
            {name: np.array(owners[name], dtype=np.int64) for name in owners},
        )


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are forked although other tests of the session have left threads behind (see `processes_for`)."""
    monkeypatch.setattr(processes, "processes_for", lambda threads: threads)


def structures() -> list[Atoms]:
    """Molecules of 1 to 4 atoms, every third with germanium."""
    rng = np.random.default_rng(0)
    made = [Atoms("Si" * (1 + k % 4), positions=rng.normal(size=(1 + k % 4, 3))) for k in range(30)]
    for atoms in made[::3]:
        atoms.numbers[0] = 32
    return made


def make(folder: Path, atoms: Iterator[Atoms], processes: int, block: int = 5) -> Projected:
    folder.mkdir()
    return projected(atoms, Work(Projector(), folder, True), processes, block)  # type: ignore[arg-type]


def test_rows_owners_and_means_are_the_same_however_the_work_is_shared(tmp_path: Path) -> None:
    pool = structures()
    alone, shared = make(tmp_path / "a", iter(pool), 1), make(tmp_path / "b", iter(pool), 2, 7)
    for made in (alone, shared):
        rows, owners = made.elements["Ge"].together()
        assert owners.tolist() == list(range(0, 30, 3))
        np.testing.assert_array_equal(rows, [pool[k].positions[0, :2] for k in owners])
        assert list(made.elements) == ["Ge", "Si"]
        assert len(made.elements["Si"]) + 10 == sum(map(len, pool))
        for atoms, row in zip(pool, made.features, strict=True):
            for columns, number in ((slice(0, 2), 32), (slice(2, 4), 14)):
                wanted = atoms.positions[atoms.numbers == number][:, :2].sum(axis=0) / len(atoms)
                np.testing.assert_allclose(row[columns], wanted, atol=1e-14)
    np.testing.assert_array_equal(alone.elements["Si"].together()[0], shared.elements["Si"].together()[0])


def test_structures_do_not_pile_up_and_a_killed_process_is_reported(tmp_path: Path) -> None:
    taken: list[int] = []

    def counted() -> Iterator[Atoms]:
        for atoms in structures() * 10:
            taken.append(len(list((tmp_path / "a").iterdir())))
            yield atoms

    make(tmp_path / "a", counted(), 2)
    assert taken[-1] > 50  # files are written while structures still come
    fatal = Atoms("Si", positions=[[666.0, 0, 0]])
    with pytest.raises(OutOfMemory, match="was killed, most likely for want of memory"):
        make(tmp_path / "b", iter([*structures(), fatal, *structures()]), 2)


def test_scratch_is_gone_at_the_end_and_cleans_up_after_a_killed_attempt(tmp_path: Path) -> None:
    old = tmp_path / "work" / "projections" / "old.npy"
    old.parent.mkdir(parents=True)
    old.touch()
    with scratch(tmp_path / "outputs") as folder:
        assert not list(folder.iterdir())
        (folder / "new.npy").touch()
    assert not folder.exists()
