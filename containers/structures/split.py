"""Side of the data of a structure: decided by its family's name and the config alone, so it never changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from containers.contract import Closed

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Split(Closed):
    """Shares of the families kept from training."""

    validation: float = Field(0.1, gt=0, lt=1, description="share for stopping and for the choice of the potential")
    test: float = Field(0.1, gt=0, lt=1, description="share for evaluation only; training never sees it")
    train: tuple[str, ...] = Field(
        (), description="families that are on the training side in any case: those of a rare element, say"
    )

    @model_validator(mode="after")
    def _leaves_training(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave something to train on (their sum must be below 1)")
        return self


def side(family: str, split: Split) -> Side:
    """Return the side of every structure of `family`. Uniform in the family's name; independent of the pool's size."""
    if family in split.train:
        return "train"
    place = int.from_bytes(hashlib.sha256(f"split:{family}".encode()).digest()[:8], "big") / 2**64
    if place < split.test:
        return "test"
    return "validation" if place < split.test + split.validation else "train"


def empty_sides(families: Iterable[str], split: Split) -> list[Side]:
    """Return the sides on which no family is."""
    taken = {side(family, split) for family in families}
    return [name for name in SIDES if name not in taken]


def empty_sides_message(empty: Iterable[Side], families: Iterable[str], split: Split) -> str:
    """Return the message for empty sides, with the fix."""
    counts = Counter(side(family, split) for family in families)
    shares = ", ".join(f"{counts[name]} {name}" for name in SIDES)
    return (
        f"no structure is left on the {' and the '.join(empty)} side: the pool and the DFT data have"
        f" {sum(counts.values())} families ({shares}). Give structures of more families (the `family` key of each"
        " frame; without it near copies share one, and dataset.likeness_A: 0 makes each its own), or raise the share of"
        " that side in `split`."
    )
