"""MaxVol by swaps and in passes over files, on random rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from containers.arrays import Floats
from containers.tensorpot.active_set.active_rows import inverse
from containers.tensorpot.active_set.maxvol import Active, active_set, grades, maxvol_from
from containers.tensorpot.active_set.projection_files import Rows

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
    """Logarithm of the volume."""
    return float(np.linalg.slogdet(values)[1])


@pytest.mark.parametrize("condition", [1.0, 1e6])
def test_swaps_enlarge_the_volume_until_no_row_extrapolates(condition: float) -> None:
    values = rows(condition)
    start = np.arange(FUNCTIONS)
    picked = maxvol_from(values, start, 1.01)
    assert log_det(values[picked]) > log_det(values[start]) + 1
    assert np.abs(values @ np.linalg.inv(values[picked])).max() <= 1.01 + 1e-6
    assert len(set(picked.tolist())) == FUNCTIONS


def test_many_swaps_stay_exact() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([1e-4 * rng.normal(size=(60, 60)) + 1e-6 * np.eye(60), rng.normal(size=(3000, 60))])
    picked = maxvol_from(values, np.arange(60), 1.0001)
    assert np.abs(values @ np.linalg.inv(values[picked])).max() <= 1.0001 + 1e-9
    values = rows()[:, :5] @ np.random.default_rng(1).normal(size=(5, FUNCTIONS))
    picked = maxvol_from(values, np.arange(5), 1.01)
    assert np.linalg.matrix_rank(values[picked]) == 5
    assert np.abs(values @ np.linalg.pinv(values[picked])).max() <= 1.01 + 1e-6


def test_what_comes_out_does_not_depend_on_the_pieces_and_a_start_that_needs_nothing_is_kept(tmp_path: Path) -> None:
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
