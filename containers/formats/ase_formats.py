"""Structures out of the files that ASE reads, within bounds.

A file that is read whole must be small, one that claims to be large is refused before it takes memory, and one that was
cut off is not taken for complete.

Of CIF files only ordered structures are read. ASE reads a site that is partly occupied as if it were full, and of
several atoms at one place it takes the first: one ordered choice of many, at a composition that the file does not have.
"""

from __future__ import annotations

import re
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.cif import CIFBlock, parse_cif
from ase.io.formats import UnknownFileTypeError, extension2format, filetype

from containers.contract import BadInput
from containers.formats.text import LONGEST_LINE, MOST_ATOMS, too_many

LARGEST_WHOLE = 256_000_000
"""Bytes. Most readers of ASE hold the whole file and several times its size as Python objects."""
LARGEST_UNPACKED = 8_000_000_000  # bytes of a compressed file of a format that is streamed
STREAMED = ("traj", "db", "vasp-out", "vasp-xdatcar")
HEAD = 65_536  # bytes in which a file says how many atoms it has
ELECTRONS_OF_A_STEP = b"- Iteration "  # before each electronic step of an ionic one
FORCES_OF_A_STEP = b"TOTAL-FORCE (eV/Angst)"
OF_A_FORCE_FIELD = (b"energy ML TOTEN", b"(eV/Angst) (ML)")
"""In steps of VASP's machine-learned force field (ML_LMLFF), whose energies and forces are not of DFT."""
MACHINE_LEARNED = b"ML_LMLFF"  # in the settings of such a run
END_OF_A_RUN = b"General timing and accounting"
CLAIM_OF_CFG = re.compile(rb"Number of particles\s*=\s*(\d+)")
COUNTS_OF_POSCAR = (5, 6)  # lines, from 0, on which the counts of the elements may stand
VASP = {"outcar": "vasp-out", "xdatcar": "vasp-xdatcar", "poscar": "vasp", "contcar": "vasp"}
VASP_WORD = re.compile(rf"(?<![a-z])({'|'.join(VASP)})(?![a-z])")
"""VASP's names stand by themselves: `run3.OUTCAR` and `my_poscar_2` have one, `poscars` has none."""
ENDINGS = {".traj": "traj", ".db": "db", ".json": "json", ".cif": "cif"}
"""Before VASP's names: `outcars.traj` is a trajectory."""
OF_MANY = ("in", "out", "log", "dat", "data", "md", "con", "car", "arc", "config", "cell", "geom", "34", *VASP)
"""Endings that say less than a name of VASP before them: `OUTCAR.log` is an OUTCAR, but `OUTCAR.pdb` is not."""
CONFIGURATIONS = b"configuration="  # in each title of an XDATCAR, of which a reader of POSCAR takes the first structure


def ase_format(path: Path, name: str, usual: str) -> str:
    """Return ASE's name of the format: by the ending, by a name of VASP, or else by content; names in any spelling."""
    if kind := _format_by_name(name):
        return "vasp-xdatcar" if kind == "vasp" and CONFIGURATIONS in _head(path) else kind
    try:
        return cast(str, filetype(str(path)))
    except (UnknownFileTypeError, OSError, EOFError) as error:
        raise BadInput(f"{name}: cannot tell the format ({error}); write the structures as {usual}") from error


def _format_by_name(name: str) -> str:
    """Return the format that a name stands for, or nothing."""
    base = PurePath(name).name.lower()
    ending = PurePath(base).suffix
    if base.endswith(".xml") and "vasp" in base:
        return "vasp-xml"
    if ending in ENDINGS:
        return ENDINGS[ending]
    if ending[1:] in extension2format and ending[1:] not in OF_MANY and any(word in base for word in VASP):
        return cast(str, extension2format[ending[1:]].name)
    word = VASP_WORD.search(base)
    return VASP[word[1]] if word else ""


def largest(name: str) -> int:
    """Return the bytes that a decompressed file of this name, less its compression's ending, may have."""
    return LARGEST_UNPACKED if in_turns(name) else LARGEST_WHOLE


def in_turns(name: str) -> bool:
    """Return True if a file of this name, less its compression's ending, is read frame by frame."""
    return _format_by_name(name) in STREAMED or PurePath(name).name.lower().endswith(".parquet")


def ase_frames(path: Path, kind: str, name: str) -> Iterator[Atoms]:
    """Read every structure through ASE.

    Args:
        path: the file, under a name that ASE takes for it.
        kind: ASE's name of the format.
        name: the user's name of the file, for messages.

    Raises:
        BadInput: too large, cut off, or not what its name says; the readers of ASE raise errors of their own.
    """
    size = path.stat().st_size
    if kind not in STREAMED and size > LARGEST_WHOLE:
        raise BadInput(
            f"{name}: {size / 1e6:,.0f} MB; of this format at most {LARGEST_WHOLE / 1e6:,.0f} MB are read, because it"
            " is read whole; split the file, or write the structures as extended XYZ, which is streamed"
        )
    counts: list[list[bytes]] = []  # where a reader of ASE would believe how many atoms the file says it has
    if kind == "cfg":
        counts = [[digits] for digits in CLAIM_OF_CFG.findall(_head(path))]
    elif kind == "vasp":
        lines = [line.split(b"!")[0].split() for line in _head(path).splitlines()]
        counts = [lines[place] for place in COUNTS_OF_POSCAR if place < len(lines)]
    numbers = ([int(word[:18]) for word in words] for words in counts if all(map(bytes.isdigit, words)))
    if (claimed := max(map(sum, numbers), default=0)) > MOST_ATOMS:  # more than 18 digits are too many anyway
        raise BadInput(f"{name}: frame 0 (from 0) claims {too_many(claimed)}")
    if kind in ("db", "json"):
        yield from _database(path, name, kind)
    elif kind == "cif":
        yield from _cif(path, name)
    elif kind == "vasp-out":
        yield from _outcar(path, name)
    elif kind == "vasp-xml":
        yield from _vasprun(path, name)
    else:
        yield from iread(str(path), index=":", format=kind, do_not_split_by_at_sign=True)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _vasprun(path: Path, name: str) -> Iterator[Atoms]:
    """Read the steps of a vasprun.xml; give the reason where it has none that DFT computed."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        if b"</modeling>" not in file.read():
            raise BadInput(
                f"{name}: the file was cut off (no </modeling> at its end); after the last </calculation> that is"
                " complete put </modeling> and remove the rest, or give the OUTCAR"
            )
    step = None
    for step in iread(str(path), index=":", format="vasp-xml", do_not_split_by_at_sign=True):
        yield step
    if step is None and MACHINE_LEARNED in _head(path):
        raise BadInput(
            f"{name}: every step is of VASP's machine-learned force field (ML_LMLFF), none of DFT; for a pool give the"
            " run's XDATCAR, which has every step"
        )


def _outcar(path: Path, name: str) -> Iterator[Atoms]:
    """Read each ionic step; refuse a file that makes ASE hold many lines, or an endless one.

    ASE passes over a step whose end is missing. So the steps begun are counted first: those with forces, and one more
    if electronic steps follow the last forces in a run that did not come to its end.
    """
    forces = held = 0
    more = False
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if b"ML" in line and any(words in line for words in OF_A_FORCE_FIELD):
                raise BadInput(
                    f"{name}: this OUTCAR is of a run with VASP's machine-learned force field (ML_LMLFF); it is not"
                    " read, because not all steps are of DFT. For DFT data give the run's vasprun.xml: the steps that"
                    " DFT computed are read; for a pool give its XDATCAR, which has every step"
                )
            if FORCES_OF_A_STEP in line:
                forces, held, more = forces + 1, 0, False
            elif ELECTRONS_OF_A_STEP in line or END_OF_A_RUN in line:
                more = ELECTRONS_OF_A_STEP in line
            held += len(line)
            if len(line) > LONGEST_LINE or held > LARGEST_WHOLE:
                raise BadInput(
                    f"{name}: {held / 1e6:,.0f} MB without the forces of an ionic step (frame {forces}, from 0), or a"
                    f" line of more than {LONGEST_LINE:,} characters; is this an OUTCAR?"
                )
    begun, steps = forces + more, 0
    for atoms in iread(str(path), index=":", format="vasp-out", do_not_split_by_at_sign=True):
        steps += 1
        yield atoms
    if begun > steps:
        raise BadInput(
            f"{name}: frame {steps} (from 0) is not complete: the file was cut off in its ionic step {begun};"
            " remove the lines after the last complete one"
        )


def _database(path: Path, name: str, kind: str) -> Iterator[Atoms]:
    """Read each row; refuse other databases: ASE makes its tables in them, and the user's file must stay as it is."""
    import ase.db  # loads more of ASE than the other formats need

    if kind == "db":
        try:
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'systems'").fetchone()[0]
            connection.close()
        except sqlite3.Error as error:
            raise BadInput(f"{name}: not a readable SQLite database ({error})") from error
        head = _head(path)  # SQLite's file format, 1.3; an old writer left the number of pages out
        page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        if head[24:28] == head[92:96] and path.stat().st_size < (65536 if page == 1 else page) * pages:
            raise BadInput(f"{name}: the database was cut off; copy it again")
        if not found:
            raise BadInput(f"{name}: the database is not one of ASE's (it has no table `systems`)")
    for place, row in enumerate(ase.db.connect(str(path), type=kind, serial=True, use_lock_file=False).select()):
        if row.natoms > MOST_ATOMS:
            raise BadInput(f"{name}: frame {place} (from 0): {too_many(row.natoms)}")
        atoms = row.toatoms(add_additional_information=True)
        atoms.info = {**atoms.info.get("data", {}), **atoms.info.get("key_value_pairs", {})}
        yield atoms


FULL = 1e-3  # so near to 1 an occupancy is full
OCCUPANCY, GROUP, LABEL = "_atom_site_occupancy", "_atom_site_disorder_group", "_atom_site_label"
ONE_PLACE = "scaled_positions"  # ASE's warning of two sites at one place begins so
MAKE_ORDERED = (
    "make ordered supercells of it (such as by pymatgen's OrderDisorderedStructureTransformation, or special"
    " quasi-random structures) and give those"
)


def _cif(path: Path, name: str) -> Iterator[Atoms]:
    """Read the structure of each block that has one; refuse disorder, atoms that are missing, and misnamed ones."""
    blocks = (block for block in parse_cif(str(path)) if block.has_structure())
    for row, block in enumerate(blocks):
        place = f"{name}: frame {row} (from 0)"
        _check_occupancies(block, place)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=ONE_PLACE)
            try:
                atoms = block.get_atoms(fractional_occupancies=False)
            except UserWarning as warning:
                raise BadInput(f"{place}: two atoms are at one place ({warning}): disorder. {MAKE_ORDERED}") from None
        formula = str(block.get("_chemical_formula_sum", ""))  # hydrogen atoms are often left out of the sites
        stated = {"H" if symbol in "DT" else symbol for symbol in re.findall("[A-Z][a-z]?", formula)}
        if stated and stated != (there := set(atoms.symbols.species())):
            raise BadInput(
                f"{place}: the sum formula {formula[:60]!r} and the sites have different elements"
                f" ({', '.join(sorted(stated ^ there))}): atoms are missing or misnamed. Add them, or correct"
                " _chemical_formula_sum"
            )
        yield atoms


def _check_occupancies(block: CIFBlock, place: str) -> None:
    def column(tag: str) -> list[Any]:  # of a loop of one row too
        return list(np.atleast_1d(np.array(block.get(tag, []), dtype=object)))

    labels = column(LABEL)
    for site, value in enumerate(column(OCCUPANCY)):
        if value != "." and not (isinstance(value, int | float) and abs(value - 1) <= FULL):  # "." is the default, 1
            which = f"site {labels[site]}" if site < len(labels) else f"site {site} (from 0)"
            if value == "?":
                raise BadInput(
                    f"{place}: {which} has the occupancy ?, which is unknown. Write 1 where the site is full, otherwise"
                    f" {MAKE_ORDERED}"
                )
            raise BadInput(
                f"{place}: {which} has the occupancy {value}: the structure is disordered, and reading it as an ordered"
                f" one would change its composition. {MAKE_ORDERED}"
            )
    if len(groups := {str(value) for value in column(GROUP)} - {".", "?"}) > 1:
        raise BadInput(f"{place}: atoms are in {len(groups)} groups of disorder ({GROUP}). {MAKE_ORDERED}")


def check_ordered(atoms: Atoms, place: str) -> None:
    """Refuse a structure that was read from a disordered one: ASE keeps the occupancies of a CIF in its other files."""
    given = atoms.info.get("occupancy")
    sites = [site for site in given.values() if isinstance(site, dict)] if isinstance(given, dict) else []
    shares = [share for site in sites for share in site.values() if isinstance(share, int | float)]
    column = atoms.arrays.get("occupancy", np.empty(0))  # of a PDB file, where 0 stands for nothing
    shares += [share for share in column.ravel().tolist() if isinstance(share, int | float) and share > 0]
    if any(abs(share - 1) > FULL for share in shares):
        raise BadInput(
            f"{place}: sites are occupied in part (`occupancy`): the structure is disordered. {MAKE_ORDERED}"
        )
