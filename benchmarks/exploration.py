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
from ruamel.yaml import YAML

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
            {"temperature_K": 300, "end_temperature_K": 1200, "picoseconds": 10, "starts": ["bulk", "vacancy", "alloy"]},
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
