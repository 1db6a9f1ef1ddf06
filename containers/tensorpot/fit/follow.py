"""Follow a running fit: its log, its metrics, its interim potentials; stop it when it is lost or its time is over."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from containers.contract import Machine, StepError
from containers.processes import kernel_kills
from containers.tensorpot.fit.history import FIGURES, MetricsFile, MetricsRow, iterations, lowest_end, ranked
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.stop_reason import BROKEN_OFF, Ending, FitStop, lost, stop
from containers.tensorpot.fit.working_folder import Checkpoint
from containers.tensorpot.pacemaker.launcher import kept
from containers.tensorpot.pacemaker.program import End, run_pacemaker

FINAL = "interim_potential_best_cycle.yaml"  # written after all cycles of a fit, or of a step of a ladder
SIDES = {"Fitting": "train", "Test": "validation"}  # by pacemaker's word for them
LATEST = 3  # kept potentials that stay
BEST = 2  # and of those with the smallest errors on the validation frame

MARGIN_S, MARGIN_SHARE = 15.0, 0.1
"""The fit ends so long before its time is over, the larger of both and at most half of the time: the potentials must
still be loaded and compared with the data, about 0.1 ms an atom and potential."""


class RowsDiffer(StepError):
    """pacemaker fits other data than it was given."""


@dataclass(frozen=True)
class FitRequest:
    """A fit and its limits.

    Attributes:
        sizes: rows of the frame of each side.
        maxiter: iterations of a step of the ladder or a cycle; those that remain of an interrupted one.
        min_fall: see `Ending`.
        functions: see `Ending`.
        cycles: see `Ending`.
        ends_at: `time.monotonic()` at which the fit is to end; None: whenever it does.
        steps: of the ladder, as far as that is known: only the progress rests on it.
    """

    sizes: Mapping[str, int]
    maxiter: int
    min_fall: float | None = None
    functions: int | None = None
    ends_at: float | None = None
    steps: int = 1
    cycles: int = 1


@dataclass(frozen=True)
class FitRun:
    """A fit that has ended. Iterations of potentials and errors count on from `earlier`."""

    work: Path
    ending: Ending
    stop: FitStop
    train: list[MetricsRow]
    validation: list[MetricsRow]
    earlier: Checkpoint = field(default_factory=Checkpoint)

    @property
    def iterations(self) -> int:
        """All iterations, an interrupted run's included."""
        return self.earlier.iterations + iterations(self.train)

    @property
    def evaluations(self) -> int:
        """Evaluations of the loss in this run, over all steps of a ladder and all cycles."""
        log = self.ending.log
        return log.evaluations + (self.train[-1].evaluations if self.train and log.closing is None else 0)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Functions and parameters that a whole potential of this fit may have."""
        return {*self.ending.log.shapes, *self.earlier.shapes}

    def latest(self) -> list[tuple[int, Path]]:
        """Return the potentials it left that may be whole, with their iterations, the latest first.

        First of all is FINAL, the end of the cycle of the lowest train loss: a next fit should start there. It is
        of an earlier step of the ladder when the fit was broken off.
        """
        potentials = list(kept(self.work).items())
        ended_itself = self.ending.exit_code == 0 and self.stop.reason not in BROKEN_OFF
        if not (ended_itself and self.train and (self.work / FINAL).is_file()):
            return potentials
        return [(self.earlier.iterations + lowest_end(self.train), self.work / FINAL), *potentials]

    def best(self) -> list[tuple[int, Path]]:
        """Return the kept potentials by their error on the validation frame, the best first."""
        potentials = kept(self.work)
        errors = self.earlier.errors_with(self.train, self.validation)
        return [(n, potentials[n]) for n in ranked(errors) if n in potentials]


def ends_at(started: float, limit_s: float | None) -> float | None:
    """Return when a fit is to end in a step that started then, with so many seconds."""
    if limit_s is None:
        return None
    return started + limit_s - min(max(MARGIN_S, MARGIN_SHARE * limit_s), limit_s / 2)


def follow(program: Sequence[str], work: Path, request: FitRequest, machine: Machine, earlier: Checkpoint) -> FitRun:
    """Run pacemaker in `work`. Raises `RowsDiffer` as soon as it counts other rows than it was given."""
    follower = Follower(work, request, machine, earlier)
    kills = kernel_kills()
    left_s = None if request.ends_at is None else max(0.0, request.ends_at - time.monotonic())
    timer = None if left_s is None else threading.Timer(left_s, follower.end.now)  # also while the program says nothing
    try:
        if timer:
            timer.start()
        exit_code = run_pacemaker(program, work, machine.resources, follower.on_line, follower.end)
    finally:
        if timer:
            timer.cancel()
            timer.join()
    follower.look()  # at what came after the last line
    ending = Ending(
        exit_code,
        tuple(follower.train.rows),
        follower.log,
        request.maxiter,
        kernel_killed=None if kills is None else kernel_kills() != kills,
        out_of_time=follower.end.requested and exit_code != 0,
        min_fall=request.min_fall,
        functions=request.functions,
        cycles=request.cycles,
    )
    return FitRun(work, ending, stop(ending), follower.train.rows, follower.validation.rows, earlier)


def nothing_left(work: Path, earlier: Checkpoint) -> FitRun:
    """Return the run of a fit that was interrupted when all its iterations were done: pacemaker is not started."""
    done = FitStop("max_iterations", "all iterations had been done when the fit was interrupted")
    return FitRun(work, Ending(0, (), FitLog(), earlier.iterations), done, [], [], earlier)


class Follower:
    """Looks at the work of pacemaker whenever it prints an iteration."""

    def __init__(self, work: Path, request: FitRequest, machine: Machine, earlier: Checkpoint) -> None:
        self.work, self.request, self.machine, self.earlier = work, request, machine, earlier
        self.log = FitLog()
        self.end = End()
        self.train, self.validation = MetricsFile(work / "metrics.txt"), MetricsFile(work / "test_metrics.txt")

    def on_line(self, line: str) -> bool:
        """Pass the line on; False when the fit is lost and should end."""
        print(line, end="", flush=True)
        self.log.feed(line)
        if self.log.new_reference:
            raise RowsDiffer(
                "pacemaker replaced the reference energies of all structures, because one has a corrected energy"
                " outside [-20, 250] eV/atom. Check the teacher's E0s and take the structure out."
            )
        for word, counted in self.log.structures.items():
            if counted != (given := self.request.sizes[SIDES[word]]):
                raise RowsDiffer(f"pacemaker fits {counted} {SIDES[word]} structures, it was given {given} rows")
        return self.look() if "Iteration" in line or "Initial" in line else True

    def look(self) -> bool:
        """Read what is new in the metrics, report its finite numbers, remove potentials; False when the fit is lost.

        pacemaker writes the row of an iteration, then that of the validation frame, then keeps the potential. Looked
        at in the opposite order, no potential lacks its error and no look at the validation frame its iteration.
        """
        potentials = kept(self.work)
        new = self.validation.follow() + self.train.follow()
        if lost(self.train.rows):
            return False
        if new and iterations(self.train.rows):
            errors = self.earlier.errors_with(self.train.rows, self.validation.rows)
            best = [iteration for iteration in ranked(errors) if iteration in potentials][:BEST]
            for iteration in set(potentials) - set(list(potentials)[:LATEST]) - set(best):
                potentials[iteration].unlink()
            last, request, at = self.train.rows[-1], self.request, self.earlier.iterations + iterations(self.train.rows)
            begun = len({row.part for row in self.train.rows})
            ahead = request.maxiter - last.step_iteration
            ahead += request.maxiter * max(0, request.steps * request.cycles - begun)
            found = {"iteration": float(at), "microseconds_per_atom": last.microseconds_per_atom}
            for side, rows in (("train", self.train.rows), ("validation", self.validation.rows)):
                found |= {f"{side}_{name}": getattr(row, name) for row in rows[-1:] for name in FIGURES}
            figures = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
            text = f"loss {last.loss:.3e}, force RMSE {last.force_rmse_meV_per_A:.1f} meV/Å"
            self.machine.progress(at, at + max(0, ahead), text, figures)
        return True
