"""The frames of a fit: counted, drawn with replacement for a committee, and given to pacemaker.

How many structures pacemaker evaluates at a time: as many as are fast, fewer where memory is short. Pure.

Measured: peak memory of pacemaker (python-ace 0.4.0rc1, tensorpotential 0.6.2.1, TensorFlow 2.20) fitting cells of 64
silicon atoms with one thread. It grows linearly with the atoms of the largest batch, from about 1,000 MB:

=========  =====  ==========  ==========  =========  ==========
functions  order  neighbours  batch       peak       of an atom
=========  =====  ==========  ==========  =========  ==========
100        3      28          4096 atoms  1,814 MB   0.21 MB
120        3      28          4792 atoms  2,001 MB   0.20 MB
250        3      28          256 atoms   1,073 MB
250        3      28          1024 atoms  1,334 MB   0.32 MB
250        3      28          4096 atoms  2,241 MB   0.30 MB
250        3      60          2048 atoms  2,172 MB   0.57 MB
600        4      28          1024 atoms  2,032 MB   1.00 MB
600        4      28          4096 atoms  4,937 MB   0.96 MB
=========  =====  ==========  ==========  =========  ==========
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.contract import BadInput, Inputs
from containers.tensorpot.fit.draw import drawn
from containers.tensorpot.frames.frame_file import read_frame, write_frame
from containers.tensorpot.pacemaker.input import TRAIN_FILE, VALIDATION_FILE
from containers.tensorpot.student.calculator import neighbours

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none


FILES = {"train": TRAIN_FILE, "validation": VALIDATION_FILE}
LOOKED_AT = 20
"""Structures whose neighbours are counted."""


@dataclass(frozen=True)
class Frames:
    """The frames of a fit. They are read when they are needed: while pacemaker runs, its memory is wanted."""

    inputs: Inputs
    bootstrap: int | None = None

    def read(self, side: str) -> pd.DataFrame:
        """Read the frame of a side, as the fit sees it."""
        frame = read_frame(self.inputs.one(side))
        return drawn(frame, self.bootstrap) if side == "train" and self.bootstrap is not None else frame

    def give(self, work: Path) -> None:
        """Put both into pacemaker's working folder."""
        for side, name in FILES.items():
            if side == "train" and self.bootstrap is not None:
                write_frame(work / name, self.read(side))
            else:
                (work / name).symlink_to(self.inputs.one(side))


@dataclass(frozen=True)
class Counts:
    """Sizes of the frames.

    Attributes:
        sizes: rows of each side.
        atoms: of the training frame.
        neighbours: of an atom of it within the cutoff, on average.
        probe: a structure to try things on.
    """

    sizes: dict[str, int]
    atoms: int
    neighbours: float
    probe: Atoms


def counted(frames: Frames, cutoff: float) -> Counts:
    """Read both frames and keep nothing but their sizes; `cutoff` in Å. Raises `BadInput` for impossible labels."""
    both = {side: frames.read(side) for side in FILES}
    for side, frame in both.items():
        check_labels(side, frame)
    sizes = {side: len(frame) for side, frame in both.items()}
    structures = list(both["train"]["ase_atoms"])
    atoms = sum(len(structure) for structure in structures)
    return Counts(sizes, atoms, neighbours_of_an_atom(structures, cutoff), structures[0])


def check_labels(side: str, frame: pd.DataFrame) -> None:
    """Raise `BadInput` for labels that give no loss, whatever the potential: the sum of their squares is no number."""
    for name, energy, forces in zip(frame["name"], frame["energy_corrected"], frame["forces"], strict=True):
        with np.errstate(over="ignore"):
            squares = np.square(energy) + np.square(forces).sum()
        if not np.isfinite(squares):
            raise BadInput(
                f"{side}: no loss can be made of the labels of structure {name}: {energy:.3g} eV, forces up to"
                f" {np.abs(forces).max():.3g} eV/Å. Take it out of the data; labels.max_force_eV_per_A sets such ones"
                " of the pool aside."
            )


def neighbours_of_an_atom(structures: Sequence[Atoms], cutoff: float) -> float:
    """Mean number of neighbours within `cutoff` (Å), over LOOKED_AT structures spread evenly."""
    some = structures[:: -(-len(structures) // LOOKED_AT)]
    return sum(len(neighbours(atoms, cutoff)[0]) for atoms in some) / sum(len(atoms) for atoms in some)


ATOMS_PER_BATCH = 1500
"""Measured at 250 functions, one thread, µs of CPU an atom: 285 at 83 atoms, 277 at 166, 214 at 332, 217 at 663."""
LARGEST_BATCH = 100
PROGRAM_BYTES = 1100 * 2**20
"""Python, TensorFlow with the graph of one element, pyace and a few thousand atoms of data."""
BYTES_PER_PAIR = 90 * 10**6
"""The graph, for every ordered pair of elements. Measured at 250 functions: 72 to 94 MB, for 2 to 9 elements."""
BYTES_PER_NEIGHBOUR = 8_400
"""An atom of a batch: difference of the rows of 28 and of 60 neighbours."""
BYTES_PER_FUNCTION = 1_400
"""An atom of a batch: order 4; order 3 takes half of it."""
NEIGHBOURS = 50
"""Default where they are not counted: a dense metal at 5 Å has 45, silicon 28."""


def fixed_bytes(elements: int, parameters: int, optimizer: str) -> int:
    """Bytes that a fit takes beside its batch: the program, the graph, and the square matrix that BFGS keeps."""
    matrix = 8 * parameters**2 if optimizer == "BFGS" else 0
    return PROGRAM_BYTES + BYTES_PER_PAIR * (elements**2 - 1) + matrix


def batch_bytes_per_atom(functions: int, neighbours: float = NEIGHBOURS) -> int:
    """Bytes that an atom of a batch takes, with so many functions of its element and neighbours within the cutoff."""
    return round(BYTES_PER_NEIGHBOUR * neighbours) + BYTES_PER_FUNCTION * functions


def auto_batch_size(
    structures: int,
    atoms: int,
    functions: int = 1,
    memory_bytes: int | None = None,
    neighbours: float = NEIGHBOURS,
    fixed: int = PROGRAM_BYTES,
) -> int:
    """Structures in a batch of about ATOMS_PER_BATCH atoms, at least 1 and at most LARGEST_BATCH.

    Args:
        structures: of the training frame.
        atoms: of all of them.
        functions: of one element.
        memory_bytes: what the whole step may take; None: only speed counts.
        neighbours: of an atom within the cutoff, on average.
        fixed: bytes of the fit beside the batch.
    """
    room = ATOMS_PER_BATCH
    if memory_bytes is not None:
        room = min(room, (memory_bytes - fixed) // batch_bytes_per_atom(functions, neighbours))
    return max(1, min(LARGEST_BATCH, structures, room * structures // max(atoms, 1)))
