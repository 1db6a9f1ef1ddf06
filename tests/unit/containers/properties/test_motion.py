"""g(r) and mean square displacement of motions whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT

from containers.properties.motion import EVERY, Motion, Start, heat

CELL = np.diag([20.0, 22.0, 24.0])


def test_atoms_at_random_places_have_an_even_density() -> None:
    places = np.random.default_rng(1).uniform(size=(4, 1000, 3)) @ CELL
    found = Motion.of(places, CELL, (14,) * 1000, 10.0)
    assert np.mean(found.g[10:]) == pytest.approx(1.0, abs=0.01)
    assert found.difference_percent(found) == 0
    denser = found.model_copy(update={"g": tuple(1.1 * value for value in found.g)})
    assert denser.difference_percent(found) == pytest.approx(10)


def test_a_crystal_has_its_shells_and_does_not_move() -> None:
    atoms = bulk("Si", cubic=True) * 2
    found = Motion.of(np.array([atoms.positions] * 10), atoms.cell.array, tuple(atoms.numbers), 10.0)
    shell = np.flatnonzero(found.g)[0]
    assert found.r_A[shell] == pytest.approx(5.43 * np.sqrt(3) / 4, abs=0.05)
    edges = np.array([found.r_A[shell] - 0.05, found.r_A[shell] + 0.05])
    volume = 4 / 3 * np.pi * np.diff(edges**3)[0]
    assert found.g[shell] * volume * 8 / 5.43**3 == pytest.approx(4), "four neighbours"
    assert set(found.msd_A2) == {0.0}


def test_free_atoms_go_as_the_square_of_the_time_and_the_whole_not_at_all() -> None:
    speed = 0.01  # Å/fs, half of the atoms each way
    ways = np.array([[speed, 0, 0], [-speed, 0, 0]] * 4)
    begin = np.random.default_rng(1).uniform(size=(8, 3)) @ CELL
    trace = np.array([begin + 10.0 * frame * (ways + np.array([0.5, 0, 0])) for frame in range(50)])
    found = Motion.of(trace, CELL, (14,) * 8, 10.0)
    times_fs = 1000 * np.array(found.time_ps)
    assert len(times_fs) == 21, "half of what is left after a fifth of the run"
    assert found.msd_A2 == pytest.approx((speed * times_fs) ** 2)


def test_a_start_gives_the_same_run_to_whoever_repeats_it() -> None:
    traces = []
    for _ in range(2):
        start = Start.model_validate_json(
            Start.of(bulk("Cu", cubic=True) * 2, 400.0, 2.0, 20, seed=3).model_dump_json()
        )
        atoms = start.atoms()
        assert atoms.get_temperature() == pytest.approx(800), "half of it goes into the bonds"
        atoms.calc = EMT()
        steps = enumerate(start.dynamics(atoms).irun(start.steps))
        traces.append([atoms.get_positions() for step, _ in steps if step % EVERY == 0])
    first, second = np.array(traces)
    assert np.array_equal(first, second)
    assert first.shape == (3, 32, 3)
    assert np.abs(first[-1] - first[0]).max() > 0.01


def test_velocities_have_exactly_the_temperature_and_no_drift() -> None:
    first, second, other = (bulk("Si", cubic=True) for _ in range(3))
    for atoms, seed in ((first, 3), (second, 3), (other, 4)):
        heat(atoms, 300.0, seed)
        kelvin = 2 * atoms.get_kinetic_energy() / (3 * len(atoms) * units.kB)
        assert kelvin == pytest.approx(300.0)
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.array_equal(first.get_momenta(), second.get_momenta())
    assert not np.allclose(first.get_momenta(), other.get_momenta())
