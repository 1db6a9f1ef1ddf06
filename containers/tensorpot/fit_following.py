"""Follow a running fit: its log, its metrics, its interim potentials; stop it when it works on the wrong thing."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from containers.child import kernel_kills
from containers.contract import Machine, StepError
from containers.tensorpot.fit_history import Row, iterations, parse_metrics
from containers.tensorpot.fit_log import FitLog
from containers.tensorpot.pacemaker_run import run_pacemaker
from containers.tensorpot.stop_reason import BROKEN_OFF, Ending, stop_reason

FINAL = "interim_potential_best_cycle.yaml"  # written at the end of a fit
RUNNING = "interim_potential_0.yaml"  # overwritten at every iteration, in place
SNAPSHOTS = ("snapshot_0.yaml", "snapshot_1.yaml", "snapshot_2.yaml")
ITERATION = "Iteration"  # pacemaker names each in its log, right after its row in metrics.txt
COUNTED = {"Fitting": "train", "Test": "validation"}


class RowsDiffer(StepError):
    """pacemaker fits other data than it was given."""


@dataclass(frozen=True)
class Course:
    """A fit that has ended."""

    ending: Ending
    validation: list[Row]
    interims: list[Path]  # potentials without core repulsion that may be whole, the latest first


def follow(program: Path, work: Path, sizes: dict[str, int], maxiter: int, machine: Machine) -> Course:
    """Run pacemaker in `work`. Raises `RowsDiffer` as soon as it counts other rows than `sizes` (by side)."""
    follower = Follower(work, sizes, maxiter, machine)
    kills = kernel_kills()
    exit_code = run_pacemaker(program, work, machine.resources, follower.on_line)
    kernel_killed = None if kills is None else kernel_kills() != kills
    rows = tuple(read_rows(work / "metrics.txt"))
    ending = Ending(exit_code, rows, follower.log, maxiter, kernel_killed)
    return Course(ending, read_rows(work / "test_metrics.txt"), follower.interims(stop_reason(ending) in BROKEN_OFF))


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics file; none when it does not exist yet."""
    return parse_metrics(path.read_text()) if path.is_file() else []


class Follower:
    """Looks at the work of pacemaker whenever it says something."""

    def __init__(self, work: Path, sizes: dict[str, int], maxiter: int, machine: Machine) -> None:
        self.work, self.sizes, self.maxiter, self.machine = work, sizes, maxiter, machine
        self.log = FitLog()
        self.seen = 0

    def on_line(self, line: str) -> bool:
        """Pass the line on; False when the fit is lost and should end."""
        print(line, end="", flush=True)
        self.log.feed(line)
        self._check_data()
        return self._look() if ITERATION in line else True

    def _check_data(self) -> None:
        if self.log.new_reference:
            raise RowsDiffer(
                "pacemaker replaced the reference energies of all structures, because one has a corrected energy"
                " outside [-20, 250] eV/atom. Check the teacher's E0s and take the structure out."
            )
        for word, counted in self.log.structures.items():
            given = self.sizes[COUNTED[word]]
            if counted != given:
                raise RowsDiffer(f"pacemaker fits {counted} {COUNTED[word]} structures, it was given {given} rows")

    def _look(self) -> bool:
        rows = read_rows(self.work / "metrics.txt")
        done = iterations(rows)
        if done <= self.seen:
            return True
        self.seen, last = done, rows[-1]
        if not math.isfinite(last.loss):
            return False
        self._keep_snapshot()
        self.machine.progress(
            last.step_iteration, self.maxiter, f"loss {last.loss:.3e}, force RMSE {last.force_rmse_meV_per_A:.1f} meV/Å"
        )
        return True

    def _keep_snapshot(self) -> None:
        """Copy the interim potential: pacemaker overwrites it in place, a kill can leave half of one."""
        if (self.work / RUNNING).is_file():
            shutil.copyfile(self.work / RUNNING, self.work / SNAPSHOTS[self.seen % len(SNAPSHOTS)])

    def interims(self, broken_off: bool) -> list[Path]:
        """The potentials it left, the latest first. FINAL is of an earlier ladder step when broken off."""
        age = [SNAPSHOTS[(self.seen - back) % len(SNAPSHOTS)] for back in range(len(SNAPSHOTS))]
        names = [RUNNING, *age] if broken_off else [FINAL, RUNNING, *age]
        return [self.work / name for name in names]
