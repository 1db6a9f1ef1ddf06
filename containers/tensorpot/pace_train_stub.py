"""Outputs of `pace_train` without a fit: the form of the real ones, in no time and without pyace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers
from ruamel.yaml import YAML

from containers.structures import write_table
from containers.tensorpot import core_repulsion as core
from containers.tensorpot.fit_history import Row, history_table

if TYPE_CHECKING:
    from containers.tensorpot.pace_train import Params

R_IN = 1.5  # Å
"""Where the stub's cores begin."""


def write_stub(outputs: Path, names: dict[str, str], params: Params, input_yaml: str) -> dict[str, Any]:
    """Write every output and return metrics of a fit that went well."""
    for name in ("potential", "interim"):
        YAML(typ="safe", pure=True).dump(_b_basis(params), outputs / names[name])
    (outputs / names["yace"]).write_text(json.dumps({"elements": list(params.potential.elements), "functions": {}}))
    (outputs / names["input"]).write_text(input_yaml)
    write_table(outputs / names["history"], history_table(_rows(2.0), _rows(2.2)))
    cores = {"pairs": _cores(params) if params.reference_potential == "zbl" else {}}
    (outputs / names["core_repulsion"]).write_text(json.dumps(cores, indent=1) + "\n")
    return _metrics(params)


def _b_basis(params: Params) -> dict[str, Any]:
    species = [{"speciesblock": element, "rcutij": params.potential.cutoff} for element in params.potential.elements]
    return {"global": {"DeltaSplineBins": 0.001}, "species": species}


def _rows(loss: float) -> list[Row]:
    return [
        Row(0, iteration, loss * fall, 0.2 * loss * fall, 0.8 * loss * fall, 20 * fall, 100 * fall, 80 * fall)
        for iteration, fall in enumerate((1.0, 0.5, 0.25, 0.2))
    ]


def _cores(params: Params) -> dict[str, Any]:
    distances = core.distances_inward(R_IN)
    elements = params.potential.elements
    pairs = [(first, second) for place, first in enumerate(elements) for second in elements[place:]]
    return {"-".join(pair): _core(pair, distances) for pair in pairs}


def _core(pair: tuple[str, str], distances: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    energies = tuple(core.zbl_energy(atomic_numbers[pair[0]], atomic_numbers[pair[1]], distances).tolist())
    return core.PairCore(
        r_in_A=R_IN,
        delta_in_A=core.blend_width(R_IN),
        shortest_distance_A=R_IN,
        share_of_pairs_inside=0.0,
        distance_A=tuple(distances.tolist()),
        energy_eV=energies,
        zbl_eV=energies,
    ).model_dump(mode="json")


def _metrics(params: Params) -> dict[str, Any]:
    one_side = {
        "energy_mae_meV_per_atom": 3.0,
        "energy_rmse_meV_per_atom": 4.0,
        "energy_max_meV_per_atom": 9.0,
        "force_mae_meV_per_A": 16.0,
        "force_rmse_meV_per_A": 20.0,
        "force_max_meV_per_A": 90.0,
    }
    return {
        "stop_reason": "max_iterations",
        "optimizer_message": "stub",
        "fits": 1,
        "iterations": 3,
        "evaluations": 4,
        "functions": params.potential.functions_per_element * len(params.potential.elements),
        "functions_asked": params.potential.functions_asked(),
        "parameters": 0,
        "structures": 0,
        "atoms": 0,
        "batch_size": 1,
        "microseconds_per_atom": 0.0,
        **{f"{side}_{name}": value for side in ("train", "validation") for name, value in one_side.items()},
    }
