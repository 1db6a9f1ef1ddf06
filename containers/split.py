"""Which side of the data a structure is on: decided by its family's name alone, so it never changes."""

from __future__ import annotations

import hashlib
from typing import Literal

import pyarrow as pa
from pydantic import Field, model_validator

from containers.contract import Closed

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Split(Closed):
    """Shares of the families kept from training."""

    validation: float = Field(0.1, gt=0, lt=1, description="share for stopping and for the choice of the potential")
    test: float = Field(0.1, gt=0, lt=1, description="share for evaluation only; training never sees it")

    @model_validator(mode="after")
    def _leaves_training(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave something to train on (their sum must be below 1)")
        return self


def side(family: str, split: Split) -> Side:
    """The side of every structure of `family`. Uniform in the family's name; independent of the pool's size."""
    place = int.from_bytes(hashlib.sha256(f"split:{family}".encode()).digest()[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"


def rows_of_side(table: pa.Table, split: Split, wanted: Side) -> pa.Table:
    """The rows of one side, in the table's order."""
    mask = [side(family, split) == wanted for family in table.column("family").to_pylist()]
    return table.filter(pa.array(mask, type=pa.bool_()))
