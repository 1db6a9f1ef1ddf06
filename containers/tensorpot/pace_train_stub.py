"""Outputs of `pace_train` without a fit: the form of the real ones, in no time and without pyace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from containers.structures import write_table
from containers.tensorpot.fit_history import Row, history_table
from containers.tensorpot.stop_reason import ALL_DONE

if TYPE_CHECKING:
    from containers.tensorpot.pace_train import Params


def write_stub(outputs: Path, names: dict[str, str], params: Params, input_yaml: str) -> dict[str, Any]:
    """Write every output and return metrics of a fit that went well."""
    for name in ("interim", "best"):
        YAML(typ="safe", pure=True).dump(_b_basis(params), outputs / names[name])
    (outputs / names["input"]).write_text(input_yaml)
    write_table(outputs / names["history"], history_table(_rows(2.0), _rows(2.2)))
    return _metrics(params)


def _b_basis(params: Params) -> dict[str, Any]:
    species = [{"speciesblock": element, "rcutij": params.potential.cutoff} for element in params.potential.elements]
    return {"global": {"DeltaSplineBins": 0.001}, "species": species}


def _rows(loss: float) -> list[Row]:
    spoken: dict[str, Any] = {
        "energy_mae_meV_per_atom": 15.0,
        "energy_max_meV_per_atom": 45.0,
        "force_max_meV_per_A": 450.0,
    }
    return [
        Row(
            ladder_step=0,
            step_iteration=iteration,
            loss=loss * fall,
            energy_loss=0.2 * loss * fall,
            force_loss=0.8 * loss * fall,
            regularisation_loss=0.0,
            energy_rmse_meV_per_atom=20 * fall,
            force_rmse_meV_per_A=100 * fall,
            force_mae_meV_per_A=80 * fall,
            **{name: fall * value for name, value in spoken.items()},
        )
        for iteration, fall in enumerate((1.0, 0.5, 0.25, 0.2))
    ]


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
        "stop_criterion": ALL_DONE,
        "optimizer_message": "stub",
        "fits": 1,
        "iterations": 3,
        "best_iteration": 3,
        "interim_iteration": 3,
        "missed_iteration": None,
        "resumed_at": 0,
        "evaluations": 4,
        "functions": params.potential.functions_per_element * len(params.potential.elements),
        "functions_asked": params.potential.functions_asked(),
        "parameters": 0,
        "structures": 0,
        "atoms": 0,
        "batch_size": 1,
        "microseconds_per_atom": 0.0,
        **{f"last_validation_{name}": one_side[name] for name in ("energy_mae_meV_per_atom", "force_mae_meV_per_A")},
        **{f"{side}_{name}": value for side in ("train", "validation") for name, value in one_side.items()},
    }
