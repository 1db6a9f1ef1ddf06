"""Molecular dynamics at constant temperature, and what can be compared of two runs: g(r) and mean square displacement.

Needs ASE alone: student and teacher run the same code from the same positions and velocities.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, force_temperature
from ase.neighborlist import neighbor_list

from containers.arrays import Floats
from containers.contract import Closed

FRICTION_FS = 100.0
"""Time in which Langevin's friction takes a velocity: some periods of an atom, so that its motion is still its own."""
EVERY = 10
"""Steps from one recorded position to the next."""
SETTLING = 0.2
"""Share of a run that is left out: it begins at rest."""
REACH_A, WIDTH_A = 6.0, 0.1


class Start(Closed):
    """Structure at the start of a run, and the parameters of the run."""

    numbers: tuple[int, ...]
    positions: tuple[tuple[float, float, float], ...]  # Å
    cell: tuple[tuple[float, float, float], ...]  # Å
    temperature_K: float
    timestep_fs: float
    steps: int
    seed: int

    @classmethod
    def of(cls, atoms: Atoms, temperature_K: float, timestep_fs: float, steps: int, seed: int) -> Start:
        """Return the start from a structure at rest."""
        given = (atoms.positions.tolist(), atoms.cell.array.tolist())
        positions, cell = (tuple(tuple(row) for row in rows) for rows in given)
        return cls(
            numbers=tuple(atoms.numbers.tolist()), positions=positions, cell=cell, temperature_K=temperature_K,
            timestep_fs=timestep_fs, steps=steps, seed=seed,
        )  # fmt: skip

    def atoms(self) -> Atoms:
        """Return the structure with its velocities: twice the temperature, as half of it goes into the bonds."""
        made = Atoms(self.numbers, self.positions, cell=self.cell, pbc=True)
        heat(made, 2 * self.temperature_K, self.seed)
        return made

    def dynamics(self, atoms: Atoms) -> Langevin:
        """Return the dynamics of the structure, which has a calculator. The whole may drift."""
        return Langevin(
            atoms, self.timestep_fs * units.fs, temperature_K=self.temperature_K, fixcm=False,
            friction=1 / (FRICTION_FS * units.fs), rng=np.random.default_rng([self.seed, 1]),
        )  # fmt: skip


class Motion(Closed):
    """Structure and motion of a run after SETTLING."""

    r_A: tuple[float, ...]
    g: tuple[float, ...]  # of all pairs; 1 for an even density
    time_ps: tuple[float, ...]
    msd_A2: tuple[float, ...]  # mean over atoms and starting times, without the drift of the whole

    @classmethod
    def of(cls, trace: Floats, cell: Floats, numbers: tuple[int, ...], interval_fs: float) -> Motion:
        """Return g(r) and mean square displacement of positions (F, N, 3) in Å, `interval_fs` apart, without the first
        SETTLING."""
        settled = trace[int(SETTLING * len(trace)) :]
        edges = np.arange(0, REACH_A + WIDTH_A / 2, WIDTH_A)
        counts = np.zeros(len(edges) - 1)
        for positions in settled:
            frame = Atoms(numbers, positions, cell=cell, pbc=True)
            counts += np.histogram(neighbor_list("d", frame, REACH_A), edges)[0]
        shells = 4 / 3 * np.pi * np.diff(edges**3)
        density = len(numbers) / abs(np.linalg.det(cell))
        inner = settled - settled.mean(axis=1, keepdims=True)
        lags = range(len(inner) // 2 + 1)
        msd = [float(((inner[lag:] - inner[: len(inner) - lag]) ** 2).sum(axis=2).mean()) for lag in lags]
        return cls(
            r_A=tuple((edges[:-1] + WIDTH_A / 2).tolist()),
            g=tuple((counts / (len(settled) * len(numbers) * shells * density)).tolist()),
            time_ps=tuple(lag * interval_fs / 1000 for lag in lags),
            msd_A2=tuple(msd),
        )

    def difference_percent(self, other: Motion) -> float:
        """Return the area between two g(r) as a share of the area of the other's, in percent."""
        return float(100 * np.abs(np.subtract(self.g, other.g)).sum() / np.sum(other.g))


def heat(atoms: Atoms, temperature_K: float, seed: int) -> None:
    """Give velocities of exactly this temperature by chance, and no drift of the whole.

    (Its rotation is left: in a periodic cell there is none, and on a cluster's energy it has no effect.)
    """
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(np.random.default_rng(seed).standard_normal((len(atoms), 3)) * widths[:, None])
    Stationary(atoms, preserve_temperature=False)
    force_temperature(atoms, temperature_K)
