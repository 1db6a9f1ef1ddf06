"""Labelled structures as extended XYZ, with every digit: what ASE reads back is bit for bit what was written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from containers.structures import flat, list_lengths

COLUMN_NAMES = {"positions": "pos", "forces": "forces", "forces_std": "forces_std"}
"""Column of three numbers an atom -> its name in the file; `forces_std` only for a committee's labels."""
IN_COMMENT = ("id", "energy", "energy_std", "stress", "cell", "pbc", "state")
ATOMS_AT_ONCE = 50_000  # some 10 MB of text
SYMBOLS = pa.array(chemical_symbols)
WORD = re.compile(r"(?!(?i:t|f|true|false|nan|inf|infinity)$)[A-Za-z_][\w.:/+-]*", re.ASCII)
"""Text that ASE reads as text as it stands."""


def write_frames(file: BinaryIO, labels: pa.Table, also: Sequence[str] = ()) -> None:
    """Append a table of LABELS: id, energy (eV, total), forces (eV/Å), stress (eV/Å³, nine numbers) of each row, its
    state (see `frame_state`), and the deviations of a committee; `also` names columns of text or numbers that go into
    the comment (empty text does not).

    ASE's own writer keeps eight decimals of positions and forces, which loses the content id. Arrow writes the
    shortest text that reads back as the same float64, as Python's `repr` does, in half its time.
    """
    for piece in _pieces(labels):
        file.writelines(frame.encode("ascii") for frame in _frames(piece, also))


def _pieces(labels: pa.Table) -> Iterator[pa.Table]:
    """The rows in turns of about ATOMS_AT_ONCE."""
    atoms = list_lengths(labels["numbers"]).cumsum()
    cuts = (np.flatnonzero(np.diff(atoms // ATOMS_AT_ONCE)) + 1).tolist()
    for start, stop in zip([0, *cuts], [*cuts, labels.num_rows], strict=True):
        yield labels.slice(start, stop - start)


def _frames(labels: pa.Table, also: Sequence[str]) -> Iterator[str]:
    names = {column: name for column, name in COLUMN_NAMES.items() if column in labels.column_names}
    properties = ":".join(["species:S:1", *(f"{name}:R:3" for name in names.values())])
    comments = labels.select([name for name in IN_COMMENT if name in labels.column_names]).to_pylist()
    more = labels.select(list(also)).to_pylist()
    counts = list_lengths(labels["numbers"]).tolist()
    for count, row, extra, atoms in zip(counts, comments, more, _atom_lines(labels, list(names)), strict=True):
        yield f"{count}\n{_comment(row, properties)}{_also(extra)}\n{atoms}\n"


def _atom_lines(labels: pa.Table, columns: list[str]) -> list[str]:
    """The lines of the atoms of each row, joined."""
    words = [SYMBOLS.take(pa.array(flat(labels["numbers"])))]
    for column in columns:
        xyz = flat(labels[column]).reshape(-1, 3)
        words += [pa.array(xyz[:, axis]).cast(pa.string()) for axis in range(3)]
    lines = pc.binary_join_element_wise(*words, " ")
    ends = np.cumsum([0, *list_lengths(labels["numbers"])], dtype=np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n").to_pylist()


def _comment(row: dict[str, Any], properties: str) -> str:
    parts = [f"Properties={properties}", f"id={row['id']}", f"energy={row['energy']!r}"]
    if set(map(repr, row["cell"])) != {"0.0"}:  # a cell of -0.0 is kept too
        parts.insert(0, f'Lattice="{_numbers(row["cell"])}"')
    if "energy_std" in row:
        parts.append(f"energy_std={row['energy_std']!r}")
    if row["stress"] is not None:
        parts.append(f'stress="{_numbers(voigt_6_to_full_3x3_stress(row["stress"]).ravel().tolist())}"')
    parts += row.get("state", "").split()  # total_charge=1 total_spin=2
    periodic = " ".join("T" if flag else "F" for flag in row["pbc"])
    return " ".join([*parts, f'pbc="{periodic}"'])


def _also(row: dict[str, Any]) -> str:
    return "".join(f" {name}={_value(value)}" for name, value in row.items() if value != "")


def _value(value: Any) -> str:
    """As ASE reads it back: text that it would take for a number, a truth value or two words is marked as JSON."""
    if not isinstance(value, str) or WORD.fullmatch(value):
        return str(value)
    quoted = json.dumps(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"_JSON {quoted}"'


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(repr, values))
