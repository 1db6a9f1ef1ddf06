"""Structures out of the files people have: extended XYZ, Parquet, ASE databases, and what else ASE reads.

The user's file name decides the format and stands in every message; the file itself may lie under another name.
Nothing is unpickled: a pickle from outside runs its code when it is opened.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype

from containers.contract import BadInput
from containers.structures import KEPT_INFO
from containers.xyz import xyz_frames

PICKLES = (".pckl", ".pkl", ".pickle", ".pt", ".model")
COMPRESSED: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".gzip": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
XYZ = (".xyz", ".extxyz")
GEOMETRY = ("numbers", "positions", "cell", "pbc")
USUAL = "extended XYZ (.xyz, .extxyz), .traj, .cif, POSCAR, an ASE database (.db, .json) or .parquet"
PARQUET_ROWS = 1024


class Frame(NamedTuple):
    """One structure of a file."""

    atoms: Atoms
    row: int  # its place in the file, from 0
    bytes_read: int  # of the file so far; 0 where the reader cannot tell

    def place(self, name: str) -> str:
        """Where it is, for messages."""
        return f"{name}: frame {self.row} (from 0)"


def read_frames(path: Path, name: str, work: Path) -> Iterator[Frame]:
    """Every structure of one file, as it stands there: unchecked, with info, arrays and calculator results.

    Args:
        path: the file.
        name: the user's name of it; its ending decides the format.
        work: an existing folder in which the file may be linked under the user's name (ASE goes by names).

    Raises:
        BadInput: no file, an empty one, a pickle, an unknown format, a broken frame, no structure at all.
    """
    _refuse_hopeless(path, name)
    row = -1
    for row, (atoms, done) in enumerate(_structures(path, name, work)):
        yield Frame(atoms, row, done)
    if row < 0:
        raise BadInput(f"{name}: there is no structure in the file")


def _refuse_hopeless(path: Path, name: str) -> None:
    if not path.is_file():
        raise BadInput(f"{name}: no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{name}: the file is empty")
    if _plain_suffix(name) in PICKLES:
        raise BadInput(
            f"{name}: a pickle is not read, because opening one runs the code in it; write the structures as {USUAL}"
        )


def _plain_suffix(name: str) -> str:
    """The ending under a compression's ending, in small letters: `.xyz` of `pool.XYZ.gz`."""
    pure = PurePath(name.lower())
    return PurePath(pure.stem).suffix if pure.suffix in COMPRESSED else pure.suffix


def _structures(path: Path, name: str, work: Path) -> Iterator[tuple[Atoms, int]]:
    suffix = _plain_suffix(name)
    if suffix == ".parquet":
        return _parquet(path, name)
    if suffix in XYZ:
        return _xyz(path, name)
    link = work / PurePath(name).name
    link.unlink(missing_ok=True)
    link.symlink_to(path.absolute())
    kind = _ase_format(link, name)
    if kind in ("extxyz", "xyz"):
        return _xyz(path, name)
    if kind in ("db", "json"):
        return _guarded(_database(link, name, kind), name)
    structures = iread(str(link), index=":", format=kind, do_not_split_by_at_sign=True)
    return _guarded(((atoms, 0) for atoms in structures), name)


def _ase_format(link: Path, name: str) -> str:
    try:
        return cast(str, filetype(str(link)))
    except (UnknownFileTypeError, OSError, EOFError) as error:
        raise BadInput(f"{name}: cannot tell the format ({error}); write the structures as {USUAL}") from error


def _guarded(structures: Iterator[tuple[Atoms, int]], name: str) -> Iterator[tuple[Atoms, int]]:
    """The same structures; whatever the reader raises names the file and the frame."""
    row = 0
    while True:
        try:
            item = next(structures)
        except StopIteration:
            return
        except (BadInput, MemoryError):
            raise
        except Exception as error:  # fifty readers of ASE raise what they like at a broken file
            raise BadInput(
                f"{name}: frame {row} (from 0) cannot be read ({type(error).__name__}: {error});"
                f" mend the file or write the structures as {USUAL}"
            ) from error
        yield item
        row += 1


def _xyz(path: Path, name: str) -> Iterator[tuple[Atoms, int]]:
    opener = COMPRESSED.get(PurePath(name.lower()).suffix)
    with path.open("rb") as raw:
        try:
            text = io.TextIOWrapper(opener(raw) if opener else raw, encoding="utf-8-sig", errors="replace")
            for atoms in xyz_frames(text, name):
                yield atoms, raw.tell()
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise BadInput(f"{name}: cannot be read ({error}); the file may be damaged or cut off") from error


def _database(link: Path, name: str, kind: str) -> Iterator[tuple[Atoms, int]]:
    import ase.db  # loads more of ASE than the other formats need

    if kind == "db":
        _check_sqlite(link, name)
    for row in ase.db.connect(str(link), type=kind, serial=True, use_lock_file=False).select():
        atoms = row.toatoms(add_additional_information=True)
        atoms.info = {**atoms.info.get("data", {}), **atoms.info.get("key_value_pairs", {})}
        yield atoms, 0


def _check_sqlite(link: Path, name: str) -> None:
    """ASE makes its tables in a database without them; the user's file must stay as it is."""
    try:
        connection = sqlite3.connect(f"{link.resolve().as_uri()}?mode=ro", uri=True)
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'systems'").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        raise BadInput(f"{name}: not a readable SQLite database ({error})") from error
    if not found:
        raise BadInput(f"{name}: the database is not one of ASE's (it has no table `systems`)")


def _parquet(path: Path, name: str) -> Iterator[tuple[Atoms, int]]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise BadInput(f"{name}: not a readable Parquet file ({error})") from error
    with file:
        if missing := [column for column in GEOMETRY if column not in file.schema_arrow.names]:
            raise BadInput(
                f"{name}: the table lacks the columns {', '.join(missing)}; it has {file.schema_arrow.names}"
            )
        row = 0
        try:
            for batch in file.iter_batches(PARQUET_ROWS):
                for values in batch.to_pylist():
                    yield _from_row(values, f"{name}: frame {row} (from 0)"), 0
                    row += 1
        except pa.ArrowException as error:
            raise BadInput(f"{name}: damaged after frame {row - 1} (from 0): {error}") from error


def _from_row(values: dict[str, Any], place: str) -> Atoms:
    """Other columns go to info, where labels and group are looked for."""
    try:
        numbers = np.asarray(values["numbers"], dtype=np.int64)
        atoms = Atoms(
            numbers=numbers,
            positions=np.asarray(values["positions"], dtype=float).reshape(len(numbers), 3),
            cell=np.asarray(values["cell"], dtype=float).reshape(3, 3),
            pbc=values["pbc"],
        )
    except (ValueError, TypeError, IndexError) as error:
        raise BadInput(f"{place}: numbers, positions, cell and pbc do not fit together ({error})") from error
    own = {*GEOMETRY, *KEPT_INFO} - {"group", "family"}
    atoms.info = {key: value for key, value in values.items() if key not in own and value is not None}
    return atoms
