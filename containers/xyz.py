"""Extended XYZ read frame by frame, so that a broken frame can be named and memory stays small.

ASE reads the content of a frame; where a frame begins and ends is found here. ASE's own reader stops without a word
at an empty line and its errors do not say which frame is meant.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import read_xyz

from containers.bounded_text import Lines
from containers.contract import BadInput
from containers.too_large import MOST_ATOMS, too_many
from containers.xyz_comment import ALSO_NUMBERS, NUMBERS, PROPERTIES, read_comment

PLAIN_COLUMNS = 4  # symbol, x, y, z
MOST_EMPTY_LINES = 10_000  # one after the other
MOST_DIGITS = 18  # of an atom count; Python reads no number of very many


def xyz_frames(lines: Lines, name: str) -> Iterator[Atoms]:
    """Every frame of an XYZ or extended XYZ text; raises `BadInput` with `name`, frame and line.

    Empty lines between frames are passed over. A frame of zero atoms, or of too many, is an error.
    """
    row = empty = 0
    while (header := lines.take()) is not None:
        if header.strip():
            yield _frame(header, lines, name, row)
            row, empty = row + 1, 0
        elif (empty := empty + 1) > MOST_EMPTY_LINES:
            raise BadInput(f"{name}: {empty} empty lines after frame {row - 1} (from 0), up to line {lines.number}")


def _frame(header: str, lines: Lines, name: str, row: int) -> Atoms:
    start = lines.number
    count = _atom_count(header, start, name, row)
    comment = lines.take()
    block = lines.take_some(count)
    place = f"{name}: frame {row} (from 0), lines {start} to {lines.number}"
    if comment is None or len(block) < count:
        raise BadInput(
            f"{place}: the file ends after {len(block)} of {count} atoms; it was cut off or the atom count is wrong"
        )
    known = read_comment(comment, place)
    _check_columns(known, block, place)
    vectors = 0
    while vectors < 3 and (following := lines.peek()) is not None and following.lstrip().startswith("VEC"):
        block, vectors = block + lines.take_some(1), vectors + 1
    return _parse("\n".join([str(count), comment, *block, ""]), known, place)


def _atom_count(header: str, line: int, name: str, row: int) -> int:
    if header.strip().isdecimal() and len(header.strip()) <= MOST_DIGITS:
        count = int(header)
        if count == 0:
            raise BadInput(f"{name}: frame {row} (from 0), line {line}: zero atoms; remove the frame")
        if count > MOST_ATOMS:
            raise BadInput(f"{name}: frame {row} (from 0), line {line}: {too_many(count)}")
        return count
    shown = header.strip()[:60]
    if row > 0 and len(header.split()) >= PLAIN_COLUMNS:
        raise BadInput(
            f"{name}: frame {row - 1} (from 0) has more lines of atoms than its atom count says:"
            f" line {line} should be the next frame's atom count but is {shown!r}; mend the count or the lines"
        )
    raise BadInput(f"{name}: frame {row} (from 0), line {line} should be its number of atoms but is {shown!r}")


def _check_columns(known: Mapping[str, Any], block: list[str], place: str) -> None:
    """Every atom has the columns that Properties declares (without it: at least symbol, x, y, z)."""
    sizes = known[PROPERTIES].split(":")[2::3] if PROPERTIES in known else []
    expected = sum(map(int, sizes)) or PLAIN_COLUMNS
    for atom, line in enumerate(block):
        columns = len(line.split())
        if columns < expected or (sizes and columns > expected):
            raise BadInput(
                f"{place}: atom {atom} (from 0) has {columns} columns instead of {expected}: {line.strip()[:60]!r};"
                " the atom count or the line is wrong"
            )


def _parse(text: str, known: dict[str, Any], place: str) -> Atoms:
    try:
        atoms = next(read_xyz(io.StringIO(text), index=0, properties_parser=lambda _: known))
    except MemoryError:
        raise
    except KeyError as error:
        number = str(error).strip("'").isdecimal()
        raise BadInput(
            f"{place}: unknown element {error}; {NUMBERS if number else 'symbols are those of the periodic table'}"
        ) from error
    except Exception as error:  # ASE's reader raises what it likes at a broken frame
        raise _refusal(error, text, place) from error
    if ALSO_NUMBERS in atoms.arrays and not np.array_equal(atoms.arrays.pop(ALSO_NUMBERS), atoms.numbers):
        raise BadInput(f"{place}: the columns species and Z name different elements; remove one of them")
    _complete(atoms)
    return atoms


def _complete(atoms: Atoms) -> None:
    """Give ASE's names to an energy and to forces that are spelled otherwise, as GPUMD's `force`."""
    results = {} if atoms.calc is None else atoms.calc.results
    for name, spellings, there in (
        ("energy", ("energy",), atoms.info),
        ("forces", ("force", "forces"), atoms.arrays),
    ):
        keys = [key for key in there if key.lower() in spellings]
        if name not in results and len(keys) == 1:
            results[name] = there[keys[0]]
    if results and atoms.calc is None:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)


def _refusal(error: Exception, text: str, place: str) -> BadInput:
    """Name the atom when the error quotes a word that stands in its line."""
    quoted = re.search(r"'([^']+)'", str(error))
    atoms = text.splitlines()[2:]
    found = [atom for atom, line in enumerate(atoms) if quoted and quoted.group(1) in line.split()]
    where = f", atom {found[0]} (from 0)" if found else ""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return BadInput(f"{place}{where}: {said}; mend or remove the frame")
