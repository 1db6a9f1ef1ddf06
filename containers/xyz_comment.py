"""The comment line of an extended XYZ frame: what it says of cell, periodic directions and columns.

ASE knows `Lattice`, `Properties` and `pbc` in this spelling alone and takes a crystal with `lattice=` for a molecule.
GPUMD and NEP write small letters, and others say `cell=`: here each is understood, or refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from ase.io.extxyz import key_val_str_to_dict

from containers.contract import BadInput

LATTICE, PROPERTIES, PBC = "Lattice", "Properties", "pbc"
SPELLED = {name.lower(): name for name in (LATTICE, PROPERTIES, PBC)}
CELLS = ("cell", "box", "unit_cell", "unitcell", "cell_vectors", "lattice_vectors", "latt", "lat")
"""Keys by which others give a cell. Without `Lattice` they would be passed over."""
OF_IPI = re.compile(r"\bCELL[({]")
WRITE_LATTICE = 'a cell is written as Lattice="ax ay az bx by bz cx cy cz" (Å)'
FLAGS = {"t": True, "true": True, ".true.": True, "1": True, "f": False, "false": False, ".false.": False, "0": False}
COLUMNS = {name: name for name in ("species", "symbols", "pos", "positions")}
"""Names of columns that are known in any spelling."""
ALSO_NUMBERS = "_numbers"  # of a column Z beside the symbols
NUMBERS = (
    "numbers may be atomic numbers or another program's types: write symbols, or name a column of atomic numbers Z"
    " (Properties=Z:I:1:...)"
)


def read_comment(text: str, place: str) -> dict[str, Any]:
    """Keys and values as ASE has them; LATTICE, PROPERTIES and PBC under these names, whatever their spelling is.

    Raises:
        BadInput: a cell or columns that cannot be understood, with `place` (file and frame).
    """
    try:
        found = key_val_str_to_dict(text) if text.strip() else {}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{place}: the comment line cannot be read: {' '.join(str(error).split())[:200]}") from None
    for key in [key for key in found if key.lower() in SPELLED and key not in SPELLED.values()]:
        if SPELLED[key.lower()] in found:
            raise BadInput(f"{place}: the comment line has {SPELLED[key.lower()]} twice ({key}); remove one")
        found[SPELLED[key.lower()]] = found.pop(key)
    if LATTICE in found:
        found[LATTICE] = _lattice(found[LATTICE], place)
    if PBC in found:
        found[PBC] = _flags(found[PBC], place)
    if PROPERTIES in found:
        found[PROPERTIES] = _properties(found[PROPERTIES], place)
    if LATTICE not in found and any(found.get(PBC, [True])):
        _refuse_other_cells(text, found, place)
    return found


def _lattice(value: Any, place: str) -> np.ndarray:
    """Nine numbers as ASE wants them: 3 x 3, columns are the cell's vectors."""
    numbers = np.asarray(value)
    if numbers.size != 9 or numbers.dtype.kind not in "if":
        raise BadInput(f"{place}: {LATTICE} is {str(value)[:60]!r}, not nine numbers; {WRITE_LATTICE}")
    return numbers if numbers.shape == (3, 3) else numbers.reshape((3, 3), order="F")


def _flags(value: Any, place: str) -> list[bool]:
    """Whether each direction is periodic; one flag stands for all three."""
    words = value.replace(",", " ").split() if isinstance(value, str) else [str(one) for one in np.ravel(value)]
    flags = [FLAGS.get(word.lower()) for word in words]
    if len(flags) not in (1, 3) or None in flags:
        raise BadInput(f'{place}: pbc is {str(value)[:60]!r}, not three flags; write pbc="T T T" or pbc="F F F"')
    return [bool(flag) for flag in flags] * (3 // len(flags))


def _properties(value: Any, place: str) -> str:
    """The columns, with the names and types that ASE knows."""
    words = value.split(":") if isinstance(value, str) else []
    triplets = [words[start : start + 3] for start in range(0, len(words), 3)]
    if not triplets or not all(len(triplet) == 3 and re.fullmatch(r"[1-9]\d{0,5}", triplet[2]) for triplet in triplets):
        raise BadInput(f"{place}: {PROPERTIES}={str(value)[:100]} is not name:type:columns triplets")
    triplets = [[COLUMNS.get(name.lower(), name), kind.upper(), size] for name, kind, size in triplets]
    kinds = {name: kind for name, kind, _ in triplets}
    symbols = next((name for name in ("species", "symbols") if name in kinds), None)
    if not {"pos", "positions"} & set(kinds):
        raise BadInput(f"{place}: {PROPERTIES}={value[:100]} has no positions (pos:R:3)")
    if symbols is None and "Z" not in kinds:
        raise BadInput(f"{place}: {PROPERTIES}={value[:100]} has no elements (species:S:1, or Z:I:1)")
    if symbols and kinds[symbols] != "S":
        raise BadInput(
            f"{place}: {PROPERTIES} says that the {symbols} are numbers ({symbols}:{kinds[symbols]}); {NUMBERS}"
        )
    renamed = [[ALSO_NUMBERS if symbols and name == "Z" else name, *rest] for name, *rest in triplets]
    return ":".join(word for triplet in renamed for word in triplet)


def _refuse_other_cells(text: str, found: dict[str, Any], place: str) -> None:
    """A cell under another name, which would be passed over; zeros are no cell."""
    for key, value in found.items():
        numbers = np.asarray(value)
        if key.lower() in CELLS and value is not True and (numbers.dtype.kind not in "if" or numbers.any()):
            raise BadInput(f"{place}: the comment line has {key}=... but no {LATTICE}; {WRITE_LATTICE}")
    if OF_IPI.search(text):
        raise BadInput(f"{place}: the cell of the comment line is in i-PI's words, which are not read; {WRITE_LATTICE}")
