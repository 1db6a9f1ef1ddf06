"""What a committee says together, and what its spread is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.tensorpot.evaluation import committee
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.committee_calculator import Committee, per_atom, together


class Spring(Calculator):
    """Every atom is drawn to the origin: E = k r² / 2."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": 0.5 * self.k * float((self.atoms.positions**2).sum()), "forces": -self.k * self.atoms.positions,
        }  # fmt: skip


def test_mean_and_population_deviation_of_energy_and_forces() -> None:
    atoms = Atoms("Si2", [[0, 0, 1], [0, 3, 4]])
    atoms.calc = Committee([Spring(1.0), Spring(3.0)])
    assert atoms.get_potential_energy() == pytest.approx(2.0 * 13)
    np.testing.assert_allclose(atoms.get_forces(), -2.0 * atoms.positions)
    found = atoms.calc.results
    assert found["energy_std"] == pytest.approx(13.0)
    np.testing.assert_allclose(found["forces_std"], np.abs(atoms.positions))
    np.testing.assert_allclose(found["force_std"], [1 / 3**0.5, 5 / 3**0.5])
    # members that agree have no spread
    one = {"energy": 2.0, "forces": np.ones((3, 3)), "stress": np.arange(6.0)}
    found = together([one, one])
    assert found["energy_std"] == 0
    assert not found["force_std"].any()
    np.testing.assert_array_equal(found["stress"], np.arange(6.0))
    assert "stress" not in together([one, {key: one[key] for key in ("energy", "forces")}])
    # an atom's deviation does not depend on the axes
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    np.testing.assert_allclose(per_atom(vectors @ turn), per_atom(vectors))
    # the mean force is the slope of the mean energy
    atoms = Atoms("Si2", [[0, 0, 1.2], [0.3, 2, 1]])
    atoms.calc = Committee([Spring(1.0), Spring(2.5), Spring(4.0)])
    forces, step = atoms.get_forces(), 1e-4
    energies = []
    for sign in (1, -1):
        atoms.positions[1, 0] += sign * step
        energies.append(atoms.get_potential_energy())
        atoms.positions[1, 0] -= sign * step
    assert -(energies[0] - energies[1]) / (2 * step) == pytest.approx(forces[1, 0], rel=1e-6)


def labelled(positions: list[list[float]], k: float, name: str) -> Atoms:
    atoms = Atoms(f"Si{len(positions)}", positions)
    atoms.info["id"] = name
    atoms.calc = SinglePointCalculator(
        atoms, energy=0.5 * k * float((atoms.positions**2).sum()), forces=-k * atoms.positions
    )
    return atoms


def judged(k: float) -> list[committee.Deviation]:
    members = Committee([Spring(1.0), Spring(3.0)])
    structures = [[[0, 0, 1.0]], [[0, 0, 2.0], [0, 1.5, 0]], [[3.0, 0, 0]]]
    return [committee.judge(labelled(one, k, str(place)), members) for place, one in enumerate(structures)]


def test_figures_of_a_committee_that_knows_where_it_is_wrong() -> None:
    found = committee.figures(judged(k=2.5), students=2)
    assert (found["students"], found["structures"], found["atoms"]) == (2, 3, 4)
    assert found["force_std_max_meV_per_A"] == pytest.approx(1000 * 3 / 3**0.5)
    assert found["force_max_meV_per_A"] == pytest.approx(1500)
    assert found["force_std_error_pearson"] == pytest.approx(1.0)
    assert found["force_std_error_spearman"] == pytest.approx(1.0)
    assert found["energy_std_error_pearson"] == pytest.approx(1.0)
    assert found["force_rmse_over_std"] == pytest.approx(0.5)
    assert found["energy_std_max_meV_per_atom"] == pytest.approx(4500)
    found = committee.figures(judged(k=2.0), students=2)  # the mean is right
    assert found["force_std_error_pearson"] is None
    assert found["force_rmse_over_std"] == 0


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """A test frame of two structures, and two files that stand for potentials."""
    rows = [
        Labelled(f"{place}" * 64, Atoms("Si2", [[0, 0, 0], [0, 0, 2 + place]], cell=[9, 9, 9], pbc=True), 1.0, 1.0,
                 np.zeros((2, 3)), None)
        for place in (1, 2)
    ]  # fmt: skip
    write_frame(tmp_path / "test.pckl.gzip", frame(rows))
    Baseline(e0s_eV={"Si": 0.0}).write(tmp_path / "baseline.json")
    return Inputs(
        {
            "potentials": (tmp_path / "a.yaml", tmp_path / "b.yaml"),
            "baseline": (tmp_path / "baseline.json",),
            "test": (tmp_path / "test.pckl.gzip",),
        }
    )


def test_the_stub_writes_a_row_an_atom(inputs: Inputs, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("one", "two")]
    for place in outputs:
        place.mkdir()
        metrics = committee.stub(inputs, place, committee.Params(), Machine())
    table = pq.read_table(outputs[0] / "committee.parquet")
    assert table.schema.equals(committee.SPREAD)
    assert table["atom"].to_pylist() == [0, 1, 0, 1]
    assert metrics["students"] == 2
    assert metrics["force_std_mean_meV_per_A"] == 0
    assert (outputs[0] / "committee.parquet").read_bytes() == (outputs[1] / "committee.parquet").read_bytes()
    alone = Inputs({**inputs.files, "potentials": inputs.all("potentials")[:1]})
    with pytest.raises(BadInput, match="1 given"):
        committee.stub(alone, tmp_path, committee.Params(), Machine())
