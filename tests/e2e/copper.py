"""Copper of ASE's effective-medium theory, made in no time, and real fits to it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from containers.contract import Inputs, Machine, Resources
from containers.mace.teacher.description import Teacher
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Loss, Potential
from containers.tensorpot.pacemaker.program import fit_program


def effective_medium(name: str, atoms: Atoms, e0_eV: float = 0.0) -> Labelled:
    """The structure with its energy and forces, which `atoms` itself does not get.

    Args:
        e0_eV: reference energy of an atom, added to the energy and not to the corrected one.
    """
    probe = atoms.copy()
    probe.calc = EMT()
    corrected = probe.get_potential_energy()
    forces = np.array(probe.get_forces())
    return Labelled(name, atoms, corrected + len(atoms) * e0_eV, corrected, forces, None)


def strained(
    atoms: Atoms,
    random: np.random.Generator,
    scale: tuple[float, float] | None = (0.94, 1.06),
    shear: float = 0.0,
    rattle_A: float = 0.12,
) -> Atoms:
    """`atoms`, its cell scaled evenly within `scale` and sheared by chance, its atoms moved."""
    strain = np.eye(3) * (random.uniform(*scale) if scale else 1)
    if shear:
        strain = strain + random.normal(0, shear, (3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(rattle_A, rng=random)
    return atoms


def copper(
    count: int,
    seed: int,
    scale: tuple[float, float] | None = (0.94, 1.06),
    shear: float = 0.0,
    rattle_A: float = 0.12,
    e0_eV: float = 0.0,
) -> list[Labelled]:
    """Strained and rattled cells of 4 atoms."""
    random = np.random.default_rng(seed)
    cells = [strained(bulk("Cu", cubic=True), random, scale, shear, rattle_A) for _ in range(count)]
    return [effective_medium(f"{seed}-{number}", atoms, e0_eV) for number, atoms in enumerate(cells)]


def teacher_of(element: str, r_max_A: float, e0_eV: float = 0.0) -> Teacher:
    """A teacher that knows one element, for flows whose labels are there already."""
    return Teacher(
        model_class="ScaleShiftMACE",
        dtype="float64",
        elements=(element,),
        r_max_A=r_max_A,
        num_interactions=2,
        heads=("Default",),
        e0s_eV={"Default": {element: e0_eV}},
    )


Files = dict[str, tuple[Path, ...]]


def write_frames(folder: Path, train: Sequence[Labelled], validation: Sequence[Labelled]) -> Files:
    """Frames of both sides in a folder: the inputs of a fit."""
    folder.mkdir(exist_ok=True)
    for side, rows in (("train", train), ("validation", validation)):
        write_frame(folder / f"{side}.pckl.gzip", frame(rows))
    return {side: (folder / f"{side}.pckl.gzip",) for side in ("train", "validation")}


def program(folder: Path, script: str) -> Path:
    """A script in the place of pacemaker; `$real` in it is the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    real, path = folder / "real", folder / "pacemaker"
    real.write_text(f'#!/bin/sh\nexec {shlex.join(fit_program())} "$@"\n')
    path.write_text(f"#!/bin/sh\nreal={shlex.quote(str(real))}\n{script}\n")
    for file in (real, path):
        file.chmod(0o755)
    return path


@dataclass(frozen=True)
class Fit:
    """A run of `pace_train` in a folder of its own."""

    folder: Path
    files: Files
    metrics: dict[str, Any]

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    @property
    def log(self) -> str:
        """What pacemaker wrote."""
        return (self.folder / "work" / "log.txt").read_text()

    def path(self, name: str) -> Path:
        return self.outputs / pace_train.OUTPUTS[name]

    def history(self, side: str = "train") -> pd.DataFrame:
        """The training curve of one side, by iteration."""
        history = pd.read_parquet(self.path("history"))
        return history[history["side"] == side].set_index("iteration")

    def losses(self, side: str = "train") -> list[float]:
        return list(self.history(side)["loss"])


def fitted(
    folder: Path,
    files: Files,
    params: pace_train.Params,
    command: Path | None = None,
    progress: Callable[..., None] = lambda *_: None,
) -> Fit:
    """A fit by pacemaker, or by the program in its place."""
    (folder / "outputs").mkdir(parents=True)
    words = (str(command),) if command else fit_program()
    machine = Machine(Resources(threads=1), progress)
    return Fit(folder, files, pace_train.train(Inputs(files), folder / "outputs", params, machine, words))


E0 = {"Cu": -0.02}
STUDENT = pace_train.Params(
    potential=Potential(elements=("Cu",), cutoff=4.0, functions_per_element=30, b_basis="small"),
    loss=Loss(kappa=0.35, l1=2e-8, l2=3e-8),
    maxiter=30,
)


def wide(count: int, seed: int, largest: int = 1) -> list[Labelled]:
    """Cells of 4 atoms, strained further than those of `copper`; every third of `largest` times as many atoms."""
    random = np.random.default_rng(seed)
    cells = [bulk("Cu", cubic=True) * (1, 1, 1 if n % 3 else largest) for n in range(count)]
    strains = [strained(cell, random, scale=(0.92, 1.08), shear=0.03) for cell in cells]
    return [effective_medium(f"{seed}-{number}", atoms, E0["Cu"]) for number, atoms in enumerate(strains)]


def shared_student(base: Path) -> Fit:
    """The fit STUDENT to 24 cells of 4 atoms, which tests read and none changes; made where it is not there yet."""
    folder = base / "copper"
    metrics = folder / "metrics.json"
    if metrics.exists():
        files = {side: (folder / "frames" / f"{side}.pckl.gzip",) for side in ("train", "validation")}
        return Fit(folder, files, json.loads(metrics.read_text()))
    folder.mkdir()
    made = fitted(folder, write_frames(folder / "frames", wide(24, 1), wide(6, 2, largest=2)), STUDENT)
    metrics.write_text(json.dumps(made.metrics))
    return made
