"""Molecular dynamics that looks for structures outside the student's data, and the frames that it keeps. Needs ASE.

The integrator of NVT and NPT is ASE's `LangevinBAOAB` (Leimkuhler and Matthews 2013, for the cell Quigley and Probert
2004): one call of the potential a step, a temperature that may change at each step, and a cell whose oscillation is
damped, so that cells of a few atoms settle within a picosecond. The cell keeps its shape: one that is free to shear
has no rest in a liquid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet
from pydantic import Field, model_validator
from scipy.special import chdtri

from containers.contract import Closed
from containers.properties.motion import FRICTION_FS, SETTLING
from containers.structures.cells import bare, is_solid
from containers.tensorpot.evaluation.molecular_dynamics import DynamicsRun, distances, lost_atoms

Ensemble = Literal["NVE", "NVT", "NPT"]
APART_FS = 20.0
"""Between two kept frames: an atom of a hot solid moves by some 0.1 Å."""
HELD = 4
"""Frames that are held during a run, times those that are kept at its end."""
HOT_WANTED, HOT_LEAST_K, HOT_CHANCE = 3.0, 300.0, 1e-12
"""A thermostat holds the wanted temperature, so that HOT_WANTED times it is energy out of a hole. Few atoms reach more
by chance: then it is what one look in 1/HOT_CHANCE shows. Below HOT_LEAST_K the limit is that of HOT_LEAST_K: a start
that still falls by 0.03 eV/atom heats by so much."""
VOLUMES = (0.5, 2.0)
"""Times the volume of the start, smallest and largest: what shrinks or grows beyond has collapsed or boiled."""
BREATH_FS, STIFFNESS_EV = 400.0, 10.0
"""Period of the cell, and an atom's volume times the bulk modulus, which sets its mass: 1 to 30 eV from sodium to
tungsten, so that the period is 0.2 to 1.3 ps, longer than that of the slowest phonon of a small cell."""


class Condition(Closed):
    """Under which conditions, and for how long."""

    ensemble: Ensemble = Field(description="NVE: constant energy; NVT: constant volume; NPT: constant pressure")
    temperature_K: float = Field(gt=0, description="K; NVE: about the mean of a relaxed solid")
    end_temperature_K: float | None = Field(None, gt=0, description="K at the end of a linear ramp; None: constant")
    pressure_GPa: float = Field(0.0, description="GPa, hydrostatic; NPT only")
    picoseconds: float = Field(gt=0, description="ps of the run")

    @model_validator(mode="after")
    def _has_a_meaning(self) -> Self:
        if self.ensemble == "NVE" and self.end_temperature_K is not None:
            raise ValueError("NVE has no thermostat: leave end_temperature_K out, or set ensemble: NVT")
        if self.ensemble != "NPT" and self.pressure_GPa != 0:
            raise ValueError(f"{self.ensemble} keeps the volume: leave pressure_GPa out, or set ensemble: NPT")
        return self

    @property
    def name(self) -> str:
        """`NPT 300 to 1800 K, 10 GPa, 20 ps`."""
        ramp = f" to {self.end_temperature_K:g}" if self.end_temperature_K is not None else ""
        pressure = f", {self.pressure_GPa:g} GPa" if self.ensemble == "NPT" else ""
        return f"{self.ensemble} {self.temperature_K:g}{ramp} K{pressure}, {self.picoseconds:g} ps"

    def wanted_K(self, share: float) -> float:
        """Return the temperature at a share of the run."""
        end = self.temperature_K if self.end_temperature_K is None else self.end_temperature_K
        return self.temperature_K + (end - self.temperature_K) * share


@dataclass(frozen=True)
class Frame:
    """A structure of a run, and the largest extrapolation grade of its atoms."""

    step: int
    gamma: float
    atoms: Atoms


@dataclass
class Windows:
    """Frames of a run whose end is not known: of each window of equal time the one of highest rank.

    When there are more than `limit` windows, each joins its neighbour: memory is bounded, and at the end the windows
    cover the run evenly.

    Attributes:
        limit: windows at most.
        width: steps of a window.
        best: window -> rank and frame.
    """

    limit: int
    width: int = 1
    best: dict[int, tuple[float, Frame]] = field(default_factory=dict)

    def offer(self, step: int, rank: float, frame: Callable[[], Frame | None]) -> None:
        """Take a frame if it ranks above the one of its window; `frame` makes it, or None if it is not physical."""
        held = self.best.get(step // self.width)
        if (held and held[0] >= rank) or (made := frame()) is None:
            return
        self.best[step // self.width] = rank, made
        while len(self.best) > self.limit:
            self.width *= 2
            pairs, self.best = list(self.best.values()), {}
            for each in pairs:
                window = each[1].step // self.width
                self.best[window] = max(self.best.get(window, each), each, key=lambda one: one[0])

    @property
    def frames(self) -> list[Frame]:
        """By step."""
        return [frame for _, frame in self.best.values()]


def spread(frames: Sequence[Frame], first: Sequence[Frame], count: int, apart: int) -> list[Frame]:
    """Return `first` and as many others as make `count` frames, by step, spread in time and in log γ.

    Each is the one farthest from those before it, in units of the frames' range; at least `apart` steps from each of
    them. Without `first` the beginning is the largest γ.
    """
    everything = [*frames, *first]
    steps = [frame.step for frame in everything]
    grades = [math.log1p(frame.gamma) for frame in everything]
    ranges = [(max(values) - min(values)) or 1.0 for values in (steps, grades)] if everything else []
    place = {id(frame): (frame.step / ranges[0], math.log1p(frame.gamma) / ranges[1]) for frame in everything}
    taken, left = list(first)[-count:], sorted(frames, key=lambda frame: frame.step)
    while len(taken) < count:
        left = [frame for frame in left if all(abs(frame.step - each.step) >= apart for each in taken)]
        if not left:
            break
        if taken:
            taken.append(max(left, key=lambda one: min(math.dist(place[id(one)], place[id(each)]) for each in taken)))
        else:
            taken.append(max(left, key=lambda one: one.gamma))
    return sorted(taken, key=lambda frame: frame.step)


@dataclass
class Exploration(DynamicsRun):
    """A run that ends above `gamma_stop` and holds frames above `gamma_select`.

    Attributes:
        wanted_K: step -> temperature that the run should have.
        keep, check: frames at most of the two kinds.
        volumes_A3, pressures_GPa: series like the others; empty unless matter continues in three directions.
        before: the structure one step earlier; in the beginning the start as it was given.
        sound: the latest structure whose distances were looked at.
    """

    wanted_K: Callable[[int], float] = lambda _: math.inf
    gamma_select: float = 2.0
    gamma_stop: float = 25.0
    keep: int = 20
    check: int = 3
    volumes_A3: list[float] = field(default_factory=list)
    pressures_GPa: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.is_solid = is_solid(self.atoms, self.reach)
        self.apart = math.ceil(APART_FS / self.timestep_fs)
        self.held, self.checks = Windows(HELD * self.keep, self.apart), Windows(64 * max(1, self.check))
        self.before = self.sound = Frame(0, 0.0, bare(self.atoms))
        freedoms = 3 * len(self.atoms)
        self.hot_factor = max(HOT_WANTED, float(chdtri(freedoms, HOT_CHANCE)) / freedoms)

    def note(self) -> bool:
        """Add where the atoms are now, and hold the structure if it extrapolates; False where the run must end."""
        if not super().note():
            return False
        step, gamma = len(self.gamma) - 1, self.gamma[-1]
        if self.is_solid:
            volume = float(self.atoms.get_volume())
            pressure = (2 * self.kinetic_eV[-1] / volume - self.atoms.get_stress()[:3].sum()) / 3 / units.GPa
            self.volumes_A3.append(volume)
            self.pressures_GPa.append(float(pressure))
            if not VOLUMES[0] <= volume / self.volumes_A3[0] <= VOLUMES[1]:
                times = f"{volume / self.volumes_A3[0]:.2f} times that of the start"
                self.unstable_because = f"the volume became {times} within {step} steps"
        if gamma > self.gamma_stop:
            grade = f"the extrapolation grade rose to {gamma:.3g}, above {self.gamma_stop:g}"
            self.unstable_because = f"{grade}, within {step} steps"
        if self.unstable_because:
            return False
        now = Frame(step, gamma, bare(self.atoms))
        if gamma > self.gamma_select and not self.heated():
            self.held.offer(step, gamma, lambda: now if self.physical(now) else None)
        self.checks.offer(step, 0.0, lambda: now)
        if not self.heated():
            self.before = now
        return True

    def look(self) -> bool:
        """Look at the distances; False when atoms fused or left."""
        well = super().look()
        if well and self.gamma:  # none yet: the start is relaxed
            self.sound = self.before
        return well

    def heated(self) -> str | None:
        """Return why the temperature is one that only a hole in the potential gives, or None."""
        step, wanted = len(self.temperature_K) - 1, self.wanted_K(len(self.temperature_K) - 1)
        if self.temperature_K[-1] <= self.hot_factor * max(wanted, HOT_LEAST_K):
            return None
        return f"the temperature rose to {self.temperature_K[-1]:.0f} K within {step} steps, wanted {wanted:.0f} K"

    def physical(self, frame: Frame) -> bool:
        """Return whether no atoms of a frame are fused or lost."""
        if not np.isfinite(frame.atoms.positions).all():
            return False
        now = distances(frame.atoms, self.reach)
        return not now.fused and not lost_atoms(now, self.begun)

    def last_sound(self) -> Frame | None:
        """Return the latest physical frame before the run ended early; None when the start is not physical either."""
        return next((frame for frame in (self.before, self.sound) if self.physical(frame)), None)

    @property
    def survived(self) -> int:
        """Steps that the run is known to have survived."""
        if self.unstable_because is None:
            return max(0, len(self.gamma) - 1)
        last = self.last_sound()
        return last.step if last else 0

    def kept_frames(self) -> list[Frame]:
        """Return at most `keep` physical frames above `gamma_select`, by step.

        Of a run that ended early they have the last physical one before the end, even one of a low grade (a potential
        can have a hole where it does not extrapolate), and the first above `gamma_stop` if it is physical.
        """
        last: list[Frame] = []
        if self.unstable_because:
            ends = [self.last_sound()]
            if self.gamma and self.gamma[-1] > self.gamma_stop and not self.heated():
                above = Frame(len(self.gamma) - 1, self.gamma[-1], bare(self.atoms))
                ends.append(above if self.physical(above) else None)
            last = [frame for frame in ends if frame]
        return spread(self.held.frames, last, self.keep, self.apart)

    def checked_frames(self) -> list[Frame]:
        """Return at most `check` frames evenly in time, whatever their grade, from SETTLING to where the run got."""
        there = {frame.step: frame for frame in self.checks.frames if 0 < frame.step <= self.survived}
        if not there or not self.check:
            return []
        targets = np.linspace(SETTLING if self.check > 1 else 1.0, 1.0, self.check) * self.survived
        nearest = [min(there, key=lambda step: abs(step - target)) for target in targets]
        return [there[step] for step in dict.fromkeys(nearest) if self.physical(there[step])]


def integrator(
    atoms: Atoms, condition: Condition, ensemble: Ensemble, timestep_fs: float, steps: int, seed: int
) -> MolecularDynamics:
    """Return the dynamics of atoms that have velocities; a ramp reaches its end after `steps`."""
    timestep = timestep_fs * units.fs
    if ensemble == "NVE":
        return VelocityVerlet(atoms, timestep=timestep)
    # a cell of bulk modulus K and volume V breathes with the square of its angular frequency 9 K V / mass
    mass = 9 * STIFFNESS_EV * len(atoms) * (BREATH_FS * units.fs / (2 * np.pi)) ** 2
    dynamics = LangevinBAOAB(
        atoms, timestep, temperature_K=condition.temperature_K, T_tau=FRICTION_FS * units.fs,
        externalstress=-condition.pressure_GPa * units.GPa if ensemble == "NPT" else None, hydrostatic=True,
        P_tau=BREATH_FS / 2 * units.fs, P_mass=mass, rng=np.random.default_rng([seed, 1]),
    )  # fmt: skip
    if condition.end_temperature_K is not None:
        dynamics.attach(lambda: dynamics.set_temperature(condition.wanted_K(dynamics.nsteps / steps)))
    return dynamics
