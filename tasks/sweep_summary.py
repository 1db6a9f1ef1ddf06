"""What a sweep is made of: students, which of them no other beats, and which one is taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from containers.contract import Closed

FORCE, ENERGY, COST = "force_mae_meV_per_A", "energy_mae_meV_per_atom", "student_us_per_atom"


class SweptStudent(Closed):
    """A student, and its errors on the test structures, against the teacher."""

    name: str = Field(description="its changes in short")
    changes: dict[str, Any] = Field(description="dotted key of the config -> value")
    verdict: str = Field(description="on the attempt that was taken")
    attempts: int = Field(ge=1)
    iterations: int = Field(ge=0, description="of the attempt that was taken")
    fit_s: float = Field(ge=0, description="seconds of all attempts, when they were computed")
    structures: int = Field(ge=1, description="in the training frame")
    functions: int | None = Field(None, description="basis functions")
    stable: bool | None = Field(None, description="whether it passed the gate of molecular dynamics; None: no gate")
    figures: dict[str, float | int | None] = Field(
        description="of `evaluate`, against the teacher: force_mae_meV_per_A, ...; student_us_per_atom"
    )
    potential_key: str = Field(description="of the exported potential in the store (step pace_corerep)")

    @property
    def force(self) -> float:
        """Force MAE on the test structures, meV/Å."""
        error = self.figures.get(FORCE)
        return float("inf") if error is None else float(error)

    @property
    def cost(self) -> float | None:
        """Microseconds an atom and evaluation take on one thread."""
        cost = self.figures.get(COST)
        return None if cost is None else float(cost)


class SweepFailure(Closed):
    """A student that could not be made."""

    name: str
    changes: dict[str, Any]
    step: str = Field(description="the step that failed")
    message: str


class SweepSummary(Closed):
    """Every student of a sweep."""

    name: str
    config: dict[str, Any]
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")
    teacher_reach_A: float = Field(description="how far the teacher sees: its cutoff times its layers")
    take: Literal["best", "cheapest"]
    within: float = Field(ge=0)
    students: tuple[SweptStudent, ...] = Field(min_length=1)
    failures: tuple[SweepFailure, ...] = ()
    chosen_config: dict[str, Any] = Field(description="of the student that is taken, as `flows.distill` reads it")

    @property
    def chosen(self) -> SweptStudent:
        """The student that is taken."""
        return choose(self.students, self.take, self.within)

    @property
    def front(self) -> tuple[SweptStudent, ...]:
        """The students that no other beats."""
        return front(self.students)


def front(students: Sequence[SweptStudent]) -> tuple[SweptStudent, ...]:
    """Those with a smaller force error than every one that is as fast, fastest first; of equals the first."""
    found: list[SweptStudent] = []
    timed = [(one.cost, one.force, one) for one in students if one.cost is not None]
    for _, force, one in sorted(timed, key=lambda three: three[:2]):
        if not found or force < found[-1].force:
            found.append(one)
    return tuple(found)


def choose(students: Sequence[SweptStudent], take: Literal["best", "cheapest"], within: float) -> SweptStudent:
    """The student with the smallest force error, or the fastest of those whose error exceeds it by at most `within`
    (a share). One that failed the gate of molecular dynamics is taken only where all did."""
    sound = [one for one in students if one.stable is not False] or list(students)
    best = min(sound, key=lambda one: one.force)
    if take == "best":
        return best
    good = [one for one in sound if one.force <= best.force * (1 + within)]
    return min(good, key=lambda one: (float("inf") if one.cost is None else one.cost, one.force))
