"""Compare an accelerated teacher with the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.contract import StepError
from containers.mace.kernels.acceleration import PLAIN_HINT
from containers.mace.labelling.batches import volume
from containers.mace.labelling.predictions import Label

if TYPE_CHECKING:
    from containers.mace.labelling.labeller import Labeller

PROBES = 8
BOUNDS = {"parity_energy_eV_per_atom": 1e-4, "parity_force_eV_per_A": 1e-3, "parity_stress_eV_per_A3": 1e-4}
"""Largest difference that is admitted. float32 alone differs by some 1e-6, 1e-5 and 1e-6."""


class AccelerationRefused(StepError):
    """The accelerated teacher does not give the teacher's labels."""


def probe_structures(structures: Sequence[Atoms]) -> list[Atoms]:
    """Return at most PROBES structures, spread over size and density.

    They are sorted by size and cut into groups, of each group the sparsest and the densest. Structures that no teacher
    can label (no atoms, numbers that are not finite) are left out.
    """
    usable = [
        atoms
        for atoms in structures
        if len(atoms) and np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    ]
    densities = [len(atoms) / volume(atoms) for atoms in usable]
    by_size = sorted(range(len(usable)), key=lambda place: (len(usable[place]), densities[place], place))
    if len(usable) <= PROBES:
        return [usable[place] for place in by_size]
    chosen: list[int] = []
    for group in np.array_split(by_size, PROBES // 2):
        by_density = sorted(group.tolist(), key=lambda place: densities[place])
        chosen += [by_density[0], by_density[-1]]
    return [usable[place] for place in chosen]


def check_parity(reference: Labeller, candidate: Labeller, structures: Sequence[Atoms]) -> dict[str, float]:
    """Return the largest differences between the labels of both, over the structures that `reference` can label.

    Args:
        reference: the teacher in float64 without acceleration.
        candidate: the accelerated teacher, in the dtype that is wanted.
        structures: see `probe_structures`.

    Returns:
        `parity_energy_eV_per_atom`, `parity_force_eV_per_A` (a component), `parity_stress_eV_per_A3` (a component;
        0 where no structure has one) and `parity_structures`, how many were compared.

    Raises:
        AccelerationRefused: a difference is above its bound, the candidate has no label for a structure, or no
            structure could be compared.
    """
    wanted = zip(structures, reference.label(structures).answers, strict=True)
    probes = [(atoms, label) for atoms, label in wanted if isinstance(label, Label)]
    if not probes:
        raise AccelerationRefused(
            f"the acceleration cannot be checked: the teacher labels none of {len(structures)} structures. {PLAIN_HINT}"
        )
    rows = []
    for (atoms, label), found in zip(probes, candidate.label([atoms for atoms, _ in probes]).answers, strict=True):
        if not isinstance(found, Label):
            raise AccelerationRefused(f"the accelerated teacher has no label for {_name(atoms)}: {found}. {PLAIN_HINT}")
        force = np.abs(found.forces - label.forces).max(initial=0.0)
        stress = 0.0
        if found.stress is not None and label.stress is not None:
            stress = np.abs(found.stress - label.stress).max()
        rows.append([abs(found.energy - label.energy) / len(atoms), float(force), float(stress)])
    differences = np.array(rows)
    largest, worst = differences.max(axis=0).tolist(), differences.argmax(axis=0)  # not finite counts as the largest
    for column, (quantity, bound) in enumerate(zip(("energy", "force", "stress"), BOUNDS.values(), strict=True)):
        if not largest[column] <= bound:
            energy, force, stress = largest
            raise AccelerationRefused(
                "the accelerated teacher differs from the teacher in float64 without acceleration by"
                f" {energy:.3g} eV/atom, {force:.3g} eV/Å and {stress:.3g} eV/Å³"
                f" (at most {' and '.join(f'{bound:g}' for bound in BOUNDS.values())} are admitted) on {len(rows)}"
                f" structures of this pool; {quantity} most in {_name(probes[worst[column]][0])}. {PLAIN_HINT}"
            )
    return {**dict(zip(BOUNDS, largest, strict=True)), "parity_structures": len(rows)}


def _name(atoms: Atoms) -> str:
    info = atoms.info
    place = f"{info['source']}, row {info['row']} (from 0)" if {"source", "row"} <= set(info) else "a structure"
    return f"{place}, {atoms.get_chemical_formula()}"
