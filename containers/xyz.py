"""Extended XYZ read frame by frame, so that a broken frame can be named and memory stays small.

ASE reads the content of a frame; where a frame begins and ends is found here. ASE's own reader stops without a word
at an empty line and its errors do not say which frame is meant.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

from ase import Atoms
from ase.io.extxyz import read_xyz

from containers.contract import BadInput

PROPERTIES = re.compile(r"""(?:^|\s)Properties=["']?([^\s"']+)""")
PLAIN_COLUMNS = 4  # symbol, x, y, z


class _Lines:
    """Lines of a text with the number of the last one (from 1) and a look at the next."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)
        self.number = 0

    def peek(self) -> str | None:
        return self._next

    def take(self) -> str | None:
        line, self._next = self._next, next(self._lines, None)
        self.number += line is not None
        return line

    def take_some(self, count: int) -> list[str]:
        """At most `count` lines; fewer at the end of the text."""
        taken: list[str] = []
        while len(taken) < count and (line := self.take()) is not None:
            taken.append(line)
        return taken


def xyz_frames(text: Iterable[str], name: str) -> Iterator[Atoms]:
    """Every frame of an XYZ or extended XYZ text; raises `BadInput` with `name`, frame and line.

    Empty lines between frames are passed over. A frame of zero atoms is an error.
    """
    lines = _Lines(text)
    row = 0
    while (header := lines.take()) is not None:
        if header.strip():
            yield _frame(header, lines, name, row)
            row += 1


def _frame(header: str, lines: _Lines, name: str, row: int) -> Atoms:
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
    return _parse(f"{count}\n{comment}{''.join(block)}", place)


def _atom_count(header: str, line: int, name: str, row: int) -> int:
    if header.strip().isdecimal():
        count = int(header)
        if count == 0:
            raise BadInput(f"{name}: frame {row} (from 0), line {line}: zero atoms; remove the frame")
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
    except (ValueError, TypeError, OSError, IndexError, AssertionError, OverflowError) as error:
        _refuse(error, text, place)


def _refuse(error: Exception, text: str, place: str) -> NoReturn:
    """Name the atom when the error quotes a word that stands in its line."""
    quoted = re.search(r"'([^']+)'", str(error))
    atoms = text.splitlines()[2:]
    found = [atom for atom, line in enumerate(atoms) if quoted and quoted.group(1) in line.split()]
    where = f", atom {found[0]} (from 0)" if found else ""
    raise BadInput(f"{place}{where}: {str(error) or type(error).__name__}; mend or remove the frame") from error
