"""VASP's XDATCAR, read configuration by configuration; ASE's reader ends without a word where it does not understand.

The header (title, scale, three vectors, symbols, counts) stands once, or before each configuration where the cell
changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from containers.arrays import Floats
from containers.contract import BadInput
from containers.formats.text import MOST_ATOMS, Lines, too_many

TITLE = "Direct configuration="


def xdatcar_frames(lines: Lines, name: str) -> Iterator[Atoms]:
    """Read every configuration, periodic in all directions.

    Raises:
        BadInput: a broken header or configuration; names file, frame and line.
    """
    row, known = 0, None
    while (line := lines.take()) is not None:
        try:
            if line.strip().startswith(TITLE):
                if known is None:
                    raise ValueError("a configuration comes before the header")
                cell, numbers = known
                scaled = np.array([_floats(lines.take(), "the position of an atom, three numbers,") for _ in numbers])
                yield Atoms(numbers, positions=scaled @ cell, cell=cell, pbc=True)
                row += 1
            elif line.strip() or known is None:
                if known is not None and len(line.split()) == 3 and not line.strip()[0].isalpha():
                    raise ValueError(
                        f"{TITLE!r} or a header should be here, not {line.strip()[:60]!r}: more atoms than it says"
                    )
                known = _header(lines)
        except ValueError as error:
            raise BadInput(
                f"{name}: frame {row} (from 0), line {lines.number}: {error}; correct or remove the configuration"
            ) from None


def _header(lines: Lines) -> tuple[Floats, list[int]]:
    """Read the cell (Å) and the atomic numbers from the lines after a title."""
    scale = _floats(lines.take(), "the scale of the cell, one number,", 1)[0]
    cell = np.array([_floats(lines.take(), "a vector of the cell, three numbers,") for _ in range(3)])
    if scale < 0:  # minus the volume
        scale = (-scale / abs(np.linalg.det(cell))) ** (1 / 3)
    symbols = [symbol.split("_")[0].split("/")[0] for symbol in _text(lines.take()).split()]
    counts = _text(lines.take()).split()
    if len(symbols) != len(counts) or not all(count.isdecimal() and len(count) < 19 for count in counts):
        raise ValueError("the header should have the elements and the number of atoms of each here")
    if unknown := [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) == 0]:
        raise ValueError(f"{unknown[0][:20]!r} is no element")
    if (total := sum(map(int, counts))) > MOST_ATOMS:
        raise ValueError(too_many(total))
    pairs = zip(symbols, counts, strict=True)
    return scale * cell, [atomic_numbers[symbol] for symbol, count in pairs for _ in range(int(count))]


def _text(line: str | None) -> str:
    if line is None:
        raise ValueError("the file ends here; it was cut off")
    return line


def _floats(line: str | None, what: str, count: int = 3) -> list[float]:
    """Return so many numbers, the first of a line."""
    words = _text(line).split()
    try:
        if len(words) < count:
            raise ValueError
        return [float(word) for word in words[:count]]
    except ValueError:
        raise ValueError(f"{what} should be here, not {' '.join(words)[:60]!r}") from None
