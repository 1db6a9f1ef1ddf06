"""Projections on disk, with a projector that needs no program."""

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
from containers.tensorpot.active_set.projection_files import Projected, Work, projected, scratch


class Projector:
    """Two functions an element: x and y of the atom. A structure at x = 666 kills a process that is not the test's."""

    functions = {"Si": 2, "Ge": 2}

    def __init__(self) -> None:
        self.made_by = os.getpid()

    def project(self, structures: list[Atoms]) -> tuple[dict[str, Floats], dict[str, Indices]]:
        """As the real one."""
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
    """Projected in pieces."""
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
        assert made.features is not None
        for atoms, row in zip(pool, made.features, strict=True):
            for columns, number in ((slice(0, 2), 32), (slice(2, 4), 14)):
                wanted = atoms.positions[atoms.numbers == number][:, :2].sum(axis=0) / len(atoms)
                np.testing.assert_allclose(row[columns], wanted, atol=1e-14)
    np.testing.assert_array_equal(alone.elements["Si"].together()[0], shared.elements["Si"].together()[0])


def test_structures_do_not_pile_up_and_a_killed_process_is_told(tmp_path: Path) -> None:
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
