"""What a running fit told so far: the newest figures, its curves, and both as text. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.page_parts import markdown_table, one_line
from tasks.report_rows import DASH, ERRORS, duration, number

SIDES = ("train", "validation")
ROWS = {
    "loss": "loss",
    "energy_loss": "energy part of the loss",
    "force_loss": "force part of the loss",
    "regularisation_loss": "regularisation in the loss",
    **{key: label for key, label in ERRORS.items() if not key.startswith("stress")},
}
"""figure, without its side -> label"""
TAKEN = {"iteration", "microseconds_per_atom", *(f"{side}_{name}" for side in SIDES for name in ROWS)}
"""What a fit may tell: anything else is left out, however much of it there is."""
DRAWN = ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
KINDS = ("rmse", "mae", "max")
TOLD = {"force_{}_meV_per_A": ("forces", "meV/Å"), "energy_{}_meV_per_atom": ("energy", "meV/atom")}
VALUED = {"energy_mae_meV_per_atom": ("energy MAE", "meV/atom"), "force_mae_meV_per_A": ("force MAE", "meV/Å")}

Points = Sequence[tuple[float, float]]
Curves = Mapping[tuple[str, str], Points]
"""(side, figure without its side) -> iteration and value"""


def words(known: Mapping[str, float], short: bool = False) -> str:
    """One line. RMSE, MAE and worst error stand in this order, those of the validation frame in brackets:

    `iteration 40: loss 1.23e-03 (forces 61 %), RMSE/MAE/worst: forces 45.1/33/410 (validation 47.2/35/420) meV/Å,
    energy 3.2/2.5/11 (4.1/3.2/12) meV/atom, 118 µs/atom`. pacemaker prints worst errors and the energy's MAE now and
    then only; the latest are shown.

    Args:
        short: RMSE alone, as there is room for in a progress bar.
    """
    parts, kinds = _loss(known, short), KINDS[:1] if short else KINDS
    named = {"train": "RMSE " if short else "RMSE/MAE/worst: ", "validation": "validation "}  # the first time
    for key, (name, unit) in TOLD.items():
        train, validation = (_errors(known, f"{side}_{key}", kinds) for side in SIDES)
        if not train:
            continue
        told = f"{named.pop('train', '')}{name} {train}"
        if validation:
            told += f" ({named.pop('validation', '')}{validation})"
        parts.append(f"{told} {unit}")
    if "microseconds_per_atom" in known:
        parts.append(f"{_short(known['microseconds_per_atom'])} µs/atom")
    return f"iteration {known['iteration']:g}: {', '.join(parts)}"


def _loss(known: Mapping[str, float], short: bool) -> list[str]:
    """The loss and the share that the forces have in it."""
    loss, forces = known.get("train_loss"), known.get("train_force_loss")
    if loss is None:
        return []
    share = f" (forces {100 * forces / loss:.0f} %)" if forces and loss and not short else ""
    return [f"loss {loss:.2e}{share}"]


def _errors(known: Mapping[str, float], key: str, kinds: Sequence[str]) -> str:
    """Errors of these kinds; empty when none of them is known."""
    values = [known.get(key.format(kind)) for kind in kinds]
    if all(value is None for value in values):
        return ""
    return "/".join(DASH if value is None else _short(value) for value in values)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


class LiveFit:
    """Gathers what a fit tells; figures that are not told again stay as they were."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}
        self.validated_at: float | None = None  # iteration of the newest validation
        self._at: dict[str, float] = {}  # iteration of each figure
        self._curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def take(self, figures: Mapping[str, float]) -> None:
        """Add what the fit tells at an iteration; `figures` has at least `iteration`."""
        iteration = figures["iteration"]
        figures = {name: value for name, value in figures.items() if name in TAKEN}
        new = {name for name, value in figures.items() if self.known.get(name) != value}
        self.known.update(figures)
        self._at.update({name: iteration for name in figures if name in new or not name.startswith("validation_")})
        for side in SIDES:
            for key in DRAWN:
                if (name := f"{side}_{key}") in new:  # a validation may be told again until the next
                    self._curves[side, key].append((iteration, figures[name]))
                    self.validated_at = iteration if side == "validation" else self.validated_at

    def cell(self, side: str, key: str) -> str:
        """A figure as text, with its iteration where the side has told newer ones."""
        name = f"{side}_{key}"
        newest = self.known["iteration"] if side == "train" else self.validated_at
        old = name in self.known and newest is not None and self._at[name] < newest
        return number(self.known.get(name)) + (f" (at {self._at[name]:g})" if old else "")

    def curves(self) -> Curves:
        """A copy of the curves so far."""
        return {of: tuple(points) for of, points in self._curves.items()}


def markdown(live: LiveFit, title: str, when: str, ended: str = "") -> str:
    """The text of the artifact, without the picture.

    Args:
        live: has told something.
        when: how far it is, see `course`.
        ended: how the fit ended; empty while it runs.
    """
    speed = live.known.get("microseconds_per_atom")
    validated = "" if live.validated_at is None else f" Validation is of iteration {live.validated_at:g}."
    rows = [(label, *(live.cell(side, key) for side in SIDES)) for key, label in ROWS.items()]
    lines = [
        f"## {one_line(title)}",
        f"**Ended: {one_line(ended)}**" if ended else "Running.",
        f"{when}.{validated}" + ("" if speed is None else f" {number(speed)} µs an atom."),
        markdown_table(("", *SIDES), [row for row in rows if {*row[1:]} != {DASH}]),
    ]
    return "\n\n".join(lines) + "\n"


def course(iteration: float, done: float, total: float, seconds: float, per_s: float | None, ended: bool) -> str:
    """`Iteration 40 of at most 150, 3 min 20 s, at most 9 min 10 s left`.

    Args:
        iteration: over all steps of a ladder; `done` of `total` in this one.
        seconds: since the step began.
        per_s: iterations in a second; None: not known yet.
    """
    counted = f"Iteration {done:g} of at most {total:g}"
    if iteration != done:
        counted += f" ({iteration:g} in all)"
    told = [counted, duration(seconds)]
    if per_s and not ended:
        told.append(f"at most {duration(max(total - done, 0) / per_s)} left")
    return ", ".join(told)


def ended_words(metrics: Mapping[str, Any]) -> str:
    """How a fit ended and what it is worth, from the metrics of its step."""
    told = [": ".join(str(metrics[key]) for key in ("stop_reason", "stop_criterion") if metrics.get(key))]
    if (best := metrics.get("best_iteration")) is not None:
        told.append(f"best at iteration {number(best)}")
    for key, (error, unit) in VALUED.items():
        if (value := metrics.get(f"validation_{key}")) is not None:
            told.append(f"validation {error} {number(value)} {unit}")
    return "; ".join(filter(None, told)) or DASH
