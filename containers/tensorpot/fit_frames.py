"""The frames of a fit: counted, drawn with replacement where a committee asks for it, and given to pacemaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from containers.contract import BadInput, Inputs
from containers.tensorpot.draw import drawn
from containers.tensorpot.frames import read_frame, write_frame
from containers.tensorpot.pacemaker_input import TRAIN_FILE, VALIDATION_FILE
from containers.tensorpot.student import neighbours

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
        """The frame of a side, as the fit sees it."""
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
    """How large the frames are.

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
    """Refuse labels of which no loss can be made, whatever the potential: the sum of their squares is no number."""
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
