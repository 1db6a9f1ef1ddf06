"""What an exploration gives: fresh runs of its finished student, and random choice of the same frames beside it.

python benchmarks/exploration.py ROOT [--data ../shared/data] [--systems silicon nial] [--random-seeds 1 2 3]

`python -m flows.explore` from one or two crystals and the teacher, into ROOT: a run that is there is not repeated. Then
every condition again with seeds that no round had, 20 ps each: time survived, share of steps with γ above 2, and errors
on frames of these runs beside those on the test side. Errors on the system's DFT test file are printed too. With
--random-seeds, the frames of the first round are chosen at random instead of by MaxVol, as many, and a student of each
choice is compared on the frames of the fresh runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import bulk
from prefect import flow
from prefect.runtime import flow_run
from ruamel.yaml import YAML

from containers.tensorpot.exploration import choose_frames
from flows.config.loading import load_config, teacher_files, user_files
from flows.data.prepare import Prepared, prepare
from flows.data.training_set import training_set
from flows.distill.flow import distil
from flows.fit import steps
from flows.fit.acquisition import from_dynamics
from flows.fit.exploration import fit_explorer
from flows.fit.exploration_round import errors_of, explore_round, measure_errors, run_conditions
from flows.fit.student import Student
from flows.run import Run
from tasks.runners.readiness import ready
from tasks.settings import Settings
from tasks.workspace import open_workspace

REPOSITORY = Path(__file__).parents[1]
FRESH = 1000
"""Number of the fresh round: no exploration has so many, so its velocities are new."""
PICOSECONDS = 20.0
ALUMINIDE = Atoms("NiAl", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5)], cell=[2.88] * 3, pbc=True)
SYSTEMS: dict[str, dict[str, Any]] = {
    "silicon": {
        "seeds": {"diamond.vasp": bulk("Si", "diamond", a=5.43)},
        "max_labels": 600,
        "conditions": [
            {"temperature_K": 300, "picoseconds": 5, "starts": ["bulk", "vacancy"]},
            {"temperature_K": 300, "end_temperature_K": 1800, "picoseconds": 10},
            {"temperature_K": 300, "end_temperature_K": 1800, "pressure_GPa": 10, "picoseconds": 10},
            {"ensemble": "NVT", "temperature_K": 3000, "end_temperature_K": 1800, "picoseconds": 10},
        ],
    },
    "nial": {
        "seeds": {"nickel.vasp": bulk("Ni", "fcc", a=3.52), "aluminide.vasp": ALUMINIDE},
        "max_labels": 800,
        "faces": [[1, 1, 0]],
        "conditions": [
            {
                "temperature_K": 300,
                "end_temperature_K": 1200,
                "picoseconds": 10,
                "starts": ["bulk", "vacancy", "alloy"],
            },
            {"ensemble": "NVT", "temperature_K": 1200, "picoseconds": 5, "starts": ["slab"]},
        ],
    },
}


def config(system: str, data: Path, folder: Path) -> Path:
    """Write the config and the seeds of a system; return the config's file."""
    explore = dict(SYSTEMS[system])
    crystals: dict[str, Atoms] = explore.pop("seeds")
    for name, atoms in crystals.items():
        atoms.write(folder / name)
    values = {
        "name": system,
        "teacher": {"model": str(data / "teacher.model")},
        "explore": {**explore, "seeds": list(crystals)},
        "dft": {"test_files": [str(data / "dft_test.extxyz")]},
        "pacemaker": {"b_basis": "mace", "order": 4, "densities": 4, "functions_per_element": 200},
    }
    with (folder / f"{system}.yaml").open("w") as text:
        YAML().dump(values, text)
    return folder / f"{system}.yaml"


def explore(given: Path, root: Path) -> tuple[dict[str, Any], float]:
    """Run the exploration unless it is there; return its report and the seconds that it took now."""
    report, begun = root / "runs" / given.stem / "report.json", time.monotonic()
    if not report.is_file():
        with (root / f"{given.stem}.log").open("w") as log:
            command = [sys.executable, "-m", "flows.explore", str(given)]
            environment = {**os.environ, "DISTILL_WORK_ROOT": str(root)}
            subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        if not report.is_file():
            sys.exit(f"{given.stem}: no report, see {root / f'{given.stem}.log'}")
    return json.loads(report.read_text()), time.monotonic() - begun


@flow(name="fresh runs")
def fresh(given: Path, root: Path, seeds: tuple[int, ...]) -> None:
    """Print the fresh runs of the finished student, and those of students of the first round's frames, by choice."""
    config, workspace = load_config(given), open_workspace(root, Settings(), run_id=flow_run.id)
    with ready(workspace) as machine:
        run = Run(machine)
        first = prepare(config, user_files(config), teacher_files(config), run)
        training = training_set(first, run)
        results, _ = distil(first, training, run)
        show("finished student", longer(results.prepared), results.best, run.within("fresh"))
        student = fit_explorer(first, training, None, run.within("before exploration"))
        frames = [one.result for one in run_conditions(first, student, 1, 1, run.within("exploration 1"))]
        most, fitted = first.recipe.explore.structures_per_round, student.fit.file("best")
        call = steps.choose_frames_call(first.recipe, frames, most, fitted, student.active_set, machine.settings)
        chosen = run(call, "choose_frames maxvol")
        arms = {"maxvol": chosen}
        count = chosen.read(choose_frames.Metrics).chosen
        for seed in seeds if count else ():
            changed = {**call.params, "method": "random", "seed": seed, "structures": count}
            arms[f"random {seed}"] = run(call.model_copy(update={"params": changed}), f"choose_frames random {seed}")
        for name, made in arms.items():
            if made.read(choose_frames.Metrics).chosen == 0:
                print(f"{name}: no frame of the first round extrapolates")
                continue
            mine = run.within(name)
            grown = from_dynamics(first, training, {name: made.file("structures")}, mine)
            show(name, longer(grown.prepared), fit_explorer(grown.prepared, grown.training, student, mine), mine)


def longer(prepared: Prepared) -> Prepared:
    """Return the data with conditions of PICOSECONDS each."""
    conditions = [one.model_copy(update={"picoseconds": PICOSECONDS}) for one in prepared.recipe.explore.conditions]
    explore = prepared.recipe.explore.model_copy(update={"conditions": conditions})
    return replace(prepared, recipe=prepared.recipe.model_copy(update={"explore": explore}))


def show(name: str, prepared: Prepared, student: Student, run: Run) -> None:
    """Print a line for each condition: survived, share of steps that extrapolate, errors on frames of the runs."""
    levels = prepared.recipe.explore.levels
    made = explore_round(prepared, student, levels, [], True, run, FRESH)
    errors = {one.condition: one for one in measure_errors(prepared, student, made, run)}
    side = errors_of(student)
    print(f"{name}: test side {side.force_mae_meV_per_A:.1f} meV/Å, {side.energy_mae_meV_per_atom:.2f} meV/atom")
    for condition, found in errors.items():
        runs = [one for one in made.runs if one.condition == condition]
        share = statistics.fmean(one.extrapolating for one in runs)
        print(
            f"{name}, condition {condition}: {sum(one.survived for one in runs)} of {len(runs)} survived"
            f" {PICOSECONDS:g} ps, {100 * share:.2f} % of steps above γ {prepared.recipe.explore.gamma_select:g},"
            f" force {found.force_mae_meV_per_A} meV/Å, energy {found.energy_mae_meV_per_atom} meV/atom",
            flush=True,
        )


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--random-seeds", nargs="*", type=int, default=[])
    options = parser.parse_args()
    root = options.root.absolute()
    root.mkdir(exist_ok=True)
    for system in options.systems:
        given = config(system, (options.data / system).absolute(), root)
        report, seconds = explore(given, root)
        found, dft = report["exploration"], report["fidelity"]["dft"]
        rounds, labels = len(found["rounds"]), found["rounds"][-1]["labels"]
        print(f"{system}: {seconds / 60:.0f} min, {rounds} rounds, {labels} labels, {found['stopped_because']}")
        print(f"{system}: converged {report['converged']}, {report['not_converged_because']}")
        errors = f"{dft['energy_mae_meV_per_atom']:.2f} meV/atom, {dft['force_mae_meV_per_A']:.1f} meV/Å"
        print(f"{system}: DFT test file {errors}", flush=True)
        fresh(given, root, tuple(options.random_seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
