"""Molecular dynamics at constant energy or temperature, and the signs of a potential that falls apart. Needs ASE alone.

A potential that is the derivative of one smooth energy keeps the total energy under velocity Verlet. Where it has a
hole, atoms fall into one another and the fall heats the rest; where its forces end too early, atoms leave.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, covalent_radii
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from containers.arrays import Floats, Indices
from containers.contract import Progress
from containers.properties.motion import EVERY, SETTLING, Start
from containers.structures.cells import bare
from containers.structures.table import structure_id
from containers.tensorpot.student.calculator import neighbours

FUSED = 0.5
"""Share of the covalent radii's sum. So near, the nuclei alone repel by tens of eV; no thermal motion gets there."""
HOT = 10.0
"""Times the first temperature. In equilibrium it falls; only energy out of a hole raises it so far."""
LOOK_EVERY = 10
"""Steps between two looks at the distances: in 10 fs an atom moves by less than 0.1 Å."""
HYDROGEN_FS, LONGEST_FS = 0.5, 1.0
"""A bond to hydrogen vibrates within 9 to 11 fs, and periods grow with the root of the mass: 20 steps each."""


@dataclass(frozen=True)
class Distances:
    """Parts and short pairs of a structure.

    Attributes:
        parts: (P,) atoms of each part, the largest first; atoms within `reach` of one another are of one part.
        fused: atoms of a pair closer than FUSED of the sum of their covalent radii.
        shortest: Å; infinity when there is no pair within `reach`.
    """

    parts: Indices
    fused: int
    shortest: float


def distances(atoms: Atoms, reach: float) -> Distances:
    """Look at every pair within `reach` (Å), images included."""
    first, second, vectors = neighbours(atoms, reach)
    lengths = np.linalg.norm(vectors, axis=1)
    links = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(atoms), len(atoms)))
    _, part = connected_components(links, directed=False)
    touching = covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]]
    fused = np.unique(first[lengths < FUSED * touching])
    return Distances(np.sort(np.bincount(part))[::-1], len(fused), float(lengths.min(initial=np.inf)))


def lost_atoms(now: Distances, begun: Distances) -> int:
    """Count atoms that left for good: in no part as large as there were in the beginning, the largest first."""
    return int(now.parts[len(begun.parts) :].sum())


def timestep(atoms: Atoms) -> float:
    """Return the fs of 20 steps for the fastest vibration that the lightest atom can have."""
    lightest = atomic_masses[atoms.numbers].min()
    return float(min(LONGEST_FS, HYDROGEN_FS * np.sqrt(lightest / atomic_masses[1])))


@dataclass
class DynamicsRun:
    """A run and its series, an entry a step from the start on.

    Attributes:
        atoms: where it is now.
        reach: cutoff of the potential, Å.
        wanted: steps whose structures are kept.
        kept: step and structure of each of them that was reached.
        trace: (N, 3) Å, positions at each EVERY-th step of a run that is traced.
        unstable_because: what ended the run early, or None.
    """

    atoms: Atoms
    reach: float
    timestep_fs: float
    wanted: Container[int] = ()
    kept: list[tuple[int, Atoms]] = field(default_factory=list)
    traced: bool = False
    trace: list[Floats] = field(default_factory=list)
    potential_eV: list[float] = field(default_factory=list)
    kinetic_eV: list[float] = field(default_factory=list)
    temperature_K: list[float] = field(default_factory=list)
    gamma: list[float] = field(default_factory=list)  # largest of the atoms
    lost: int = 0
    fused: int = 0
    shortest_A: float = np.inf
    unstable_because: str | None = None

    def __post_init__(self) -> None:
        self.begun = distances(self.atoms, self.reach)
        self.shortest_A = self.begun.shortest

    @property
    def times_ps(self) -> Floats:
        """(S,) from zero."""
        return np.arange(len(self.potential_eV)) * self.timestep_fs / 1000

    @property
    def total_eV(self) -> Floats:
        """(S,) potential and kinetic energy."""
        return np.asarray(self.potential_eV) + np.asarray(self.kinetic_eV)

    @property
    def drift_meV_per_atom_per_ps(self) -> float | None:
        """Slope of the total energy by least squares; None for fewer than three steps."""
        if len(self.total_eV) < 3:
            return None
        slope = np.polyfit(self.times_ps, self.total_eV - self.total_eV[0], 1)[0]
        return float(1000 * slope / len(self.atoms))

    def note(self) -> bool:
        """Add where the atoms are now to the series; False when energy or forces are no numbers."""
        energy, forces = self.atoms.get_potential_energy(), self.atoms.get_forces()
        kinetic, gamma = self.atoms.get_kinetic_energy(), float(np.max(self.atoms.calc.results["gamma"]))
        step = len(self.potential_eV)
        if not (np.isfinite([energy, kinetic]).all() and np.isfinite(forces).all()):
            self.unstable_because = f"energy or forces are no numbers at step {step}"
            return False
        if not np.isfinite(gamma):
            self.unstable_because = f"the extrapolation grade is no number at step {step}"
            return False
        if step in self.wanted:
            self.kept.append((step, bare(self.atoms)))
        if self.traced and step % EVERY == 0:
            self.trace.append(self.atoms.get_positions())
        self.potential_eV.append(float(energy))
        self.kinetic_eV.append(float(kinetic))
        self.temperature_K.append(float(self.atoms.get_temperature()))
        self.gamma.append(gamma)
        return True

    def heated(self) -> str | None:
        """Return why the temperature is one that only a hole in the potential gives, or None."""
        if self.temperature_K[-1] <= HOT * self.temperature_K[0]:
            return None
        risen = f"the temperature rose from {self.temperature_K[0]:.0f} to {self.temperature_K[-1]:.0f} K"
        return f"{risen} within {len(self.temperature_K) - 1} steps"

    def look(self) -> bool:
        """Look at the distances; False when atoms fused or left."""
        now = distances(self.atoms, self.reach)
        self.shortest_A = min(self.shortest_A, now.shortest)
        self.lost, self.fused = lost_atoms(now, self.begun), now.fused
        if now.fused:
            self.unstable_because = f"atoms fused, {now.fused} of them: two are {now.shortest:.2f} Å apart"
        elif self.lost:
            self.unstable_because = f"atoms got lost, {self.lost} of them: over {self.reach:g} Å from the others"
        return self.unstable_because is None


def relax(run: DynamicsRun, steps: int, force: float) -> int:
    """Move the atoms downhill, the cell kept, to a largest force of `force` eV/Å or for `steps`; return steps taken.

    What training drew aside would otherwise heat the run by its own fall. Ends where the run becomes unstable.
    """
    taken = 0
    for taken, _ in enumerate(FIRE(run.atoms, logfile=None).irun(fmax=force, steps=steps)):
        finite = np.isfinite(run.atoms.get_forces()).all() and np.isfinite(run.atoms.get_potential_energy())
        if not finite:
            run.unstable_because = "energy or forces are no numbers"
        if run.unstable_because or (taken % LOOK_EVERY == 0 and not run.look()):
            break
    if run.unstable_because is None:
        run.look()
    if run.unstable_because:
        run.unstable_because = f"while it was relaxed: {run.unstable_because}"
    return taken


def constant_energy(run: DynamicsRun, steps: int, progress: Progress) -> None:
    """Run velocity Verlet for so many steps, or until the run is unstable."""
    follow(run, VelocityVerlet(run.atoms, timestep=run.timestep_fs * units.fs), steps, progress)


def constant_temperature(run: DynamicsRun, start: Start, progress: Progress) -> None:
    """Run Langevin dynamics from a start, or until the run is unstable; its positions are kept in `trace`."""
    run.traced = True
    follow(run, start.dynamics(run.atoms), start.steps, progress)


def follow(run: DynamicsRun, dynamics: MolecularDynamics, steps: int, progress: Progress) -> None:
    """Run the dynamics of the run's atoms for so many steps, or until the run is unstable."""
    for step, _ in enumerate(dynamics.irun(steps)):
        if not run.note():
            return
        hot = run.heated()
        if (hot or step == steps or step % LOOK_EVERY == 0) and not run.look():
            return
        if hot:
            run.unstable_because = hot
            return
        progress(step, steps, "molecular dynamics")


def frame_steps(steps: int, frames: int) -> frozenset[int]:
    """Return at most `frames` steps evenly from the end of SETTLING to the last step; a single one is the last."""
    first = int(np.ceil(SETTLING * steps)) if frames > 1 else steps
    return frozenset(np.linspace(first, steps, min(frames, steps - first + 1)).round().astype(int).tolist())


def named_frames(run: DynamicsRun, name: str) -> list[Atoms]:
    """Return the kept structures with the `info` that a table of structures needs; `row` is the step."""
    found = []
    for step, atoms in run.kept:
        frame = atoms.copy()
        where = {"source": f"molecular dynamics of the student, {name}", "row": step, "group": name, "family": name}
        frame.info = {"id": structure_id(atoms), **where}
        found.append(frame)
    return found


def evenly(count: int, points: int) -> slice:
    """Return the slice that takes at most `points` of `count` entries, evenly, the first among them."""
    return slice(None, None, max(1, -(-count // points)))


def thinned(run: DynamicsRun, points: int) -> dict[str, Any]:
    """Return the series at no more than `points` evenly spread steps, the first among them; energies in eV/atom."""
    every = evenly(len(run.potential_eV), points)
    atoms = len(run.atoms)
    return {
        "time_ps": run.times_ps[every].tolist(),
        "potential_energy_eV_per_atom": (np.asarray(run.potential_eV) / atoms)[every].tolist(),
        "total_energy_eV_per_atom": (run.total_eV / atoms)[every].tolist(),
        "temperature_K": run.temperature_K[every],
        "gamma": run.gamma[every],
    }
