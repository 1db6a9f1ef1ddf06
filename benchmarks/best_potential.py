"""Rules for the potential that a fit keeps, compared on data that the choice did not see. One line a figure.

python benchmarks/best_potential.py ROOT [--data benchmarks/data] [--systems example silicon nial] [--seeds 5] [--table]

Each fit has two stages, as the preset `accurate` has, but is small: order 3, 120 functions an element, kappa 0.3 and
then 0.03, one thread. The seed decides the sides (by family) and which structures of the training side are trained.
The second stage begins with the potential of the first that the product takes. The potential of every iteration stays
in ROOT, so a rule can be added later and costs no fit; fits that are in ROOT are not repeated. A rule sees the course
of a fit (train and validation side). Its potential is then compared with the teacher's labels of the test side, and
with DFT's test file where the system has one, energies aligned by a constant for each element fitted on DFT's training
file. A change is the mean over the fits of the logarithm of the ratio to the rule before, with its standard error;
beside it, in how many of the fits in which the rules differ the error is smaller. The best by train loss is the last:
BFGS never lets the loss rise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from potential_rules import BEST, FIGURES, LOOKS, RULES, TODAY, Chosen, Stage, by_mae, read_stage

from containers.contract import Inputs, Resources
from containers.structures.split import SIDES, Side
from containers.structures.table import Origin, structure_id
from containers.tensorpot.baseline.dft_agreement import Both, offsets
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.history import measure
from containers.tensorpot.fit.training_data import Frames, counted
from containers.tensorpot.fit.working_folder import Checkpoint, make_working_folder
from containers.tensorpot.frames.frame_file import fit_label, frame, read_frame, write_frame
from containers.tensorpot.frames.rows import TrainingRow
from containers.tensorpot.frames.weights import energy_weighted
from containers.tensorpot.pacemaker.input import Loss, Potential, Start
from containers.tensorpot.pacemaker.program import fit_program, run_pacemaker
from containers.tensorpot.student import potential as fitted
from containers.tensorpot.student.baseline import Baseline
from flows.config.training import Convergence, Limits

REPOSITORY = Path(__file__).parents[1]
STAGES = ((0.3, 150), (0.03, 40))  # kappa and iterations
FUNCTIONS = 120  # of an element
SHARES: dict[Side, float] = {"test": 0.2, "validation": 0.3}  # up to so much of the pool, family by family
TARGETS = ("test", "dft")


@dataclass(frozen=True)
class System:
    """A teacher and a pool: labelled structures at most, training structures, and whether there is a DFT test file."""

    elements: tuple[str, ...]
    labelled: int
    trained: int
    dft: bool


SYSTEMS = {
    "example": System(("Si",), 300, 160, False),  # 7 atoms a structure
    "silicon": System(("Si",), 600, 40, True),  # 42
    "nial": System(("Al", "Ni"), 500, 70, True),  # 18
    "few": System(("Si",), 300, 20, False),  # the example with too few structures: late potentials are overfitted
}
"""Training structures that make about 1,100, 1,700, 1,300 and 130 atoms."""


@dataclass(frozen=True)
class Data:
    """Labels of a system. Energies of DFT are on the teacher's scale."""

    pool: list[Atoms]
    dft: list[Atoms]
    baseline: Baseline
    cutoff: float
    limits: Limits


def label(name: str, data: Path, root: Path) -> Data:
    """Label a choice of the pool and the DFT training file with the teacher in float64, once."""
    what, folder, cache = SYSTEMS[name], REPOSITORY / "examples" / "silicon", root / "labels"
    folder = data / name if what.dft else folder
    cache.mkdir(parents=True, exist_ok=True)
    facts, paths = cache / f"{name}.json", {part: cache / f"{name}_{part}.traj" for part in ("pool", "dft")}
    if not facts.is_file():
        _label(what, folder, paths, facts)
    found, elements = json.loads(facts.read_text()), what.elements
    pool, baseline, tests = read(paths["pool"], ":"), Baseline(e0s_eV=found["e0s_eV"]), list[Atoms]()
    forces = np.concatenate([atoms.get_forces().ravel() for atoms in pool])
    energies = np.array([atoms.get_potential_energy() / len(atoms) for atoms in pool])
    shares = np.array([[list(atoms.symbols).count(one) / len(atoms) for one in elements] for atoms in pool])
    left = energies - shares @ np.linalg.lstsq(shares, energies, rcond=None)[0]  # as dataset.sizes
    limits = Convergence().limits(1000 * float(np.abs(forces).mean()), 1000 * float(np.abs(left).mean()))
    print(
        f"{name}: {len(pool)} structures, {sum(map(len, pool))} atoms;"
        f" limits {limits.force_mae_meV_per_A} meV/Å, {limits.energy_mae_meV_per_atom} meV/atom"
    )
    if what.dft:
        by_teacher = [atoms.calc.results for atoms in read(paths["dft"], ":")]
        both = [Both(*pair) for pair in zip(dft_file(folder / "dft_train.extxyz"), by_teacher, strict=True)]
        constants, before, after = offsets(both, elements)
        print(f"{name}: DFT less the teacher, 75 % within {1e3 * before:.1f}, aligned {1e3 * after:.1f} meV/atom")
        baseline = baseline.model_copy(update={"dft_offsets_eV": constants, "dft_compared": len(both)})
        tests = dft_file(folder / "dft_test.extxyz")
    return Data(pool, tests, baseline, found["cutoff_A"], limits)


def _label(what: System, folder: Path, paths: Mapping[str, Path], facts: Path) -> None:
    import torch
    from mace.calculators import MACECalculator

    torch.set_num_threads(1)
    teacher = MACECalculator(model_paths=str(folder / "teacher.model"), device="cpu", default_dtype="float64")
    structures = {"pool": sorted(read(folder / "pool.extxyz", ":"), key=lambda one: by_chance(0, structure_id(one)))}
    structures["pool"] = structures["pool"][: what.labelled]
    structures["dft"] = dft_file(folder / "dft_train.extxyz") if what.dft else []
    for name, some in structures.items():
        labels = [with_label(atoms, 0.0, np.zeros((len(atoms), 3))) for atoms in some]
        for atoms in labels:
            teacher.calculate(atoms)
            atoms.calc.results = {key: np.array(teacher.results[key], dtype=float) for key in ("energy", "forces")}
        if labels:
            write(paths[name], labels)
    numbers = teacher.models[0].atomic_numbers.tolist()
    e0s = teacher.models[0].atomic_energies_fn.atomic_energies.ravel().tolist()
    named = dict(zip(Atoms(numbers).get_chemical_symbols(), map(float, e0s), strict=True))
    facts.write_text(json.dumps({"cutoff_A": float(teacher.models[0].r_max), "e0s_eV": named}))


def with_label(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    """Return the bare structure with a label (eV, eV/Å)."""
    found = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=dict(atoms.info))
    found.calc = SinglePointCalculator(found, energy=float(energy), forces=np.array(forces, dtype=float))
    return found


def dft_file(path: Path) -> list[Atoms]:
    """Return structures with DFT's labels."""
    return [with_label(one, one.info["REF_energy"], one.arrays["REF_forces"]) for one in read(path, ":")]


def by_chance(seed: int, name: str) -> str:
    """Return what sorts names by chance."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def write_frames(data: Data, what: System, seed: int, folder: Path) -> None:
    """Write the frames: the whole validation and test sides, a choice of the training side, and DFT's test file."""

    def row(atoms: Atoms, on: Side, origin: Origin) -> TrainingRow | None:
        atoms.info |= {"id": structure_id(atoms)}
        found = fit_label(atoms, origin, what.elements, data.cutoff, data.baseline)
        return None if isinstance(found, str) else TrainingRow(atoms, origin, on, found)

    families = Counter(atoms.info["family"] for atoms in data.pool)
    on, taken = dict[str, Side](), 0
    for family in sorted(families, key=lambda one: by_chance(seed, one)):
        on[family] = next((name for name, share in SHARES.items() if taken < share * len(data.pool)), "train")
        taken += families[family]
    found = [row(atoms, on[atoms.info["family"]], "teacher") for atoms in data.pool]
    sides = {name: [one for one in found if one is not None and one.side == name] for name in SIDES}
    sides["train"] = sorted(sides["train"], key=lambda one: by_chance(seed, one.label.name))[: what.trained]
    frames = {str(name): rows for name, rows in energy_weighted(sides).items()}
    frames["dft"] = [one for one in (row(atoms, "test", "dft") for atoms in data.dft) if one is not None]
    for name, rows in frames.items():
        write_frame(folder / f"{name}.pckl.gzip", frame([one.label for one in rows]))
    print(f"  {', '.join(f'{len(rows)} {name}' for name, rows in frames.items())}", flush=True)


def fit(data: Data, what: System, seed: int, folder: Path) -> list[Stage]:
    """Fit both stages, each once, and keep the potentials of all iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    write_frames(data, what, seed, folder)
    frames = Frames(Inputs({name: (folder / f"{name}.pckl.gzip",) for name in ("train", "validation")}))
    potential = Potential(elements=what.elements, cutoff=data.cutoff, functions_per_element=FUNCTIONS)
    counts = counted(frames, data.cutoff)
    stages: list[Stage] = []
    for number, (kappa, iterations) in enumerate(STAGES):
        start, run = None, folder / f"stage{number}"
        if stages:
            start = stages[-1].folder / f"kept_{stages[-1].lowest(by_mae)[0]:06d}.yaml"
        params = pace_train.Params(potential=potential, loss=Loss(kappa=kappa), maxiter=iterations, display_step=LOOKS)
        resources = Resources(threads=1)
        kind: Start = "continue" if start else "fresh"
        given = pace_train.pacemaker_input(
            params, counts.sizes["train"], counts.atoms, kind, resources, counts.neighbours
        )
        run.mkdir(exist_ok=True)
        if start is not None:
            fitted.write_stripped(fitted.load(start), folder / "start.yaml")
            start = folder / "start.yaml"
        work = make_working_folder(run, frames, given, Checkpoint(), start)
        with (run / "log.txt").open("w") as log:
            code = run_pacemaker(fit_program(), work, resources, lambda line: bool(log.write(line)) or True)
        if code:
            raise SystemExit(f"pacemaker ended with {code}, see {run / 'log.txt'}")
        stages.append(read_stage(work))
    return stages


def mean_of(paths: Sequence[Path]) -> Any:
    """Return the potential with the mean of all coefficients; all must have the same functions."""
    potentials = [fitted.load(path) for path in paths]
    names = [
        [(f.elements, f.ns, f.ls, f.LS) for block in each.funcspecs_blocks for f in block.funcspecs]
        for each in potentials
    ]
    if any(one != names[0] for one in names):
        raise SystemExit(f"the potentials of {paths[0].parent} have different functions")
    potentials[-1].set_all_coeffs(np.mean([each.get_all_coeffs() for each in potentials], axis=0).tolist())
    return potentials[-1]


def errors_of(stage: Stage, chosen: Sequence[int], folder: Path) -> dict[str, dict[str, float | None]]:
    """Return the errors on the test side and against DFT of a potential, or of the mean of several."""
    path = folder / "chosen.yaml"
    fitted.write_stripped(mean_of([stage.folder / f"kept_{n:06d}.yaml" for n in chosen]), path)
    frames = {name: read_frame(folder / f"{name}.pckl.gzip") for name in TARGETS}
    return {name: fitted.errors_on(path, table) for name, table in frames.items() if len(table)}


def compare(stages: Sequence[Stage], limits: Limits, folder: Path) -> dict[str, Any]:
    """Return choice and errors of every rule. Errors that are in the folder are not computed again."""
    cache = folder / "errors.json"
    known: dict[str, Any] = json.loads(cache.read_text()) if cache.is_file() else {}

    def found(chosen: Chosen) -> dict[str, Any]:
        key = f"{chosen[0]}:{','.join(map(str, chosen[1]))}"
        if key not in known:
            known[key] = errors_of(stages[chosen[0]], chosen[1], folder)
            cache.write_text(json.dumps(known))
        return {"chosen": key, **known[key]}

    results = {name: found(rule(stages, limits)) for name, rule in RULES.items()}
    looks = [found((len(stages) - 1, (n,))) for n in stages[-1].looks()]
    results[BEST] = min(looks, key=lambda one: measure(one["test"][FIGURES[0]], one["test"][FIGURES[1]], 0.5))
    return results


def table(fits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line a rule: change of each error against the rule before, mean over the fits and its standard error."""
    names = [(where, figure) for where in TARGETS for figure in FIGURES]
    heads = [f"{where} {figure.partition('_')[0]}" for where, figure in names]
    lines = [f"| rule | {' | '.join(heads)} | test, both |", "|---" * (len(names) + 2) + "|"]
    for rule in (*RULES, BEST):
        cells = []
        for where, figure in names:
            of = [one for one in fits.values() if where in one[rule]]
            cells.append(change([math.log(one[rule][where][figure] / one[TODAY][where][figure]) for one in of]))
            if rule == TODAY and of:
                cells[-1] = f"{statistics.fmean(one[rule][where][figure] for one in of):.2f}"
        both = [
            [math.log(one[rule]["test"][name] / one[TODAY]["test"][name]) for name in FIGURES] for one in fits.values()
        ]
        lines.append(f"| {rule} | {' | '.join(cells)} | {change([statistics.fmean(one) for one in both])} |")
    return "\n".join(lines)


def change(logarithms: Sequence[float]) -> str:
    """Return the mean change with its standard error, and in how many of the fits that differ it is a fall."""
    if not logarithms or not any(logarithms):
        return "–" if not logarithms else "0"
    spread = statistics.stdev(logarithms) / math.sqrt(len(logarithms)) if len(logarithms) > 1 else math.nan
    better, other = sum(one < 0 for one in logarithms), sum(one != 0 for one in logarithms)
    return f"{100 * math.expm1(statistics.fmean(logarithms)):+.1f} ± {100 * spread:.1f} % ({better}/{other})"


def main() -> int:
    """Fit what is not yet in ROOT, seed by seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of labels, fits and results")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "benchmarks" / "data")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["example", "silicon", "nial"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="of the fits that are in ROOT; none is made")
    options = parser.parse_args()
    root, results = options.root.resolve(), dict[str, dict[str, Any]]()
    data = {name: label(name, options.data.resolve(), root) for name in options.systems}
    for seed in range(1, options.seeds + 1):
        for name in options.systems:
            folder, began = root / f"{name}-{seed}", time.monotonic()
            done = folder / "done"
            if not done.is_file():
                if options.table:
                    continue
                print(f"{name}, seed {seed}", flush=True)
                fit(data[name], SYSTEMS[name], seed, folder)
                done.touch()
            stages = [read_stage(folder / f"stage{number}" / "work") for number in range(len(STAGES))]
            fitted_s = time.monotonic() - began
            results[f"{name}-{seed}"] = found = compare(stages, data[name].limits, folder)
            print(f"{name}, seed {seed}: fit {fitted_s:.0f} s, errors {time.monotonic() - began - fitted_s:.0f} s")
            for rule, one in found.items():
                figures = [
                    f"{where} " + " ".join(f"{one[where][f]:8.2f}" for f in FIGURES)
                    for where in TARGETS
                    if where in one
                ]
                print(f"    {rule:<32} {one['chosen'][:24]:<24} {'   '.join(figures)}", flush=True)
            (root / "results.json").write_text(json.dumps(results, indent=1))
    groups = [[name] for name in options.systems] if len(options.systems) > 1 else []
    for some in (*groups, options.systems):
        of = {key: one for key, one in results.items() if key.rpartition("-")[0] in some}
        if of:
            print(f"\n{', '.join(some)}: {len(of)} fits\n{table(of)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
