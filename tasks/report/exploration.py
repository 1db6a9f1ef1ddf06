"""The rounds of exploration: what the flow hands to the report, and the section. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from containers.contract import Closed
from tasks.artefact import Artefact
from tasks.report.markup import DASH, Part, Section, Table, number


class ExplorationRun(Closed):
    """A run of molecular dynamics of a round."""

    name: str
    survived_ps: float
    wanted_ps: float
    ended_because: str | None
    gamma_max: float | None
    share_above_select: float | None = Field(description="of its steps; None: there was none")
    result: Artefact = Field(exclude=True)

    @property
    def survived(self) -> bool:
        """True where it ran to its end."""
        return self.ended_because is None

    @property
    def extrapolating(self) -> float:
        """Share of its steps that extrapolate; all of a run without a step."""
        return 1.0 if self.share_above_select is None else self.share_above_select


class ExplorationRound(Closed):
    """A round: the runs of the student before it, and what was labelled because of them."""

    number: int = Field(ge=1)
    level: int = Field(ge=1)
    labels: int = Field(description="rows of the teacher in the data set before it")
    runs: tuple[ExplorationRun, ...]
    chosen: int = Field(0, description="frames that the teacher labelled after the runs")
    gamma_max_left: float | None = None

    def sentence(self) -> str:
        """What the runs of the round found."""
        survived = sum(one.survived for one in self.runs)
        most = max((one.extrapolating for one in self.runs), default=0.0)
        return (
            f"exploration {self.number}, level {self.level}: {survived} of {len(self.runs)} runs survived, at most"
            f" {100 * most:.3g} % of the steps extrapolate; {self.chosen} frames are labelled ({self.labels} before)"
        )


class Exploration(Closed):
    """All rounds, and why there was no other."""

    rounds: tuple[ExplorationRound, ...]
    settled: bool = Field(description="no condition extrapolates at the last level")
    stopped_because: str
    share: float = Field(description="of the steps that may extrapolate")

    def sentence(self) -> str:
        """How it ended."""
        count = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        return f"{count} of exploration; it ended because {self.stopped_because}."


def exploration(found: Exploration | None) -> Section:
    """Rounds against labels, and the last runs of every condition."""
    title = "Exploration"
    if not found:
        return Section(title, ["Not done: explore has no conditions."])
    rounds = [
        (
            str(one.number),
            str(one.level),
            str(one.labels),
            f"{sum(run.survived for run in one.runs)} of {len(one.runs)}",
            number(100 * max((run.extrapolating for run in one.runs), default=0.0)),
            str(one.chosen),
        )
        for one in found.rounds
    ]
    head = ("round", "level", "labels", "runs that survived", "steps that extrapolate, at most (%)", "frames labelled")
    last = [
        (
            run.name,
            f"{number(run.survived_ps)} of {number(run.wanted_ps)}",
            number(run.gamma_max),
            number(100 * run.extrapolating),
            run.ended_because or DASH,
        )
        for run in found.rounds[-1].runs
    ]
    last_head = ("run", "survived (ps)", "largest γ", "steps that extrapolate (%)", "ended early because")
    parts: list[Part] = [found.sentence(), Table(head, rounds), Table(last_head, last, "The last round:")]
    return Section(title, parts)


def of_metrics(name: str, result: Artefact, found: Any) -> ExplorationRun:
    """Return a run as the report has it.

    Args:
        found: metrics of the step `explore`.
    """
    fields = {key: getattr(found, key) for key in ExplorationRun.model_fields if hasattr(found, key)}
    return ExplorationRun(name=name, result=result, **fields)
