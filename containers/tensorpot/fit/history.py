"""The course of a fit: pacemaker's metrics.txt and test_metrics.txt as one table. Pure, but for reading the files.

A row is an iteration of one side. Losses are pacemaker's weighted, dimensionless ones; errors are of the fit
without core repulsion. Force errors are per Cartesian component. What pacemaker writes into its log alone (see
`fit_log.Spoken`) is null where it was silent; it prints those figures to a hundredth. Times are left out: they would
make every history another file. They are told live, and their median is among the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from containers.tensorpot.fit.log import Place, Spoken

HISTORY = pa.schema(
    [
        ("iteration", pa.int32()),  # counts on over the steps of a ladder, over cycles and over interruptions
        ("side", pa.string()),  # "train" or "validation"
        ("loss", pa.float64()),
        ("energy_loss", pa.float64()),
        ("force_loss", pa.float64()),
        ("energy_rmse_meV_per_atom", pa.float64()),
        ("force_rmse_meV_per_A", pa.float64()),
        ("force_mae_meV_per_A", pa.float64()),
        ("regularisation_loss", pa.float64()),
        ("energy_mae_meV_per_atom", pa.float64()),
        ("energy_max_meV_per_atom", pa.float64()),
        ("force_max_meV_per_A", pa.float64()),
    ]
)
MILLI = 1000.0


@dataclass(frozen=True)
class Row:
    """One line of a metrics file: pacemaker's `iter_num` restarts at every step of a ladder and every cycle."""

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

    @property
    def finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss)

    @property
    def part(self) -> tuple[int, int]:
        """Which step of the ladder, and which cycle."""
        return self.ladder_step, self.cycle


class MetricsFile:
    """A metrics file that grows. Each line is read once; one without its end is being written, and left for later."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[Row]()
        self._read, self._names = 0, list[str]()

    def follow(self) -> list[Row]:
        """Read on; the new rows, which `rows` has too. None while the file does not exist."""
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
        new = [_row(dict(zip(self._names, line, strict=False))) for line in lines]
        self.rows += new
        return new


def _row(cells: dict[str, str]) -> Row:
    return Row(
        ladder_step=int(cells["ladder_step"]),
        cycle=int(cells["cycle_step"]),
        step_iteration=int(cells["iter_num"]),
        loss=float(cells["loss"]),
        energy_loss=float(cells["e_loss_contrib"]),
        force_loss=float(cells["f_loss_contrib"]),
        regularisation_loss=float(cells["reg_loss"]),
        energy_rmse_meV_per_atom=MILLI * float(cells["rmse_epa"]),
        force_rmse_meV_per_A=MILLI * float(cells["rmse_f_comp"]),
        force_mae_meV_per_A=MILLI * float(cells["mae_f_comp"]),
    )


def iterations(rows: Sequence[Row]) -> int:
    """Iterations done over all steps of a ladder and all cycles: the rows beyond iteration 0."""
    return sum(row.step_iteration > 0 for row in rows)


def lowest_end(rows: Sequence[Row]) -> int:
    """Iterations up to the end of the cycle whose last loss is the lowest, in the last step of the ladder."""
    ends = {row.part: (row.loss, iterations(rows[:place])) for place, row in enumerate(rows, start=1)}
    return min(end for part, end in ends.items() if part[0] == rows[-1].ladder_step)[1]


def last_step(rows: Sequence[Row]) -> list[Row]:
    """The rows of the last step of the ladder, or of the last cycle; all rows of a fit without either."""
    return [row for row in rows if row.part == rows[-1].part]


def with_spoken(rows: Sequence[Row], side: str, spoken: Mapping[Place, Spoken]) -> list[Row]:
    """The rows of a side with what the log says about them.

    pacemaker tells once more of the last iteration when it has ended, under the next number.
    """
    parts = {part: number for number, part in enumerate(sorted({row.part for row in rows}))}
    ends = {row.part: row.step_iteration for row in rows}

    def told(row: Row) -> dict[str, Any]:
        numbers = (
            (row.step_iteration, row.step_iteration + 1)
            if row.step_iteration == ends[row.part]
            else (row.step_iteration,)
        )
        found = [spoken.get((parts[row.part], side, number), Spoken()) for number in numbers]
        return {name: value for each in found for name, value in vars(each).items() if value is not None}

    return [replace(row, **told(row)) for row in rows]


def history_table(train: Sequence[Row], validation: Sequence[Row], before: pa.Table | None = None) -> pa.Table:
    """Both sides with the iterations counted on, after those of `before` (an interrupted run's).

    pacemaker looks at the validation frame once more after the last iteration and calls that look one iteration
    too late; it is given the last train iteration of its step, and replaces an earlier look at the same one. The
    first look of a fit that goes on repeats the last one before, and is left out.
    """
    ends = _step_ends(train)
    keyed = {(_iteration(row, ends), "train"): row for row in train}
    keyed |= {(_iteration(row, ends), "validation"): row for row in validation}
    done = 0 if before is None else max(before["iteration"].to_pylist(), default=0)
    seen = set() if before is None else set(zip(*(before[name].to_pylist() for name in HISTORY.names[:2]), strict=True))
    rows = [
        {"iteration": done + iteration, "side": side, **{name: getattr(row, name) for name in HISTORY.names[2:]}}
        for (iteration, side), row in keyed.items()
        if row.finite and (done + iteration, side) not in seen
    ]
    kept = [] if before is None else before.to_pylist()
    return pa.Table.from_pylist(sorted(kept + rows, key=lambda row: (row["iteration"], row["side"])), schema=HISTORY)


def _step_ends(train: Sequence[Row]) -> dict[tuple[int, int], tuple[int, int]]:
    """For each step of the ladder and each cycle: iterations before it, and in it."""
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    before = 0
    for part in sorted({row.part for row in train}):
        inside = max(row.step_iteration for row in train if row.part == part)
        ends[part] = (before, inside)
        before += inside
    return ends


def _iteration(row: Row, ends: Mapping[tuple[int, int], tuple[int, int]]) -> int:
    before, inside = ends.get(row.part, (0, row.step_iteration))
    return before + min(row.step_iteration, inside)
