from __future__ import annotations

import os
from pathlib import Path

from containers.tensorpot.fit.history import MetricsFile
from containers.tensorpot.fit.snapshots import BEST, LATEST, Copies, kept

TITLE = "ladder_step cycle_step iter_num loss e_loss_contrib f_loss_contrib reg_loss rmse_epa rmse_f_comp mae_f_comp\n"


class Pacemaker:
    """Writes what pacemaker writes, in its order, at times that are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics = folder / "metrics.txt"
        self.metrics.write_text(TITLE)

    def row(self, iteration: int, at: int, step: int = 0, cycle: int = 0) -> None:
        with self.metrics.open("a") as file:
            file.write(f"{step} {cycle} {iteration} 1 .5 .5 0 .1 .2 .1\n")
        os.utime(self.metrics, ns=(at, at))

    def potential(self, text: str, at: int, cycle: int = 0) -> None:
        path = self.folder / f"interim_potential_{cycle}.yaml"
        path.write_text(text)
        os.utime(path, ns=(at, at))


def copies(folder: Path, before: int = 0) -> Copies:
    return Copies(folder, MetricsFile(folder / "metrics.txt"), before)


def texts(folder: Path) -> dict[int, str]:
    return {iteration: path.read_text() for iteration, path in kept(folder).items()}


def test_a_potential_younger_than_its_row_is_of_that_iteration(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    program.row(0, 1)
    program.row(1, 2)
    program.potential("one", 3)
    copies(tmp_path).take(0.0)
    assert texts(tmp_path) == {1: "one"}


def test_an_older_one_is_of_the_iteration_before(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    for iteration in range(3):
        program.row(iteration, 2 * iteration)
    program.potential("one", 3)
    copies(tmp_path, before=40).take(0.0)
    assert texts(tmp_path) == {41: "one"}


def test_at_the_beginning_of_a_step_the_potential_is_still_that_of_the_last(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    program.row(0, 1)
    program.row(1, 2)
    program.potential("one", 3)
    program.row(0, 4, step=1)
    copies(tmp_path).take(0.0)
    assert texts(tmp_path) == {1: "one"}


def test_nothing_is_copied_before_the_first_iteration(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    copies(tmp_path).take(0.0)
    program.row(0, 1)
    program.potential("zero", 0)
    copies(tmp_path).take(0.0)
    assert texts(tmp_path) == {}


def test_each_cycle_has_a_file_of_its_own(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    program.row(1, 1)
    program.potential("old", 2)
    program.row(1, 3, cycle=1)
    program.potential("new", 4, cycle=1)
    copies(tmp_path).take(0.0)
    assert texts(tmp_path) == {2: "new"}


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    program = Pacemaker(tmp_path)
    keeper = copies(tmp_path)
    errors: dict[int, float] = {}
    for iteration in range(1, 31):
        program.row(iteration, 2 * iteration)
        program.potential(str(iteration), 2 * iteration + 1)
        keeper.take(0.0)
        if iteration % 5 == 0:
            errors[iteration] = abs(iteration - 12)
        keeper.forget(errors)
    assert texts(tmp_path) == {n: str(n) for n in (30, 29, 28, 15, 10)}
    assert len(texts(tmp_path)) == LATEST + BEST


def test_a_link_is_no_copy_of_ours(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "kept_000009.yaml").symlink_to(tmp_path / "secret")
    assert kept(tmp_path) == {}
