"""Compare an accelerated teacher with the plain one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from ase import Atoms

from containers.arrays import Floats
from containers.contract import StepError
from containers.mace.kernels.acceleration import PLAIN_HINT
from containers.mace.labelling.batches import volume
from containers.mace.labelling.predictions import Answer, Label

if TYPE_CHECKING:
    pass

PROBES = 8
BOUNDS = {"parity_energy_eV_per_atom": 1e-4, "parity_force_eV_per_A": 1e-3, "parity_stress_eV_per_A3": 1e-4}
"""Largest difference that is admitted. float32 alone differs by some 1e-6, 1e-5 and 1e-6."""


class AccelerationRefused(StepError):
    """The accelerated teacher does not give the teacher's labels."""


class Answers(Protocol):
    """The answers to a run of structures, in their order."""

    @property
    def answers(self) -> Sequence[Answer]: ...


class Labels(Protocol):
    """What labels structures, e.g. a `Labeller`."""

    def label(self, structures: Sequence[Atoms]) -> Answers: ...


def probe_structures(structures: Sequence[Atoms]) -> list[Atoms]:
    """At most PROBES structures, spread over size and density: sorted by size and cut into groups, of each group the
    sparsest and the densest. Structures that no teacher can label (no atoms, numbers that are not finite) are left out.
    """
    usable = [atoms for atoms in structures if len(atoms) and _finite(atoms)]
    densities = [len(atoms) / volume(atoms) for atoms in usable]
    by_size = sorted(range(len(usable)), key=lambda place: (len(usable[place]), densities[place], place))
    if len(usable) <= PROBES:
        return [usable[place] for place in by_size]
    chosen: list[int] = []
    for group in np.array_split(by_size, PROBES // 2):
        by_density = sorted(group.tolist(), key=lambda place: densities[place])
        chosen += [by_density[0], by_density[-1]]
    return [usable[place] for place in chosen]


def _finite(atoms: Atoms) -> bool:
    return bool(np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all())


def check_parity(reference: Labels, candidate: Labels, structures: Sequence[Atoms]) -> dict[str, float]:
    """Largest differences between the labels of both, over the structures that `reference` can label.

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
    wanted = [answer if isinstance(answer, Label) else None for answer in reference.label(structures).answers]
    probes = [(atoms, label) for atoms, label in zip(structures, wanted, strict=True) if label is not None]
    if not probes:
        raise AccelerationRefused(
            f"the acceleration cannot be checked: the teacher labels none of {len(structures)} structures. {PLAIN_HINT}"
        )
    found = candidate.label([atoms for atoms, _ in probes]).answers
    rows = np.array([_differences(label, answer, atoms) for (atoms, label), answer in zip(probes, found, strict=True)])
    worst = rows.argmax(axis=0)  # a number that is not finite counts as the largest
    for column, (name, bound) in enumerate(BOUNDS.items()):
        if not rows[worst[column], column] <= bound:
            raise AccelerationRefused(_refusal(rows.max(axis=0), probes[worst[column]][0], name, len(rows)))
    return {**dict(zip(BOUNDS, rows.max(axis=0).tolist(), strict=True)), "parity_structures": len(rows)}


def _differences(label: Label, answer: Answer, atoms: Atoms) -> list[float]:
    """In the order of BOUNDS."""
    if not isinstance(answer, Label):
        raise AccelerationRefused(f"the accelerated teacher has no label for {_named(atoms)}: {answer}. {PLAIN_HINT}")
    return [
        abs(answer.energy - label.energy) / len(atoms),
        _largest(answer.forces, label.forces),
        _largest(answer.stress, label.stress),
    ]


def _largest(found: Floats | None, expected: Floats | None) -> float:
    if found is None or expected is None:
        return 0.0
    return float(np.abs(found - expected).max(initial=0.0))


def _refusal(largest: Floats, worst: Atoms, name: str, count: int) -> str:
    energy, force, stress = largest
    return (
        f"the accelerated teacher differs from the teacher in float64 without acceleration by {energy:.3g} eV/atom,"
        f" {force:.3g} eV/Å and {stress:.3g} eV/Å³ (at most {' and '.join(f'{bound:g}' for bound in BOUNDS.values())}"
        f" are admitted) on {count} structures of this pool; {name.removeprefix('parity_').split('_')[0]} most in"
        f" {_named(worst)}. {PLAIN_HINT}"
    )


def _named(atoms: Atoms) -> str:
    info = atoms.info
    place = f"{info['source']}, row {info['row']} (from 0)" if {"source", "row"} <= set(info) else "a structure"
    return f"{place}, {atoms.get_chemical_formula()}"
