"""Take up a fit that was interrupted: what its working folder holds, and what remains to be done.

A run that was killed leaves its working folder; the engine gives it to the next run of the same request as `left`.
The last whole copy of the potential is gone on from, with the iterations that remain, and the histories are joined.
BFGS begins again without its knowledge of the curvature, so the bytes differ from those of a fit without interruption.

A new working folder is made whole under another name and renamed, and only then `left` is removed: a run that is
killed at any moment leaves one of them whole.

An interrupted step of a ladder is completed only where the basis is already complete; otherwise the ladder goes on
with its next step. With further cycles the interrupted one gets all its iterations once more, from where it was, also
one that had done them: pacemaker puts the noise between two cycles of one run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ase import Atoms

from containers.structures.table import write_table
from containers.tensorpot.fit.history import MetricsFile, Row, history_table, with_spoken
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.snapshots import kept
from containers.tensorpot.fit.validation_error import errors_by_iteration
from containers.tensorpot.pacemaker.input import START_FILE

LEFT = "left"  # beside `work`, see tasks.store.Store.stage
STATE, HISTORY_BEFORE = "earlier.json", "earlier.parquet"
OWN_LOG = "log.txt"


@dataclass(frozen=True)
class Earlier:
    """What interrupted runs of the same fit have done; nothing, by default.

    Attributes:
        iterations: all of them, up to the potential that is gone on from.
        in_part: those in the step of the ladder, or the cycle, that was interrupted.
        cycle: the cycle that was interrupted, from 0.
        history: the rows up to there.
        errors: iteration -> validation error.
        shapes: functions and parameters of the potentials that it left.
        kappa: the force share in use.
        potential: the last whole one.
    """

    iterations: int = 0
    in_part: int = 0
    cycle: int = 0
    history: pa.Table | None = None
    errors: dict[int, float] = field(default_factory=dict)
    shapes: tuple[tuple[int, int], ...] = ()
    kappa: float | None = None
    potential: Path | None = None


def left_over(run: Path, probe: Atoms) -> Earlier | None:
    """What the run folder's `left` holds; None when there is nothing to go on from. Needs pyace."""
    left = run / LEFT
    if left.is_symlink() or not left.is_dir():
        return None
    for link in filter(Path.is_symlink, list(left.iterdir())):
        link.unlink()  # whatever it leads to is none of ours
    before = _read_state(left)
    log = _read_log(left / OWN_LOG)
    train, validation = (_rows(left / name) for name in ("metrics.txt", "test_metrics.txt"))
    shapes = tuple(dict.fromkeys((*before.shapes, *log.shapes)))
    found = _last_whole(left, shapes, probe, before.iterations + sum(row.step_iteration > 0 for row in train))
    if found is None:
        return None
    iteration, path = found
    joined = _joined(before, log, _until(train, iteration - before.iterations), validation)
    return replace(joined, iterations=iteration, shapes=shapes, potential=path)


def _joined(before: Earlier, log: FitLog, train: list[Row], validation: list[Row]) -> Earlier:
    if not train:
        return before
    last = train[-1]
    ends = {row.part: row.step_iteration for row in train}
    looks = [row for row in validation if row.part in ends and row.step_iteration <= ends[row.part]]
    looks = with_spoken(looks, "validation", log.spoken)
    new = errors_by_iteration(train, looks)
    return Earlier(
        in_part=last.step_iteration + (before.in_part if len(ends) == 1 else 0),
        cycle=before.cycle + last.cycle,
        history=history_table(with_spoken(train, "train", log.spoken), looks, before.history),
        errors={**before.errors, **{before.iterations + n: error for n, error in new.items()}},
        kappa=log.kappa or before.kappa,
    )


def _until(train: Sequence[Row], iterations: int) -> list[Row]:
    """The rows up to an iteration, counted on over the steps of a ladder; not the beginning of a part after it."""
    rows, done = list[Row](), 0
    for row in train:
        done += row.step_iteration > 0
        if done > iterations or (rows and done == iterations and row.part != rows[-1].part):
            break
        rows.append(row)
    return rows


def _last_whole(left: Path, shapes: Sequence[tuple[int, int]], probe: Atoms, most: int) -> tuple[int, Path] | None:
    from containers.tensorpot.student.potential import usable

    return next(((n, path) for n, path in kept(left).items() if n <= most and usable(path, shapes, probe)), None)


def take_over(run: Path, earlier: Earlier, folder: Path) -> None:
    """Put what an interrupted run left into the working folder of the next one, the potential as its start."""
    from containers.tensorpot.student import potential as fitted

    assert earlier.potential is not None
    fitted.write_stripped(fitted.load(earlier.potential), folder / START_FILE)  # a count of cycles would end it at once
    state = {
        "iterations": earlier.iterations,
        "in_part": earlier.in_part,
        "cycle": earlier.cycle,
        "errors": sorted(earlier.errors.items()),
        "shapes": earlier.shapes,
        "kappa": earlier.kappa,
    }
    (folder / STATE).write_text(json.dumps(state))
    if earlier.history is not None:
        write_table(folder / HISTORY_BEFORE, earlier.history)
    for iteration, path in kept(run / LEFT).items():
        if iteration <= earlier.iterations:
            shutil.copyfile(path, folder / path.name)


def _read_state(left: Path) -> Earlier:
    """What the runs before the last one had done."""
    if not (left / STATE).is_file():
        return Earlier()
    state = json.loads((left / STATE).read_text())
    return Earlier(
        iterations=state["iterations"],
        in_part=state["in_part"],
        cycle=state["cycle"],
        history=pq.read_table(left / HISTORY_BEFORE) if (left / HISTORY_BEFORE).is_file() else None,
        errors={int(n): float(error) for n, error in state["errors"]},
        shapes=tuple((int(functions), int(parameters)) for functions, parameters in state["shapes"]),
        kappa=state["kappa"],
    )


def _rows(path: Path) -> list[Row]:
    file = MetricsFile(path)
    file.follow()
    return file.rows


def _read_log(path: Path) -> FitLog:
    log = FitLog()
    if path.is_file():
        with path.open(errors="replace") as lines:
            for line in lines:
                log.feed(line)
    return log
