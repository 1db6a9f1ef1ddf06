"""`explore`: molecular dynamics of the student under one condition from one start, for structures that it cannot know.

Each step has the extrapolation grade γ of each atom. The frames where the largest is above `gamma_select` are what the
teacher should label; above `gamma_stop` the student guesses, and the run ends. A few frames are kept whatever their
grade: labels of these show the student's errors where it goes by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow.compute as pc
from ase import Atoms, units
from pydantic import Field, model_validator

from containers.contract import BadInput, Closed, Image, Inputs, Machine, StepMetrics
from containers.properties.motion import SETTLING, heat
from containers.structures.cells import bare, is_solid
from containers.structures.table import atoms_from_table, read_structures, structures_table, write_table
from containers.tensorpot.evaluation.molecular_dynamics import evenly, follow, named_frames, relax, thinned, timestep
from containers.tensorpot.evaluation.stability import RELAX_FORCE, RELAX_STEPS
from containers.tensorpot.exploration.dynamics import Condition, Ensemble, Exploration, Frame, integrator

IMAGE: Image = "tensorpot"
VERSION = 1
INPUTS = {
    "potential": "the student with its core (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "starts": "structures from which runs start (Parquet of STRUCTURES)",
}
OUTPUTS = {
    "structures": "structures.parquet",  # containers.structures.table.STRUCTURES; `row` is the step
    "check": "check.parquet",  # the same, evenly in time, whatever their grade
    "record": "explore.json",  # the metrics and "series"
}
KEPT, CHECK = "exploration", "check"
"""Groups of the frames."""
POINTS = 200  # of the series
HEATED = 2.0
"""Times the wanted temperature, that of the velocities at the start: half of it goes into the bonds."""
CUTOFF_OF_STUB = 5.0
G_PER_CM3 = units.kg / 1000 / 1e24
"""amu/Å³."""


class Params(Closed):
    """One run, and which of its frames are kept."""

    condition: Condition
    start: str = Field(description="`id` of the structure in `starts`")
    replica: int = Field(0, ge=0, description="number of the run among those of this condition and start")
    seed: int = Field(42, ge=0, description="of velocities and thermostat, together with the replica")
    gamma_select: float = Field(2.0, ge=0, description="extrapolation grade above which a frame may be kept")
    gamma_stop: float = Field(25.0, gt=0, description="extrapolation grade above which the run ends")
    frames: int = Field(20, ge=1, description="structures that are kept at most")
    checked: int = Field(3, ge=0, description="structures kept whatever their grade, evenly in time")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.gamma_stop <= self.gamma_select:
            raise ValueError(f"gamma_stop ({self.gamma_stop:g}) must be above gamma_select ({self.gamma_select:g})")
        return self


class Metrics(StepMetrics):
    """The run; a mean is over its later part and None where no step was made."""

    source: str  # of its frames
    condition: dict[str, Any]
    ensemble: Ensemble
    ensemble_because: str | None
    start: str
    start_source: str
    start_group: str
    replica: int
    composition: str
    atoms: int
    wanted_ps: float
    survived_ps: float
    ended_because: str | None
    steps: int
    timestep_fs: float
    gamma_max: float | None
    share_above_select: float | None
    share_above_1: float | None
    mean_temperature_K: float | None
    mean_pressure_GPa: float | None
    density_g_per_cm3: float | None
    frames: int
    checks: int


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write the frames and a record of the run; a run that ends early is a result, not an error."""
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    start = start_of(inputs, params)
    seen, ensemble, steps = begin(start, float(student.ace.cutoff), params)
    seen.atoms.calc = student
    relax(seen, RELAX_STEPS, RELAX_FORCE)
    if seen.unstable_because is None:
        seed = int(np.random.SeedSequence([params.seed, params.replica]).generate_state(1)[0])
        heat(seen.atoms, HEATED * params.condition.temperature_K, seed)
        dynamics = integrator(seen.atoms, params.condition, ensemble, seen.timestep_fs, steps, seed)
        follow(seen, dynamics, steps, machine.progress)
    return write(outputs, start, params, seen, ensemble, (seen.kept_frames(), seen.checked_frames()))


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write one kept frame and one for a check, the start with its atoms moved a little, of a run that survived.

    Where the seed is odd, every step extrapolates: the flow hands rounds another seed each, so every second one labels.
    """
    start = start_of(inputs, params)
    seen, ensemble, steps = begin(start, CUTOFF_OF_STUB, params)
    seen.potential_eV = seen.kinetic_eV = [0.0] * (steps + 1)
    gamma = 2 * params.gamma_select if params.seed % 2 else 0.5
    seen.temperature_K, seen.gamma = [params.condition.temperature_K] * (steps + 1), [gamma] * (steps + 1)
    if seen.is_solid:
        seen.volumes_A3 = [start.get_volume()] * (steps + 1)
        seen.pressures_GPa = [params.condition.pressure_GPa] * (steps + 1)
    chance = np.random.default_rng([params.seed, params.replica, *params.condition.name.encode()])
    made = []
    for step in (steps // 2, steps):
        frame = bare(start)
        frame.positions += chance.normal(0.0, 0.02, frame.positions.shape)
        made.append(Frame(step, gamma, frame))
    return write(outputs, start, params, seen, ensemble, (made[:1], made[1:]))


def start_of(inputs: Inputs, params: Params) -> Atoms:
    """Read the start; `BadInput` when it is not there or cannot move."""
    path = inputs.one("starts")
    table = read_structures(path)
    found = atoms_from_table(table.filter(pc.equal(table.column("id"), params.start)))
    if not found:
        raise BadInput(f"{path.name} has no structure {params.start!r} among its {table.num_rows}: use one of its ids")
    if len(found[0]) < 2:
        raise BadInput(f"{path.name}, {params.start!r}: one atom has no motion of its own; start from a supercell")
    return found[0]


def begin(start: Atoms, cutoff: float, params: Params) -> tuple[Exploration, Ensemble, int]:
    """Return a run of the start before its first step, the ensemble that it can have, and its steps."""
    condition, timestep_fs = params.condition, timestep(start)
    steps = max(2, round(1000 * condition.picoseconds / timestep_fs))
    ensemble = condition.ensemble
    if ensemble == "NPT" and not is_solid(start, cutoff):
        ensemble = "NVT"
    seen = Exploration(
        bare(start), cutoff, timestep_fs,
        wanted_K=lambda step: condition.wanted_K(step / steps) * (HEATED if ensemble == "NVE" else 1),
        gamma_select=params.gamma_select, gamma_stop=params.gamma_stop, keep=params.frames, check=params.checked,
    )  # fmt: skip
    return seen, ensemble, steps


def write(
    outputs: Path,
    start: Atoms,
    params: Params,
    seen: Exploration,
    ensemble: Ensemble,
    frames: tuple[list[Frame], list[Frame]],
) -> dict[str, Any]:
    """Write the outputs, `frames` being the kept ones and those for a check; return the metrics."""
    place = f"from {start.info['source']}, row {start.info['row']} ({params.start[:8]})"
    name = f"{params.condition.name}, {place}, replica {params.replica}"
    counts = []
    for output, group, found in zip(("structures", "check"), (KEPT, CHECK), frames, strict=True):
        seen.kept = [(frame.step, frame.atoms) for frame in found]
        rows = {atoms.info["id"]: atoms for atoms in named_frames(seen, name)}
        for atoms in rows.values():
            atoms.info |= {"group": group, "family": atoms.info["source"]}
        write_table(outputs / OUTPUTS[output], structures_table(list(rows.values())))
        counts.append(len(rows))
    origin = {"start": params.start, "start_source": start.info["source"], "start_group": start.info["group"]}
    metrics = {
        "source": f"molecular dynamics of the student, {name}",
        **origin,
        **figures(seen, params, ensemble),
        "frames": counts[0],
        "checks": counts[1],
    }
    volumes = seen.volumes_A3[evenly(len(seen.volumes_A3), POINTS)]
    series = {
        **thinned(seen, POINTS),
        "volume_A3_per_atom": [volume / len(seen.atoms) for volume in volumes] or None,
    }
    text = json.dumps({**metrics, "series": series}, indent=1, sort_keys=True, allow_nan=False)
    (outputs / OUTPUTS["record"]).write_text(text + "\n")
    return metrics


def figures(seen: Exploration, params: Params, ensemble: Ensemble) -> dict[str, Any]:
    """Return the figures of a run."""
    condition, gamma = params.condition, np.asarray(seen.gamma)
    because = None
    if ensemble != condition.ensemble:
        because = f"{condition.ensemble} needs matter in three directions; the start has empty space or is not periodic"
    density = None
    if (volume := settled_mean(seen.volumes_A3)) is not None:
        density = float(seen.atoms.get_masses().sum() / volume / G_PER_CM3)
    return {
        "condition": condition.model_dump(mode="json"),
        "ensemble": ensemble,
        "ensemble_because": because,
        "replica": params.replica,
        "composition": seen.atoms.get_chemical_formula(),
        "atoms": len(seen.atoms),
        "wanted_ps": condition.picoseconds,
        "survived_ps": min(condition.picoseconds, seen.survived * seen.timestep_fs / 1000),
        "ended_because": seen.unstable_because,
        "steps": max(0, len(gamma) - 1),
        "timestep_fs": seen.timestep_fs,
        "gamma_max": float(gamma.max()) if len(gamma) else None,
        "share_above_select": float((gamma > params.gamma_select).mean()) if len(gamma) else None,
        "share_above_1": float((gamma > 1).mean()) if len(gamma) else None,
        "mean_temperature_K": settled_mean(seen.temperature_K),
        "mean_pressure_GPa": settled_mean(seen.pressures_GPa),
        "density_g_per_cm3": density,
    }


def settled_mean(series: Sequence[float]) -> float | None:
    """Return the mean after the first SETTLING of a series; None for an empty one."""
    return float(np.mean(series[int(SETTLING * len(series)) :])) if series else None
