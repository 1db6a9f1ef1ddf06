"""Reference energies (E0): energy of an atom of each element alone, taken from every total energy before the fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from ase import Atoms
from ase.data import atomic_numbers

from containers.arrays import Floats, Indices
from containers.contract import BadInput
from containers.structures.distances import shortest_distance
from containers.structures.split import empty_sides_message
from containers.structures.table import atoms_from_table, flat, list_lengths
from containers.tensorpot.baseline.rows import BaselineLabels


def given(e0s_eV: Mapping[str, float], elements: Sequence[str], where: str) -> dict[str, float]:
    """Return those of `elements`; raises `BadInput` when one is missing."""
    if missing := [symbol for symbol in elements if symbol not in e0s_eV]:
        raise BadInput(f"{where} has no reference energy of {', '.join(missing)}: give one (eV an atom)")
    return {symbol: float(e0s_eV[symbol]) for symbol in elements}


def counts_of(numbers: Indices, lengths: Indices, elements: Sequence[str]) -> Floats:
    """Count (S, E) atoms of each element, from all numbers one after the other and the sizes of the S structures."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    counts = [np.bincount(owner[numbers == atomic_numbers[symbol]], minlength=len(lengths)) for symbol in elements]
    return np.array(counts, dtype=float).T


def by_least_squares(
    labels: BaselineLabels, teacher_eV: Mapping[str, float], elements: Sequence[str]
) -> dict[str, float]:
    """Return E0s with which energies per atom are nearest to zero, equally for every structure.

    They are fitted to the training side's structures that have no other elements; raises `BadInput` if there is none.
    Where the compositions do not distinguish the elements (a single one throughout, say), of all equally good values
    those with the smallest deviation from the teacher's E0s are taken.
    """
    parts, totals = [np.zeros((0, len(elements)))], [np.zeros(0)]
    for table in labels.training(["numbers", "energy"]):
        lengths = list_lengths(table.column("numbers"))
        found = counts_of(flat(table.column("numbers")), lengths, elements)
        whole = found.sum(axis=1) == lengths
        parts.append(found[whole])
        totals.append(table.column("energy").to_numpy()[whole])
    counts, energies = np.concatenate(parts), np.concatenate(totals)
    if not len(energies):
        families = {name for table in labels.of_teacher(["family"]) for name in table["family"].to_pylist()}
        raise BadInput(empty_sides_message(["train"], families, labels.split))
    start, sizes = np.array([teacher_eV[symbol] for symbol in elements]), counts.sum(axis=1)
    shares = counts / sizes[:, None]
    change, *_ = np.linalg.lstsq(shares, energies / sizes - shares @ start, rcond=1e-10)
    return dict(zip(elements, (start + change).tolist(), strict=True))


def isolated(atoms: Atoms, cutoff: float) -> bool:
    """Return whether the structure is one atom with no image of itself within the cutoff (Å)."""
    return len(atoms) == 1 and (not atoms.pbc.any() or shortest_distance(atoms, cutoff + 1e-6) > cutoff)


def lone_atoms(labelled: Iterable[pa.Table], cutoff: float) -> Iterator[Atoms]:
    """Yield the isolated atoms among labelled structures (schema LABELS)."""
    for table in labelled:
        single = table.filter(pa.array(list_lengths(table.column("numbers")) == 1))
        yield from (atoms for atoms in atoms_from_table(single) if isolated(atoms, cutoff))


def of_isolated_atoms(found: Iterable[Atoms], elements: Sequence[str], cutoff: float) -> dict[str, float]:
    """Return the energies (eV) of isolated atoms, the first of each element; raises `BadInput` when one is missing."""
    energies: dict[str, float] = {}
    for atoms in found:
        energies.setdefault(atoms.get_chemical_symbols()[0], float(atoms.calc.results["energy"]))
    if missing := [symbol for symbol in elements if symbol not in energies]:
        raise BadInput(
            f"reference_energies: isolated_atoms, but no isolated atom of {', '.join(missing)} is in the data (one atom"
            f" with no other within {cutoff:g} Å). Add it to the DFT files or to the pool, or give the energies."
        )
    return {symbol: energies[symbol] for symbol in elements}
