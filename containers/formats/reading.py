"""Structures out of the files people have: which reader a file gets, and what every reader is held to.

The user's file name decides the format and stands in every message; the file itself may lie under another name. No
code out of a file is run: pickles are refused, but for pacemaker's tables, of which nothing is executed.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from ase import Atoms

from containers.contract import BadInput
from containers.formats.ase_formats import ase_format, ase_frames, check_ordered, in_turns, largest
from containers.formats.extxyz import xyz_frames
from containers.formats.lammps import data_frames, dump_frames, is_data, is_dump
from containers.formats.mlip_cfg import is_mlip, mlip_frames
from containers.formats.parquet import parquet_frames
from containers.formats.pckl_gzip import frame_rows
from containers.formats.scf import marked
from containers.formats.text import Lines, compression, decompress, reading
from containers.formats.xdatcar import xdatcar_frames

PICKLES = (".pckl", ".pkl", ".pickle", ".pt", ".model")
PACEMAKER = ".pckl.gzip"
CFG = (".cfg", ".cfgs")
BINARY = (".traj", ".db", ".parquet", ".pckl")
HEAD = 65_536  # bytes, enough to tell LAMMPS's files
TextReader = Callable[[Lines, str, Sequence[str]], Iterator[Atoms]]
USUAL = (
    "extended XYZ (.xyz, .extxyz), .traj, .cif, POSCAR, OUTCAR, vasprun.xml, .lammpstrj, .cfg, an ASE database (.db,"
    " .json), .parquet or pacemaker's .pckl.gzip"
)
MEND_LARGE = "split the file, or write the structures as extended XYZ, which is streamed"


def _xyz(lines: Lines, name: str, _: Sequence[str]) -> Iterator[Atoms]:
    """Symbols are in the file: nothing is to be said of types."""
    return xyz_frames(lines, name)


def _xdatcar(lines: Lines, name: str, _: Sequence[str]) -> Iterator[Atoms]:
    """The same of an XDATCAR."""
    return xdatcar_frames(lines, name)


TEXTS: dict[str, TextReader] = {".xyz": _xyz, ".extxyz": _xyz, ".lammpstrj": dump_frames, ".dump": dump_frames}
OF_ASE: dict[str, TextReader] = {
    "extxyz": _xyz,
    "xyz": _xyz,
    "vasp-xdatcar": _xdatcar,
    "lammps-dump-text": dump_frames,
    "lammps-data": data_frames,
}
"""Formats by ASE's names that are read here: its own readers end early, or take the numbers of types for elements."""


class Frame(NamedTuple):
    """One structure of a file."""

    atoms: Atoms
    row: int  # its place in the file, from 0
    bytes_read: int  # of the file so far; 0 where the reader cannot tell

    def place(self, name: str) -> str:
        """Where it is, for messages."""
        return f"{name}: frame {self.row} (from 0)"


def read_frames(path: Path, name: str, work: Path, type_elements: Sequence[str] = ()) -> Iterator[Frame]:
    """Every structure of one file, as it stands there: unchecked, with info, arrays and calculator results.

    Args:
        path: the file.
        name: the user's name of it; its ending decides the format.
        work: an existing folder in which the file may be linked or unpacked under the user's name (ASE goes by names).
        type_elements: elements of the types, in their order, of MLIP and LAMMPS files that do not say.

    Raises:
        BadInput: no file, an empty one, a pickle, an unknown format, a broken or enormous frame, no structure at all.
    """
    _refuse_hopeless(path, name)
    folder = work / "file"  # of its own: ASE looks for neighbours of some files
    folder.mkdir()
    try:
        row = -1
        for row, (atoms, done) in enumerate(_structures(path, name, folder, type_elements)):
            frame = Frame(atoms, row, done)
            check_ordered(atoms, frame.place(name))
            yield frame
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
    """Structures with the bytes read so far, of the reader that name and content choose."""
    if reader := _text_reader(path, name):
        return _guarded(_text(path, name, reader, elements), name, by_frames=True)
    return _guarded(_whole(path, name, folder), name, by_frames=in_turns(_unpacked_name(name)))


def _text_reader(path: Path, name: str) -> TextReader | None:
    """Which reader streams the file as lines: by the ending, or by how the content begins."""
    suffix = _plain_suffix(name)
    if suffix in TEXTS:
        return TEXTS[suffix]
    if suffix in BINARY:
        return None
    if suffix in CFG:
        with reading(path, name) as (_, content):
            return mlip_frames if is_mlip(Lines(content, name)) else None
    with reading(path, name) as (_, content):
        head = content.read(HEAD)
    if is_dump(head):
        return dump_frames
    return data_frames if is_data(head) else None


def _text(path: Path, name: str, reader: TextReader, elements: Sequence[str]) -> Iterator[tuple[Atoms, int]]:
    """The formats that are streamed as lines."""
    with reading(path, name) as (raw, content):
        for atoms in reader(Lines(content, name), name, elements):
            yield atoms, raw.tell()


def _whole(path: Path, name: str, folder: Path) -> Iterator[tuple[Atoms, int]]:
    """The formats that need the file itself, unpacked under the user's name."""
    link = folder / _unpacked_name(name)
    if compression(name):
        decompress(path, name, link, largest(link.name), MEND_LARGE)
    else:
        link.symlink_to(path.absolute())
    suffix = _plain_suffix(name)
    if suffix == ".parquet":
        yield from ((atoms, 0) for atoms in parquet_frames(link, name))
    elif suffix == ".pckl":
        yield from ((atoms, 0) for atoms in frame_rows(link, name))
    elif (kind := ase_format(link, name, USUAL)) in OF_ASE:
        yield from _text(path, name, OF_ASE[kind], ())
    else:
        yield from ((atoms, 0) for atoms in marked(ase_frames(link, kind, name), link, kind))


def _guarded(structures: Iterator[tuple[Atoms, int]], name: str, by_frames: bool) -> Iterator[tuple[Atoms, int]]:
    """The same structures; whatever a reader raises names the file, and the frame where it reads `by_frames`.

    A format that is read whole fails before its first structure, whichever is broken.
    """
    row = 0
    while True:
        try:
            item = next(structures)
        except StopIteration:
            return
        except BadInput as error:
            if "\n" not in str(error):
                raise
            raise BadInput(" ".join(str(error).split())) from error
        except MemoryError as error:
            raise BadInput(
                f"{name}: frame {row} (from 0) or what follows it needs more memory than there is: the file is damaged"
                f" and claims more than it holds, or is too large; {MEND_LARGE}"
            ) from error
        except Exception as error:  # fifty readers of ASE raise what they like at a broken file
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # where a compressed file is unpacked
                raise
            said = " ".join(str(error).split())[:300]
            frame = f"frame {row} (from 0) " if row or by_frames else ""
            raise BadInput(
                f"{name}: {frame}cannot be read ({type(error).__name__}: {said});"
                f" correct the file or write the structures as {USUAL}"
            ) from error
        yield item
        row += 1
