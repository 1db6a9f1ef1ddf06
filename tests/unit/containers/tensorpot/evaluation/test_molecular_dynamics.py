"""What molecular dynamics tells of toy potentials whose behaviour is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

from containers.contract import no_progress
from containers.properties.motion import Start, heat
from containers.tensorpot.evaluation.molecular_dynamics import (
    DynamicsRun,
    constant_energy,
    constant_temperature,
    distances,
    frame_steps,
    lost_atoms,
    named_frames,
    relax,
    thinned,
    timestep,
)

REACH = 4.0
Field = Callable[[np.ndarray, int], tuple[float, np.ndarray]]


class Toy(Calculator):
    """Energy (eV) and forces (eV/Å) from positions and the number of the call, from 0."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field, self.calls = field, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.field(self.atoms.positions, self.calls)
        self.calls += 1
        self.results = {"energy": energy, "forces": forces, "gamma": np.full(len(self.atoms), float(self.calls))}


def silicon() -> Atoms:
    """8 atoms."""
    return bulk("Si", cubic=True)


def springs(sites: np.ndarray, constant: float) -> Field:
    """Every atom on a spring to its site (eV/Å²)."""

    def field(positions: np.ndarray, _: int) -> tuple[float, np.ndarray]:
        away = positions - sites
        return 0.5 * constant * float((away**2).sum()), -constant * away

    return field


def ran(atoms: Atoms, field: Field, steps: int, temperature_K: float = 300.0) -> DynamicsRun:
    """A run at constant energy with steps of 1 fs."""
    atoms.calc = Toy(field)
    run = DynamicsRun(atoms, REACH, 1.0)
    heat(atoms, temperature_K, 7)
    constant_energy(run, steps, no_progress)
    return run


def test_springs_keep_their_energy_and_share_it_evenly() -> None:
    """Equipartition: of the 300 K that a relaxed solid is given, half goes into its springs."""
    atoms = silicon()
    period_fs = 2 * np.pi * np.sqrt(atoms.get_masses()[0] / 5.0) / units.fs
    run = ran(atoms, springs(atoms.positions.copy(), 5.0), round(10 * period_fs))
    assert run.unstable_because is None
    assert run.drift_meV_per_atom_per_ps == pytest.approx(0.0, abs=0.02)
    assert run.temperature_K[0] == pytest.approx(300.0)
    assert np.mean(run.temperature_K) == pytest.approx(150.0, rel=0.01)
    assert run.gamma[-1] > run.gamma[0]
    assert len(run.times_ps) == len(run.total_eV) == round(10 * period_fs) + 1


def test_at_constant_temperature_springs_have_it_from_any_start() -> None:
    """The mean of 192 velocities over a picosecond scatters by some 3 %; the seed is fixed."""
    atoms = silicon() * 2
    atoms.calc = Toy(springs(atoms.positions.copy(), 5.0))
    run = DynamicsRun(atoms, REACH, 1.0, frame_steps(1500, 5))
    heat(atoms, 50.0, 7)
    constant_temperature(run, Start.of(atoms, 300.0, 1.0, 1500, 1), no_progress)
    assert run.unstable_because is None
    assert np.mean(run.temperature_K[500:]) == pytest.approx(300.0, rel=0.12)
    assert np.mean(run.potential_eV[500:]) == pytest.approx(1.5 * 64 * units.kB * 300.0, rel=0.2)
    assert np.array(run.trace).shape == (151, 64, 3)
    frames = named_frames(run, "NVT 300 K")
    assert [frame.info["row"] for frame in frames] == [300, 600, 900, 1200, 1500]
    assert np.array_equal(frames[-1].positions, atoms.positions)
    assert len({frame.info["id"] for frame in frames}) == 5


@pytest.mark.parametrize(
    ("steps", "frames", "expected"),
    [(10, 3, {2, 6, 10}), (1000, 1, {1000}), (5, 99, {1, 2, 3, 4, 5}), (100, 0, set()), (2, 2, {1, 2})],
)
def test_frames_are_even_in_time_after_a_fifth_of_the_run(steps: int, frames: int, expected: set[int]) -> None:
    assert frame_steps(steps, frames) == expected


def test_the_drift_is_the_slope_of_the_total_energy_over_three_points_or_more() -> None:
    """Without forces the kinetic energy stays, and the energy grows by what the toy adds a step: 0.01 meV each fs."""

    def field(positions: np.ndarray, call: int) -> tuple[float, np.ndarray]:
        return 1e-5 * call * len(positions), np.zeros_like(positions)

    run = ran(silicon(), field, 300, temperature_K=1.0)
    assert run.drift_meV_per_atom_per_ps == pytest.approx(10.0, rel=1e-9)
    atoms = silicon()
    assert ran(atoms, springs(atoms.positions.copy(), 5.0), 1).drift_meV_per_atom_per_ps is None


def test_heating_atoms_and_energies_that_are_no_number_end_the_run() -> None:
    atoms = silicon()
    run = ran(atoms, springs(atoms.positions.copy(), -30.0), 2000)
    assert "the temperature rose from 300 to" in str(run.unstable_because)
    assert len(run.potential_eV) < 2000
    assert run.temperature_K[-2] <= 3000 < run.temperature_K[-1]

    def field(positions: np.ndarray, call: int) -> tuple[float, np.ndarray]:
        return (0.0 if call < 5 else float("nan")), np.zeros_like(positions)

    run = ran(silicon(), field, 100)
    assert run.unstable_because == "energy or forces are no numbers at step 5"
    assert len(run.potential_eV) == 5
    assert np.isfinite(run.total_eV).all()


def test_atoms_that_attract_without_a_core_fuse_and_one_that_is_pushed_out_is_lost() -> None:
    atoms = Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]], cell=[20] * 3, pbc=True)

    def field(positions: np.ndarray, _: int) -> tuple[float, np.ndarray]:
        apart = positions[1] - positions[0]
        return float(apart @ apart), np.array([2 * apart, -2 * apart])

    run = ran(atoms, field, 2000, temperature_K=2000.0)
    assert run.fused == 2
    assert "atoms fused, 2 of them: two are" in str(run.unstable_because)
    assert run.shortest_A < 1.11  # half of twice silicon's covalent radius
    atoms = Atoms("Si3", [[0, 0, 0], [2.3, 0, 0], [1.1, 2.0, 0]], cell=[60] * 3, pbc=True)

    def push(positions: np.ndarray, _: int) -> tuple[float, np.ndarray]:
        return -0.2 * float(positions[1, 0]), np.array([[0, 0, 0], [0.2, 0, 0], [0, 0, 0]])

    run = ran(atoms, push, 2000)
    assert run.lost == 1
    assert run.unstable_because == "atoms got lost, 1 of them: over 4 Å from the others"


def test_lost_atoms_are_those_that_leave_and_distances_see_images() -> None:
    cluster = Atoms("Si4", [[0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0]], cell=[80] * 3, pbc=True)
    two = cluster.copy()
    two.positions += 30
    begun = distances(cluster + two, REACH)
    assert begun.parts.tolist() == [4, 4]
    assert lost_atoms(distances(cluster + two, REACH), begun) == 0
    broken = cluster + two
    broken.positions[6:] += [0, 15, 0]
    assert lost_atoms(distances(broken, REACH), begun) == 2
    crystal = bulk("Si")
    found = distances(crystal, REACH)
    assert found.parts.tolist() == [2]
    assert found.shortest == pytest.approx(5.43 * np.sqrt(3) / 4)
    assert found.fused == 0
    squeezed = bulk("Si", a=2.0)
    assert distances(squeezed, REACH).fused == 2


def test_relaxing_goes_downhill_and_reports_what_fell_apart() -> None:
    atoms = silicon()
    sites = atoms.positions.copy()
    atoms.rattle(0.1, seed=1)
    atoms.calc = Toy(springs(sites, 5.0))
    run = DynamicsRun(atoms, REACH, 1.0)
    steps = relax(run, 100, 0.05)
    assert 0 < steps < 100
    assert run.unstable_because is None
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.05
    pair = Atoms("Si2", [[0, 0, 0], [2.3, 0, 0]], cell=[20] * 3, pbc=True)
    pair.calc = Toy(lambda positions, _: (0.0, np.array([[1.0, 0, 0], [-1.0, 0, 0]])))
    fallen = DynamicsRun(pair, REACH, 1.0)
    relax(fallen, 100, 0.05)
    assert str(fallen.unstable_because).startswith("while it was relaxed: atoms fused")


@pytest.mark.parametrize(("symbols", "fs"), [("Si2", 1.0), ("H2O", 0.5), ("LiF", 1.0), ("CuAu", 1.0)])
def test_the_timestep_follows_the_lightest_atom(symbols: str, fs: float) -> None:
    assert timestep(Atoms(symbols)) == pytest.approx(fs)


@pytest.mark.parametrize(("steps", "points"), [(3, 200), (19, 20), (20, 20), (21, 20), (199, 20)])
def test_the_series_is_thinned_to_the_requested_length(steps: int, points: int) -> None:
    atoms = silicon()
    run = ran(atoms, springs(atoms.positions.copy(), 5.0), steps)
    series = thinned(run, points)
    assert {len(values) for values in series.values()} <= set(range(1, points + 1))
    assert len({len(values) for values in series.values()}) == 1
    assert series["time_ps"][0] == 0.0
    assert series["total_energy_eV_per_atom"][0] == pytest.approx(run.total_eV[0] / 8)


def test_a_calculator_without_grades_is_no_stable_one() -> None:
    class Ungraded(Toy):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            del self.results["gamma"]

    atoms = silicon()
    atoms.calc = Ungraded(springs(atoms.positions.copy(), 1.0))
    with pytest.raises(KeyError, match="gamma"):
        DynamicsRun(atoms, REACH, 1.0).note()
