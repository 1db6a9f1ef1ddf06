"""What strained copies, frozen waves and energy weights do for a potential, with everything else equal.

python benchmarks/weights_and_waves.py ROOT [--data ../shared/data] [--systems silicon nial] [--seeds 1 2] [--arms ...]

Each arm is a whole run of `python -m flows.distill` without rounds; labels and properties of the teacher are shared in
ROOT, and a run that is there is not repeated. One line for each arm of a system: medians over the seeds of the errors
on the test side, and of the sizes of deviations of properties (lattice, bulk modulus and elastic constants: the mean
over the crystals). DFT: energies of the system's test file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]
ARMS = {
    "plain": {},
    "strains": {"pacemaker.loss_stress": 0.7},
    "waves": {"properties.in_training": ["elastic"]},
    "waves, strains": {"properties.in_training": ["elastic"], "pacemaker.loss_stress": 0.7},
    "waves, even weights": {"properties.in_training": ["elastic"], "pacemaker.energy_weights": False},
    "waves, 0.3 eV": {"properties.in_training": ["elastic"], "pacemaker.energy_scale_eV_per_atom": 0.3},
}
"""Settings of each arm beside those that all have."""
ALL: dict[str, Any] = {
    "pacemaker.functions_per_element": 120,
    "pacemaker.order": 4,
    "pacemaker.b_basis": "mace",
    "pacemaker.densities": 4,
    "train.maxiter": 200,
    "selection.max_structures": 180,
    "extend.rounds": 0,
    "extend.property_rounds": 0,
    "properties.in_training": [],
    "properties.vacancies": False,
    "properties.surfaces": False,
    "stability.picoseconds": 0.2,
    "trajectory.picoseconds": 0,
}
HEAD = (
    *("force (meV/Å)", "energy (meV/atom)", "stress (meV/Å³)", "DFT energy (meV/atom)"),
    *("lattice, B, C (%)", "C44 (%)", "phonons (THz)"),
)


def config(name: str, data: Path, folder: Path) -> Path:
    """Write the config that all arms of a system share; return its file."""
    files = {"files": [str(data / "pool.extxyz")]}
    values = {"name": name, "teacher": {"model": str(data / "teacher.model")}, "pool": files}
    values["dft"] = {"test_files": [str(data / "dft_test.extxyz")]}
    with (folder / f"{name}.yaml").open("w") as text:
        YAML().dump(values, text)
    return folder / f"{name}.yaml"


def report_of(root: Path, given: Path, name: str, settings: dict[str, Any]) -> Path:
    """Run an arm unless it is there; return its folder. Exit where the run fails: not converged is no failure."""
    folder = root / "runs" / name
    if not (folder / "report.json").is_file():
        sets = [
            part
            for key, value in {**settings, "name": name}.items()
            for part in ("--set", f"{key}={json.dumps(value)}")
        ]
        command = [sys.executable, "-m", "flows.distill", str(given), *sets]
        with (root / f"{name}.log").open("w") as log:
            environment = {**os.environ, "DISTILL_WORK_ROOT": str(root)}
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
        if not (folder / "report.json").is_file():
            sys.exit(f"{name}: exit code {done.returncode}, see {root / f'{name}.log'}")
    return folder


def figures(folder: Path) -> Iterator[float]:
    """Yield the figures of HEAD."""
    fidelity = json.loads((folder / "report.json").read_text())["fidelity"]
    for key in ("force_mae_meV_per_A", "energy_mae_meV_per_atom", "stress_mae_meV_per_A3"):
        yield fidelity["teacher"][key]
    yield fidelity["dft"]["energy_mae_meV_per_atom"]
    rows = json.loads((folder / "properties_deviations.json").read_text())
    sizes: dict[str, list[float]] = {"elastic": [], "C44": [], "phonon": []}
    for row in rows:
        if row["deviation"] is None:
            continue
        kind = "elastic" if row["kind"] in ("lattice", "bulk modulus", "elastic") else row["kind"]
        for name in (kind, row["property"]):
            if name in sizes:
                sizes[name].append(abs(row["deviation"]))
    yield from (statistics.fmean(each) for each in sizes.values())


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--systems", nargs="+", default=["silicon", "nial"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    root = options.root.absolute()
    root.mkdir(exist_ok=True)
    for system in options.systems:
        given = config(system, (options.data / system).absolute(), root)
        print(f"{system}: {', '.join(HEAD)}")
        for arm in options.arms:
            found = []
            for seed in options.seeds:
                name = f"{system}-{list(ARMS).index(arm)}-{seed}"
                found.append(list(figures(report_of(root, given, name, ALL | ARMS[arm] | {"train.seed": seed}))))
            medians = [f"{statistics.median(one):.2f}" for one in zip(*found, strict=True)]
            print(f"{system}, {arm}: {', '.join(medians)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
