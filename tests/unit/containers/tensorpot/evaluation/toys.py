"""A student of a Lennard-Jones potential, and the files that steps after a fit read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from containers.contract import Inputs
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import Student, neighbours, padded

CUTOFF = 4.0
COPPER = PairTerm(form="lj", epsilon_eV=0.4, sigma_A=2.3, inner_A=2.8, outer_A=CUTOFF)


class Ace(Calculator):
    """What is added to the pair terms: nothing, or minus `pull` (eV Å) over the distance; all grades are 2."""

    cutoff = CUTOFF

    def __init__(self, pull: float) -> None:
        super().__init__()
        self.pull = pull

    def calculate(self, atoms: Atoms, *_: object) -> None:
        first, _, vectors = neighbours(atoms, 3.0)
        lengths = np.linalg.norm(vectors, axis=1)
        pulls = self.pull * vectors / lengths[:, None] ** 3
        forces = np.stack([np.bincount(first, pulls[:, axis], len(atoms)) for axis in range(3)], axis=1)
        energy = -0.5 * self.pull * float((1 / lengths).sum())
        self.results = {"energy": energy, "forces": forces, "stress": np.zeros(6), "gamma": np.full(len(atoms), 2.0)}


def row(name: str, atoms: Atoms, energy_per_atom: float) -> Labelled:
    """A training structure as the frames step writes it: `energy_corrected` has no meaning here."""
    ready = padded(atoms, CUTOFF)
    return Labelled(name, ready, energy_per_atom * len(atoms), 0.0, np.zeros((len(atoms), 3)), None)


def files(folder: Path, rows: list[Labelled], e0s_eV: dict[str, float]) -> Inputs:
    """The inputs of the step; the potential is the toy of `load_student`."""
    folder.mkdir(exist_ok=True)
    write_frame(folder / "train.pckl.gzip", frame(rows))
    Baseline(e0s_eV=e0s_eV).write(folder / "baseline.json")
    found = {"train": (folder / "train.pckl.gzip",), "baseline": (folder / "baseline.json",)}
    return Inputs(found | {"potential": (folder / "p.yaml",), "asi": (folder / "p.asi",)})


def copper(depth: float = 0.4, pull: float = 0.0) -> Student:
    """A student of a Lennard-Jones potential of this depth (eV), or of a mere pull (eV Å) between neighbours."""
    pairs = {} if pull else {"Cu-Cu": COPPER.model_copy(update={"epsilon_eV": depth})}
    return Student(Ace(pull), Baseline(e0s_eV={"Cu": -3.0}, pairs=pairs).model_dump())
