from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import BadInput, Inputs
from containers.tensorpot.fit.training_data import LOOKED_AT, Frames, counted, drawn, neighbours_of_an_atom
from containers.tensorpot.frames.frame_file import Labelled, frame, read_frame, write_frame


def rows(count: int) -> pd.DataFrame:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]], cell=[9, 9, 9], pbc=True)
    forces = np.ones((2, 3))
    return frame([Labelled(f"n{n}", atoms, n, n / 10, n * forces, None, weight=1 + n % 3) for n in range(count)])


def test_a_row_drawn_twice_counts_twice() -> None:
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


def test_the_seed_decides_what_is_drawn_and_the_frame_stays() -> None:
    whole = rows(30)
    weights = whole["w_energy"].copy()
    assert list(drawn(whole, 1)["name"]) == list(drawn(whole, 1)["name"])
    assert list(drawn(whole, 1)["name"]) != list(drawn(whole, 2)["name"])
    assert list(whole["w_energy"]) == list(weights)


@pytest.mark.parametrize("label", [{"forces": np.full((2, 3), 1e160)}, {"energy_corrected": 1e200}])
@pytest.mark.parametrize("side", ["train", "validation"])
def test_labels_of_which_no_loss_can_be_made_are_refused_by_name(side: str, label: Any, tmp_path: Path) -> None:
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
