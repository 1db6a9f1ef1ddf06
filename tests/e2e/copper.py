"""Copper of ASE's effective-medium theory: what the tests of the fits learn from, made in no time."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from containers.mace.teacher.description import Teacher
from containers.tensorpot.frames.frame_file import Labelled


def effective_medium(name: str, atoms: Atoms, e0_eV: float = 0.0) -> Labelled:
    """The structure with its energy and forces, which `atoms` itself does not get.

    Args:
        e0_eV: reference energy of an atom, added to the energy and not to the corrected one.
    """
    probe = atoms.copy()
    probe.calc = EMT()
    corrected = probe.get_potential_energy()
    forces = np.array(probe.get_forces())
    return Labelled(name, atoms, corrected + len(atoms) * e0_eV, corrected, forces, None)


def strained(
    atoms: Atoms,
    random: np.random.Generator,
    scale: tuple[float, float] | None = (0.94, 1.06),
    shear: float = 0.0,
    rattle_A: float = 0.12,
) -> Atoms:
    """`atoms`, its cell scaled evenly within `scale` and sheared by chance, its atoms moved."""
    strain = np.eye(3) * (random.uniform(*scale) if scale else 1)
    if shear:
        strain = strain + random.normal(0, shear, (3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(rattle_A, rng=random)
    return atoms


def copper(
    count: int,
    seed: int,
    scale: tuple[float, float] | None = (0.94, 1.06),
    shear: float = 0.0,
    rattle_A: float = 0.12,
    e0_eV: float = 0.0,
) -> list[Labelled]:
    """Strained and rattled cells of 4 atoms."""
    random = np.random.default_rng(seed)
    cells = [strained(bulk("Cu", cubic=True), random, scale, shear, rattle_A) for _ in range(count)]
    return [effective_medium(f"{seed}-{number}", atoms, e0_eV) for number, atoms in enumerate(cells)]


def teacher_of(element: str, r_max_A: float, e0_eV: float = 0.0) -> Teacher:
    """A teacher that knows one element, for flows whose labels are there already."""
    return Teacher(
        model_class="ScaleShiftMACE",
        dtype="float64",
        elements=(element,),
        r_max_A=r_max_A,
        num_interactions=2,
        heads=("Default",),
        e0s_eV={"Default": {element: e0_eV}},
    )
