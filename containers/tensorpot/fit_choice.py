"""Which of the potentials that a fit left is the best. Pure.

The measure is the geometric mean of the RMSE of energies and of forces on the validation frame: a potential with half
the energy error and forces a tenth worse is the better one, whatever the units. The loss would not say so: forces are
most of it at any usual kappa, so one structure that is far off decided, and a stage that was to lower the energies kept
its first potential. Only potentials of one fit are compared by it, see `flows.verdict.badness` for the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from containers.tensorpot.fit_history import Row


def validation_error(row: Row) -> float:
    """The measure of a row of the validation side."""
    kappa = 0.0 if row.force_loss == 0 else 1.0 if row.energy_loss == 0 else 0.5
    return measure(row.energy_rmse_meV_per_atom, row.force_rmse_meV_per_A, kappa)


def measure(energy_rmse: float | None, force_rmse: float | None, kappa: float) -> float:
    """The geometric mean of both (meV/atom, meV/Å); the one alone where kappa leaves the other out."""
    energy, force = (math.inf if value is None else value for value in (energy_rmse, force_rmse))
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
