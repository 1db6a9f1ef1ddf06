"""`trajectory`: structures that the student's own molecular dynamics visits, for the teacher to label.

Errors on structures that somebody chose say little of those that a simulation meets. Here are runs at constant
temperature (Langevin), beside the frames of the run at constant energy (step `stability`), few and evenly in time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, Optional, StepMetrics
from containers.properties.motion import EVERY, SETTLING, Motion, Start
from containers.structures.cells import grown, is_solid
from containers.structures.table import read_atoms, structures_table, write_table
from containers.tensorpot.evaluation.data_temperature import HIGH, highest_temperature
from containers.tensorpot.evaluation.molecular_dynamics import (
    DynamicsRun,
    constant_temperature,
    frame_steps,
    named_frames,
    relax,
    timestep,
)
from containers.tensorpot.evaluation.stability import NVE, RELAX_FORCE, RELAX_STEPS, first_structure
from containers.tensorpot.frames.frame_file import read_frame
from containers.tensorpot.student.baseline import Baseline

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none
    from ase.calculators.calculator import Calculator

IMAGE: Image = "tensorpot"
VERSION = 2
INPUTS = {
    "potential": "the student with its core (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "train": "the frame it was trained on (.pckl.gzip)",
    "stability": Optional("the run at constant energy (stability.json)"),
    "nve_frames": Optional("its frames (Parquet of STRUCTURES)"),
}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES; `group` is the run, `row` the step
    "trajectory": "trajectory.json",  # {"structure", "temperatures_from", "runs", "motion"}
}
ROOM_K = 300.0
SHARE = 0.8
"""Of the highest temperature in the data: below it, so that the student knows what it meets."""
HOTTEST_K = 2000.0
"""By itself. Hand-made structures look hotter than any simulation is meant to be."""
APART = 0.1
"""Two temperatures nearer than this share are one."""


class Params(Closed):
    """The runs at constant temperature."""

    picoseconds: float = Field(1.0, gt=0, description="ps of each run")
    temperatures_K: Literal["auto"] | tuple[Annotated[float, Field(gt=0)], ...] = Field(
        "auto", description="K; auto: 300 and 0.8 of the highest in the training structures"
    )
    frames: int = Field(10, ge=1, description="structures of each run that are kept")
    atoms: int = Field(64, ge=2, description="a training structure is repeated to so many or more")
    seed: int = Field(42, ge=0, description="of velocities and thermostat")


class Metrics(StepMetrics):
    """Figures that the flow reads."""

    frames: int
    motion_atom_steps: int | None  # atoms times steps of the run that a teacher may repeat; None: all are unstable


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the frames and a record of each run; one that becomes unstable ends there and keeps what it has."""
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    cutoff, train = float(student.ace.cutoff), read_frame(inputs.one("train"))
    structure, name = first_structure(train, Baseline.read(inputs.one("baseline")), cutoff)
    begin = grown(structure, params.atoms, cutoff)  # no atom is its own neighbour
    if params.temperatures_K == "auto":
        temperatures_K, because = automatic_temperatures(train, student, cutoff, params.seed)
    else:
        temperatures_K, because = list(dict.fromkeys(params.temperatures_K)), "trajectory.temperatures_K"
    frames, runs = constant_energy_run(inputs)
    motion = None
    for temperature_K in temperatures_K:
        seen, start = follow(begin, student, cutoff, temperature_K, params, machine)
        if start and motion is None and seen.unstable_because is None:
            motion = moved(seen, start)
        made = named_frames(seen, f"NVT {temperature_K:g} K")
        runs.append({"run": f"NVT {temperature_K:g} K", **record(seen, temperature_K, params), "frames": len(made)})
        frames += made
    return write(outputs, frames, {"structure": name, "temperatures_from": because, "runs": runs}, motion)


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write one frame of one run, two atoms of the first element of the baseline."""
    element = next(iter(Baseline.read(inputs.one("baseline")).e0s_eV))
    seen = DynamicsRun(Atoms([element] * 2, [[0, 0, 0], [2.3, 0, 0]], cell=[9.0] * 3, pbc=True), 4.0, 1.0)
    seen.kept = [(1000, seen.atoms)]
    seen.potential_eV = seen.temperature_K = [ROOM_K] * 2
    seen.trace = [seen.atoms.positions] * 2
    made = {"run": "NVT 300 K", **record(seen, ROOM_K, params), "frames": 1}
    report = {"structure": "stub", "temperatures_from": "stub", "runs": [made]}
    motion = moved(seen, Start.of(seen.atoms, ROOM_K, 1.0, EVERY, params.seed))
    return write(outputs, named_frames(seen, "NVT 300 K"), report, motion)


def automatic_temperatures(
    train: pd.DataFrame, student: Calculator, cutoff: float, seed: int
) -> tuple[list[float], str]:
    """Return ROOM_K and SHARE of the highest temperature in the data, and a sentence on where the latter is from."""
    solid = np.array([is_solid(atoms, cutoff) for atoms in train["ase_atoms"]])
    rows = train[solid] if solid.any() else train
    highest = highest_temperature(list(rows["ase_atoms"]), rows["energy"].to_numpy(), student, seed)
    if highest is None:
        return [ROOM_K], "300 K alone: no training structure has a temperature by its forces or its energy"
    wanted = min(round(SHARE * highest, -1), HOTTEST_K)
    found = f"{HIGH} % of the training structures are below {highest:.0f} K by their forces or their energy"
    if abs(wanted - ROOM_K) < APART * ROOM_K or wanted <= 0:
        return [ROOM_K], f"300 K alone: {found}"
    limit = f", at most {HOTTEST_K:g} K" if wanted == HOTTEST_K else ""
    return [ROOM_K, wanted], f"300 K, and {SHARE:g} of the highest in the data{limit}: {found}"


def follow(
    begin: Atoms, student: Calculator, cutoff: float, temperature_K: float, params: Params, machine: Machine
) -> tuple[DynamicsRun, Start | None]:
    """Relax and heat a copy of the structure, and run it at a temperature. Without a start it fell apart before."""
    atoms = begin.copy()
    atoms.calc = student
    timestep_fs = timestep(atoms)
    steps = max(2, round(1000 * params.picoseconds / timestep_fs))
    seen = DynamicsRun(atoms, cutoff, timestep_fs, frame_steps(steps, params.frames))
    relax(seen, RELAX_STEPS, RELAX_FORCE)
    if seen.unstable_because:
        return seen, None
    start = Start.of(atoms, temperature_K, timestep_fs, steps, params.seed)
    atoms.set_momenta(start.atoms().get_momenta())
    constant_temperature(seen, start, machine.progress)
    return seen, start


def moved(seen: DynamicsRun, start: Start) -> dict[str, Any]:
    """Return the start of a run and the student's motion in it, for a run of the teacher beside it."""
    found = Motion.of(np.array(seen.trace), seen.atoms.cell.array, start.numbers, EVERY * start.timestep_fs)
    return {"start": start.model_dump(mode="json"), "student": found.model_dump(mode="json")}


def record(seen: DynamicsRun, temperature_K: float, params: Params) -> dict[str, Any]:
    """Return the figures of a run; None for a mean where it ended before the first frame."""
    settled = seen.temperature_K[int(np.ceil(SETTLING * 1000 * params.picoseconds / seen.timestep_fs)) :]
    return {
        "temperature_K": temperature_K,
        "mean_temperature_K": float(np.mean(settled)) if settled else None,
        "atoms": len(seen.atoms),
        "steps": max(0, len(seen.potential_eV) - 1),
        "timestep_fs": seen.timestep_fs,
        "unstable_because": seen.unstable_because,
    }


def constant_energy_run(inputs: Inputs) -> tuple[list[Atoms], list[dict[str, Any]]]:
    """Return the frames of the stability run and its record; nothing where there was none."""
    if not inputs.all("stability"):
        return [], []
    given = json.loads(inputs.one("stability").read_bytes())["metrics"]
    kept = ("mean_temperature_K", "atoms", "steps", "timestep_fs", "unstable_because")
    frames = read_atoms(inputs.one("nve_frames"))
    known = {name: given[name] for name in kept}
    return frames, [{"run": NVE, "temperature_K": None, **known, "frames": len(frames)}]


def write(outputs: Path, frames: list[Atoms], report: dict[str, Any], motion: dict[str, Any] | None) -> dict[str, Any]:
    """Write both outputs; return the metrics."""
    write_table(outputs / OUTPUTS["structures"], structures_table(frames))
    text = json.dumps({**report, "motion": motion}, indent=1, sort_keys=True, allow_nan=False)
    (outputs / OUTPUTS["trajectory"]).write_text(text + "\n")
    cost = len(motion["start"]["numbers"]) * motion["start"]["steps"] if motion else None
    return {"frames": len(frames), "motion_atom_steps": cost, **report}
