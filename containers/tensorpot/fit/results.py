"""Results of a fit: its last potential, its best one, and their errors. Needs pyace, imported inside the functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from containers.contract import StepError
from containers.tensorpot.fit.follow import FitRun
from containers.tensorpot.fit.history import measure
from containers.tensorpot.fit.training_data import Counts, Frames
from containers.tensorpot.student import potential as fitted

LAST = ("energy_mae_meV_per_atom", "force_mae_meV_per_A")  # reported of the last potential too
Errors = Mapping[str, float | None]


@dataclass(frozen=True)
class Kept:
    """A potential with its iteration and its errors on the validation frame."""

    iteration: int
    path: Path
    errors: Errors
    error: float  # by `history.measure`


def first_whole(candidates: Sequence[tuple[int, Path]], run: FitRun, counts: Counts) -> tuple[int, Path] | None:
    """Return the first potential that loads, has the shape of this fit, and gives numbers; None when none does."""
    return next(((n, path) for n, path in candidates if fitted.usable(path, run.shapes, counts.probe)), None)


def write_results(
    found: tuple[int, Path],
    run: FitRun,
    frames: Frames,
    counts: Counts,
    share: float | Literal["auto"],
    keep: Literal["best", "last"],
    last_to: Path,
    best_to: Path,
) -> dict[str, Any]:
    """Write the last potential (`found`) and the one to `keep` without time and user; return their errors.

    Both are loaded and compared with the validation frame again: which one is better does not rest on pacemaker's
    word. Raises `StepError` when pacemaker chose the force share and its log does not say which.
    """
    logged = run.ending.log.kappa if run.ending.log.kappa is not None else run.earlier.kappa
    kappa = logged if share == "auto" else float(share)
    if kappa is None:
        raise StepError("pacemaker was to choose kappa by itself, and its log does not tell which one it took")

    def measured(candidate: tuple[int, Path], path: Path) -> Kept:
        fitted.write_stripped(fitted.load(candidate[1]), path)
        errors = fitted.errors_on(path, frames.read("validation"))
        error = measure(errors["energy_mae_meV_per_atom"], errors["force_mae_meV_per_A"], kappa)
        return Kept(candidate[0], path, errors, error)

    last = measured(found, last_to)
    liked = first_whole(run.best(), run, counts) if keep == "best" else None
    best = last if liked is None else measured(liked, best_to)
    if not best.error < last.error:
        best = last
    best_to.write_bytes(best.path.read_bytes())
    functions, parameters = fitted.shape_of(fitted.load(best_to))
    return {
        "best_iteration": best.iteration,
        **{f"validation_{name}": value for name, value in best.errors.items()},
        **{f"last_validation_{name}": last.errors[name] for name in LAST},
        **{f"train_{name}": value for name, value in fitted.errors_on(best_to, frames.read("train")).items()},
        "functions": functions,
        "parameters": parameters,
    }
