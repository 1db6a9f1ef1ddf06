"""Reference energies (E0): what an atom of each element has alone, taken from every total energy before the fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.data import atomic_numbers

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.structures.distances import shortest_distance
from containers.structures.split import empty_sides_message
from containers.structures.table import atoms_from_table, flat, list_lengths
from containers.tensorpot.baseline.rows import Rows


@dataclass(frozen=True)
class Compositions:
    """Labelled structures without their geometry.

    Attributes:
        counts: (S, E) atoms of each element.
        energies: (S,) eV, total.
    """

    counts: Floats
    energies: Floats


def given(e0s_eV: Mapping[str, float], elements: Sequence[str], where: str) -> dict[str, float]:
    """Those of `elements`; raises `BadInput` when one is missing."""
    if missing := [symbol for symbol in elements if symbol not in e0s_eV]:
        raise BadInput(f"{where} has no reference energy of {', '.join(missing)}: give one (eV an atom)")
    return {symbol: float(e0s_eV[symbol]) for symbol in elements}


def counts_of(numbers: Indices, lengths: Indices, elements: Sequence[str]) -> Floats:
    """(S, E) atoms of each element, from all numbers one after the other and the sizes of the S structures."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    counts = [np.bincount(owner[numbers == atomic_numbers[symbol]], minlength=len(lengths)) for symbol in elements]
    return np.array(counts, dtype=float).T


def training_compositions(rows: Rows, elements: Sequence[str]) -> Compositions:
    """The labels of the training side whose structures have no other elements; raises `BadInput` if there is none."""
    counts, energies = [np.zeros((0, len(elements)))], [np.zeros(0)]
    for table in rows.training(["numbers", "energy"]):
        lengths = list_lengths(table.column("numbers"))
        found = counts_of(flat(table.column("numbers")), lengths, elements)
        whole = found.sum(axis=1) == lengths
        counts.append(found[whole])
        energies.append(table.column("energy").to_numpy()[whole])
    if not sum(map(len, energies)):
        families = {name for table in rows.of_teacher(["family"]) for name in table["family"].to_pylist()}
        raise BadInput(empty_sides_message(["train"], families, rows.split))
    return Compositions(np.concatenate(counts), np.concatenate(energies))


def by_least_squares(data: Compositions, teacher_eV: Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """E0s with which energies per atom are nearest to zero, equally for every structure.

    Where the compositions do not tell the elements apart (a single one throughout, say), of all equally good values
    those with the smallest deviation from the teacher's E0s are taken.
    """
    start = np.array([teacher_eV[symbol] for symbol in elements])
    sizes = data.counts.sum(axis=1)
    shares = data.counts / sizes[:, None]
    change, *_ = np.linalg.lstsq(shares, data.energies / sizes - shares @ start, rcond=1e-10)
    return dict(zip(elements, (start + change).tolist(), strict=True))


def isolated(atoms: Atoms, cutoff: float) -> bool:
    """Whether the structure is one atom with no image of itself within the cutoff (Å)."""
    return len(atoms) == 1 and (not atoms.pbc.any() or shortest_distance(atoms, cutoff + 1e-6) > cutoff)


def lone_atoms(labelled: Iterable[pa.Table], cutoff: float) -> Iterator[Atoms]:
    """The isolated atoms among labelled structures (schema LABELS)."""
    for table in labelled:
        single = table.filter(pa.array(list_lengths(table.column("numbers")) == 1))
        yield from (atoms for atoms in atoms_from_table(single) if isolated(atoms, cutoff))


def of_isolated_atoms(found: Iterable[Atoms], elements: Sequence[str], cutoff: float) -> dict[str, float]:
    """The energies (eV) of isolated atoms, the first of each element; raises `BadInput` when one is missing."""
    energies: dict[str, float] = {}
    for atoms in found:
        energies.setdefault(atoms.get_chemical_symbols()[0], float(atoms.calc.results["energy"]))
    if missing := [symbol for symbol in elements if symbol not in energies]:
        raise BadInput(
            f"reference_energies: isolated_atoms, but no isolated atom of {', '.join(missing)} is in the data (one atom"
            f" with no other within {cutoff:g} Å). Add it to the DFT files or to the pool, or give the energies."
        )
    return {symbol: energies[symbol] for symbol in elements}
