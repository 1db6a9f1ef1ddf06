"""Our frames as pacemaker itself reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from containers.tensorpot.frames import Labelled, fit_ready, frame, read_frame, write_frame

pytestmark = pytest.mark.e2e
CUTOFF = 5.0


def structures() -> list[Atoms]:
    """Crystals, a molecule, a wire and a slab."""
    made = []
    for seed, pbc in enumerate([(1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 1)]):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.05, seed=seed)
        atoms.set_pbc(pbc)
        made.append(atoms)
    return made


def rows(weight: float = 1.0) -> list[Labelled]:
    """The structures as rows, energies from -1 to 249 eV/atom."""
    made = []
    for k, atoms in enumerate(structures()):
        ready = fit_ready(atoms, CUTOFF)
        assert isinstance(ready, Atoms)
        corrected = (-1.0 + 50 * k) * len(atoms)
        made.append(Labelled(f"{k:064x}", ready, corrected - 99, corrected, 0.1 * atoms.positions, None, weight))
    return made


def read_by_pacemaker(folder: Path, **options: Any) -> Any:
    """pacemaker's own data set of the files in a folder."""
    from pyace.preparedata import ACEDataset

    files = {"filename": str(folder / "train.pckl.gzip"), "test_filename": str(folder / "test.pckl.gzip")}
    return ACEDataset(files | options, cutoff=CUTOFF, elements=["Si"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A train and a test frame with weights of one."""
    write_frame(tmp_path / "train.pckl.gzip", frame(rows()))
    write_frame(tmp_path / "test.pckl.gzip", frame(rows()[:2]))
    return tmp_path


def test_pacemaker_keeps_every_row_and_our_reference(folder: Path) -> None:
    read = read_by_pacemaker(folder)
    assert read.reference_energy is None
    ours = read_frame(folder / "train.pckl.gzip")
    assert read.fitting_data["name"].tolist() == ours["name"].tolist()
    assert read.fitting_data["energy_corrected"].tolist() == ours["energy_corrected"].tolist()
    for theirs, forces in zip(read.fitting_data["tp_atoms"], ours["forces"], strict=True):
        assert np.array_equal(theirs["_forces"], forces)


def test_weights_of_one_are_pacemakers_uniform_weights(folder: Path) -> None:
    given, default = read_by_pacemaker(folder), read_by_pacemaker(folder, ignore_weights=True)
    for name in ("fitting_data", "test_data"):
        ours, theirs = getattr(given, name), getattr(default, name)
        np.testing.assert_allclose(ours["w_energy"].tolist(), theirs["w_energy"].tolist(), rtol=1e-14)
        np.testing.assert_allclose(np.hstack(ours["w_forces"]), np.hstack(theirs["w_forces"]), rtol=1e-14)


def test_a_dft_structure_weighs_that_many_times_more(folder: Path) -> None:
    write_frame(folder / "train.pckl.gzip", frame([*rows(10.0)[:1], *rows()[1:]]))
    weights = read_by_pacemaker(folder).fitting_data
    assert weights["w_energy"][0] / weights["w_energy"][1] == pytest.approx(10.0)
    assert weights["w_forces"][0][0] / weights["w_forces"][1][0] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Si", positions=[[1, 2, 3]]),
        Atoms("Si3", positions=[[0, 0, 0], [2.3, 0, 0], [20, 0, 0]]),
        Atoms("Si", cell=[CUTOFF + 0.5] * 3, pbc=True),
    ],
)
def test_pacemaker_does_drop_what_we_refuse(folder: Path, atoms: Atoms) -> None:
    assert isinstance(fit_ready(atoms, CUTOFF), str)
    lonely = Labelled("f" * 64, atoms, 0.0, 0.0, np.zeros((len(atoms), 3)), None)
    write_frame(folder / "train.pckl.gzip", frame([*rows(), lonely]))
    assert len(read_by_pacemaker(folder).fitting_data) == len(rows())


def test_an_energy_that_we_refuse_does_change_pacemakers_reference(folder: Path) -> None:
    hot = Labelled("f" * 64, bulk("Si"), 600.0, 600.0, np.zeros((2, 3)), None)
    write_frame(folder / "train.pckl.gzip", frame([*rows(), hot]))
    assert read_by_pacemaker(folder).reference_energy is not None
