"""Which of the potentials that a fit left is the best. Pure.

The measure is the geometric mean of the MAE of energies and of forces on the validation frame: a potential with half
the energy error and forces a tenth worse is the better one, whatever the units. Squares would not say so: one structure
with forces some eV/Å off rules the loss and the RMSE alike, and a stage that was to lower the energies kept one of its
first potentials. Only potentials of one fit are compared by it, see `flows.verdict.badness` for the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from containers.tensorpot.fit.history import Row


def validation_error(row: Row) -> float:
    """The measure of a row of the validation side. Where the log did not tell the energies' MAE, their RMSE counts."""
    kappa = 0.0 if row.force_loss == 0 else 1.0 if row.energy_loss == 0 else 0.5
    told = row.energy_mae_meV_per_atom
    return measure(row.energy_rmse_meV_per_atom if told is None else told, row.force_mae_meV_per_A, kappa)


def measure(energy_mae: float | None, force_mae: float | None, kappa: float) -> float:
    """The geometric mean of both (meV/atom, meV/Å); the one alone where kappa leaves the other out."""
    energy, force = (math.inf if value is None else value for value in (energy_mae, force_mae))
    return energy if kappa == 0 else force if kappa == 1 else math.sqrt(energy * force)


def errors_by_iteration(train: Sequence[Row], validation: Sequence[Row]) -> dict[int, float]:
    """Iteration, counted on as in the history, to the validation error: of all steps of a ladder, as all are offered.

    The look after the end is that of the last iteration. Iteration 0 of a step or cycle is the end of the one before.
    """
    before: dict[tuple[int, int], int] = {}
    inside: dict[tuple[int, int], int] = {}
    for row in train:
        before.setdefault(row.part, sum(inside.values()))
        inside[row.part] = row.step_iteration
    return {
        before[row.part] + min(row.step_iteration, inside[row.part]): validation_error(row)
        for row in validation
        if row.part in inside and row.step_iteration > 0
    }


def ranked(errors: Mapping[int, float]) -> list[int]:
    """Iterations by validation error, the best first; of equals the earlier. No number is no candidate."""
    return sorted((n for n, error in errors.items() if error == error), key=lambda n: (errors[n], n))
