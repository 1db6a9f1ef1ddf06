"""The rounds of the convergence loop as plain values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from containers.contract import Closed
from tasks.figures import Figures


class Size(Closed):
    """A student: what it was made with, and its errors."""

    structures: int = Field(ge=0, description="selected training structures")
    functions: int = Field(ge=1, description="basis functions asked for an element")
    validation: Figures = Field({}, description="force_mae_meV_per_A, energy_mae_meV_per_atom")
    test: Figures = {}


class Round(Closed):
    """One time that training set or basis was extended."""

    number: int = Field(ge=1)
    kind: Literal["structures", "functions"]
    reason: str = Field(description="why this kind")
    before: Size = Field(description="the best student until then, which the round started from")
    after: Size | None = Field(description="None: the round failed")
    added_by: dict[str, int] = Field({}, description="why structures were added -> how many")
    helped: bool = Field(description="lowered the validation error by extend.min_gain")
    chosen: bool = Field(False, description="its student is the one that is published")
    failure: str = Field("", description="why it failed")


class Extensions(Closed):
    """All rounds, and why there was no other."""

    rounds: tuple[Round, ...] = ()
    why: str = Field(description="unsound, reached, unfinished, rounds, no_gain, nothing_left")
    stopped_because: str

    def told(self) -> str:
        """One sentence."""
        if not self.rounds:
            return f"Nothing was extended: {self.stopped_because}."
        helped = sum(one.helped for one in self.rounds)
        rounds = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        return f"{rounds} of extension, of which {helped} helped; it ended because {self.stopped_because}."
