"""What a value curve is made of: one fit a point."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from containers.contract import Closed


class Point(Closed):
    """A student fitted to a chosen set, and its errors on the test structures, against the teacher."""

    method: str = Field(description="how the set was chosen: d_optimal, combined, random, all")
    seed: int
    structures: int = Field(ge=1, description="in the training frame, DFT structures included")
    atoms: int = Field(ge=1)
    fit_s: float = Field(ge=0, description="seconds of pace_train, its start included, over all stages")
    iterations: int = Field(ge=0, description="over all stages")
    ended: str = Field(
        description="verdict on its last stage, or the accident that broke off an earlier one: a fit of less than asked"
    )
    figures: dict[str, float | int | None] = Field(description="of `evaluate`: force_mae_meV_per_A, ...")


class Failure(Closed):
    """A fit that gave no point."""

    method: str
    seed: int
    size: int = Field(ge=1, description="structures that were asked for")
    step: str = Field(description="the step that failed")
    message: str


class ValueCurve(Closed):
    """Every point of a run."""

    name: str
    config: dict[str, Any]
    stub: bool = Field(False, description="made by the steps' stubs: no figure is real")
    points: tuple[Point, ...] = Field(min_length=1)
    failures: tuple[Failure, ...] = ()
