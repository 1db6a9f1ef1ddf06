"""Frames: what pacemaker takes, and the way there and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from containers.contract import BadInput, StepError
from containers.structures.distances import nearest, shortest_per_pair
from containers.tensorpot.frames.frame_file import (
    Labelled,
    atoms_of_frame,
    energy_corrected,
    energy_problem,
    fit_ready,
    frame,
    padded,
    read_frame,
    write_frame,
)

CUTOFF = 5.0
REPOSITORY = Path(__file__).parents[5]
OPEN = [(False, False, False), (True, False, False), (True, True, False), (False, True, True), (True, False, True)]


def crystal(pbc: tuple[bool, ...] = (True, True, True)) -> Atoms:
    """A sheared, rattled silicon cell of 8 atoms."""
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 0.97, 0.2], [-0.3, 0, 1.02]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_pbc(pbc)
    return atoms


def distances(atoms: Atoms) -> np.ndarray:
    """Every neighbour distance within the cutoff, sorted."""
    return np.sort(neighbor_list("d", atoms, CUTOFF))


def labelled(atoms: Atoms, name: str = "ab12", **more: Any) -> Labelled:
    """A row with odd numbers in it."""
    rng = np.random.default_rng(len(atoms))
    forces, stress = rng.normal(size=(len(atoms), 3)), rng.normal(size=6)
    values: dict[str, Any] = {
        "energy": -1 / 3,
        "energy_corrected": 0.1 + 0.2,
        "forces": forces,
        "stress": stress,
    } | more
    return Labelled(name, atoms, **values)


@pytest.mark.parametrize("pbc", OPEN)
def test_padding_keeps_every_neighbour_and_adds_none(pbc: tuple[bool, ...]) -> None:
    atoms = crystal(pbc)
    closed = padded(atoms, CUTOFF)
    assert closed.pbc.all()
    assert np.array_equal(closed.positions, atoms.positions)
    assert np.array_equal(closed.cell.array[list(pbc)], atoms.cell.array[list(pbc)])
    np.testing.assert_allclose(distances(closed), distances(atoms), rtol=0, atol=1e-9)


def test_padding_ignores_the_vector_of_an_open_direction_and_leaves_a_periodic_structure() -> None:
    atoms = crystal((True, True, False))
    atoms.cell[2] = [0, 0, 1.0]  # shorter than the slab is thick
    np.testing.assert_allclose(distances(padded(atoms, CUTOFF)), distances(atoms), rtol=0, atol=1e-9)
    ready = fit_ready(crystal(), CUTOFF)
    assert isinstance(ready, Atoms)
    assert ready == crystal()


@pytest.mark.parametrize("pbc", [(True, True, True), *OPEN])
def test_a_left_handed_cell_is_turned_and_stays_the_same_lattice(pbc: tuple[bool, ...]) -> None:
    atoms = crystal(pbc)
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    atoms.set_pbc([pbc[1], pbc[0], pbc[2]])
    turned = padded(atoms, CUTOFF)
    assert np.linalg.det(atoms.cell.array) < 0 < np.linalg.det(turned.cell.array)
    assert np.array_equal(turned.positions, atoms.positions)
    np.testing.assert_allclose(distances(turned), distances(atoms), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pbc", [(True, True, True), *OPEN])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.1, 3.0])
def test_nearest_is_what_ase_finds(pbc: tuple[bool, ...], scale: float) -> None:
    atoms = crystal(pbc)
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    atoms.positions += [37.0, -80.0, 3.0]
    expected = np.full(len(atoms), np.inf)
    np.minimum.at(expected, *neighbor_list("id", atoms, CUTOFF))
    np.testing.assert_allclose(nearest(atoms, CUTOFF), expected, rtol=0, atol=1e-9)


def test_shortest_distance_of_every_pair() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    found = shortest_per_pair([salt, bulk("Na", "bcc", a=4.2)], CUTOFF)
    assert found == pytest.approx({"Cl-Cl": 5.64 / 2**0.5, "Cl-Na": 2.82, "Na-Na": 4.2 * 3**0.5 / 2})


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Si", positions=[[1, 2, 3]]),
        Atoms("Si", positions=[[1, 2, 3]], cell=[9, 9, 9], pbc=True),
        Atoms("Si", cell=[CUTOFF] * 3, pbc=True),
    ],
)
def test_a_lonely_atom_is_refused_with_the_reason(atoms: Atoms) -> None:
    assert "no neighbour within the cutoff of 5 Å" in str(fit_ready(atoms, CUTOFF))


def test_what_pacemaker_would_drop_or_change_is_refused() -> None:
    atoms = crystal((False,) * 3) + Atoms("Si", positions=[[50, 0, 0]])
    assert "atom 8 (from 0)" in str(fit_ready(atoms, CUTOFF))
    atoms = Atoms("Si2", positions=[[0, 0, 0], [4, 0, 1e-5]], cell=[4, 4, 4], pbc=True)
    assert "in one place" in str(fit_ready(atoms, CUTOFF))
    assert energy_problem(-20.0 * 4, 4) is None
    assert energy_problem(250.0 * 4, 4) is None
    assert "-20.1 eV/atom" in str(energy_problem(-20.1 * 4, 4))
    assert "251 eV/atom" in str(energy_problem(251.0 * 4, 4))
    assert energy_problem(float("nan"), 4) is not None
    assert energy_corrected(-20.0, Atoms("NaCl2"), {"Na": -1.5, "Cl": -3.0}) == -20.0 + 1.5 + 6.0
    with pytest.raises(BadInput, match="reference energy is given for Cl"):
        energy_corrected(-20.0, Atoms("NaCl2"), {"Na": -1.5})


ODD = [5e-324, -0.0, 1.7976931348623157e308, -2.2250738585072014e-308, 1 / 3, 1e22, -123456789012345680.0]


def odd_numbers(count: int) -> np.ndarray:
    """Numbers of every size, subnormal ones, the largest and a negative zero among them."""
    random = np.random.default_rng(count)
    numbers = random.normal(size=count) * 10.0 ** random.integers(-300, 300, size=count)
    numbers[: min(count, len(ODD))] = ODD[:count]
    return np.asarray(numbers)


ODD_STRUCTURES = {
    "left-handed": Atoms("SiC", odd_numbers(6).reshape(2, 3), cell=[[0, 5, 0], [1 / 7, 0, 0], [0, -0.0, 6]], pbc=True),
    "open in one direction": Atoms("H", odd_numbers(3)[None], cell=odd_numbers(9).reshape(3, 3), pbc=[1, 0, 1]),
    "open in two directions": Atoms("OgH", np.zeros((2, 3)), cell=[[4, 0, 0], [0, 0, 0], [0, 0, 0]], pbc=[1, 0, 0]),
    "without a cell": Atoms("H3", odd_numbers(9).reshape(3, 3)),
    "a cell of nothing": Atoms("H", [[-0.0, 0, -0.0]], cell=np.full((3, 3), -0.0)),
}


@pytest.mark.parametrize("name", ODD_STRUCTURES)
def test_the_way_through_the_file_is_bit_exact(tmp_path: Path, name: str) -> None:
    atoms = ODD_STRUCTURES[name]
    forces, stress = odd_numbers(3 * len(atoms)).reshape(-1, 3)[::-1], odd_numbers(6) if atoms.pbc.all() else None
    row = Labelled("ab12", atoms, ODD[3], 0.1 + 0.2, forces, stress, forces_total=-forces)
    write_frame(tmp_path / "x.pckl.gzip", frame([row]))
    (back,) = atoms_of_frame(read_frame(tmp_path / "x.pckl.gzip"))
    assert back.info["id"] == row.name
    assert np.array_equal(back.numbers, atoms.numbers)
    assert back.positions.tobytes() == atoms.positions.tobytes()
    assert back.cell.array.tobytes() == atoms.cell.array.tobytes()
    assert np.array_equal(back.pbc, atoms.pbc)
    assert np.float64(back.get_potential_energy()).tobytes() == np.float64(row.energy).tobytes()
    assert back.get_forces().tobytes() == (-forces).tobytes()
    if stress is None:
        assert "stress" not in back.calc.results
    else:
        assert back.calc.results["stress"].tobytes() == stress.tobytes()


def test_the_label_is_kept_beside_what_is_fitted_and_weights_are_pacemakers() -> None:
    forces = np.ones((2, 3))
    table = frame([labelled(bulk("Si"), forces=forces, forces_total=3 * forces), labelled(bulk("Si"), forces=forces)])
    assert np.array_equal(table["forces"][0], forces)
    assert np.array_equal(table["forces_total"][0], 3 * forces)
    assert np.array_equal(table["forces_total"][1], forces)
    assert np.array_equal(atoms_of_frame(table)[0].get_forces(), 3 * forces)
    table = frame([labelled(crystal(), "a"), labelled(bulk("Si"), "b"), labelled(crystal(), "c", weight=10.0)])
    assert table["w_energy"].tolist() == [1.0, 1.0, 10.0]
    assert [weights.tolist() for weights in table["w_forces"]] == [[1.0] * 8, [1.0] * 2, [10.0] * 8]
    table = frame([labelled(bulk("Si"), weight=4.0, weight_forces=0.5)])
    assert (table["w_energy"][0], table["w_forces"][0].tolist()) == (4.0, [0.5, 0.5])
    with pytest.raises(StepError, match="augmented"):
        frame([labelled(crystal(), "augmented_1")])


WRITE = """
import sys; from pathlib import Path
from ase.build import bulk
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
atoms = bulk("Si"); atoms.info["x"] = {"b", "a"}
write_frame(Path(sys.argv[1]), frame([Labelled(k, atoms, 1.0, 2.0, 0 * atoms.positions, None) for k in "abc"]))
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "2", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", WRITE, tmp_path / "theirs"], check=True, env=environment)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "ours")])
    exec(WRITE, {})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
