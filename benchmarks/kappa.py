"""What the balance of forces and energies is worth: the bundled example fitted with the default kappa, with `auto`, 0.5
and in two stages, all with the same number of iterations. One line a fit.

python benchmarks/kappa.py [--structures 120] [--iterations 80] [--threads 1]

Trained on the first structures of the training side by name, labelled by the example's teacher in float64; the errors
are those on the test side, without core repulsion. Nothing is promised: docs/use/kappa.md tells what was measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read

from containers.contract import Inputs, Machine, Resources
from containers.structures.split import SIDES, Split, side
from containers.structures.table import structure_id
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.log import KAPPA
from containers.tensorpot.frames.frame_file import Labelled, energy_corrected, fit_ready, frame, read_frame, write_frame
from containers.tensorpot.pacemaker.input import Loss, Potential
from containers.tensorpot.student.potential import errors_on

EXAMPLE = Path(__file__).parents[1] / "examples" / "silicon"
FUNCTIONS = 120  # as in the example
FIRST_STAGE = 0.7  # of the iterations
Kappa = float | Literal["auto"]
PLANS: dict[str, tuple[tuple[Kappa, float], ...]] = {
    "kappa 0.3 (the default)": ((0.3, 1.0),),
    "kappa auto": (("auto", 1.0),),
    "kappa 0.5": ((0.5, 1.0),),
    "stages of kappa 0.3, then 0.02": ((0.3, FIRST_STAGE), (0.02, 1 - FIRST_STAGE)),
}
"""Name -> kappa and share of the iterations of each stage."""


@dataclass(frozen=True)
class Fitted:
    """What came of a plan."""

    seconds: float
    kappas: tuple[float, ...]
    errors: dict[str, float | None]


def labelled(atoms: Atoms, teacher: Calculator, e0_eV: float, cutoff: float) -> Labelled:
    """A row of a frame with the teacher's labels."""
    ready = fit_ready(atoms, cutoff)
    if isinstance(ready, str):
        raise ValueError(f"the example has a structure that {ready}")
    ready.calc = teacher
    energy, forces = float(ready.get_potential_energy()), np.array(ready.get_forces(), dtype=float)
    corrected = energy_corrected(energy, ready, {"Si": e0_eV})
    return Labelled(structure_id(atoms), ready, energy, corrected, forces, None)


def write_frames(folder: Path, structures: int) -> tuple[dict[str, Path], float]:
    """A frame for each side, the training one of so many structures; and the teacher's cutoff (Å)."""
    import mace  # noqa: F401  before e3nn
    from mace.calculators import MACECalculator

    teacher = MACECalculator(model_paths=str(EXAMPLE / "teacher.model"), device="cpu", default_dtype="float64")
    model = teacher.models[0]
    cutoff, e0_eV = float(model.r_max), float(model.atomic_energies_fn.atomic_energies.ravel()[0])
    rows: dict[str, list[Labelled]] = {name: [] for name in SIDES}
    for atoms in read(EXAMPLE / "pool.extxyz", index=":"):
        family = str(atoms.info["family"])
        rows[side(family, Split(validation=0.1, test=0.2))].append(labelled(atoms, teacher, e0_eV, cutoff))
    paths = {}
    for name, found in rows.items():
        found.sort(key=lambda row: row.name)
        paths[name] = folder / f"{name}.pckl.gzip"
        write_frame(paths[name], frame(found[:structures] if name == "train" else found))
    return paths, cutoff


def fitted(
    folder: Path, frames: dict[str, Path], cutoff: float, plan: Sequence[tuple[Kappa, int]], threads: int
) -> Fitted:
    """Fit stage by stage, each from the best potential of the one before, and look at the test side."""
    potential = Potential(elements=("Si",), cutoff=cutoff, functions_per_element=FUNCTIONS)
    files = {name: (frames[name],) for name in ("train", "validation")}
    started, kappas = time.monotonic(), []
    for number, (kappa, iterations) in enumerate(plan):
        outputs = folder / str(number) / "outputs"
        outputs.mkdir(parents=True)
        params = pace_train.Params(potential=potential, loss=Loss(kappa=kappa), maxiter=iterations)
        pace_train.run(Inputs(files), outputs, params, Machine(Resources(threads=threads)))
        log = (outputs.parent / "work" / "log.txt").read_text()
        kappas.append(float(KAPPA.findall(log)[-1]))  # also what `auto` made of it
        files["start"] = (outputs / pace_train.OUTPUTS["best"],)
    seconds = time.monotonic() - started
    return Fitted(seconds, tuple(kappas), errors_on(files["start"][0], read_frame(frames["test"])))


def iterations_of(plan: Sequence[tuple[Kappa, float]], total: int) -> Iterator[tuple[Kappa, int]]:
    """Kappa and iterations of each stage."""
    return ((kappa, round(share * total)) for kappa, share in plan)


def main() -> int:
    """Print one line per plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=120)
    parser.add_argument("--iterations", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        frames, cutoff = write_frames(Path(name), options.structures)
        sizes = {side_name: len(read_frame(path)) for side_name, path in frames.items()}
        lines = [f"structures: {sizes}; {FUNCTIONS} functions, cutoff {cutoff:g} Å, {options.iterations} iterations"]
        for number, (plan_name, plan) in enumerate(PLANS.items()):
            stages = list(iterations_of(plan, options.iterations))
            found = fitted(Path(name) / f"fit{number}", frames, cutoff, stages, options.threads)
            used = ", ".join(f"{kappa:.3g}" for kappa in found.kappas)
            lines.append(
                f"{plan_name:<32} used {used:<12} energy MAE {found.errors['energy_mae_meV_per_atom']:7.2f} meV/atom,"
                f" force MAE {found.errors['force_mae_meV_per_A']:7.2f} meV/Å, worst force"
                f" {found.errors['force_max_meV_per_A']:7.0f} meV/Å, {found.seconds:5.0f} s"
            )
    print("\n".join(lines))  # after all that pacemaker says meanwhile
    return 0


if __name__ == "__main__":
    sys.exit(main())
