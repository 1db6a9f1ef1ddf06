"""The rounds of exploration: what the flow hands to the report, the section and its artifact. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from containers.contract import Closed
from tasks.artefact import Artefact
from tasks.report.markup import DASH, Part, Picture, Section, Table, number


class ExplorationRun(Closed):
    """A run of molecular dynamics of a round."""

    name: str
    condition: int = Field(ge=1, description="number of the condition in the config")
    composition: str
    atoms: int
    survived_ps: float
    wanted_ps: float
    ended_because: str | None
    gamma_max: float | None
    share_above_select: float | None = Field(description="of its steps; None: there was none")
    mean_temperature_K: float | None
    mean_pressure_GPa: float | None
    density_g_per_cm3: float | None
    frames: int = Field(description="kept because they extrapolate")
    chosen: int = Field(0, description="of these, labelled and added to the data")
    result: Artefact = Field(exclude=True)

    @classmethod
    def of_metrics(cls, name: str, condition: int, result: Artefact, found: Any) -> ExplorationRun:
        """Return a run as the report has it.

        Args:
            found: metrics of the step `explore`.
        """
        fields = {key: getattr(found, key) for key in cls.model_fields if key != "condition" and hasattr(found, key)}
        return cls(name=name, result=result, **fields | {"condition": condition})

    @property
    def survived(self) -> bool:
        """True where it ran to its end."""
        return self.ended_because is None

    @property
    def extrapolating(self) -> float:
        """Share of its steps that extrapolate; all of a run without a step."""
        return 1.0 if self.share_above_select is None else self.share_above_select


class ConditionErrors(Closed):
    """Errors of the student on frames of all runs of a condition, kept whatever their grade."""

    condition: int
    frames: int = Field(description="with a label")
    set_aside: int = Field(description="without one that keeps the bounds")
    set_aside_because: str | None
    force_mae_meV_per_A: float | None
    energy_mae_meV_per_atom: float | None
    over: float | None = Field(description="the larger error in units of its limit; None where there is no label")

    @property
    def excess(self) -> float:
        """`over`; not finite where there is no label."""
        return math.inf if self.over is None else self.over


class ExplorationRound(Closed):
    """A round: the runs of a student, its errors there, and what was labelled because of them."""

    number: int = Field(ge=1)
    level: int = Field(ge=1)
    finished: bool = Field(False, description="the student has its full fit and rounds of extension")
    labels: int = Field(description="structures that the teacher labelled before it, frames for errors included")
    runs: tuple[ExplorationRun, ...]
    share: float = Field(description="of the steps that may extrapolate")
    force_limit_meV_per_A: float
    energy_limit_meV_per_atom: float
    errors: tuple[ConditionErrors, ...] = Field((), description="measured where few steps extrapolate")
    wanted_errors: bool = Field(False, description="a settled round needs errors")
    chosen: int = Field(0, description="frames that were added to the data after the runs")
    refused: str | None = Field(None, description="why the teacher has no label of any of them")
    gamma_max_left: float | None = None

    @property
    def quiet(self) -> bool:
        """True where every run ran to its end and few of its steps extrapolate."""
        return all(one.survived and one.extrapolating <= self.share for one in self.runs)

    @property
    def settled(self) -> bool:
        """True where it is quiet and the errors, where they are wanted, are within their limits."""
        measured = not self.wanted_errors or (bool(self.errors) and all(one.excess <= 1 for one in self.errors))
        return self.quiet and measured

    def sentence(self) -> str:
        """What the runs of the round found."""
        survived = sum(one.survived for one in self.runs)
        most = max((one.extrapolating for one in self.runs), default=0.0)
        student = "finished student" if self.finished else f"level {self.level}"
        parts = [
            f"exploration {self.number}, {student}: {survived} of {len(self.runs)} runs survived, at most"
            f" {100 * most:.3g} % of the steps extrapolate"
        ]
        if self.errors:
            worst = max(self.errors, key=lambda one: one.excess)
            size = "not known" if worst.over is None else f"{worst.over:.2g} times its limit"
            parts.append(f"the largest error is {size} (condition {worst.condition})")
        if self.refused:
            parts.append(f"the teacher refused every frame: {self.refused}")
        parts.append(f"{self.chosen} frames are added ({self.labels} labels before)")
        return "; ".join(parts)


class Exploration(Closed):
    """All rounds, and why there was no other."""

    rounds: tuple[ExplorationRound, ...]
    settled: bool = Field(description="the finished student is settled under the conditions of the config")
    stopped_because: str = Field("", description="empty: it continues")

    def sentence(self) -> str:
        """How it ended."""
        count = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        if not self.stopped_because:
            return f"{count} of exploration so far."
        return f"{count} of exploration. They ended because {self.stopped_because}."

    @property
    def unsettled_because(self) -> str | None:
        """Why the student does not count as converged; None when it does."""
        if self.settled:
            return None
        last = self.rounds[-1]
        died = [one for one in last.runs if not one.survived]
        if died:
            what = f"{len(died)} of {len(last.runs)} runs ended early, {died[0].name}: {died[0].ended_because}"
        elif not last.quiet:
            worst = max(last.runs, key=lambda one: one.extrapolating)
            what = f"{100 * worst.extrapolating:.3g} % of the steps extrapolate, {worst.name}"
        else:
            worst_errors = max(last.errors, key=lambda one: one.excess, default=None)
            what = "its errors on frames of its own runs are not known"
            if worst_errors and worst_errors.over is not None:
                times = f"{worst_errors.over:.2g} times their limit, condition {worst_errors.condition}"
                what = f"errors on frames of its own runs are {times}"
        return f"exploration: {what}; {self.stopped_because}"


def exploration(found: Exploration | None) -> Section:
    """Rounds against labels, the last runs of every condition, and where the frames came from."""
    title = "Exploration"
    if not found:
        return Section(title, ["Not done: explore has no conditions."])
    parts: list[Part] = [found.sentence(), _rounds(found.rounds), _runs(found.rounds[-1])]
    if errors := [one for one in found.rounds if one.errors][-1:]:
        parts.append(_errors(errors[0]))
    if origins := _origins(found.rounds):
        text = "Two frames of the last round whose frames extrapolated, atoms coloured by element."
        parts += [origins, Picture("explored", text)]
    return Section(title, parts)


def _rounds(rounds: Sequence[ExplorationRound]) -> Table:
    head = (
        *("round", "level", "labels", "runs that survived", "time survived (ps)"),
        *("steps that extrapolate, at most (%)", "largest error / limit", "frames added"),
    )
    rows = [
        (
            str(one.number),
            "finished student" if one.finished else str(one.level),
            str(one.labels),
            f"{sum(run.survived for run in one.runs)} of {len(one.runs)}",
            f"{number(sum(run.survived_ps for run in one.runs))} of {number(sum(run.wanted_ps for run in one.runs))}",
            number(100 * max((run.extrapolating for run in one.runs), default=0.0)),
            number(max(one.errors, key=lambda each: each.excess).over) if one.errors else DASH,
            str(one.chosen),
        )
        for one in rounds
    ]
    return Table(head, rows)


def _runs(last: ExplorationRound) -> Table:
    head = ("run", "survived (ps)", "largest γ", "steps that extrapolate (%)", "ended early because")
    rows = [
        (
            run.name,
            f"{number(run.survived_ps)} of {number(run.wanted_ps)}",
            number(run.gamma_max),
            number(100 * run.extrapolating),
            run.ended_because or DASH,
        )
        for run in last.runs
    ]
    return Table(head, rows, "The last round:")


def _errors(measured: ExplorationRound) -> Table:
    head = (
        *("condition", "frames", "force MAE (meV/Å)", "energy MAE (meV/atom)", "larger error / limit"),
        *("without a label", "because"),
    )
    rows = [
        (
            str(one.condition),
            str(one.frames),
            number(one.force_mae_meV_per_A),
            number(one.energy_mae_meV_per_atom),
            number(one.over),
            str(one.set_aside),
            one.set_aside_because or DASH,
        )
        for one in measured.errors
    ]
    limits = (
        f"Errors on frames of its own runs (round {measured.number}); limits {number(measured.force_limit_meV_per_A)}"
        f" meV/Å and {number(measured.energy_limit_meV_per_atom)} meV/atom:"
    )
    return Table(head, rows, limits)


def _origins(rounds: Sequence[ExplorationRound]) -> Table | None:
    head = ("round", "run", "composition", "frames added", "temperature (K)", "pressure (GPa)", "density (g/cm³)")
    rows = [
        (
            str(one.number),
            run.name,
            run.composition,
            str(run.chosen),
            number(run.mean_temperature_K),
            number(run.mean_pressure_GPa),
            number(run.density_g_per_cm3),
        )
        for one in rounds
        for run in one.runs
        if run.chosen
    ]
    return Table(head, rows, "Where the frames came from (means of the later part of each run):") if rows else None
