"""Marks ionic steps of DFT programs whose electronic self-consistency did not converge: their labels do not count.

A step is marked, not left out: the structures of a pool need no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ase import Atoms

from containers.formats.text import LONGEST_LINE

UNCONVERGED = "unconverged_scf"
"""Key in a structure's info: why its label does not count."""
SAYS_SO = {
    "abinit-out": rb"was not enough SCF cycles to converge",
    "castep-castep": rb"max\. SCF cycles performed but system has not reached the groundstate",
    "gaussian-out": rb"Convergence criterion not met|Convergence failure -- run terminated",
    "gpaw-out": rb"Did not converge!",
    "nwchem-out": rb"Calculation failed to converge",
}
"""ASE's name of a format -> what the program writes; the line does not say of which of ASE's structures."""
STEP_ENDS = b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
"""The line of an OUTCAR with which ASE ends a structure; that of an electronic step is in small letters."""
NELM = re.compile(rb"\bNELM\s*=\s*(\d+)")
ITERATION = re.compile(rb"- Iteration\s*\d+\(\s*(\d+)\)")
REACHED, NOT_REACHED = b"aborting loop because EDIFF is reached", b"EDIFF was not reached"
OF_VASPRUN = re.compile(rb"<(calculation)>|<(scstep)>|name=\"NELM\">\s*(\d+)")
QE_STARTS = (b"Program PWSCF", b"ATOMIC_POSITIONS")
QE_RESULTS = (
    b"!    total energy",
    b"Forces acting on atoms",
    b"total   stress",
    b"Magnetic moment per site",
    b"End of self-consistent calculation",
    b"End of band structure calculation",
)
"""Lines by which ASE takes a structure of Quantum ESPRESSO for one."""
QE_NOT = b"convergence NOT achieved"


def mark_unconverged(structures: Iterator[Atoms], path: Path, kind: str) -> Iterator[Atoms]:
    """Pass structures on; give one whose SCF did not converge the reason in its info (`UNCONVERGED`).

    Args:
        structures: every structure of the file in its order, as ASE reads them.
        path: the file, plain.
        kind: ASE's name of its format.
    """
    steps, whole = dict[int, str](), ""
    for row, atoms in enumerate(structures):
        if row == 0:  # only now: a file without a structure is not searched
            steps = OF_STEPS[kind](path) if kind in OF_STEPS else {}
            whole = _find_line(path, SAYS_SO[kind]) if kind in SAYS_SO else ""
        if reason := steps.get(row, whole):
            atoms.info[UNCONVERGED] = reason
        yield atoms


def _search_outcar(path: Path) -> dict[int, str]:
    found, row, nelm, done = dict[int, str](), 0, 0, 0
    reached = refused = False
    for line in _lines(path):
        if b"Iteration" in line and (electrons := ITERATION.search(line)):
            done = int(electrons[1])
        elif REACHED in line:
            reached = True
        elif NOT_REACHED in line:
            refused = True
        elif STEP_ENDS in line:
            if refused:
                found[row] = "VASP says that EDIFF was not reached"
            elif nelm and done >= nelm and not reached:
                found[row] = _as_many(done, nelm)
            row, done, reached, refused = row + 1, 0, False, False
        elif b"NELM" in line and (limit := NELM.search(line)):
            nelm = int(limit[1])
    return found


def _search_vasprun(path: Path) -> dict[int, str]:
    """Count electronic steps; the file does not say if the last one that NELM allows was good enough."""
    counts, nelm = list[int](), 0
    for found in OF_VASPRUN.finditer(path.read_bytes()):
        calculation, electrons, limit = found.groups()
        if calculation:
            counts.append(0)
        elif electrons and counts:
            counts[-1] += 1
        elif limit and not counts:
            nelm = int(limit)
    return {row: _as_many(done, nelm) for row, done in enumerate(counts) if nelm and done >= nelm}


def _as_many(done: int, nelm: int) -> str:
    return f"{done} electronic steps, as many as NELM ({nelm}) allows"


def _search_espresso(path: Path) -> dict[int, str]:
    """Search the parts of a file; ASE takes a part for a structure when it has a result."""
    found, row = dict[int, str](), -1
    result = bad = False
    for line in chain(_lines(path), QE_STARTS[:1]):
        if any(start in line for start in QE_STARTS):
            row += result
            if result and bad:
                found[row] = "Quantum ESPRESSO says: convergence NOT achieved"
            result = bad = False
        result = result or any(words in line for words in QE_RESULTS)
        bad = bad or QE_NOT in line
    return found


OF_STEPS = {"vasp-out": _search_outcar, "vasp-xml": _search_vasprun, "espresso-out": _search_espresso}


def _find_line(path: Path, words: bytes) -> str:
    """Return the reason for every structure of a file that has the words on a line; empty where none has."""
    pattern = re.compile(words, re.IGNORECASE)
    for number, line in enumerate(_lines(path), 1):
        if hit := pattern.search(line):
            return f"line {number} says: {hit[0].decode()}; the format does not show which structure it means"
    return ""


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            yield line
