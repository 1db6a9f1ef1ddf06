"""Extended XYZ read frame by frame, so that a broken frame can be named and memory stays small.

ASE reads the content of a frame; where a frame begins and ends is found here. ASE's own reader stops without a word
at an empty line and its errors do not say which frame is meant.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NoReturn

from ase import Atoms
from ase.io.extxyz import read_xyz

from containers.bounded_text import Lines
from containers.contract import BadInput
from containers.frame_checks import MOST_ATOMS, too_many

PROPERTIES = re.compile(r"""(?:^|\s)Properties=["']?([^\s"']+)""")
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
    _check_columns(comment, block, place)
    while (following := lines.peek()) is not None and following.lstrip().startswith("VEC"):
        block += lines.take_some(1)
    return _parse("\n".join([str(count), comment, *block, ""]), place)


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


def _check_columns(comment: str, block: list[str], place: str) -> None:
    """Every atom has the columns that Properties declares (without it: at least symbol, x, y, z)."""
    declared = PROPERTIES.search(comment)
    sizes = declared.group(1).split(":")[2::3] if declared else []
    if not all(size.isdecimal() for size in sizes):
        raise BadInput(f"{place}: Properties={declared and declared.group(1)} is not name:type:columns triplets")
    names = declared.group(1).split(":")[::3] if declared else ["pos"]
    if not {"pos", "positions"} & set(names):
        raise BadInput(f"{place}: Properties={declared and declared.group(1)} has no positions (pos:R:3)")
    expected = sum(map(int, sizes)) or PLAIN_COLUMNS
    for atom, line in enumerate(block):
        columns = len(line.split())
        if columns < expected or (declared and columns > expected):
            raise BadInput(
                f"{place}: atom {atom} (from 0) has {columns} columns instead of {expected}: {line.strip()[:60]!r};"
                " the atom count or the line is wrong"
            )


def _parse(text: str, place: str) -> Atoms:
    try:
        return next(read_xyz(io.StringIO(text), index=0))
    except KeyError as error:
        raise BadInput(f"{place}: unknown element {error}; symbols are those of the periodic table") from error
    except (ValueError, TypeError, OSError, IndexError, AssertionError, OverflowError, RecursionError) as error:
        _refuse(error, text, place)


def _refuse(error: Exception, text: str, place: str) -> NoReturn:
    """Name the atom when the error quotes a word that stands in its line."""
    quoted = re.search(r"'([^']+)'", str(error))
    atoms = text.splitlines()[2:]
    found = [atom for atom, line in enumerate(atoms) if quoted and quoted.group(1) in line.split()]
    where = f", atom {found[0]} (from 0)" if found else ""
    raise BadInput(f"{place}{where}: {str(error) or type(error).__name__}; mend or remove the frame") from error
