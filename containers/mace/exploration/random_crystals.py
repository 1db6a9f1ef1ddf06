"""Random crystals of a composition, and their relaxation: the volume first, then everything.

assyst and pyxtal draw them. Both are imported inside the functions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii

from containers.contract import StepError
from containers.mace.exploration.formulas import counts, name_of
from containers.properties.measure import VOLUMES, reason
from containers.structures.cells import bare
from containers.structures.distances import shortest_per_pair, touching

DRAWN, VOLUME, RELAXED = "drawn", "volume relaxed", "relaxed"
DRAWS = 30  # for each crystal wanted, at most: many space groups do not fit a small cell
DRAWN_VOLUMES = (0.8, 1.25)  # of a drawn crystal, by the relaxed volume; others are scaled to these bounds
STRETCHED = 1.05
"""No two atoms of a drawn crystal are nearer, by the sum of their covalent radii. pyxtal draws nearer pairs, at which a
teacher may have no bottom; with this limit in pyxtal itself, one draw takes minutes."""
ROOM = (2.0, 4.0)
"""Volume in which atoms are moved apart, by that of their covalent spheres. Crystals at rest have 0.9 (tungsten), 1.6
(NiAl), 3.5 (diamond silicon). Without this, half of silicon's crystals had 20 Å³/atom too much, and holes."""
PUSHES, PUSH, SHEAR = 200, 0.25, 0.1  # moves apart, and the share of an overlap that one takes away
CLOSEST = 0.75
"""The same of every structure that is kept, at least. Bonds of N2 have 0.77, of O2 0.91, of tungsten 0.85."""
DISPLACEMENT_A = 0.05  # Å, of a drawn crystal: a drawn symmetry would hold otherwise
LARGEST_FORCE = 1.0  # eV/Å, of a relaxed crystal: in a hole of the teacher, forces are far larger
VOLUME_STEPS, FULL_STEPS, FORCE_TOLERANCE = 20, 80, 0.05  # eV/Å; the pool needs no crystals at rest


@dataclass(frozen=True)
class Stage:
    """A crystal as drawn, or after a relaxation."""

    kind: str
    crystal: int
    atoms: Atoms
    energy_eV_per_atom: float


def draw_crystals(composition: str, wanted: int, most_atoms: int, seed: int, left_out: Counter[str]) -> list[Atoms]:
    """Return random crystals of random space groups, of one or more formula units.

    They are the same for the same seed, whatever other compositions there are. pyxtal chooses the volumes.

    Args:
        wanted: crystals; there are fewer where DRAWS times as many draws do not suffice.
    """
    from assyst.crystals import pyxtal
    from pyxtal.tolerance import Tol_matrix

    unit, name = counts(composition), name_of(composition)
    units = most_atoms // sum(unit.values())
    distances, made = Tol_matrix(prototype="metallic"), list[Atoms]()
    for number in range(DRAWS * wanted):
        random = np.random.default_rng([seed, number, *name.encode()])
        times, group = int(random.integers(1, units + 1)), int(random.integers(1, 231))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # pyxtal warns of each cell that it enlarges
                atoms = pyxtal(group, tuple(unit), tuple(times * n for n in unit.values()), tm=distances, rng=random)
        except (ValueError, RuntimeError):  # incompatible; no valid crystal in pyxtal's own number of attempts
            left_out["draw: the space group has no such crystal"] += 1
            continue
        made.append(bare(atoms))
        if len(made) == wanted:
            break
    return made


def stages_of(
    name: str, number: int, drawn: Atoms, teacher: Calculator, seed: int, failed: dict[str, str]
) -> list[Stage]:
    """Return a crystal as drawn, of relaxed volume, and relaxed.

    A crystal that fails at one stage has none: below short distances a teacher may be a hole without a bottom, and
    structures at its edge are no use. `failed` takes the stage and the reason.
    """
    from assyst.relaxations import FullRelax, VolumeRelax

    kind = VOLUME
    try:
        spread = pushed_apart(drawn, np.random.default_rng([seed, number]))
        even = relaxed(spread, teacher, VolumeRelax(), VOLUME_STEPS)
        share = float(np.clip(spread.get_volume() / even.get_volume(), *DRAWN_VOLUMES))
        first = scaled(spread, share * even.get_volume())
        kind = RELAXED
        last = relaxed(even, teacher, FullRelax(), FULL_STEPS)
        if (force := largest_force(last, teacher)) > LARGEST_FORCE:
            raise StepError(f"after {FULL_STEPS} steps a force is still {force:.3g} eV/Å")
        found = {DRAWN: first, VOLUME: even, RELAXED: last}
        return [Stage(kind, number, atoms, energy(atoms, teacher)) for kind, atoms in found.items()]
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  far from its data a potential makes the libraries fail in any way
        failed[f"{name} crystal {number}, {kind}"] = reason(error)
        return []


def pushed_apart(drawn: Atoms, random: np.random.Generator) -> Atoms:
    """Return a drawn crystal with a little displacement, in which no two atoms are nearer than STRETCHED.

    Atoms move off each other and the cell changes its shape, at a volume within ROOM; only an overlap that stays makes
    the cell larger.
    """
    from matscipy.neighbours import neighbour_list  # the flow loads this module without it

    radii_A = covalent_radii[drawn.numbers]
    spheres_A3 = 4 / 3 * np.pi * float((radii_A**3).sum())
    volume_A3 = float(np.clip(drawn.get_volume(), ROOM[0] * spheres_A3, ROOM[1] * spheres_A3))
    made = scaled(drawn, volume_A3)
    made.positions += random.normal(0, DISPLACEMENT_A, made.positions.shape)
    for _ in range(PUSHES):
        one, other, distance, way = neighbour_list("ijdD", made, 2 * STRETCHED * float(radii_A.max()))
        overlap = np.maximum(STRETCHED * (radii_A[one] + radii_A[other]) - distance, 0.0)
        if not overlap.any():
            break
        along = way / distance[:, None]
        np.add.at(made.positions, one, -PUSH * overlap[:, None] * along)
        strain = np.einsum("n,ni,nj->ij", overlap / distance, along, along) / len(made)
        made.set_cell(made.cell.array @ (np.eye(3) + SHEAR * (strain - np.trace(strain) / 3 * np.eye(3))), True)
        made = scaled(made, volume_A3)
    return scaled(made, volume_A3 * max(1.0, STRETCHED / closeness(made)) ** 3)


def relaxed(atoms: Atoms, teacher: Calculator, relaxation: Any, steps: int) -> Atoms:
    """Return a copy after some steps of one of assyst's relaxations.

    BFGS of ASE goes downhill where atoms are far apart and the energy bends the other way; LBFGS may go uphill.
    Raises `StepError` when atoms come too close, the volume leaves VOLUMES times that of the beginning, or the energy
    is no number.
    """
    from ase.optimize import BFGS

    found, begun = bare(atoms), atoms.get_volume()
    found.calc = teacher
    for _ in BFGS(relaxation.apply_filter_and_constraints(found), logfile=None).irun(FORCE_TOLERANCE, steps):
        if not VOLUMES[0] < found.get_volume() / begun < VOLUMES[1]:
            raise StepError(f"its volume went from {begun:.3g} to {found.get_volume():.3g} Å³")
        if (share := closeness(found)) < CLOSEST:
            raise StepError(f"two atoms came as near as {share:.2f} of the sum of their covalent radii")
        if not np.isfinite(found.get_potential_energy()):
            raise StepError("its energy is no number")
    return bare(found)


def closeness(atoms: Atoms) -> float:
    """Return the shortest distance as a share of the sum of the covalent radii, of the pair where it is smallest.

    1.5 where every pair is farther apart than that.
    """
    reach = 3.0 * max(float(covalent_radii[number]) for number in atoms.numbers)
    shares = [distance / touching(pair) for pair, distance in shortest_per_pair([atoms], reach).items()]
    return min(shares, default=1.5)


def scaled(atoms: Atoms, volume_A3: float) -> Atoms:
    """Return a copy of another volume."""
    made = bare(atoms)
    made.set_cell(made.cell.array * (volume_A3 / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    return made


def largest_force(atoms: Atoms, teacher: Calculator) -> float:
    """Return eV/Å."""
    alone = bare(atoms)
    alone.calc = teacher
    return float(np.linalg.norm(alone.get_forces(), axis=1).max())


def energy(atoms: Atoms, teacher: Calculator) -> float:
    """Return eV/atom; `StepError` when it is no number."""
    alone = bare(atoms)
    alone.calc = teacher
    if not np.isfinite(found := float(alone.get_potential_energy()) / len(alone)):
        raise StepError("its energy is no number")
    return found
