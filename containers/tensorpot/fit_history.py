"""The course of a fit: pacemaker's metrics.txt and test_metrics.txt as one table. Pure.

A row is an iteration of one side. Losses are pacemaker's weighted, dimensionless ones; errors are of the fit
without core repulsion. Force errors are per Cartesian component.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa

HISTORY = pa.schema(
    [
        ("iteration", pa.int32()),  # counts on over the steps of a ladder
        ("side", pa.string()),  # "train" or "validation"
        ("loss", pa.float64()),
        ("energy_loss", pa.float64()),
        ("force_loss", pa.float64()),
        ("energy_rmse_meV_per_atom", pa.float64()),
        ("force_rmse_meV_per_A", pa.float64()),
        ("force_mae_meV_per_A", pa.float64()),
    ]
)
MILLI = 1000.0


@dataclass(frozen=True)
class Row:
    """One line of a metrics file: pacemaker's `iter_num` restarts at every step of a ladder."""

    ladder_step: int
    step_iteration: int
    loss: float
    energy_loss: float
    force_loss: float
    energy_rmse_meV_per_atom: float
    force_rmse_meV_per_A: float
    force_mae_meV_per_A: float

    @property
    def finite(self) -> bool:
        """Whether the loss is a number."""
        return math.isfinite(self.loss)


def parse_metrics(text: str) -> list[Row]:
    """The rows of a metrics file. A last line without its end is being written, and left out."""
    lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]
    if not lines:
        return []
    names, *rows = lines
    return [_row(dict(zip(names, row, strict=False))) for row in rows]


def _row(cells: dict[str, str]) -> Row:
    return Row(
        ladder_step=int(cells["ladder_step"]),
        step_iteration=int(cells["iter_num"]),
        loss=float(cells["loss"]),
        energy_loss=float(cells["e_loss_contrib"]),
        force_loss=float(cells["f_loss_contrib"]),
        energy_rmse_meV_per_atom=MILLI * float(cells["rmse_epa"]),
        force_rmse_meV_per_A=MILLI * float(cells["rmse_f_comp"]),
        force_mae_meV_per_A=MILLI * float(cells["mae_f_comp"]),
    )


def iterations(rows: list[Row]) -> int:
    """Iterations done over all steps of a ladder: the rows beyond iteration 0."""
    return sum(row.step_iteration > 0 for row in rows)


def last_step(rows: list[Row]) -> list[Row]:
    """The rows of the last step of the ladder; all rows of a fit without one."""
    return [row for row in rows if row.ladder_step == rows[-1].ladder_step]


def history_table(train: list[Row], validation: list[Row]) -> pa.Table:
    """Both sides with the iterations counted on over the ladder.

    pacemaker looks at the validation frame once more after the last iteration and calls that look one iteration
    too late; it is given the last train iteration of its step, and replaces an earlier look at the same one.
    """
    ends = _step_ends(train)
    keyed = {(_iteration(row, ends), "train"): row for row in train}
    keyed |= {(_iteration(row, ends), "validation"): row for row in validation}
    rows = [
        {"iteration": iteration, "side": side, **{name: getattr(row, name) for name in HISTORY.names[2:]}}
        for (iteration, side), row in sorted(keyed.items(), key=lambda item: item[0])
        if row.finite
    ]
    return pa.Table.from_pylist(rows, schema=HISTORY)


def _step_ends(train: list[Row]) -> dict[int, tuple[int, int]]:
    """For each step of the ladder: iterations before it, and in it."""
    ends: dict[int, tuple[int, int]] = {}
    before = 0
    for step in sorted({row.ladder_step for row in train}):
        inside = max(row.step_iteration for row in train if row.ladder_step == step)
        ends[step] = (before, inside)
        before += inside
    return ends


def _iteration(row: Row, ends: dict[int, tuple[int, int]]) -> int:
    before, inside = ends.get(row.ladder_step, (0, row.step_iteration))
    return before + min(row.step_iteration, inside)
