"""Labels of a committee of teachers: their mean, and how far the members are from each other."""

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
        """Return the label columns of a table; the deviations are there for a committee only."""
        made = {"energy": pa.array(self.energy), "forces": self._lists(self.forces), "stress": self.stress}
        if self.energy_std is not None and self.forces_std is not None:
            made |= {"energy_std": pa.array(self.energy_std), "forces_std": self._lists(self.forces_std)}
        return made

    def _lists(self, values: Floats) -> pa.Array:
        ends = np.concatenate([[0], 3 * self.counts.cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(ends, values.ravel())


def refusals(members: Sequence[pa.Table]) -> list[str | None]:
    """Return why a structure has no label, from the rows (ROWS) of every member; None where all have one."""
    columns = [member["reason"].to_pylist() for member in members]
    if len(members) == 1:
        return columns[0]
    named = [
        [f"teacher {place} of {len(members)}: {reason}" for place, reason in enumerate(reasons, 1) if reason]
        for reasons in zip(*columns, strict=True)
    ]
    return ["; ".join(reasons) or None for reasons in named]


def mean_labels(members: Sequence[pa.Table], numbers: pa.ChunkedArray) -> Labels:
    """Return mean and deviations over the members' rows (ROWS without reasons, of the same structures).

    Args:
        numbers: lists of the atomic numbers of these structures.

    Raises:
        StepError: a row has another number of atoms than its structure.
    """
    counts = list_lengths(numbers)
    for member in members:
        lengths = pc.fill_null(pc.list_value_length(member["forces"]), 0).to_numpy()
        wrong = (lengths != 3 * counts) | (counts == 0) | pc.is_null(member["energy"]).to_numpy()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise StepError(
                f"the stored label of structure {member['id'][row].as_py().hex()} does not fit it: {lengths[row]} force"
                f" components for {counts[row]} atoms. Move that label store aside, then run again."
            )
    energies = np.stack([member["energy"].to_numpy() for member in members])
    forces = np.stack([flat(member["forces"]) for member in members])
    distances = np.stack([member["min_distance_A"].to_numpy(zero_copy_only=False) for member in members])
    stresses = [member["stress"].combine_chunks() for member in members]
    stress, several = stresses[0], len(members) > 1
    if several:
        known = np.logical_and.reduce([pc.is_valid(each).to_numpy(zero_copy_only=False) for each in stresses])
        values = np.zeros((len(known), 6))
        both = [each.filter(pa.array(known)).flatten().to_numpy().reshape(-1, 6) for each in stresses]
        values[known] = np.mean(both, axis=0)
        stress = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6, mask=pa.array(~known))
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is found by the check of the bounds
        return Labels(
            energy=energies.mean(axis=0),
            forces=forces.mean(axis=0).reshape(-1, 3),
            counts=counts,
            stress=stress,
            distance=np.fmin.reduce(distances.astype(float)),
            energy_std=energies.std(axis=0) if several else None,
            forces_std=forces.std(axis=0).reshape(-1, 3) if several else None,
        )
