"""What the teachers say together: the mean of their labels, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from containers.arrays import Floats, Indices
from containers.contract import StepError
from containers.structures.table import flat, list_lengths


@dataclass(frozen=True)
class Labels:
    """Labels of n structures of N atoms together, the mean over the members.

    Attributes:
        energy: (n,) eV, total. forces: (N, 3) eV/Å. counts: (n,) atoms of each structure.
        stress: n rows of 6, eV/Å³; null unless every member has one.
        distance: (n,) the shortest pair, Å; NaN where no pair lies within a member's cutoff.
        energy_std: (n,) eV, forces_std: (N, 3) eV/Å: population standard deviations, None for one teacher.
    """

    energy: Floats
    forces: Floats
    counts: Indices
    stress: pa.Array
    distance: Floats
    energy_std: Floats | None
    forces_std: Floats | None

    def columns(self) -> dict[str, pa.Array]:
        """The label columns of a table; the deviations are there for a committee only."""
        made = {"energy": pa.array(self.energy), "forces": self._lists(self.forces), "stress": self.stress}
        if self.energy_std is not None and self.forces_std is not None:
            made |= {"energy_std": pa.array(self.energy_std), "forces_std": self._lists(self.forces_std)}
        return made

    def _lists(self, values: Floats) -> pa.Array:
        ends = np.concatenate([[0], 3 * self.counts.cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, values.ravel())


def refusals(members: Sequence[pa.Table]) -> list[str | None]:
    """Why there is no label of a structure, from the rows (ROWS) of every member; None where all have one."""
    told = [member["reason"].to_pylist() for member in members]
    if len(members) == 1:
        return told[0]
    return [_refused(reasons) for reasons in zip(*told, strict=True)]


def _refused(reasons: Sequence[str | None]) -> str | None:
    named = [f"teacher {place} of {len(reasons)}: {reason}" for place, reason in enumerate(reasons, 1) if reason]
    return "; ".join(named) or None


def mean_labels(members: Sequence[pa.Table], numbers: pa.ChunkedArray) -> Labels:
    """Mean and deviations over the members' rows (ROWS without reasons, of the same structures).

    Args:
        numbers: lists of the atomic numbers of these structures.

    Raises:
        StepError: a row has another number of atoms than its structure.
    """
    counts = list_lengths(numbers)
    for member in members:
        _check_sizes(member, counts)
    energies = np.stack([member["energy"].to_numpy() for member in members])
    forces = np.stack([flat(member["forces"]) for member in members])
    distances = np.stack([member["min_distance_A"].to_numpy(zero_copy_only=False) for member in members])
    several = len(members) > 1
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is found by the sanity check
        return Labels(
            energy=energies.mean(axis=0),
            forces=forces.mean(axis=0).reshape(-1, 3),
            counts=counts,
            stress=_mean_stress([member["stress"].combine_chunks() for member in members]),
            distance=np.fmin.reduce(distances.astype(float)),
            energy_std=energies.std(axis=0) if several else None,
            forces_std=forces.std(axis=0).reshape(-1, 3) if several else None,
        )


def _check_sizes(member: pa.Table, counts: Indices) -> None:
    lengths = pc.fill_null(pc.list_value_length(member["forces"]), 0).to_numpy()
    if len(wrong := np.flatnonzero((lengths != 3 * counts) | (counts == 0) | pc.is_null(member["energy"]).to_numpy())):
        identity = member["id"][int(wrong[0])].as_py().hex()
        raise StepError(
            f"the stored label of structure {identity} does not fit it: {lengths[wrong[0]]} force components for"
            f" {counts[wrong[0]]} atoms. Move that label store aside, then run again."
        )


def _mean_stress(stresses: Sequence[pa.Array]) -> pa.Array:
    if len(stresses) == 1:
        return stresses[0]
    known = np.logical_and.reduce([pc.is_valid(stress).to_numpy(zero_copy_only=False) for stress in stresses])
    values = np.zeros((len(known), 6))
    each = [stress.filter(pa.array(known)).flatten().to_numpy().reshape(-1, 6) for stress in stresses]
    values[known] = np.mean(each, axis=0)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6, mask=pa.array(~known))
