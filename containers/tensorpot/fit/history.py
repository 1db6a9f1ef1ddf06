"""Course of a fit: pacemaker's metrics.txt and test_metrics.txt as one table, and the error that ranks its iterations.

A row is an iteration of one side. Losses are pacemaker's weighted, dimensionless ones; errors are of the fit
without core repulsion. Force errors are per Cartesian component. Times are left out: they would make every history
another file. The live figures and the metrics have them. Pure, but for reading the files.

Iterations are ranked by the geometric mean of the MAE of energies and of forces on the validation frame: a potential
with half the energy error and forces a tenth worse is the better one, whatever the units. Squares would not say so: one
structure with forces some eV/Å off rules both the loss and the RMSE, and a stage that was to lower the energies kept
one of its first potentials. Only potentials of one fit are compared by it, see `flows.fit.verdict.Errors` for others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

MILLI = 1000.0
FIGURES = {  # of a row -> pacemaker's column (eV, Å), and the factor to our unit
    "loss": ("loss", 1.0),
    "energy_loss": ("e_loss_contrib", 1.0),
    "force_loss": ("f_loss_contrib", 1.0),
    "energy_rmse_meV_per_atom": ("rmse_epa", MILLI),
    "force_rmse_meV_per_A": ("rmse_f_comp", MILLI),
    "force_mae_meV_per_A": ("mae_f_comp", MILLI),
    "regularisation_loss": ("reg_loss", 1.0),
    "energy_mae_meV_per_atom": ("mae_epa", MILLI),
    "energy_max_meV_per_atom": ("max_abs_epa", MILLI),
    "force_max_meV_per_A": ("max_abs_f_comp", MILLI),
}
HISTORY = pa.schema(
    [
        ("iteration", pa.int32()),  # counts on over the steps of a ladder, over cycles and over interruptions
        ("side", pa.string()),  # "train" or "validation"
        *((name, pa.float64()) for name in FIGURES),
    ]
)


@dataclass(frozen=True)
class MetricsRow:
    """One line of a metrics file: pacemaker's `iter_num` restarts at every step of a ladder and every cycle.

    What only our launcher's columns give is None in a file of plain pacemaker.
    """

    ladder_step: int
    step_iteration: int
    loss: float
    energy_loss: float
    force_loss: float
    energy_rmse_meV_per_atom: float
    force_rmse_meV_per_A: float
    force_mae_meV_per_A: float
    cycle: int = 0
    regularisation_loss: float | None = None
    energy_mae_meV_per_atom: float | None = None
    energy_max_meV_per_atom: float | None = None
    force_max_meV_per_A: float | None = None
    microseconds_per_atom: float | None = None  # of an evaluation of loss and gradient; not in the history
    evaluations: int = 0  # of the loss so far in the step or cycle; not in the history

    @property
    def part(self) -> tuple[int, int]:
        """Step of the ladder, and cycle."""
        return self.ladder_step, self.cycle


class MetricsFile:
    """A metrics file that grows. Each line is read once; one without its end is being written, and left for later."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[MetricsRow]()
        self._read, self._names = 0, list[str]()

    def follow(self) -> list[MetricsRow]:
        """Read on and return the new rows, which `rows` has too. None while the file does not exist."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = [line.split() for line in whole.decode().splitlines() if line.strip()]
        if lines and not self._names:
            self._names = lines.pop(0)
        new = []
        for line in lines:
            cells = dict(zip(self._names, line, strict=False))
            figures = {name: factor * float(cells[key]) for name, (key, factor) in FIGURES.items() if key in cells}
            if float(cells.get("eval_time", 0)) > 0:  # it is 0 for the validation frame
                figures["microseconds_per_atom"] = 1e6 * float(cells["eval_time"]) / float(cells["nat"])
            row = MetricsRow(
                ladder_step=int(cells["ladder_step"]),
                cycle=int(cells["cycle_step"]),
                step_iteration=int(cells["iter_num"]),
                evaluations=int(cells.get("eval_count", 0)),
                **figures,
            )
            new.append(row)
        self.rows += new
        return new


def iterations(rows: Sequence[MetricsRow]) -> int:
    """Count the iterations over all steps of a ladder and all cycles: the rows beyond iteration 0."""
    return sum(row.step_iteration > 0 for row in rows)


def lowest_end(rows: Sequence[MetricsRow]) -> int:
    """Count the iterations up to the end of the cycle with the lowest last loss, in the last step of the ladder."""
    ends = {row.part: (row.loss, iterations(rows[:place])) for place, row in enumerate(rows, start=1)}
    return min(end for part, end in ends.items() if part[0] == rows[-1].ladder_step)[1]


def last_step(rows: Sequence[MetricsRow]) -> list[MetricsRow]:
    """Return the rows of the last step of the ladder, or of the last cycle; all rows of a fit without either."""
    return [row for row in rows if row.part == rows[-1].part]


def measure(energy_mae: float | None, force_mae: float | None, kappa: float) -> float:
    """Return the geometric mean of both (meV/atom, meV/Å); the one alone where kappa leaves the other out."""
    energy, force = (math.inf if value is None else value for value in (energy_mae, force_mae))
    return energy if kappa == 0 else force if kappa == 1 else math.sqrt(energy * force)


def errors_by_iteration(train: Sequence[MetricsRow], validation: Sequence[MetricsRow]) -> dict[int, float]:
    """Map iterations, counted on as in the history, to `measure` on the validation frame.

    All steps of a ladder count, as all are offered. Iteration 0 of a step or cycle is the end of the one before.
    """
    errors: dict[int, float] = {}
    for iteration, row in _counted_on(train, validation):
        if row.step_iteration > 0:
            kappa = 0.0 if row.force_loss == 0 else 1.0 if row.energy_loss == 0 else 0.5
            errors[iteration] = measure(row.energy_mae_meV_per_atom, row.force_mae_meV_per_A, kappa)
    return errors


def ranked(errors: Mapping[int, float]) -> list[int]:
    """Sort iterations by validation error, the best first; of equals the earlier. No number is no candidate."""
    return sorted((n for n, error in errors.items() if error == error), key=lambda n: (errors[n], n))


def history_table(
    train: Sequence[MetricsRow], validation: Sequence[MetricsRow], before: pa.Table | None = None
) -> pa.Table:
    """Join both sides with the iterations counted on, after those of `before` (an interrupted run's).

    A later look at the same iteration replaces an earlier one. The first look of a fit that was resumed repeats the
    last one before, and is left out.
    """
    done = 0 if before is None else max(before["iteration"].to_pylist(), default=0)
    earlier = [] if before is None else before.to_pylist()
    seen = {(row["iteration"], row["side"]) for row in earlier}
    keyed = {
        (done + iteration, side): {name: getattr(row, name) for name in FIGURES}
        for side, rows in (("train", train), ("validation", validation))
        for iteration, row in _counted_on(train, rows)
        if math.isfinite(row.loss)
    }
    new = [{"iteration": n, "side": side, **row} for (n, side), row in keyed.items() if (n, side) not in seen]
    return pa.Table.from_pylist(sorted(earlier + new, key=lambda row: (row["iteration"], row["side"])), schema=HISTORY)


def _counted_on(train: Sequence[MetricsRow], rows: Sequence[MetricsRow]) -> list[tuple[int, MetricsRow]]:
    """Pair rows of either side with their iteration over all steps of the ladder and all cycles.

    pacemaker looks at the validation frame once more after the last iteration of a part and calls that look one
    iteration too late: it is the last train iteration's.
    """
    inside: dict[tuple[int, int], int] = {}
    for row in train:
        inside[row.part] = row.step_iteration
    before, done = {}, 0
    for part, iterations_of_part in inside.items():
        before[part] = done
        done += iterations_of_part
    return [(before[row.part] + min(row.step_iteration, inside[row.part]), row) for row in rows if row.part in inside]
