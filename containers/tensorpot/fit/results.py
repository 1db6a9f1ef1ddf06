"""What a fit leaves: its last potential, its best one, and their errors. Needs pyace, imported inside the functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.contract import StepError
from containers.tensorpot.fit.follow import FitRun
from containers.tensorpot.fit.history import measure
from containers.tensorpot.fit.training_data import Counts, Frames

LAST = ("energy_mae_meV_per_atom", "force_mae_meV_per_A")  # told of the last potential too
Errors = Mapping[str, float | None]


@dataclass(frozen=True)
class Kept:
    """A potential with its iteration, and what it does on the validation frame."""

    iteration: int
    path: Path
    errors: Errors
    error: float  # by `history.measure`


def first_whole(candidates: Sequence[tuple[int, Path]], run: FitRun, counts: Counts) -> tuple[int, Path] | None:
    """The first potential that loads, has the shape of this fit, and gives numbers."""
    from containers.tensorpot.student.potential import usable

    shapes = run.shapes
    return next(((n, path) for n, path in candidates if usable(path, shapes, counts.probe)), None)


def last_whole(run: FitRun, counts: Counts) -> tuple[int, Path] | None:
    """The last whole potential and its iteration; None when there is nothing to go on from."""
    return first_whole(run.latest(), run, counts)


def write_results(
    found: tuple[int, Path], run: FitRun, frames: Frames, counts: Counts, kappa: float, last_to: Path, best_to: Path
) -> dict[str, Any]:
    """Write the last potential (`found`) and the best one without time and user; what they are worth.

    Both are loaded and compared with the validation frame again: which one is better does not rest on pacemaker's
    word.
    """
    from containers.tensorpot.student import potential as fitted

    last = _kept(found, last_to, frames, kappa)
    liked = first_whole(run.best(), run, counts)
    best = last if liked is None else _kept(liked, best_to, frames, kappa)
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


def _kept(found: tuple[int, Path], path: Path, frames: Frames, kappa: float) -> Kept:
    from containers.tensorpot.student import potential as fitted

    fitted.write_stripped(fitted.load(found[1]), path)
    errors = fitted.errors_on(path, frames.read("validation"))
    error = measure(errors["energy_mae_meV_per_atom"], errors["force_mae_meV_per_A"], kappa)
    return Kept(found[0], path, errors, error)


def kappa_used(run: FitRun, asked: float | str) -> float:
    """The force share of the fit; raises `StepError` when pacemaker chose one and did not say which."""
    told = run.ending.log.kappa if run.ending.log.kappa is not None else run.earlier.kappa
    if isinstance(asked, float | int):
        return float(asked)
    if told is None:
        raise StepError("pacemaker was to choose kappa by itself, and its log does not tell which one it took")
    return told
