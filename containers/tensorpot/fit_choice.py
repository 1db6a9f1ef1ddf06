"""Which of the potentials that a fit left is the best. Pure.

The measure is what the fit minimises, on the validation frame and without regularisation: with normalised weights
(1 - kappa) Σ w_energy (ΔE/N)² + kappa Σ w_forces |ΔF|², eV²/atom² and eV²/Å² taken as plain numbers. So the user's own
kappa and weights say what an energy is worth in forces. Only potentials of one fit are compared by it: another kappa
is another measure, see `flows.verdict.badness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from containers.tensorpot.fit_history import Row


def validation_error(row: Row) -> float:
    """The measure of a row of the validation side."""
    return row.energy_loss + row.force_loss


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
