"""The rows that a fit is given, and the memory that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import BadInput, Inputs
from containers.tensorpot.fit.training_data import (
    LOOKED_AT,
    PROGRAM_BYTES,
    Frames,
    auto_batch_size,
    batch_bytes_per_atom,
    counted,
    drawn,
    fixed_bytes,
    neighbours_of_an_atom,
)
from containers.tensorpot.frames.frame_file import Labelled, frame, read_frame, write_frame


def rows(count: int) -> pd.DataFrame:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]], cell=[9, 9, 9], pbc=True)
    forces = np.ones((2, 3))
    return frame([Labelled(f"n{n}", atoms, n, n / 10, n * forces, None, weight=1 + n % 3) for n in range(count)])


def test_a_row_drawn_twice_counts_twice_and_the_seed_decides() -> None:
    """The sums over the drawn rows, by weight, are those over the draws themselves."""
    whole = rows(50)
    chosen = drawn(whole, 7)
    draws = whole.iloc[np.random.default_rng(7).integers(50, size=50)]
    assert chosen["w_energy"].sum() == draws["w_energy"].sum()
    for name in ("energy", "energy_corrected"):
        assert np.isclose((chosen["w_energy"] * chosen[name]).sum(), (draws["w_energy"] * draws[name]).sum())
    assert sum(map(np.sum, chosen["w_forces"])) == sum(map(np.sum, draws["w_forces"]))
    assert set(chosen["name"]) == set(draws["name"])
    assert len(chosen) < 50
    weights = whole["w_energy"].copy()
    assert list(drawn(whole, 1)["name"]) == list(drawn(whole, 1)["name"])
    assert list(drawn(whole, 1)["name"]) != list(drawn(whole, 2)["name"])
    assert list(whole["w_energy"]) == list(weights)


@pytest.mark.parametrize("label", [{"forces": np.full((2, 3), 1e160)}, {"energy_corrected": 1e200}])
@pytest.mark.parametrize("side", ["train", "validation"])
def test_labels_that_no_loss_can_take_are_refused_by_name(side: str, label: Any, tmp_path: Path) -> None:
    inputs = files(tmp_path)
    broken = rows(4)
    for column, value in label.items():
        broken.at[2, column] = value
    write_frame(tmp_path / f"{side}.pckl.gzip", broken)
    with pytest.raises(BadInput, match=f"{side}: .* structure n2: "):
        counted(Frames(inputs), 5.0)


def files(folder: Path) -> Inputs:
    for side, count in (("train", 20), ("validation", 4)):
        write_frame(folder / f"{side}.pckl.gzip", rows(count))
    return Inputs({side: (folder / f"{side}.pckl.gzip",) for side in ("train", "validation")})


def test_pacemaker_is_given_the_rows_that_are_counted(tmp_path: Path) -> None:
    inputs = files(tmp_path)
    for bootstrap in (None, 3):
        frames, work = Frames(inputs, bootstrap), tmp_path / f"work-{bootstrap}"
        work.mkdir()
        frames.give(work)
        counts = counted(frames, 3.0)
        assert counts.sizes == {"train": len(read_frame(work / "train.pckl.gzip")), "validation": 4}
        assert counts.atoms == 2 * counts.sizes["train"]
        assert counts.neighbours == 1
        assert (counts.sizes["train"] == 20) is (bootstrap is None)


def test_neighbours_are_those_of_an_atom_on_average() -> None:
    copper, silicon = bulk("Cu"), bulk("Si", cubic=True)
    assert neighbours_of_an_atom([copper], 3.0) == 12
    assert neighbours_of_an_atom([silicon], 4.0) == 16
    assert neighbours_of_an_atom([copper, silicon], 3.0) == (12 + 8 * 4) / 9
    assert neighbours_of_an_atom([Atoms("Cu")], 3.0) == 0
    assert neighbours_of_an_atom([copper] * LOOKED_AT + [silicon] * LOOKED_AT, 3.0) == (12 + 8 * 4) / 9


# ---- the memory of a fit and its batch


MB = 2**20
MEASURED_MB = {
    (100, 28, 4096): 1814,
    (120, 28, 4792): 2001,
    (250, 28, 256): 1073,
    (250, 28, 1024): 1334,
    (250, 28, 4096): 2241,
    (250, 60, 2048): 2172,
    (600, 28, 1024): 2032,
    (600, 28, 4096): 4937,
}
"""Functions, neighbours, atoms of a batch -> peak of pacemaker."""


@pytest.mark.parametrize(
    ("structures", "atoms", "batch"),
    [(60, 3710, 24), (24, 80, 24), (3, 9000, 1), (1000, 2000, 100), (1, 1, 1), (0, 0, 1)],
)
def test_a_batch_is_bounded_by_atoms(structures: int, atoms: int, batch: int) -> None:
    assert auto_batch_size(structures, atoms) == batch


@pytest.mark.parametrize(("functions", "neighbours", "atoms"), MEASURED_MB)
def test_what_is_reckoned_was_enough_where_it_was_measured(functions: int, neighbours: int, atoms: int) -> None:
    reckoned = (PROGRAM_BYTES + atoms * batch_bytes_per_atom(functions, neighbours)) / MB
    assert MEASURED_MB[functions, neighbours, atoms] <= reckoned < 1.6 * MEASURED_MB[functions, neighbours, atoms]


def test_a_batch_is_smaller_where_memory_is_short_or_the_fit_takes_more_of_it() -> None:
    sizes = [auto_batch_size(300, 15000, 250, memory * MB) for memory in (600, 1200, 1400, 1700, 3000, 64000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-2] == sizes[-1] == auto_batch_size(300, 15000) == 30
    assert 1 < sizes[2] < 30
    assert auto_batch_size(300, 15000, 700, 1600 * MB) < auto_batch_size(300, 15000, 100, 1600 * MB)
    whole = auto_batch_size(300, 15000, 250, 2500 * MB)
    assert auto_batch_size(300, 15000, 250, 2500 * MB, fixed=PROGRAM_BYTES + 600 * MB) < whole
    assert fixed_bytes(2, 9000, "BFGS") - fixed_bytes(2, 9000, "L-BFGS-B") == 8 * 9000**2


@pytest.mark.parametrize(
    ("elements", "parameters", "peak_MB"),
    [(2, 2008, 1392), (3, 3072, 1919), (4, 4248, 2579), (5, 4240, 3051), (6, 4348, 3734), (7, 9352, 6047)],
)
def test_the_graph_of_many_elements_was_reckoned_as_measured(elements: int, parameters: int, peak_MB: float) -> None:
    """Fits with 250 functions an element and batches of a few hundred atoms (BFGS, one thread)."""
    assert peak_MB <= fixed_bytes(elements, parameters, "BFGS") / 1e6 < 1.35 * peak_MB
