"""Labelled structures in MLIP's configuration format, with every digit; see `mlip_cfg` for the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase.data import chemical_symbols

from containers.frame_state import state_values
from containers.mlip_cfg import BEGIN, CARTESIAN, CELL, ELEMENTS, END, FORCES, PBC, VOIGT
from containers.structures import flat, list_lengths, with_state

AT_ONCE = 500  # configurations; of 100 atoms some 10 MB of text
COLUMNS = ("id", "energy", "stress", "cell", "pbc", "state")


def element_order(numbers: Iterable[int]) -> tuple[int, ...]:
    """Atomic numbers, each once, sorted by symbol: the elements of types 0, 1, ..."""
    return tuple(sorted(set(numbers), key=lambda number: chemical_symbols[number]))


def write_configurations(file: BinaryIO, labels: pa.Table, elements: Sequence[int]) -> None:
    """Append a table of LABELS. Energy in eV, forces in eV/Å, PlusStress in eV (minus volume times stress).

    Args:
        file: open for writing.
        labels: rows of LABELS; a committee's deviations have no place in the format.
        elements: atomic numbers of types 0, 1, ...: one order for the whole file, written into every configuration.
    """
    for start in range(0, labels.num_rows, AT_ONCE):
        file.writelines(text.encode("ascii") for text in _configurations(labels.slice(start, AT_ONCE), elements))


def _configurations(labels: pa.Table, elements: Sequence[int]) -> Iterator[str]:
    symbols = " ".join(chemical_symbols[number] for number in elements)
    counts = list_lengths(labels["numbers"]).tolist()
    rows = with_state(labels).select(list(COLUMNS)).to_pylist()
    for count, row, atoms in zip(counts, rows, _atom_lines(labels, elements), strict=True):
        yield (
            f"{BEGIN}\n Size\n    {count}\n{_supercell(row)} AtomData:  id type {' '.join((*CARTESIAN, *FORCES))}\n"
            f"{atoms}\n Energy\n    {row['energy']!r}\n{_stress(row)}"
            f" Feature   {ELEMENTS} {symbols}\n Feature   id {row['id']}\n{_state(row)}{_apart(row)}{END}\n\n"
        )


def _atom_lines(labels: pa.Table, elements: Sequence[int]) -> list[str]:
    """The lines of the atoms of each row, joined."""
    counts = list_lengths(labels["numbers"])
    types = np.zeros(max(elements) + 1, dtype=np.int64)
    types[list(elements)] = np.arange(len(elements))
    ends = np.cumsum([0, *counts], dtype=np.int32)
    places = np.arange(ends[-1]) - np.repeat(ends[:-1], counts) + 1
    words = [pa.array(places).cast(pa.string()), pa.array(types[flat(labels["numbers"])]).cast(pa.string())]
    for column in ("positions", "forces"):
        xyz = flat(labels[column]).reshape(-1, 3)
        words += [pa.array(xyz[:, axis]).cast(pa.string()) for axis in range(3)]
    lines = pc.binary_join_element_wise(*words, " ")
    return pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n").to_pylist()


def _supercell(row: dict[str, Any]) -> str:
    """The periodic vectors only: MLIP takes every vector there as periodic."""
    vectors = [row["cell"][3 * axis : 3 * axis + 3] for axis in range(3) if row["pbc"][axis]]
    lines = "".join(f"    {_numbers(vector)}\n" for vector in vectors)
    return f" Supercell\n{lines}" if lines else ""


def _state(row: dict[str, Any]) -> str:
    return "".join(f" Feature   {name} {value:g}\n" for name, value in state_values(row["state"]).items())


def _apart(row: dict[str, Any]) -> str:
    """What Supercell cannot tell of a structure that is not periodic in all three directions."""
    if all(row["pbc"]):
        return ""
    flags = " ".join("T" if flag else "F" for flag in row["pbc"])
    return f" Feature   {PBC} {flags}\n Feature   {CELL} {_numbers(row['cell'])}\n"


def _stress(row: dict[str, Any]) -> str:
    if row["stress"] is None:
        return ""
    volume = abs(float(np.linalg.det(np.reshape(row["cell"], (3, 3)))))
    virial = (-volume * np.array(row["stress"])).tolist()
    return f" PlusStress:  {' '.join(VOIGT)}\n    {_numbers(virial)}\n"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))
