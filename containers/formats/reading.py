"""Structures out of the files people have: the choice of the reader, and the rules for every reader.

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
from containers.formats.scf import mark_unconverged
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
FIX_LARGE = "split the file, or write the structures as extended XYZ, which is streamed"


def _without_types(reader: Callable[[Lines, str], Iterator[Atoms]]) -> TextReader:
    """Make a reader of files with symbols: the elements of types are not needed."""
    return lambda lines, name, _: reader(lines, name)


XYZ = _without_types(xyz_frames)
TEXTS: dict[str, TextReader] = {".xyz": XYZ, ".extxyz": XYZ, ".lammpstrj": dump_frames, ".dump": dump_frames}
OF_ASE: dict[str, TextReader] = {
    "extxyz": XYZ,
    "xyz": XYZ,
    "vasp-xdatcar": _without_types(xdatcar_frames),
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
        """Return file and frame, for messages."""
        return f"{name}: frame {self.row} (from 0)"


def read_frames(path: Path, name: str, work: Path, type_elements: Sequence[str] = ()) -> Iterator[Frame]:
    """Read every structure of one file, as it stands there: unchecked, with info, arrays and calculator results.

    Args:
        path: the file.
        name: the user's name of it; its ending decides the format.
        work: an existing folder in which the file may be linked or unpacked under the user's name (ASE goes by names).
        type_elements: elements of the types, in their order, of MLIP and LAMMPS files that do not say.

    Raises:
        BadInput: no file, an empty one, a pickle, an unknown format, a broken or enormous frame, no structure at all.
    """
    plain = PurePath(name).name.removesuffix(PurePath(name).suffix) if compression(name) else PurePath(name).name
    suffix = PurePath(plain.lower()).suffix  # `.xyz` of `pool.XYZ.gz`
    if not path.is_file():
        raise BadInput(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{name}: the file is empty")
    if suffix in PICKLES and not name.lower().endswith(PACEMAKER):
        raise BadInput(
            f"{name}: a pickle is not read, because opening one runs the code in it; write the structures as {USUAL}"
        )
    folder = work / "file"  # of its own: ASE looks for neighbours of some files
    folder.mkdir()
    try:
        if reader := _text_reader(path, name, suffix):
            found = _guarded(_text(path, name, reader, type_elements), name, by_frames=True)
        else:
            found = _guarded(_whole(path, name, folder / plain, suffix), name, by_frames=in_turns(plain))
        row = -1
        for row, (atoms, done) in enumerate(found):
            frame = Frame(atoms, row, done)
            check_ordered(atoms, frame.place(name))
            yield frame
    finally:
        shutil.rmtree(folder)
    if row < 0:
        raise BadInput(f"{name}: there is no structure in the file")


def _text_reader(path: Path, name: str, suffix: str) -> TextReader | None:
    """Return the reader that streams the file as lines: by the ending, or by how the content begins."""
    if suffix in TEXTS:
        return TEXTS[suffix]
    if suffix in BINARY:
        return None
    with reading(path, name) as (_, content):
        if suffix in CFG:
            return mlip_frames if is_mlip(Lines(content, name)) else None
        head = content.read(HEAD)
    if is_dump(head):
        return dump_frames
    return data_frames if is_data(head) else None


def _text(path: Path, name: str, reader: TextReader, elements: Sequence[str]) -> Iterator[tuple[Atoms, int]]:
    """Read a format that is streamed as lines: structures with the bytes read so far."""
    with reading(path, name) as (raw, content):
        for atoms in reader(Lines(content, name), name, elements):
            yield atoms, raw.tell()


def _whole(path: Path, name: str, link: Path, suffix: str) -> Iterator[tuple[Atoms, int]]:
    """Read a format that needs the file itself, unpacked under the user's name (`link`)."""
    if compression(name):
        decompress(path, name, link, largest(link.name), FIX_LARGE)
    else:
        link.symlink_to(path.absolute())
    if suffix == ".parquet":
        structures = parquet_frames(link, name)
    elif suffix == ".pckl":
        structures = frame_rows(link, name)
    elif (kind := ase_format(link, name, USUAL)) in OF_ASE:
        yield from _text(path, name, OF_ASE[kind], ())
        return
    else:
        structures = mark_unconverged(ase_frames(link, kind, name), link, kind)
    for atoms in structures:
        yield atoms, 0


def _guarded(structures: Iterator[tuple[Atoms, int]], name: str, by_frames: bool) -> Iterator[tuple[Atoms, int]]:
    """Pass structures on; whatever a reader raises names the file, and the frame where it reads `by_frames`.

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
                f" and claims more than it holds, or is too large; {FIX_LARGE}"
            ) from error
        except Exception as error:  # fifty readers of ASE raise what they like at a broken file
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # where a compressed file is unpacked
                raise
            reason = " ".join(str(error).split())[:300]
            frame = f"frame {row} (from 0) " if row or by_frames else ""
            raise BadInput(
                f"{name}: {frame}cannot be read ({type(error).__name__}: {reason});"
                f" correct the file or write the structures as {USUAL}"
            ) from error
        yield item
        row += 1
