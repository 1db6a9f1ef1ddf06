"""A running fit as one Markdown artifact of its task run, which is updated now and then and not made anew.

What takes time, drawing and the way to the server, runs in a thread of its own: a slow or dead server never holds up
the fit, and none of its faults ends it.

`LiveFit` gathers the newest figures and the curves of a running fit; the functions below it write both as text.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from tasks.errors import StepEnded
from tasks.report.markup import DASH, ERRORS, data_uri, duration, markdown_table, number, one_line
from tasks.report.plots import live_curve

SHOW_EVERY_S = 5.0
DRAW_EVERY_S = 30.0  # a drawing takes 0.1 to 0.25 s of a processor, a table next to nothing
END_WITHIN_S = 10.0  # that the end of a fit waits for the server, twice
ARTIFACT_KEY = "fit-live"

_drawing = threading.Lock()  # matplotlib is not made for several threads, and a sweep has several fits


class FitProgress:
    """The progress function of a step that may be a fit: with the first figures its artifact appears.

    A context manager: when the block is left, the artifact says how the fit ended.

    Args:
        name: of the task run.
        log: takes a line when the artifact cannot be updated, once.
        show: takes the whole text now and then; Prefect's Markdown artifact by default.
        clock: seconds.
        pool: where texts are drawn and shown, one after another; a thread by default.
    """

    def __init__(
        self,
        name: str,
        log: Callable[[str], object],
        show: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pool: Executor | None = None,
    ) -> None:
        self._name, self._log, self._clock, self._show = name, log, clock, show or self._show_artifact
        self._artifact: UUID | None = None
        self._pool, self._context = pool or ThreadPoolExecutor(1, "fit-live"), copy_context()
        self._live, self._ended = LiveFit(), ""
        self._began = clock()
        self._first: tuple[float, float] | None = None  # seconds and iterations at the first figures
        self._far = (0.0, 0.0)
        self._shown = self._drawn = -float("inf")  # when
        self._pictures: dict[str, bytes] = {}
        self._sent: Future[None] | None = None
        self._faults: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first is not None:
            if isinstance(error, StepEnded):
                end = f"failed ({error.kind}): {error.message}"
            elif isinstance(error, Exception):
                end = f"failed ({type(error).__name__})"
            else:
                end = "cancelled" if error else "well"
            self._ended = self._ended or end
            self._wait()
            self._send(draw=True)
            self._wait()
        self._pool.shutdown(wait=False)

    def __call__(self, done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        """Take the figures of a step's progress; those without an `iteration` are no fit's."""
        if not figures or "iteration" not in figures:
            return
        now = self._clock()
        if self._first is None:
            self._first, self._drawn = (now, done), now  # nothing to draw yet
        self._far = (done, total)
        self._live.take(figures)
        if now - self._shown >= SHOW_EVERY_S and (self._sent is None or self._sent.done()):
            self._send(draw=now - self._drawn >= DRAW_EVERY_S)

    def ended(self, metrics: Mapping[str, Any]) -> None:
        """The step has ended well, with these metrics."""
        self._ended = ended_words(metrics)

    def _send(self, draw: bool) -> None:
        assert self._first is not None
        now = self._shown = self._clock()
        self._drawn = now if draw else self._drawn
        curves = self._live.curves() if draw else None
        with self._harmless():  # figures are what the step prints, and may be any
            (done, total), seconds = self._far, now - self._first[0]
            made = done - self._first[1]
            per_s = made / seconds if made > 0 and seconds > 0 else None
            iteration = self._live.known["iteration"]
            when = course(iteration, done, total, now - self._began, per_s, bool(self._ended))
            text = markdown(self._live, self._name, when, self._ended)
            self._sent = self._pool.submit(self._context.run, self._publish, text, curves)

    def _wait(self) -> None:
        """For what was sent last, but not for a server that does not answer."""
        if self._sent is not None:
            wait([self._sent], timeout=END_WITHIN_S)

    def _publish(self, text: str, curves: Curves | None) -> None:
        with self._harmless():
            if curves is not None:
                with _drawing:
                    self._pictures["learning-curve"] = live_curve(curves)
            picture = [f"![{name}]({data_uri(png)})" for name, png in self._pictures.items()]
            self._show("\n".join([text, *picture]))

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  a server that has a bad day must not end the run
            if (fault := f"{type(error).__name__}: {error}") not in self._faults:
                self._log(f"the artifact of the running fit cannot be updated: {fault}")
            self._faults.add(fault)

    def _show_artifact(self, text: str) -> None:
        """Create a Markdown artifact of the run that calls, and update it from then on."""
        if self._artifact:
            get_client(sync_client=True).update_artifact(self._artifact, ArtifactUpdate(data=text))
        else:  # a flow that is not async
            description = f"{self._name}: the fit as it runs"
            self._artifact = cast(UUID, create_markdown_artifact(text, ARTIFACT_KEY, description))


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
"""Figures that are gathered; all others are left out, however many there are."""
DRAWN = ("loss", "energy_rmse_meV_per_atom", "force_rmse_meV_per_A")
KINDS = ("rmse", "mae", "max")
PRINTED = {"force_{}_meV_per_A": ("forces", "meV/Å"), "energy_{}_meV_per_atom": ("energy", "meV/atom")}
VALUED = {"energy_mae_meV_per_atom": ("energy MAE", "meV/atom"), "force_mae_meV_per_A": ("force MAE", "meV/Å")}

Curves = Mapping[tuple[str, str], Sequence[tuple[float, float]]]
"""(side, figure without its side) -> iteration and value"""


def words(known: Mapping[str, float], short: bool = False) -> str:
    """One line. RMSE, MAE and worst error stand in this order, those of the validation frame in brackets:

    `iteration 40: loss 1.23e-03 (forces 61 %), RMSE/MAE/worst: forces 45.1/33/410 (validation 47.2/35/420) meV/Å,
    energy 3.2/2.5/11 (4.1/3.2/12) meV/atom, 118 µs/atom`. pacemaker prints worst errors and the energy's MAE now and
    then only; the latest are shown.

    Args:
        short: RMSE alone, as there is room for in a progress bar.
    """

    def value(figure: float | None) -> str:
        if figure is None:
            return DASH
        return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"

    parts, kinds = [], KINDS[:1] if short else KINDS
    loss, forces = known.get("train_loss"), known.get("train_force_loss")
    if loss is not None:
        share = f" (forces {100 * forces / loss:.0f} %)" if forces and loss and not short else ""
        parts.append(f"loss {loss:.2e}{share}")
    named = {"train": "RMSE " if short else "RMSE/MAE/worst: ", "validation": "validation "}  # the first time
    for key, (name, unit) in PRINTED.items():
        errors = {}
        for side in SIDES:
            figures = [known.get(f"{side}_{key.format(kind)}") for kind in kinds]
            errors[side] = "/".join(map(value, figures)) if figures != [None] * len(kinds) else ""
        if errors["train"]:
            text = f"{named.pop('train', '')}{name} {errors['train']}"
            if errors["validation"]:
                text += f" ({named.pop('validation', '')}{errors['validation']})"
            parts.append(f"{text} {unit}")
    if "microseconds_per_atom" in known:
        parts.append(f"{value(known['microseconds_per_atom'])} µs/atom")
    return f"iteration {known['iteration']:g}: {', '.join(parts)}"


class LiveFit:
    """The newest figures of a fit and its curves; a figure that is not printed again stays as it was."""

    def __init__(self) -> None:
        self.known: dict[str, float] = {}
        self.validated_at: float | None = None  # iteration of the newest validation
        self._at: dict[str, float] = {}  # iteration of each figure
        self._curves: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def take(self, figures: Mapping[str, float]) -> None:
        """Add the figures of an iteration; there is at least `iteration`."""
        iteration = figures["iteration"]
        figures = {name: value for name, value in figures.items() if name in TAKEN}
        new = {name for name, value in figures.items() if self.known.get(name) != value}
        self.known.update(figures)
        self._at.update({name: iteration for name in figures if name in new or not name.startswith("validation_")})
        for side in SIDES:
            for key in DRAWN:
                if (name := f"{side}_{key}") in new:  # a validation may be printed again until the next
                    self._curves[side, key].append((iteration, figures[name]))
                    self.validated_at = iteration if side == "validation" else self.validated_at

    def cell(self, side: str, key: str) -> str:
        """A figure as text, with its iteration where the side has newer ones."""
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
        live: has figures.
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
    in_all = f" ({iteration:g} in all)" if iteration != done else ""
    left = f", at most {duration(max(total - done, 0) / per_s)} left" if per_s and not ended else ""
    return f"Iteration {done:g} of at most {total:g}{in_all}, {duration(seconds)}{left}"


def ended_words(metrics: Mapping[str, Any]) -> str:
    """How a fit ended and what it is worth, from the metrics of its step."""
    parts = [": ".join(str(metrics[key]) for key in ("stop_reason", "stop_criterion") if metrics.get(key))]
    if (best := metrics.get("best_iteration")) is not None:
        parts.append(f"best at iteration {number(best)}")
    for key, (error, unit) in VALUED.items():
        if (value := metrics.get(f"validation_{key}")) is not None:
            parts.append(f"validation {error} {number(value)} {unit}")
    return "; ".join(filter(None, parts)) or DASH
