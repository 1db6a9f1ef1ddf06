"""`stability`: the gate before a potential is called converged, molecular dynamics at constant energy with the student.

It begins with the training structure that is lowest in energy, repeated, relaxed and heated. Errors on single
structures do not show what this does: whether the forces are those of one smooth energy, and whether atoms that move
by themselves stay apart and together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field

from containers.contract import Closed, Image, Inputs, Machine, StepMetrics
from containers.properties.motion import heat
from containers.structures.cells import grown, is_solid
from containers.structures.table import structures_table, write_table
from containers.tensorpot.evaluation.molecular_dynamics import (
    DynamicsRun,
    constant_energy,
    frame_steps,
    named_frames,
    relax,
    thinned,
    timestep,
)
from containers.tensorpot.frames.frame_file import energy_corrected, read_frame
from containers.tensorpot.student.baseline import Baseline

if TYPE_CHECKING:
    import pandas as pd  # the worker's image has none

IMAGE: Image = "tensorpot"
VERSION = 3
INPUTS = {
    "potential": "the student with its core (B-basis .yaml)",
    "asi": "its active set (.asi)",
    "baseline": "what the fit left out (baseline.json)",
    "train": "the frame it was trained on (.pckl.gzip)",
}
OUTPUTS = {
    "stability": "stability.json",  # {"structure", "metrics", "series"}
    "nve_frames": "nve_frames.parquet",  # containers.structures.table.STRUCTURES, evenly in time
}
NVE = "NVE"
"""Name of the run among others."""
RELAX_STEPS, RELAX_FORCE = 100, 0.05
"""Steps downhill at most, and the largest force (eV/Å) at which they end."""
POINTS = 200  # of the series
LEVELS = (1, 5, 25)
"""Extrapolation grades whose share of steps is reported: beyond 1 it extrapolates, beyond 5 one looks, beyond 25 one
stops."""


class Params(Closed):
    """The run, and what it must keep."""

    picoseconds: float = Field(2.0, gt=0, description="ps at constant energy")
    temperature_K: float = Field(
        300.0, gt=0, description="K of the velocities at the start; a relaxed solid settles near half of it"
    )
    timestep_fs: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        "auto",
        description="fs; auto: 1, with hydrogen 0.5; an atom's periods grow with the root of its mass",
    )
    atoms: int = Field(64, ge=2, description="a training structure is repeated to so many or more")
    max_drift_meV_per_atom_per_ps: float = Field(1.0, gt=0, description="of the total energy, up or down")
    frames: int = Field(10, ge=0, description="structures of the run that are kept")
    seed: int = Field(42, ge=0, description="of the velocities")


class Metrics(StepMetrics):
    """Verdict of the gate."""

    stable: bool
    unstable_because: str | None


def run(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write `stability.json`; `stable` is the verdict, and `unstable_because` says why not."""
    from containers.tensorpot.student.potential import load_student

    student = load_student(inputs.one("potential"), inputs.one("asi"), inputs.one("baseline"))
    cutoff = float(student.ace.cutoff)
    structure, name = first_structure(read_frame(inputs.one("train")), Baseline.read(inputs.one("baseline")), cutoff)
    atoms = grown(structure, params.atoms, 2 * cutoff)
    atoms.calc = student
    timestep_fs = timestep(atoms) if params.timestep_fs == "auto" else params.timestep_fs
    steps = max(2, round(1000 * params.picoseconds / timestep_fs))
    seen = DynamicsRun(atoms, cutoff, timestep_fs, frame_steps(steps, params.frames))
    relaxed = relax(seen, RELAX_STEPS, RELAX_FORCE)
    if seen.unstable_because is None:
        heat(atoms, params.temperature_K, params.seed)
        constant_energy(seen, steps, machine.progress)
    write_table(outputs / OUTPUTS["nve_frames"], structures_table(named_frames(seen, NVE)))
    return _write(outputs, name, {**figures(seen, params), "relaxation_steps": relaxed}, thinned(seen, POINTS))


def stub(inputs: Inputs, outputs: Path, params: Params, machine: Machine) -> dict[str, Any]:
    """Write a run in which nothing happened."""
    still = [0.0, 0.0]
    series = {
        "potential_energy_eV_per_atom": still,
        "total_energy_eV_per_atom": still,
        "gamma": still,
        "time_ps": [0.0, params.picoseconds],
        "temperature_K": [params.temperature_K] * 2,
    }
    metrics = {
        "stable": True,
        "unstable_because": None,
        "drift_meV_per_atom_per_ps": 0.0,
        "lost_atoms": 0,
        "fused_atoms": 0,
        "shortest_distance_A": 2.0,
        "mean_temperature_K": params.temperature_K,
        "atoms": params.atoms,
        "steps": round(1000 * params.picoseconds),
        "timestep_fs": 1.0,
        "gamma_max": 0.0,
        **{f"gamma_share_above_{level}": 0.0 for level in LEVELS},
        "relaxation_steps": 0,
    }
    write_table(outputs / OUTPUTS["nve_frames"], structures_table([]))
    return _write(outputs, "stub", metrics, series)


def first_structure(frame: pd.DataFrame, baseline: Baseline, cutoff: float) -> tuple[Atoms, str]:
    """Return the structure with which the run begins, and its name: of the solid training structures, of those with
    most elements, the one lowest in energy per atom over the reference energies.

    It is nearest to where matter of this kind stays, so that it has the temperature of the params. Energies of
    different compositions compare badly: most elements come first because their pairs are what can go wrong.
    """

    def place(row: Any) -> tuple[bool, int, float, str]:
        atoms = row.ase_atoms
        missing = len(set(baseline.e0s_eV) - set(atoms.get_chemical_symbols()))
        energy = energy_corrected(row.energy, atoms, baseline.e0s_eV) / len(atoms)
        return not is_solid(atoms, cutoff), missing, energy, str(row.name_)

    rows = frame.rename(columns={"name": "name_"}).itertuples()
    chosen: Any = min(rows, key=place)
    return chosen.ase_atoms, str(chosen.name_)


def figures(seen: DynamicsRun, params: Params) -> dict[str, Any]:
    """Return the figures of the run and its verdict; None where it ended before there was anything."""
    drift, gamma, bound = seen.drift_meV_per_atom_per_ps, np.asarray(seen.gamma), params.max_drift_meV_per_atom_per_ps
    because = seen.unstable_because
    if because is None and drift is not None and abs(drift) > bound:
        because = f"the total energy drifts by {drift:.3g} meV/atom/ps, more than {bound:g}"
    shares = {f"gamma_share_above_{level}": float((gamma > level).mean()) if len(gamma) else None for level in LEVELS}
    return {
        "stable": because is None,
        "unstable_because": because,
        "drift_meV_per_atom_per_ps": drift,
        "lost_atoms": seen.lost,
        "fused_atoms": seen.fused,
        "shortest_distance_A": seen.shortest_A if np.isfinite(seen.shortest_A) else None,
        "mean_temperature_K": float(np.mean(seen.temperature_K)) if seen.temperature_K else None,
        "atoms": len(seen.atoms),
        "steps": max(0, len(seen.potential_eV) - 1),
        "timestep_fs": seen.timestep_fs,
        "gamma_max": float(gamma.max()) if len(gamma) else None,
        **shares,
    }


def _write(outputs: Path, structure: str, metrics: dict[str, Any], series: dict[str, Any]) -> dict[str, Any]:
    report = {"structure": structure, "metrics": metrics, "series": series}
    (outputs / OUTPUTS["stability"]).write_text(json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return {**metrics, "structure": structure}
