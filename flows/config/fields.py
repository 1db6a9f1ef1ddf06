"""Base and field types of the sections of the config."""

from __future__ import annotations

from typing import Annotated

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class ConfigSection(BaseModel):
    """Base of all parts of the config: frozen, closed, no infinities, and no text or truth values for numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _known_element(symbol: str) -> str:
    if atomic_numbers.get(symbol, 0) == 0:
        raise ValueError(f"{symbol!r} is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]


def _pair_of_elements(name: str) -> str:
    symbols = name.split("-")
    if len(symbols) != 2 or symbols != sorted(symbols):
        raise ValueError(f"{name!r} is no pair of elements: write two symbols in alphabetic order, such as Al-Ni")
    for symbol in symbols:
        _known_element(symbol)
    return name


Pair = Annotated[str, AfterValidator(_pair_of_elements)]
Length = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(gt=0)]
