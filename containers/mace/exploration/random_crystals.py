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

from containers.contract import StepError
from containers.mace.exploration.formulas import counts, name_of
from containers.properties.measure import VOLUMES, reason
from containers.structures.cells import bare

DRAWN, VOLUME, RELAXED = "drawn", "volume relaxed", "relaxed"
DRAWS = 30  # for each crystal wanted, at most: many space groups do not fit a small cell
DRAWN_VOLUMES = (0.8, 1.25)  # of a drawn crystal, by the relaxed volume; others are scaled to these bounds
DISPLACEMENT_A = 0.05  # Å, before everything relaxes: a drawn symmetry would hold otherwise
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
    """Return a crystal of relaxed volume, as drawn, and relaxed; `failed` takes the stage that ends this early."""
    from assyst.relaxations import FullRelax, VolumeRelax

    stages, kind = [], VOLUME
    try:
        atoms = relaxed(drawn, teacher, VolumeRelax(), VOLUME_STEPS)
        stages.append(Stage(kind, number, bare(atoms), energy(atoms, teacher)))
        kind, volume = DRAWN, atoms.get_volume()
        scaled = drawn.copy()
        share = float(np.clip(drawn.get_volume() / volume, *DRAWN_VOLUMES))
        scaled.set_cell(drawn.cell * (share * volume / drawn.get_volume()) ** (1 / 3), scale_atoms=True)
        stages.append(Stage(kind, number, scaled, energy(scaled, teacher)))
        kind = RELAXED
        atoms.positions += np.random.default_rng([seed, number]).normal(0, DISPLACEMENT_A, atoms.positions.shape)
        atoms = relaxed(atoms, teacher, FullRelax(), FULL_STEPS)
        stages.append(Stage(kind, number, bare(atoms), energy(atoms, teacher)))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  far from its data a potential makes the libraries fail in any way
        failed[f"{name} crystal {number}, {kind}"] = reason(error)
    return stages


def relaxed(atoms: Atoms, teacher: Calculator, relaxation: Any, steps: int) -> Atoms:
    """Return a copy after some steps of one of assyst's relaxations.

    Raises `StepError` when a number is not finite, or when the volume leaves VOLUMES times that of the beginning.
    """
    from ase.optimize import LBFGS

    found, begun = bare(atoms), atoms.get_volume()
    found.calc = teacher
    for _ in LBFGS(relaxation.apply_filter_and_constraints(found), logfile=None).irun(FORCE_TOLERANCE, steps):
        if not VOLUMES[0] < found.get_volume() / begun < VOLUMES[1]:
            raise StepError(f"its volume went from {begun:.3g} to {found.get_volume():.3g} Å³")
        if not np.isfinite(found.get_potential_energy()):
            raise StepError("its energy is no number")
    return bare(found)


def energy(atoms: Atoms, teacher: Calculator) -> float:
    """Return eV/atom; `StepError` when it is no number."""
    alone = bare(atoms)
    alone.calc = teacher
    if not np.isfinite(found := float(alone.get_potential_energy()) / len(alone)):
        raise StepError("its energy is no number")
    return found
