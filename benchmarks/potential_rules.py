"""Course of a fit with a potential for each iteration, and the rules by which one of them could be taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from containers.tensorpot.fit.history import MetricsFile, history_table, measure
from containers.tensorpot.pacemaker.launcher import kept
from flows.config.training import Limits

LOOKS = 10  # iterations between two looks at the validation frame, as in the product
FIGURES = ("energy_mae_meV_per_atom", "force_mae_meV_per_A")


@dataclass(frozen=True)
class Stage:
    """Course of a stage: iteration -> side -> row of the history. `folder` has the potential of each iteration."""

    folder: Path
    course: dict[int, dict[str, dict[str, float]]]

    def looks(self) -> list[int]:
        """Iterations at which the product sees the validation frame; the last always."""
        last = max(self.course)
        return [n for n in self.course if "validation" in self.course[n] and (n % LOOKS == 0 or n == last) and n]

    def figure(self, iteration: int, name: str) -> float:
        """Return a figure of the validation frame."""
        return self.course[iteration]["validation"][name]

    def lowest(self, name: Callable[[Stage, int], float]) -> list[int]:
        """Return the looks by a measure, the lowest first; of equals the earlier."""
        return sorted(self.looks(), key=lambda n: (name(self, n), n))


def by_mae(stage: Stage, n: int) -> float:
    """Geometric mean of both MAEs on the validation frame."""
    return measure(stage.figure(n, FIGURES[0]), stage.figure(n, FIGURES[1]), 0.5)


def by_rmse(stage: Stage, n: int) -> float:
    """Geometric mean of both RMSEs."""
    return measure(stage.figure(n, "energy_rmse_meV_per_atom"), stage.figure(n, "force_rmse_meV_per_A"), 0.5)


def by_loss(stage: Stage, n: int) -> float:
    """pacemaker's weighted loss of the validation frame."""
    return stage.figure(n, "loss")


Chosen = tuple[int, tuple[int, ...]]
"""Place of a stage, and the iterations of it: of several the mean of the coefficients is taken."""
Rule = Callable[[Sequence[Stage], Limits], Chosen]


def today(stages: Sequence[Stage], limits: Limits) -> Chosen:
    """Of each stage the smallest geometric mean; of these the smallest error in units of its limit, as `best_of`."""
    firsts = [stage.lowest(by_mae)[0] for stage in stages]

    def badness(place: int) -> float:
        return max(stages[place].figure(firsts[place], name) / getattr(limits, name) for name in FIGURES)

    place = min(range(len(stages)), key=badness)
    return place, (firsts[place],)


def last_stage(by: Callable[[Stage, int], float], number: int = 1) -> Rule:
    """The best of the last stage, or the mean of the best."""
    return lambda stages, limits: (len(stages) - 1, tuple(sorted(stages[-1].lowest(by)[:number])))


def every_stage(by: Callable[[Stage, int], float]) -> Rule:
    """The best of all stages by one measure."""

    def rule(stages: Sequence[Stage], limits: Limits) -> Chosen:
        place = min(reversed(range(len(stages))), key=lambda place: by(stages[place], stages[place].lowest(by)[0]))
        return place, (stages[place].lowest(by)[0],)

    return rule


def late(number: int) -> Rule:
    """The mean of the last iterations of the last stage."""
    return lambda stages, limits: (len(stages) - 1, tuple(sorted(stages[-1].course)[-number:]))


BEST = "(best look on the test side)"
"""No rule: it needs the answer. What could be had at most."""
TODAY = "MAE, stages by limits (before)"
RULES: dict[str, Rule] = {
    TODAY: today,
    "MAE, all stages": every_stage(by_mae),
    "RMSE, all stages": every_stage(by_rmse),
    "MAE, last stage": last_stage(by_mae),
    "RMSE, last stage": last_stage(by_rmse),
    "loss, last stage": last_stage(by_loss),
    "last of the last stage": late(1),
    "mean of the last 5": late(5),
    "mean of the last 10": late(10),
    "mean of the last 20": late(20),
    "mean of the last 30": late(30),
    "mean of the last stage": late(40),
    "mean of the 3 best looks": last_stage(by_mae, 3),
}


def read_stage(work: Path) -> Stage:
    """Read the course of a stage from pacemaker's metrics files."""
    train, validation = (MetricsFile(work / name).follow() for name in ("metrics.txt", "test_metrics.txt"))
    course: dict[int, dict[str, dict[str, float]]] = {}
    for row in history_table(train, validation).to_pylist():
        if row["iteration"]:
            course.setdefault(row["iteration"], {})[row["side"]] = row
    missing = set(course) - set(kept(work))
    if missing:
        raise SystemExit(f"{work} has no potential of iteration {min(missing)}")
    return Stage(work, course)
