"""Our frames as pacemaker itself reads them, and the weights that it then fits with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import Inputs, Machine, Resources
from containers.structures.table import atoms_from_table, labels_table, structure_id, structures_table, write_table
from containers.tensorpot.dataset.history import DATASET
from containers.tensorpot.frames import frames as frame_sets
from containers.tensorpot.frames import strain
from containers.tensorpot.frames.frame_file import Labelled, fit_ready, frame, read_frame, write_frame
from containers.tensorpot.pacemaker.input import TRAIN_FILE, VALIDATION_FILE, Fit, Loss, PacemakerInput, Potential
from containers.tensorpot.pacemaker.program import child_environment, find_program
from containers.tensorpot.student.baseline import Baseline

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


KAPPA = 0.2
SIDES = ["train"] * 8 + ["validation"] * 4 + ["test"] * 2
PARAMS = frame_sets.Params(
    elements=("Si",), cutoff=CUTOFF, weight_dft=4.0, weights={"hot": 0.25}, energy_weights=False, loss_stress=0.4
)


def labelled(atoms: Atoms) -> Atoms:
    """The structure with energy, forces and stress of a pair potential."""
    made = atoms.copy()
    made.calc = LennardJones(sigma=2.1, epsilon=0.5, rc=CUTOFF, smooth=True)
    results = {"energy": made.get_potential_energy(), "forces": made.get_forces(), "stress": made.get_stress()}
    made.calc = SinglePointCalculator(made, **results)
    return made


def cells() -> list[Atoms]:
    """Silicon cells of two and of eight atoms, every third of the group `hot`."""
    made = []
    for number in range(len(SIDES)):
        atoms = bulk("Si", cubic=number % 2 == 0)
        atoms.rattle(0.1, seed=number)
        atoms.info = {"id": structure_id(atoms), "source": "a.xyz", "row": number, "family": f"f{number}"}
        atoms.info["group"] = "hot" if number % 3 == 1 else "cold"
        made.append(labelled(atoms))
    return made


@pytest.fixture
def frames_folder(tmp_path: Path) -> Path:
    """The outputs of the step for teacher's and DFT structures of two groups, weights by selection, and strains."""
    columns = {"origin": ["dft" if k % 4 == 1 else "teacher" for k in range(len(SIDES))], "side": SIDES}
    columns["origin"][-2:] = ["teacher", "teacher"]
    table = labels_table(cells())
    for name, values in {**columns, "version": [1] * len(SIDES)}.items():
        table = table.append_column(name, pa.array(values))
    write_table(tmp_path / "dataset.parquet", table.cast(DATASET))
    chosen = [row["id"] for row in table.to_pylist() if (row["side"], row["origin"]) == ("train", "teacher")]
    weights = [1.0 + 0.5 * k for k in range(len(chosen))]
    pq.write_table(pa.table({"id": chosen, "weight": weights}), tmp_path / "selection.parquet")
    Baseline(e0s_eV={"Si": -0.5}).write(tmp_path / "baseline.json")
    inputs = Inputs({path.stem: (path,) for path in tmp_path.iterdir()})
    (tmp_path / "outputs").mkdir()
    strain.run(inputs, tmp_path / "outputs", strain.Params(), Machine())
    structures = atoms_from_table(pq.read_table(tmp_path / "outputs" / "structures.parquet"))
    assert structures_table(structures).num_rows == strain.strained(len(chosen))
    write_table(tmp_path / "strains.parquet", labels_table([labelled(atoms) for atoms in structures]))
    more = Inputs({**inputs.files, "strains": (tmp_path / "strains.parquet",)})
    frame_sets.run(more, tmp_path / "outputs", PARAMS, Machine())
    return tmp_path / "outputs"


def fit(frames: Path, folder: Path) -> Path:
    """A folder in which pacemaker has fitted for one iteration."""
    folder.mkdir()
    for name in (TRAIN_FILE, VALIDATION_FILE):
        (folder / name).symlink_to(frames / name)
    potential = Potential(elements=("Si",), cutoff=CUTOFF, order=2, functions_per_element=8)
    asked = PacemakerInput(
        potential=potential,
        fit=Fit(loss=Loss(kappa=KAPPA), maxiter=1, display_step=1, core=False),
        batch_size=10,
    )
    (folder / "input.yaml").write_text(asked.text())
    command = [str(find_program()), "--no-predict", "input.yaml"]
    subprocess.run(command, cwd=folder, env=child_environment(Resources()), check=True, capture_output=True)
    return folder


def test_pacemaker_fits_with_our_weights_normalised_on_both_sides(frames_folder: Path, tmp_path: Path) -> None:
    fitted = fit(frames_folder, tmp_path / "fit")
    recorded = {TRAIN_FILE: ("fitting_data_info", "metrics", 9), VALIDATION_FILE: ("test_data_info", "test_metrics", 3)}
    for name, (info, metrics, distinct) in recorded.items():
        ours = read_frame(frames_folder / name)
        theirs = pd.read_pickle(fitted / f"{info}.pckl.gzip", compression="gzip")
        assert theirs["name"].tolist() == ours["name"].tolist()
        w_energy, w_forces = ours["w_energy"].to_numpy(), np.hstack(ours["w_forces"])
        assert len(set(w_energy)) == distinct
        np.testing.assert_allclose(theirs["w_energy"], w_energy / w_energy.sum(), rtol=1e-13)
        np.testing.assert_allclose(np.hstack(theirs["w_forces"]), w_forces / w_forces.sum(), rtol=1e-13)
        first = pd.read_csv(fitted / f"{metrics}.txt", sep=r"\s+").iloc[
            0
        ]  # all coefficients are zero: so is the student
        atoms = ours["ase_atoms"].map(len)
        energies = np.average((ours["energy_corrected"] / atoms) ** 2, weights=w_energy)
        forces = np.average(np.sum(np.vstack(ours["forces"]) ** 2, axis=1), weights=w_forces)
        assert first["e_loss_contrib"] == pytest.approx((1 - KAPPA) * energies, rel=1e-9)
        assert first["f_loss_contrib"] == pytest.approx(KAPPA * forces, rel=1e-9)
