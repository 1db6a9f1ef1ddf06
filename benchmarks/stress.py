"""What strained structures do for the student's stress, at equal number of training structures.

python benchmarks/stress.py [--pool FILE] [--model FILE] [--structures 100] [--loss-stress 0.7] [--seeds 3]

For each seed two fits: on so many structures of the pool's training side drawn by chance, and on fewer of the same
draw with strained copies in the place of the rest. The teacher labels in float64; errors are those on the pool's whole
test side. Told are the medians over the seeds. Exit 1 when the stress error falls by less than is promised.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from containers.contract import Inputs, Machine, Resources
from containers.structures.split import Split, side
from containers.structures.table import labels_table, read_atoms, structure_id, write_table
from containers.tensorpot.dataset.history import DATASET
from containers.tensorpot.fit.training_data import auto_batch_size
from containers.tensorpot.frames import frames, strain
from containers.tensorpot.frames.frame_file import atoms_of_frame, read_frame
from containers.tensorpot.pacemaker.input import Fit, Loss, PacemakerInput, Potential
from containers.tensorpot.pacemaker.program import child_environment, find_program
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.calculator import load

ROOT = Path(__file__).parents[1]
LOSS_ENERGY, LOSS_FORCES = 0.7, 0.3
CUTOFF = 5.0
MUST_FALL = 0.20
WATCHED = 20
"""Structures of the validation side: pacemaker needs some, and nothing here depends on them."""
FIGURES = {"stress": "meV/Å³", "energy": "meV/atom", "force": "meV/Å"}


class Teacher:
    """MACE's own ASE calculator in float64."""

    def __init__(self, model: Path) -> None:
        import torch
        from mace.calculators import MACECalculator

        torch.set_num_threads(1)
        self.calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64")
        e0s = self.calculator.models[0].atomic_energies_fn.atomic_energies.ravel().tolist()
        self.baseline = Baseline(e0s_eV={"Si": float(e0s[0])})

    def label(self, structures: Sequence[Atoms]) -> None:
        """Give every structure its energy, forces and stress."""
        for atoms in structures:
            self.calculator.calculate(atoms)
            results = {name: self.calculator.results[name] for name in ("energy", "forces", "stress")}
            atoms.calc = SinglePointCalculator(atoms, **{name: np.array(value) for name, value in results.items()})


@dataclass(frozen=True)
class Bench:
    """What every fit shares."""

    folder: Path
    structures: int
    functions: int
    iterations: int
    loss_stress: float

    def fit(self, seed: int, stress: bool) -> dict[str, tuple[float, float]]:
        """MAE and RMSE on the test side, by figure."""
        folder = self.folder / f"{seed}-{stress}"
        kappa = LOSS_FORCES / (LOSS_ENERGY + LOSS_FORCES + (self.loss_stress if stress else 0.0))
        train = read_frame(folder / "train.pckl.gzip")["ase_atoms"]
        asked = PacemakerInput(
            potential=Potential(elements=("Si",), cutoff=CUTOFF, functions_per_element=self.functions),
            fit=Fit(loss=Loss(kappa=kappa), maxiter=self.iterations, core=False),
            batch_size=auto_batch_size(len(train), sum(map(len, train))),
        )
        (folder / "input.yaml").write_text(asked.text())
        with (folder / "log").open("wb") as log:
            command = [str(find_program()), "--no-predict", "input.yaml"]
            subprocess.run(command, cwd=folder, env=child_environment(Resources()), stdout=log, stderr=log, check=True)
        return errors_of(folder / "interim_potential_0.yaml", folder)


def prepare(bench: Bench, pool: list[Atoms], teacher: Teacher, seed: int, stress: bool) -> None:
    """Write the frames of one fit with the steps themselves."""
    folder = bench.folder / f"{seed}-{stress}"
    folder.mkdir()
    drawn = sorted(
        (atoms for atoms in pool if atoms.info["side"] == "train"),
        key=lambda atoms: hashlib.sha256(f"{seed}:{atoms.info['id']}".encode()).hexdigest(),
    )[: strain.to_select(bench.structures) if stress else bench.structures]
    used = drawn + [atoms for atoms in pool if atoms.info["side"] != "train"]
    teacher.label([atoms for atoms in used if atoms.calc is None])
    table = labels_table(used)
    columns = {"origin": ["teacher"] * len(used), "side": [a.info["side"] for a in used], "version": [1] * len(used)}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    write_table(folder / "dataset.parquet", table.cast(DATASET))
    selection = {"id": [atoms.info["id"] for atoms in drawn], "weight": [1.0] * len(drawn)}
    pq.write_table(pa.table(selection), folder / "selection.parquet")
    teacher.baseline.write(folder / "baseline.json")
    files = {path.stem: (path,) for path in folder.iterdir()}
    if stress:
        strain.run(Inputs(files), folder, strain.Params(seed=seed), Machine())
        copies = read_atoms(folder / "structures.parquet")
        teacher.label(copies)
        write_table(folder / "strains.parquet", labels_table(copies))
        files["strains"] = (folder / "strains.parquet",)
    params = frames.Params(
        elements=("Si",), cutoff=CUTOFF, loss_energy=LOSS_ENERGY, loss_stress=bench.loss_stress if stress else 0.0
    )
    frames.run(Inputs(files), folder, params, Machine())


def errors_of(potential: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """MAE and RMSE of a potential on the test frame of a folder."""
    student = load(potential, folder / "baseline.json", asi=None)
    differences: dict[str, list[np.ndarray]] = {name: [] for name in FIGURES}
    for atoms in atoms_of_frame(read_frame(folder / "test.pckl.gzip")):
        student.calculate(atoms)
        found, label = student.results, atoms.calc.results
        differences["energy"].append(np.array([(found["energy"] - label["energy"]) / len(atoms)]))
        differences["force"].append(np.ravel(found["forces"] - label["forces"]))
        differences["stress"].append(found["stress"] - label["stress"])
    flat = {name: 1e3 * np.concatenate(values) for name, values in differences.items()}
    return {name: (float(abs(d).mean()), float(np.sqrt((d**2).mean()))) for name, d in flat.items()}


def read_pool(path: Path) -> list[Atoms]:
    """The structures with id and side."""
    structures: list[Atoms] = read(path, ":")
    for row, atoms in enumerate(structures):
        family = str(atoms.info["family"])
        group = str(atoms.info["group"])
        atoms.info = {"id": structure_id(atoms), "source": path.name, "row": row, "group": group, "family": family}
        atoms.info["side"] = side(family, Split())
        atoms.calc = None
    watched = {atoms.info["id"] for atoms in [a for a in structures if a.info["side"] == "validation"][:WATCHED]}
    return [atoms for atoms in structures if atoms.info["side"] != "validation" or atoms.info["id"] in watched]


def tell(results: dict[bool, list[dict[str, tuple[float, float]]]]) -> bool:
    """One line a figure; whether the stress error fell as promised."""
    kept = True
    for name, unit in FIGURES.items():
        for place, measure in enumerate(("MAE", "RMSE")):
            without, with_strains = (statistics.median(one[name][place] for one in results[s]) for s in (False, True))
            ratios = [b[name][place] / a[name][place] for a, b in zip(results[False], results[True], strict=True)]
            change = statistics.median(ratios) - 1
            verdict = ""
            if name == "stress":
                kept = kept and change <= -MUST_FALL
                verdict = f", wanted at most {-MUST_FALL:.0%}: {'met' if change <= -MUST_FALL else 'MISSED'}"
            each = ", ".join(f"{ratio - 1:+.0%}" for ratio in ratios)
            print(
                f"{name} {measure} without strains {without:.2f} {unit}, with {with_strains:.2f} {unit}:"
                f" {change:+.0%} (median of {each}){verdict}",
                flush=True,
            )
    return kept


def main() -> int:
    """Parse, prepare, fit, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, default=ROOT / "benchmarks" / "data" / "silicon" / "pool.extxyz")
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "silicon" / "teacher.model")
    parser.add_argument("--structures", type=int, default=100)
    parser.add_argument("--functions", type=int, default=120)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--loss-stress", type=float, default=0.7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fits-at-once", type=int, default=2)
    given = parser.parse_args()
    pool, teacher, seeds = read_pool(given.pool), Teacher(given.model), range(1, given.seeds + 1)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.fits_at_once) as workers:
        bench = Bench(Path(folder), given.structures, given.functions, given.iterations, given.loss_stress)
        cases = [(seed, stress) for seed in seeds for stress in (False, True)]
        for case in cases:
            prepare(bench, pool, teacher, *case)
        found = dict(zip(cases, workers.map(lambda case: bench.fit(*case), cases), strict=True))
    return 0 if tell({s: [found[seed, s] for seed in seeds] for s in (False, True)}) else 1


if __name__ == "__main__":
    sys.exit(main())
