"""Structures out of the files people have: which reader a file gets, and what every reader is held to.

The user's file name decides the format and stands in every message; the file itself may lie under another name. No
code out of a file is run: pickles are refused, but for pacemaker's tables, of which nothing is executed.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ase import Atoms

from containers.ase_files import ase_format, ase_frames, in_turns, largest
from containers.bounded_text import Lines, compression, decompress, reading
from containers.contract import BadInput
from containers.mlip_cfg import is_mlip, mlip_frames
from containers.parquet_rows import parquet_frames
from containers.pckl_gzip import frame_rows
from containers.scf import marked
from containers.xyz import xyz_frames

PICKLES = (".pckl", ".pkl", ".pickle", ".pt", ".model")
PACEMAKER = ".pckl.gzip"
XYZ = (".xyz", ".extxyz")
CFG = (".cfg", ".cfgs")
USUAL = (
    "extended XYZ (.xyz, .extxyz), .traj, .cif, POSCAR, OUTCAR, vasprun.xml, .cfg, an ASE database (.db, .json),"
    " .parquet or pacemaker's .pckl.gzip"
)
MEND_LARGE = "split the file, or write the structures as extended XYZ, which is streamed"


class Frame(NamedTuple):
    """One structure of a file."""

    atoms: Atoms
    row: int  # its place in the file, from 0
    bytes_read: int  # of the file so far; 0 where the reader cannot tell

    def place(self, name: str) -> str:
        """Where it is, for messages."""
        return f"{name}: frame {self.row} (from 0)"


def read_frames(path: Path, name: str, work: Path, mlip_elements: Sequence[str] = ()) -> Iterator[Frame]:
    """Every structure of one file, as it stands there: unchecked, with info, arrays and calculator results.

    Args:
        path: the file.
        name: the user's name of it; its ending decides the format.
        work: an existing folder in which the file may be linked or unpacked under the user's name (ASE goes by names).
        mlip_elements: elements of types 0, 1, ... of MLIP configurations that do not say.

    Raises:
        BadInput: no file, an empty one, a pickle, an unknown format, a broken or enormous frame, no structure at all.
    """
    _refuse_hopeless(path, name)
    folder = work / "file"  # of its own: ASE looks for neighbours of some files
    folder.mkdir()
    try:
        row = -1
        for row, (atoms, done) in enumerate(_structures(path, name, folder, mlip_elements)):
            yield Frame(atoms, row, done)
    finally:
        shutil.rmtree(folder)
    if row < 0:
        raise BadInput(f"{name}: there is no structure in the file")


def _refuse_hopeless(path: Path, name: str) -> None:
    if not path.is_file():
        raise BadInput(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{name}: the file is empty")
    if _plain_suffix(name) in PICKLES and not name.lower().endswith(PACEMAKER):
        raise BadInput(
            f"{name}: a pickle is not read, because opening one runs the code in it; write the structures as {USUAL}"
        )


def _plain_suffix(name: str) -> str:
    """The ending under a compression's ending, in small letters: `.xyz` of `pool.XYZ.gz`."""
    return PurePath(_unpacked_name(name).lower()).suffix


def _unpacked_name(name: str) -> str:
    return PurePath(name).name.removesuffix(PurePath(name).suffix) if compression(name) else PurePath(name).name


def _structures(path: Path, name: str, folder: Path, elements: Sequence[str]) -> Iterator[tuple[Atoms, int]]:
    suffix = _plain_suffix(name)
    if suffix in XYZ:
        return _text(path, name)
    if suffix in CFG and _holds_mlip(path, name):
        return _text(path, name, elements)
    return _guarded(_whole(path, name, suffix, folder), name)


def _holds_mlip(path: Path, name: str) -> bool:
    with reading(path, name) as (_, content):
        return is_mlip(Lines(content, name))


def _text(path: Path, name: str, elements: Sequence[str] | None = None) -> Iterator[tuple[Atoms, int]]:
    """The formats that are streamed as lines: extended XYZ, or with `elements` MLIP's."""
    with reading(path, name) as (raw, content):
        lines = Lines(content, name)
        for atoms in xyz_frames(lines, name) if elements is None else mlip_frames(lines, name, elements):
            yield atoms, raw.tell()


def _whole(path: Path, name: str, suffix: str, folder: Path) -> Iterator[tuple[Atoms, int]]:
    """The formats that need the file itself, unpacked under the user's name."""
    link = folder / _unpacked_name(name)
    if compression(name):
        decompress(path, name, link, largest(link.name), MEND_LARGE)
    else:
        link.symlink_to(path.absolute())
    if suffix == ".parquet":
        yield from ((atoms, 0) for atoms in parquet_frames(link, name))
    elif suffix == ".pckl":
        yield from ((atoms, 0) for atoms in frame_rows(link, name))
    elif (kind := ase_format(link, name, USUAL)) in ("extxyz", "xyz"):
        yield from _text(path, name)
    else:
        yield from ((atoms, 0) for atoms in marked(ase_frames(link, kind, name), link, kind))


def _guarded(structures: Iterator[tuple[Atoms, int]], name: str) -> Iterator[tuple[Atoms, int]]:
    """The same structures; whatever the reader raises names the file, and the frame where it is known.

    A format that ASE reads whole fails before its first structure, whichever is broken.
    """
    row, known = 0, in_turns(_unpacked_name(name))
    while True:
        try:
            item = next(structures)
        except StopIteration:
            return
        except (BadInput, MemoryError):
            raise
        except Exception as error:  # fifty readers of ASE raise what they like at a broken file
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # where a compressed file is unpacked
                raise
            told = " ".join(str(error).split())[:300]
            frame = f"frame {row} (from 0) " if row or known else ""
            raise BadInput(
                f"{name}: {frame}cannot be read ({type(error).__name__}: {told});"
                f" mend the file or write the structures as {USUAL}"
            ) from error
        yield item
        row += 1
