"""Text read in bounded memory (endless lines and compression bombs are refused early), and numbers written exactly."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from containers.contract import BadInput
from containers.structures.table import flat, list_lengths

COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".gzip": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
BLOCK = 1 << 18  # characters or bytes read at once
LONGEST_LINE = 4_000_000  # characters; comment lines of frames may hold long lists, structure files nothing longer


def compression(name: str) -> str:
    """Return the ending of a compressed file's name in small letters, or nothing."""
    suffix = PurePath(name.lower()).suffix
    return suffix if suffix in COMPRESSED else ""


@contextmanager
def reading(path: Path, name: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file: as it lies there, and its content, decompressed when the user's name says so.

    Raises:
        BadInput: the content cannot be decompressed; names the file.
    """
    with path.open("rb") as raw:
        opener = COMPRESSED.get(compression(name))
        try:
            yield raw, opener(raw) if opener else raw
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file's content
                raise
            raise BadInput(f"{name}: cannot be read ({error}); the file may be damaged or cut off") from error


def decompress(path: Path, name: str, to: Path, most: int, fix: str) -> None:
    """Write the decompressed content; more than `most` bytes of it are `BadInput`, with the `fix`."""
    with reading(path, name) as (_, content), to.open("wb") as file:
        while block := content.read(BLOCK):
            if file.tell() + len(block) > most:
                raise BadInput(f"{name}: holds more than {most / 1e6:,.0f} MB; {fix}")
            file.write(block)


class Lines:
    """The lines of a text, without their ends.

    Attributes:
        number: of the last line taken, from 1; 0 before.
    """

    def __init__(self, content: BinaryIO, name: str) -> None:
        self._text: TextIO = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace")
        self._name = name
        self._next = ""
        self.number = 0

    def peek(self) -> str | None:
        """Return the next line, which stays; None at the end. Refuse an endless one."""
        if not self._next:
            self._next = self._text.readline(LONGEST_LINE + 2)
            if len(self._next.removesuffix("\n")) > LONGEST_LINE:
                raise BadInput(
                    f"{self._name}: a line after line {self.number} is longer than {LONGEST_LINE:,} characters;"
                    " is this a file of structures, in the format that its name says?"
                )
        return self._next.removesuffix("\n") if self._next else None

    def take(self) -> str | None:
        """Return the next line; None at the end."""
        if (line := self.peek()) is not None:
            self._next = ""
            self.number += 1
        return line

    def take_some(self, count: int) -> list[str]:
        """Return at most `count` lines; fewer at the end of the text."""
        taken: list[str] = []
        while len(taken) < count and (line := self.take()) is not None:
            taken.append(line)
        return taken


FIX = "correct or remove the frame"

MOST_ATOMS = 1_000_000
"""A structure of more atoms is a mistake: nothing here learns from it, and reading it would take gigabytes."""


def too_many(atoms: int) -> str:
    """Return the message about a structure that has, or claims to have, more than MOST_ATOMS atoms."""
    return f"{atoms:,} atoms, at most {MOST_ATOMS:,} are read; is this the right file? {FIX}"


def exact(values: Iterable[float]) -> str:
    """Write numbers so that the same float64 is read back."""
    return " ".join(map(repr, values))


def atom_lines(labels: pa.Table, first: Sequence[pa.Array], columns: Sequence[str]) -> list[str]:
    """Write the lines of the atoms of each row, joined: words of `first`, then x, y, z of each of `columns`, exactly.

    Arrow writes the shortest text that reads back as the same float64, as Python's `repr` does, in half its time.
    """
    words = list(first)
    for column in columns:
        xyz = flat(labels[column]).reshape(-1, 3)
        words += [pa.array(xyz[:, axis]).cast(pa.string()) for axis in range(3)]
    lines = pc.binary_join_element_wise(*words, " ")
    ends = np.cumsum([0, *list_lengths(labels["numbers"])], dtype=np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(ends, lines), "\n").to_pylist()
