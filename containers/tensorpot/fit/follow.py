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
from containers.tensorpot.fit.history import HISTORY, MetricsFile, Row, iterations, lowest_end, with_spoken
from containers.tensorpot.fit.log import FitLog
from containers.tensorpot.fit.resume import Earlier
from containers.tensorpot.fit.snapshots import WAIT_S, Copies, kept
from containers.tensorpot.fit.stop_reason import BROKEN_OFF, Ending, Stop, lost, stop
from containers.tensorpot.fit.validation_error import errors_by_iteration, ranked
from containers.tensorpot.pacemaker.program import End, run_pacemaker

FINAL = "interim_potential_best_cycle.yaml"  # written after all cycles of a fit, or of a step of a ladder
ITERATION = "Iteration"  # pacemaker names each in its log, right after its row in a metrics file
COUNTED = {"Fitting": "train", "Test": "validation"}

MARGIN_S, MARGIN_SHARE = 15.0, 0.1
"""The fit ends so long before its time is over, the larger of both and at most half of the time: the potentials must
still be loaded and compared with the data, about 0.1 ms an atom and potential."""


class RowsDiffer(StepError):
    """pacemaker fits other data than it was given."""


@dataclass(frozen=True)
class Asked:
    """What the fit is to do.

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
class Course:
    """A fit that has ended. Iterations of potentials and errors count on from `earlier`."""

    work: Path
    ending: Ending
    stop: Stop
    train: list[Row]
    validation: list[Row]
    earlier: Earlier = field(default_factory=Earlier)

    @property
    def iterations(self) -> int:
        """All iterations, an interrupted run's included."""
        return self.earlier.iterations + iterations(self.train)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Functions and parameters that a whole potential of this fit may have."""
        return {*self.ending.log.shapes, *self.earlier.shapes}

    def latest(self) -> list[tuple[int, Path]]:
        """The potentials it left that may be whole, with their iterations, the latest first.

        First of all is FINAL, the end of the cycle of the lowest train loss: a next fit should go on from there. It is
        of an earlier step of the ladder when the fit was broken off.
        """
        copies = list(kept(self.work).items())
        ended_itself = self.ending.exit_code == 0 and self.stop.reason not in BROKEN_OFF
        if not (ended_itself and self.train and (self.work / FINAL).is_file()):
            return copies
        return [(self.earlier.iterations + lowest_end(self.train), self.work / FINAL), *copies]

    def best(self) -> list[tuple[int, Path]]:
        """The copies by their error on the validation frame, the best first."""
        copies = kept(self.work)
        return [(n, copies[n]) for n in self._by_error() if n in copies]

    @property
    def missed(self) -> int | None:
        """The iteration of the smallest validation error, where its potential was not copied; else None."""
        copies = kept(self.work)
        return next((n for n in self._by_error()[:1] if n not in copies), None)

    def _by_error(self) -> list[int]:
        before = self.earlier.iterations
        errors = {before + n: error for n, error in errors_by_iteration(self.train, self.validation).items()}
        return ranked({**self.earlier.errors, **errors})


def ends_at(started: float, limit_s: float | None) -> float | None:
    """When a fit in a step that started then, with so many seconds, is to end."""
    if limit_s is None:
        return None
    return started + limit_s - min(max(MARGIN_S, MARGIN_SHARE * limit_s), limit_s / 2)


def follow(program: Sequence[str], work: Path, asked: Asked, machine: Machine, earlier: Earlier) -> Course:
    """Run pacemaker in `work`. Raises `RowsDiffer` as soon as it counts other rows than it was given."""
    follower = Follower(work, asked, machine, earlier)
    kills = kernel_kills()
    with out_of_time(asked.ends_at, follower.end):
        exit_code = run_pacemaker(program, work, machine.resources, follower.on_line, follower.end)
    follower.close()
    kernel_killed = None if kills is None else kernel_kills() != kills
    log = follower.log
    ending = Ending(
        exit_code,
        tuple(follower.train.rows),
        log,
        asked.maxiter,
        kernel_killed,
        follower.end.asked and exit_code != 0,
        asked.min_fall,
        asked.functions,
        asked.cycles,
    )
    sides = {"train": follower.train.rows, "validation": follower.validation.rows}
    told = {side: with_spoken(rows, side, log.spoken) for side, rows in sides.items()}
    return Course(work, ending, stop(ending), **told, earlier=earlier)


def nothing_left(work: Path, earlier: Earlier) -> Course:
    """The course of a fit that was interrupted when all its iterations were done: nothing is run."""
    done = Stop("max_iterations", "all iterations had been done when the fit was interrupted")
    return Course(work, Ending(0, (), FitLog(), earlier.iterations), done, [], [], earlier)


class out_of_time:  # noqa: N801  used like a function
    """Ends the program when its time is over, also while it says nothing."""

    def __init__(self, at: float | None, end: End) -> None:
        self.timer = None if at is None else threading.Timer(max(0.0, at - time.monotonic()), end.now)

    def __enter__(self) -> None:
        if self.timer:
            self.timer.start()

    def __exit__(self, *_: object) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer.join()


class Follower:
    """Looks at the work of pacemaker whenever it says something."""

    def __init__(self, work: Path, asked: Asked, machine: Machine, earlier: Earlier) -> None:
        self.asked, self.machine, self.before = asked, machine, earlier.iterations
        self.log = FitLog()
        self.end = End()
        self.train, self.validation = MetricsFile(work / "metrics.txt"), MetricsFile(work / "test_metrics.txt")
        self.copies = Copies(work, self.train, earlier.iterations)
        self.errors = dict(earlier.errors)
        self.told = 0  # rows

    def on_line(self, line: str) -> bool:
        """Pass the line on; False when the fit is lost and should end."""
        print(line, end="", flush=True)
        self.log.feed(line)
        self._check_data()
        return self.look() if ITERATION in line or "Initial" in line else True

    def _check_data(self) -> None:
        if self.log.new_reference:
            raise RowsDiffer(
                "pacemaker replaced the reference energies of all structures, because one has a corrected energy"
                " outside [-20, 250] eV/atom. Check the teacher's E0s and take the structure out."
            )
        for word, counted in self.log.structures.items():
            given = self.asked.sizes[COUNTED[word]]
            if counted != given:
                raise RowsDiffer(f"pacemaker fits {counted} {COUNTED[word]} structures, it was given {given} rows")

    def look(self) -> bool:
        """Read what is new in the metrics, keep the potential, tell how far it is; False when the fit is lost."""
        self.train.follow()
        self.validation.follow()
        rows = len(self.train.rows) + len(self.validation.rows)
        if lost(self.train.rows):
            return False
        if rows > self.told and iterations(self.train.rows):
            self._keep()
            self._tell()
        self.told = rows
        return True

    def _keep(self, wait_s: float = WAIT_S) -> None:
        self.copies.take(wait_s)
        looks = with_spoken(self.validation.rows, "validation", self.log.spoken)
        errors = errors_by_iteration(self.train.rows, looks)
        self.errors |= {self.before + iteration: error for iteration, error in errors.items()}
        self.copies.forget(self.errors)

    def close(self) -> None:
        """Take what came after the last line, and tell the last figures."""
        self.train.follow()
        self.validation.follow()
        if iterations(self.train.rows):
            self._keep(wait_s=0.0)
            self._tell()

    def _tell(self) -> None:
        last, done = self.train.rows[-1], iterations(self.train.rows)
        text = f"loss {last.loss:.3e}, force RMSE {last.force_rmse_meV_per_A:.1f} meV/Å"
        begun, asked = len({row.part for row in self.train.rows}), self.asked
        ahead = asked.maxiter - last.step_iteration + asked.maxiter * max(0, asked.steps * asked.cycles - begun)
        at = self.before + done
        self.machine.progress(at, at + max(0, ahead), text, self._figures(done))

    def _figures(self, done: int) -> dict[str, float]:
        """The latest of both sides, by name; finite numbers alone."""
        sides = {"train": self.train.rows[-1:], "validation": self.validation.rows[-1:]}
        found: dict[str, float | None] = {"iteration": float(self.before + done)}
        for side, rows in sides.items():
            for row in with_spoken(rows, side, self.log.of_last_fit()):
                found |= {f"{side}_{name}": getattr(row, name) for name in HISTORY.names[2:]}
        found["microseconds_per_atom"] = next(iter(self.log.microseconds_per_atom[-1:]), None)
        return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
